//! A service definition of Consul as a service of a muster service file.

use std::net::IpAddr;

use super::{
    check,
    facts::{Facts, PER_HOST},
    section::{Context, Field, Place, Section},
    template::{TEMPLATE, is_template},
    tree::Value,
    yaml_text::Yaml,
};
use crate::model::{
    alpn::ALPN_META,
    name::{Label, MAX_LABEL},
    nearest::{MIN_HEALTHY_META, NEAREST_META},
    registered_name::RegisteredName,
};

/// Weight of an instance in Consul, unless its definition has `weights`.
const CONSUL_WEIGHT: i64 = 1;

/// Name and id of a definition; `None`: it has no name.
pub(super) fn name_and_id<'a>(section: &Section<'a>) -> Option<(&'a str, &'a str)> {
    let text = |name| match section.take(name).map(|field| &field.node.value) {
        Some(Value::Text(text)) if !text.is_empty() => Some(text.as_str()),
        _ => None,
    };
    let (id, name) = (text("id"), text("name"));
    let name = name.or_else(|| text("service"))?;
    Some((name, id.unwrap_or(name)))
}

/// A converted definition.
pub(super) struct Service {
    pub(super) yaml: Yaml,
    /// True if the definition has checks, also if none of them is converted.
    pub(super) has_checks: bool,
}

/// Reason of a service without any of its checks.
pub(super) const NO_CHECK_LEFT: &str =
    "None of its checks is converted: the service is always healthy until you write a check in its file";
/// Keys without which a service would be another one.
const ESSENTIAL: &[&str] = &["name", "id", "address", "port"];

/// Converts a definition and the checks that were defined apart from it.
pub(super) fn convert(section: Section<'_>, facts: &Facts, more_checks: Vec<Section<'_>>) -> Option<Service> {
    let context = section.context;
    if let Some((kind, _)) = section.text("kind")
        && kind != "typical"
    {
        section.abandon("muster has no proxies and gateways: a service of this kind is left out");
        return None;
    }
    let computed = |key: &&str| section.take(key).filter(|field| field.node.value == Value::Expression);
    if let Some(field) = ESSENTIAL.iter().find_map(computed) {
        context.lost(&field.place, "Expressions of HCL are not computed: the service is left out; write the value");
        drop(section.rest());
        return None;
    }
    let Some((name, id)) = name_and_id(&section) else {
        section.abandon("A service without a name is left out");
        return None;
    };
    let mut yaml = Yaml::table();
    yaml.set("service", Yaml::text(name));
    if let Some(instance) = instance_id(name, id, facts) {
        if let (true, Some(node)) = (instance.has_node, facts.node.as_ref().filter(|_| facts.is_host_name)) {
            let reason = format!("No file has `node_name`: ids have the name of this host, {node}. {PER_HOST}");
            context.assumed(&section.place, reason);
        }
        yaml.set("id", Yaml::text(&instance.text).with_comment(instance.comment));
    }
    set_address(&section, &mut yaml);
    set_ports(&section, &mut yaml);
    let tags = section.texts("tags");
    for (tag, place) in &tags {
        report_tag(context, tag, place);
    }
    yaml.set("tags", Yaml::list(tags.into_iter().map(|(tag, place)| Yaml::text(tag).from(&place)).collect()));
    if let Some(field) = section.take("meta") {
        set_meta(&field, context, &mut yaml);
    }
    set_weight(&section, &mut yaml);
    if let Some(seconds) = facts.ttl(name) {
        yaml.set("ttl", Yaml::plain(format!("{seconds}s")));
    }
    let mut checks = section.sections("check");
    checks.extend(section.sections("checks"));
    checks.extend(more_checks);
    let count = checks.len();
    let owner = check::Owner { id, keeps_id: id != name && Label::parse(id).is_err() };
    let checks: Vec<Yaml> = checks.into_iter().filter_map(|check| check::convert(check, facts, Some(&owner))).collect();
    if checks.len() < count {
        let left_out = count - checks.len();
        yaml.comment_first(&format!("{left_out} of {count} checks of Consul are not converted: see the report"));
    }
    yaml.set("checks", Yaml::list(checks));
    report_rest(section);
    Some(Service { yaml, has_checks: count > 0 })
}

