//! The configuration of a Consul agent as `muster.yaml`.

mod dns;
mod gossip;
mod listen;
mod unused;

use super::{
    facts::Facts,
    output::OutputFile,
    section::{Context, Place, Section},
    template::{TEMPLATE, is_template},
    yaml_text::Yaml,
};
use crate::model::name::Label;

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

/// The label of a node: the first label of a host name.
pub(super) fn node_label(name: &str) -> Option<Label> {
    Label::parse(name.split('.').next().unwrap_or(name)).ok()
}

/// Converts the settings of the agent. Without any, the result has the defaults of Consul that clients rely on.
pub(super) fn convert(section: Section<'_>, facts: &Facts, needs: Needs) -> Output {
    let is_agent = section.has_settings();
    let mut yaml = Yaml::table();
    set_node(&section, facts, &mut yaml);
    let settings = section.section("dns_config");
    dns::set_domains(&section, &mut yaml);
    gossip::set_advertise(&section, &mut yaml);
    yaml.set("services_dir", Yaml::text(needs.services_dir));
    let hosts = listen::Hosts::of(&section);
    let ports = section.section("ports");
    yaml.set("dns", dns::table(&section, settings, &hosts, ports.as_ref(), facts, is_agent));
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

fn set_node(section: &Section<'_>, facts: &Facts, yaml: &mut Yaml) {
    let context = section.context;
    let given = section.text("node_name");
    match (&facts.node, &given) {
        (Some(node), place) => {
            let text = Yaml::text(node.as_str());
            let comment = match place {
                Some((name, _)) if *name != node.as_str() => format!("{name:?} in Consul"),
                _ => String::new(),
            };
            yaml.set("node", text.with_comment(comment));
        }
        (None, Some((_, place))) => {
            context.lost(place, "The name of a node begins with a DNS label: set `node`, else the host's name is used");
        }
        (None, None) => {}
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
