//! The configuration of a Consul agent as `muster.yaml`.

mod dns;
mod gossip;
mod listen;
mod unused;

use super::{
    facts::{Facts, PER_HOST, node_label},
    output::OutputFile,
    section::{Context, Place, Section},
    template::{TEMPLATE, is_template},
    yaml_text::Yaml,
};

pub(super) use self::dns::service_ttls;

/// Needs of the service files and checks in the configuration.
pub(super) struct Needs {
    /// Folder of the service files, relative to the configuration.
    pub(super) services_dir: &'static str,
    /// True if checks may run commands.
    pub(super) allow_exec: bool,
    /// Checks of the node.
    pub(super) node_checks: Vec<Yaml>,
}

/// A converted configuration.
pub(super) struct Output {
    pub(super) yaml: Yaml,
    /// File with the gossip key.
    pub(super) gossip_key: Option<OutputFile>,
}

/// Converts the settings of the agent. Without any, the result has the defaults of Consul that clients rely on.
pub(super) fn convert(section: Section<'_>, facts: &Facts, needs: Needs) -> Output {
    let is_agent = section.has_settings();
    let mut yaml = Yaml::table();
    set_node(&section, facts, &mut yaml);
    let settings = section.section("dns_config");
    let domain = dns::set_domains(&section, &mut yaml);
    gossip::set_advertise(&section, &mut yaml);
    yaml.set("services_dir", Yaml::text(needs.services_dir));
    let hosts = listen::Hosts::of(&section);
    let ports = section.section("ports");
    yaml.set("dns", dns::table(&section, settings, domain, &hosts, ports.as_ref(), facts, is_agent));
    let recursors = section.texts("recursors").into_iter().map(|(text, place)| Yaml::text(text).from(&place));
    let mut resolver = Yaml::table();
    resolver.set("upstreams", Yaml::list(recursors.collect()));
    yaml.set("resolver", resolver);
    let (gossip, gossip_key) = gossip::table(&section, ports.as_ref());
    yaml.set("gossip", gossip);
    yaml.set("http", listen::http(&section, &hosts, ports.as_ref(), is_agent));
    yaml.set("checks", checks(&section, needs));
    yaml.set("log", log(&section));
    if let Some(ports) = ports {
        unused::ports(ports);
    }
    unused::report(section);
    Output { yaml, gossip_key }
}

/// Settings that names, answers and checks depend on, with their keys in `muster.yaml`.
const NEEDED_BY_SERVICES: &[(&str, &str)] = &[
    ("node_name", "--services-only leaves out the configuration: set `node`, which names of the node and ids have"),
    ("datacenter", "--services-only leaves out the configuration: set `datacenter`, or names with one are NXDOMAIN"),
    ("domain", "--services-only leaves out the configuration: set `alias_domains`, with `scheme: consul`"),
    ("alt_domain", "--services-only leaves out the configuration: set `alias_domains`, with `scheme: consul`"),
    ("locality", "--services-only leaves out the configuration: set `zone`"),
];

/// Reports the settings that a configuration for the service files needs, for an output without one.
pub(super) fn report_left_out(section: &Section<'_>, has_commands: bool) {
    let has_settings = section.has_settings();
    section.lose(NEEDED_BY_SERVICES);
    if let Some(settings) = section.section("dns_config")
        && let Some((true, place)) = settings.flag("only_passing")
    {
        let reason = "--services-only leaves out the configuration: set `dns.only_passing`, or warnings are answered";
        section.context.lost(&place, reason);
    }
    if has_commands {
        let reason = "--services-only leaves out the configuration: set `checks.allow_exec`, which `exec` checks need";
        let flag = ["enable_local_script_checks", "enable_script_checks"].into_iter().find_map(|key| section.take(key));
        let place = flag.map_or_else(|| section.place.below("(checks)", section.place.at), |field| field.place);
        section.context.lost(&place, reason);
    }
    if has_settings && section.text("domain").is_none() {
        let place = section.place.below("(domain)", section.place.at);
        let reason = "--services-only leaves out the configuration: set `alias_domains` for names in consul, with `scheme: consul`";
        section.context.assumed(&place, reason);
    }
}

fn set_node(section: &Section<'_>, facts: &Facts, yaml: &mut Yaml) {
    let context = section.context;
    let given = section.text("node_name");
    if let Some((name, place)) = &given {
        match node_label(name) {
            None => context
                .lost(place, "The name of a node begins with a DNS label: set `node`, else the host's name is used"),
            Some(label) if !name.eq_ignore_ascii_case(label.as_str()) => context.lost(
                place,
                "The name of a node is one DNS label: `node` is the first one, and names of the node are NODE.node.DOMAIN \
                 with it",
            ),
            Some(_) => {}
        }
    }
    if let Some(node) = facts.node.as_ref().filter(|_| !facts.is_host_name || facts.ids_have_host_name()) {
        let comment = match given {
            _ if facts.is_host_name => {
                format!("The name of this host, since ids in the service files have it. {PER_HOST}")
            }
            Some((name, _)) if name != node.as_str() => format!("{name:?} in Consul"),
            _ => String::new(),
        };
        yaml.set("node", Yaml::text(node.as_str()).with_comment(comment));
    }
    if let Some((name, place)) = section.text("datacenter") {
        yaml.set("datacenter", Yaml::text(name).from(&place));
    }
    if let Some(locality) = section.section("locality") {
        if let Some((zone, place)) = locality.text("zone") {
            yaml.set("zone", Yaml::text(zone).from(&place));
        }
        locality.lose(&[("region", "The region of a node is its `datacenter`")]);
        locality.finish();
    }
    if let Some(field) = section.take("node_meta") {
        let mut meta = Yaml::table();
        for (key, (text, place)) in context.text_table(&field) {
            meta.set(key, Yaml::text(&text).from(&place));
        }
        yaml.set("meta", meta);
    }
}

fn checks(section: &Section<'_>, needs: Needs) -> Yaml {
    let mut checks = Yaml::table();
    let local = section.flag("enable_local_script_checks");
    let any = section.flag("enable_script_checks");
    if let Some((true, place)) = any {
        let comment = "Clients of the HTTP API may register commands, too: `true` allows them in files only";
        checks.set("allow_exec", Yaml::text("api").from(&place).with_comment(comment));
    } else if matches!(local, Some((true, _))) || (local.is_none() && any.is_none() && needs.allow_exec) {
        checks.set("allow_exec", Yaml::plain(true));
    }
    let mut node = Yaml::list(needs.node_checks);
    if let Some(first) = node.first_origin() {
        node = node.from(&first);
    }
    checks.set("node", node);
    checks
}

fn log(section: &Section<'_>) -> Yaml {
    let mut log = Yaml::table();
    if let Some((level, place)) = section.text("log_level") {
        let level = level.to_ascii_lowercase();
        let level = match level.as_str() {
            "err" => "error",
            "warning" => "warn",
            level => level,
        };
        log.set("level", Yaml::text(level).from(&place));
    }
    if matches!(section.flag("log_json"), Some((true, _))) {
        log.set("format", Yaml::text("json"));
    }
    log
}

/// Reports a value that refers to a go-sockaddr template.
fn is_reported_template(context: &Context<'_>, text: &str, place: &Place) -> bool {
    let is_reported = is_template(text);
    if is_reported {
        context.lost(place, TEMPLATE);
    }
    is_reported
}