/// Reports a tag without a DNS name. Consul joins the labels before the service to a tag, and so finds tags with dots.
fn report_tag(context: &Context<'_>, tag: &str, place: &Place) {
    let is_label = |text: &str| RegisteredName::parse(text).is_ok_and(|name| name.tag_label().is_ok());
    if is_label(tag) {
        return;
    }
    if tag.split('.').all(is_label) {
        context.lost(place, "A tag with dots has names in Consul's DNS, and none in muster's: it is in the HTTP API");
    } else if !tag.is_empty() {
        context
            .unneeded(place, "The tag is no DNS label, so it is in the HTTP API only; Consul warns of such tags, too");
    }
}

/// The id of an instance in muster.
pub(super) struct InstanceId {
    pub(super) text: String,
    /// Comment for people; empty without one.
    comment: String,
    /// True if the name of the node was added.
    has_node: bool,
}

/// The id in the cluster. `None`: muster's default, `SERVICE-NODE`.
///
/// Ids of Consul are unique on one node only, and the same on all nodes with the same definition. An id that is no DNS label
/// stays, since muster derives a label from it and the node.
pub(super) fn instance_id(name: &str, id: &str, facts: &Facts) -> Option<InstanceId> {
    if id != name && Label::parse(id).is_err() {
        return Some(InstanceId { text: id.to_owned(), comment: String::new(), has_node: false });
    }
    if !facts.has_several(name) {
        return None;
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let label: String = id.chars().map(plain).collect();
    let label = label.trim_matches('-');
    let (text, has_node) = match &facts.node {
        Some(node) if !format!("-{label}").ends_with(&format!("-{node}")) => (format!("{label}-{node}"), true),
        _ => (label.to_owned(), false),
    };
    if text.len() > MAX_LABEL || label.is_empty() {
        return None;
    }
    let mut notes = Vec::new();
    if text != id {
        notes.push(format!("{id:?} in Consul"));
    }
    match &facts.node {
        None => notes.push("it must be unique in the cluster".to_owned()),
        Some(node) if has_node && facts.is_host_name => notes.push(format!("{node} is the name of this host")),
        Some(_) => {}
    }
    Some(InstanceId { text, comment: notes.join("; "), has_node })
}

/// Sets the metadata. A key that states a policy over the API is a key of its own in a file.
fn set_meta(field: &Field<'_>, context: &Context<'_>, yaml: &mut Yaml) {
    let mut meta = Yaml::table();
    for (key, (text, place)) in context.text_table(field) {
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        let value = if is_number && key == MIN_HEALTHY_META { Yaml::plain(&text) } else { Yaml::text(&text) };
        match key {
            NEAREST_META => yaml.set("nearest", value.from(&place)),
            ALPN_META => yaml.set("alpn", Yaml::line_of(text.split(',').map(str::trim)).from(&place)),
            MIN_HEALTHY_META => yaml.set("min_healthy", value.from(&place)),
            _ => meta.set(key, Yaml::text(&text).from(&place)),
        }
    }
    yaml.set("meta", meta);
}

fn set_address(section: &Section<'_>, yaml: &mut Yaml) {
    let context = section.context;
    let mut addresses: Vec<String> = Vec::new();
    let mut tagged_yaml = Yaml::table();
    let default_port = section.integer("port").map(|(port, _)| port);
    let add = |addresses: &mut Vec<String>, text: &str| {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if !addresses.iter().any(|known| known == bare) {
            addresses.push(bare.to_owned());
        }
    };
    if let Some((text, place)) = section.text("address") {
        if is_template(text) {
            context.lost(&place, TEMPLATE);
        } else {
            add(&mut addresses, text);
        }
    }
    if let Some(tagged) = section.section("tagged_addresses") {
        for (tag, field) in tagged.rest() {
            let Some(target) = Section::of(context, &field) else { continue };
            let Some((text, _)) = target.text("address") else { continue };
            let port = target.integer("port").map(|(port, _)| port).filter(|port| *port != 0);
            let bare = text.trim_matches(['[', ']']);
            let is_ip = bare.parse::<IpAddr>().is_ok();
            match tag {
                "lan" if addresses.is_empty() && is_ip => add(&mut addresses, text),
                "lan_ipv4" | "lan_ipv6" if is_ip => add(&mut addresses, text),
                _ => {}
            }
            // Consul adds these to each service; muster has them of each address.
            let is_default = ["lan_ipv4", "lan_ipv6", "wan_ipv4", "wan_ipv6"].contains(&tag)
                && addresses.iter().any(|known| known == bare)
                && port.is_none_or(|port| default_port == Some(port));
            if is_default {
                continue;
            }
            let known = match port {
                Some(port) if bare.contains(':') => format!("[{bare}]:{port}"),
                Some(port) => format!("{bare}:{port}"),
                None => bare.to_owned(),
            };
            tagged_yaml.set(tag, Yaml::text(&known).from(&field.place));
        }
    }
    match addresses.as_slice() {
        [] => {}
        [one] => yaml.set("address", Yaml::text(one)),
        _ => yaml.set("address", Yaml::line_of(&addresses)),
    }
    yaml.set("tagged_addresses", tagged_yaml);
}

fn set_ports(section: &Section<'_>, yaml: &mut Yaml) {
    let context = section.context;
    let mut default = section.integer("port").filter(|(port, _)| *port != 0).map(|(port, _)| port);
    let mut ports = Yaml::table();
    for port in section.sections("ports") {
        let (name, number) = (port.text("name"), port.integer("port"));
        let is_default = port.flag("default").is_some_and(|(flag, _)| flag);
        let place = port.place.clone();
        port.finish();
        match (name, number) {
            (Some((name, _)), Some((number, _))) => {
                ports.set(name, Yaml::plain(number).from(&place));
                if is_default {
                    default = default.or(Some(number));
                }
            }
            _ => context.lost(&place, "A port needs `name` and `port`"),
        }
    }
    if let Some(port) = default {
        yaml.set("port", Yaml::plain(port));
    }
    yaml.set("ports", ports);
}

fn set_weight(section: &Section<'_>, yaml: &mut Yaml) {
    let mut passing = (CONSUL_WEIGHT, None);
    if let Some(weights) = section.section("weights") {
        if let Some((weight, place)) = weights.integer("passing") {
            passing = (weight, Some(place));
        }
        if let Some((warning, place)) = weights.integer("warning")
            && warning != (passing.0 / 10).max(1)
        {
            section.context.lost(&place, "The weight of an instance with a warning is a tenth of `weight`, at least 1");
        }
        weights.finish();
    }
    let weight = Yaml::plain(passing.0);
    yaml.set("weight", passing.1.map_or(weight.clone(), |place| weight.from(&place)));
}

fn report_rest(section: Section<'_>) {
    section.skip(&[("token", "A service file needs no token: it is not copied, like every secret")]);
    section.lose(&[
        ("enable_tag_override", "Tags of a service file change in the file only"),
        ("proxy", "muster has no proxies"),
        ("connect", "muster has no service mesh"),
        ("socket_path", "muster has no services on Unix sockets"),
        ("locality", "The zone is a property of the node: `zone` in muster.yaml"),
    ]);
    for key in ["namespace", "partition"] {
        if let Some((text, place)) = section.text(key)
            && text != "default"
        {
            section.context.lost(&place, "muster has one namespace and one partition");
        }
    }
    drop(section.take("service"));
    section.skip(&[("create_index", RAFT), ("modify_index", RAFT)]);
    section.finish();
}

/// Reason of the indexes that responses of Consul's API have.
const RAFT: &str = "An index of Consul's store";
