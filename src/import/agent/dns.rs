//! Zones, and the settings of the DNS server.

use super::listen::{Hosts, port, with_port};
use crate::import::{
    facts::Facts,
    section::{Place, Section},
    yaml_text::Yaml,
};

/// Consul's domain without `domain`.
const CONSUL_DOMAIN: &str = "consul";
/// Consul's DNS port without `ports.dns`.
const CONSUL_DNS_PORT: u16 = 8600;
/// Scheme of the names below an alias domain.
const CONSUL_SCHEME: &str = "consul";

/// Writes Consul's domains as alias domains with its scheme of names, so that clients go on.
///
/// Returns the value of `dns.ptr_domain`: Consul's domain, to which its reverse names lead.
pub(super) fn set_domains(section: &Section<'_>, yaml: &mut Yaml) -> Yaml {
    let bare = |text: &str| text.trim_matches('.').to_owned();
    let mut domains = vec![match section.text("domain") {
        Some((domain, place)) => (bare(domain), Some(place)),
        None => (CONSUL_DOMAIN.to_owned(), None),
    }];
    domains.extend(section.text("alt_domain").map(|(domain, place)| (bare(domain), Some(place))));
    let origin = section.place.below("domain", section.place.at);
    let ptr_domain = domains.first().map_or(CONSUL_DOMAIN, |(domain, _)| domain);
    let ptr_domain = Yaml::text(ptr_domain).from(&origin);
    let alias = |(domain, place): (String, Option<Place>)| {
        let mut alias = Yaml::table();
        alias.set("domain", Yaml::text(&domain));
        alias.set("scheme", Yaml::text(CONSUL_SCHEME));
        alias.from(&place.unwrap_or_else(|| origin.clone()))
    };
    let comment = "Names such as web.service.consul go on; the same instances are at web.service.local";
    yaml.set("alias_domains", Yaml::list(domains.into_iter().map(alias).collect()).with_comment(comment));
    ptr_domain
}

/// The TTLs of services, in whole seconds: the name or pattern, the TTL, and its place.
pub(in crate::import) fn service_ttls(section: &Section<'_>) -> Vec<(String, u64, Place)> {
    let Some(settings) = section.section("dns_config") else { return Vec::new() };
    let Some(ttls) = settings.section("service_ttl") else { return Vec::new() };
    ttls.rest()
        .into_iter()
        .filter_map(|(pattern, field)| {
            let ttl = section.context.duration(&field)?;
            Some((pattern.to_owned(), ttl.as_secs(), field.place))
        })
        .collect()
}

/// The table `dns`.
pub(super) fn table(
    section: &Section<'_>,
    settings: Option<Section<'_>>,
    ptr_domain: Yaml,
    hosts: &Hosts,
    ports: Option<&Section<'_>>,
    facts: &Facts,
    is_agent: bool,
) -> Yaml {
    let mut dns = Yaml::table();
    match port(ports, "dns") {
        Some((off, place)) if off < 0 => {
            section.context.lost(&place, "muster always answers DNS queries: set `dns.listen`");
        }
        Some((port, place)) if port > 0 => match u16::try_from(port) {
            Ok(port) => dns.set("listen", with_port(&hosts.dns, port).from(&place)),
            Err(_) => section.context.lost(&place, "A port is at most 65535"),
        },
        _ if is_agent => {
            let comment = "The port of Consul; add 127.0.0.1:53 for `muster setup`";
            dns.set("listen", with_port(&hosts.dns, CONSUL_DNS_PORT).with_comment(comment));
        }
        _ => {}
    }
    dns.set("ptr_domain", ptr_domain);
    let Some(settings) = settings else { return dns };
    if let Some((only, place)) = settings.flag("only_passing")
        && only
    {
        dns.set("only_passing", Yaml::plain(true).from(&place));
    }
    let ttls = service_ttls(section);
    drop(settings.take("service_ttl"));
    for (pattern, seconds, place) in ttls {
        if pattern == "*" {
            dns.set("ttl", Yaml::plain(format!("{seconds}s")).from(&place));
        } else if !facts.names.values().any(|name| is_match(&pattern, name)) {
            section.context.lost(&place, "A TTL is in the file of its service: `ttl`; no such service is converted");
        }
    }
    if let Some(soa) = settings.section("soa") {
        if let Some((least, place)) = soa.integer("min_ttl") {
            dns.set("negative_ttl", Yaml::plain(format!("{least}s")).from(&place));
        }
        soa.skip(&[("refresh", SOA), ("retry", SOA), ("expire", SOA)]);
        soa.finish();
    }
    report(settings);
    dns
}

/// Reason of the numbers of an SOA record that only secondary servers read.
const SOA: &str = "Secondary servers get muster's own SOA numbers";

fn is_match(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

fn report(settings: Section<'_>) {
    const STALE: &str = "Every agent answers from its own state: there are no stale answers of other servers";
    const SIZE: &str = "Answers have as many records as fit, with TC set if some are left out";
    if let Some((ttl, place)) = settings.duration("node_ttl")
        && !ttl.is_zero()
    {
        settings.context.lost(&place, "Names of nodes have the TTL of all names: `dns.ttl`");
    }
    settings.skip(&[
        ("allow_stale", STALE),
        ("max_stale", STALE),
        ("use_cache", STALE),
        ("cache_max_age", STALE),
        ("enable_truncate", SIZE),
        ("udp_answer_limit", SIZE),
        ("disable_compression", "Names are compressed, which every client reads"),
    ]);
    settings.lose(&[
        ("a_record_limit", "Answers have all healthy instances, as many as fit"),
        ("enable_additional_node_meta_txt", "TXT records of nodes are answered when they are asked for"),
        ("recursor_timeout", "The resolver repeats a query at other upstreams by itself"),
        ("recursor_strategy", "The resolver prefers the fastest upstream by itself"),
        ("prefer_namespace", "muster has one namespace"),
    ]);
    settings.finish();
}
