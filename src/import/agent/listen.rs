//! Addresses and ports on which the agent listens for its clients.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::is_reported_template;
use crate::{
    config::HTTP_PORT,
    import::{
        section::{Place, Section},
        yaml_text::Yaml,
    },
};

/// Addresses for clients, per protocol.
pub(super) struct Hosts {
    pub(super) dns: Vec<IpAddr>,
    http: Vec<IpAddr>,
    /// Path of a Unix socket for HTTP.
    socket: Option<(String, Place)>,
}

impl Hosts {
    /// Reads `client_addr` and `addresses`.
    pub(super) fn of(section: &Section<'_>) -> Self {
        let client = section.text("client_addr");
        let read = |text: Option<(&str, Place)>| {
            let mut socket = None;
            let mut hosts = Vec::new();
            for (text, place) in text.iter().flat_map(|(text, place)| text.split_whitespace().map(move |t| (t, place)))
            {
                if let Some(path) = text.strip_prefix("unix://") {
                    socket = Some((path.to_owned(), place.clone()));
                } else if let Ok(host) = text.trim_matches(['[', ']']).parse() {
                    hosts.push(host);
                } else if !is_reported_template(section.context, text, place) {
                    section.context.lost(place, "Listen addresses are IP addresses");
                }
            }
            (hosts, socket)
        };
        let is_template = |text: &Option<(&str, Place)>| text.as_ref().is_some_and(|(text, _)| text.contains("{{"));
        let (mut all, _) = if is_template(&client) {
            let text = client.as_ref().map(|(text, place)| (*text, place.clone()));
            if let Some((text, place)) = text {
                is_reported_template(section.context, text, &place);
            }
            (Vec::new(), None)
        } else {
            read(client)
        };
        if all.is_empty() {
            all.push(Ipv4Addr::LOCALHOST.into());
        }
        let mut hosts = Self { dns: all.clone(), http: all, socket: None };
        if let Some(addresses) = section.section("addresses") {
            let (dns, socket) = read(addresses.text("dns"));
            if !dns.is_empty() {
                hosts.dns = dns;
            }
            if let Some((_, place)) = socket {
                section.context.lost(&place, "DNS listens on IP addresses");
            }
            let (http, socket) = read(addresses.text("http"));
            if !http.is_empty() {
                hosts.http = http;
            }
            hosts.socket = socket;
            addresses.lose(&[
                ("https", "The HTTP API has TLS on all its addresses or on none: set `http.listen`, `http.certificate` and `http.key`"),
                ("grpc", NO_GRPC),
                ("grpc_tls", NO_GRPC),
            ]);
            addresses.finish();
        }
        hosts
    }
}

/// Reason of everything about gRPC, which Consul has for its mesh.
pub(super) const NO_GRPC: &str = "muster has no service mesh, and no gRPC interface for one";

/// A list of addresses with a port.
pub(super) fn with_port(hosts: &[IpAddr], port: u16) -> Yaml {
    Yaml::line_of(hosts.iter().map(|host| SocketAddr::new(*host, port).to_string()))
}

/// A port of `ports`, if it is set. Negative: off.
pub(super) fn port(ports: Option<&Section<'_>>, name: &str) -> Option<(i64, Place)> {
    ports.and_then(|ports| ports.integer(name))
}

/// The table `http`. Without settings of an agent, it is the default.
pub(super) fn http(section: &Section<'_>, hosts: &Hosts, ports: Option<&Section<'_>>, is_agent: bool) -> Yaml {
    let context = section.context;
    let mut http = Yaml::table();
    let given = port(ports, "http");
    if let Some((https, place)) = port(ports, "https")
        && https > 0
    {
        let reason = "The HTTP API has TLS on all its addresses or on none: set `http.certificate` and `http.key`, and the port \
                      in `http.listen`";
        context.lost(&place, reason);
    }
    let (local, open): (Vec<IpAddr>, Vec<IpAddr>) = hosts.http.iter().partition(|host| host.is_loopback());
    let port = match given {
        Some((off, _)) if off < 0 => None,
        Some((0, _)) | None => Some(HTTP_PORT),
        Some((port, ref place)) => u16::try_from(port).ok().or_else(|| {
            context.lost(place, "A port is at most 65535");
            Some(HTTP_PORT)
        }),
    };
    match port {
        None => http.set("listen", Yaml::plain("[]").with_comment("The Unix socket remains, which the commands use")),
        Some(port) if is_agent => {
            let mut comment = String::new();
            let mut listen = local;
            if !open.is_empty() {
                comment =
                    "Consul listens on other addresses, too: they need `tokens_dir`, `certificate` and `key` here"
                        .to_owned();
                if let Some(place) = place_of_open(section) {
                    let reason = "The HTTP API is on 127.0.0.1: other addresses need tokens and TLS, `http.tokens_dir`, \
                                  `http.certificate` and `http.key`";
                    context.lost(&place, reason);
                }
            }
            if listen.is_empty() {
                listen.push(Ipv4Addr::LOCALHOST.into());
            }
            http.set("listen", with_port(&listen, port).with_comment(comment));
        }
        Some(_) => {}
    }
    if let Some((path, place)) = &hosts.socket {
        http.set("socket", Yaml::text(path).from(place));
    }
    http
}

/// The key that opens the API to the network.
fn place_of_open(section: &Section<'_>) -> Option<Place> {
    let addresses = section.section("addresses").and_then(|addresses| addresses.text("http"));
    addresses.or_else(|| section.text("client_addr")).map(|(_, place)| place)
}
