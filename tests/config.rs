//! Configuration: valid files, merged files, and every problem of invalid files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use muster::{
    config::{
        Advertise, AllowExec, Cache, Checks, Config, Dns, Dnstap, Encrypted, Environment, Etcd, Format, Gossip, Http,
        Level, Log, Resolver, Seal, Secondary, SecondaryZone, Store, Transfer, Upstreams, Validation,
    },
    dns::{
        tap::{Direction, Kind, Selection},
        transfer::access::Access,
        update::{
            content::Definition,
            policy::{Grant, Pattern},
        },
    },
    model::{
        alias_domain::AliasDomain,
        consul_version::ConsulVersion,
        dns_limits::{CacheTtls, RateScope, ResponseRate},
        host_addresses::HostAddresses,
        name::Name,
        nearest::{Nearest, Policy},
        recursion_access::ClientRange,
        service::{Check, CheckTitle, Endpoint, Probe},
        upstream_address::{UpstreamAddress, UpstreamTransport},
    },
};
use support::label;

fn environment() -> Environment {
    Environment {
        host_name: "Host-A.example.org".to_owned(),
        addresses: HostAddresses::single(IpAddr::from([10, 0, 0, 7])),
        in_use: None,
        runtime_dir: None,
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn parse(files: &[(&str, &str)]) -> Result<Config, String> {
    let texts = files.iter().map(|(path, text)| (Path::new(*path), text.as_bytes()));
    Config::parse(texts, &environment()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

fn read(text: &str) -> Config {
    parse(&[("/etc/muster/muster.yaml", text)]).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

/// The problems of a file `f`, without the file name.
fn problems(text: &str) -> String {
    match parse(&[("f", text)]) {
        Ok(config) => panic!("{text}\nhas no problems: {config:#?}"),
        Err(problems) => problems.lines().map(|line| &line["f:".len()..]).collect::<Vec<_>>().join("\n"),
    }
}

fn rate(per_second: u32, slip: u8, ipv4_prefix: u8, ipv6_prefix: u8) -> ResponseRate {
    let per_second = per_second.try_into().unwrap();
    ResponseRate { per_second, scope: RateScope::Outside, slip, ipv4_prefix, ipv6_prefix }
}

fn defaults() -> Config {
    Config {
        node: label("host-a"),
        domain: name("service.local"),
        alias_domains: Vec::new(),
        datacenter: label("dc1"),
        zone: None,
        meta: BTreeMap::new(),
        advertise: Advertise::Host(IpAddr::from([10, 0, 0, 7])),
        data_dir: PathBuf::from("/var/lib/muster"),
        services_dir: PathBuf::from("/etc/muster/services.d"),
        zones_dir: PathBuf::from("/etc/muster/zones"),
        dns: Dns {
            listen: vec!["127.0.0.1:53".parse().unwrap()],
            ttl: 5,
            negative_ttl: 1,
            nearest: Policy::default(),
            udp_payload: 1232,
            rate_limit: Some(ResponseRate { scope: RateScope::Outside, ..rate(50, 2, 24, 56) }),
            only_passing: false,
            ptr_domain: name("service.local"),
            encrypted: None,
            dnssec: Vec::new(),
            dnssec_keys_dir: PathBuf::from("/etc/muster/dnssec"),
            dnstap: None,
            keys_dir: None,
            transfer: Transfer::default(),
            dynamic: Vec::new(),
            secondary: Vec::new(),
        },
        resolver: Resolver {
            upstreams: Upstreams::System,
            routes: Vec::new(),
            allow: vec![ClientRange::Loopback, ClientRange::Private],
            rebind_protection: None,
            validation: None,
            cache: Cache { size: 32 << 20, bounds: CacheTtls { ttl: 86_400, negative_ttl: 3600, stale: 86_400 } },
        },
        gossip: Gossip {
            listen: "127.0.0.1:7946".parse().unwrap(),
            join: Vec::new(),
            seal: Seal::Open,
            interval: Duration::from_millis(200),
            hold: Duration::from_secs(600),
            restart_hold: Duration::from_secs(30),
        },
        http: Http {
            listen: vec!["127.0.0.1:8500".parse().unwrap()],
            socket: None,
            tokens_dir: None,
            tls: None,
            consul_version: None,
        },
        store: None,
        checks: Checks { node: Arc::from([]), allow_exec: AllowExec::No, allow_link_local: false },
        log: Log { level: Level::Info, format: Format::Text },
    }
}

#[test]
fn missing_keys_have_defaults() {
    assert_eq!(parse(&[]).unwrap(), defaults());
    for text in ["", "# nothing\n", "dns:\n", "dns: {}\ngossip: {key_file: null, join: []}\n", "\u{feff}node:\r\n"] {
        assert_eq!(read(text), defaults(), "{text:?}");
    }
}

#[test]
fn file_with_all_keys_is_read() {
    let text = "
node: Host-B
domain: Example.ORG.
alias_domains: [service.consul, {domain: Consul, scheme: consul}, {domain: svc.example}]
datacenter: dc2
zone: EU-1a
meta: {rack: r1, size: 2}
advertise: [10.0.0.8, '2001:db8::8']
data_dir: data
services_dir: ../services.d
zones_dir: /zones
dns:
  listen: [0.0.0.0, '::', '[::1]:5353', 127.0.0.1:0, 127.0.0.1:0]
  ttl: 1m
  negative_ttl: 0s
  nearest: zone
  min_healthy: 50%
  udp_payload: 4096
  rate_limit: {per_second: 100, slip: 0, ipv4_prefix: 32, ipv6_prefix: 64}
  only_passing: true
  ptr_domain: CONSUL.
  encrypted: {tls: 10.0.0.8, https: ['::1', 10.0.0.8:8443], quic: 10.0.0.8, certificate: cert.pem, key: /key.pem}
  keys_dir: tsig
  dnssec: [corp.example, Example.org]
  dnssec_keys_dir: dnssec
  dnstap: {socket: run/dnstap.sock, messages: [auth, forwarder-query]}
  transfer: {allow: ['key:xfr', loopback], unsigned: [example.org], notify: [10.0.9.1, {address: '[2001:db8::9]:5353', key: xfr}]}
  dynamic: {zone: Dyn.Example, name_servers: ns.dyn.example, keys: {key: xfr, names: _acme-challenge.**, types: TXT}}
  secondary: [{zone: a.test, primaries: [192.0.2.1, '[2001:db8::1]:5353', 'tls://192.0.2.2#ns.example'], key: xfr}, {zone: b.test, primaries: 192.0.2.1}]
resolver:
  upstreams: [9.9.9.9, 1.1.1.1:5353, 'tls://9.9.9.9#dns.quad9.net', 'https://[2001:db8::53]/q']
  cache: {megabytes: 64, max_ttl: 1h, max_negative_ttl: 10s, stale: 0s}
  routes: {corp.example: 10.0.0.2, 10.in-addr.arpa: [10.0.0.2, '[::1]:54']}
  allow: [loopback, any, 10.0.0.0/8, 2001:db8::/32, 192.0.2.1]
  rebind_protection: true
  rebind_exceptions: [corp.example, zen.spamhaus.org.]
  dnssec: validate
  trust_anchors: anchors
  dnssec_insecure: Lab.example
gossip:
  listen: 10.0.0.8
  join: [10.0.0.9, host-c, host-d.example:7947, '::1', '[::1]:7948']
  key_file: gossip.key
  interval: 1s
  hold: 2m
  restart_hold: 45s
http:
  listen: []
  consul_version: 1.20.0+ent
store:
  voters: [host-c, Host-D, host-e]
  max_size: 256MiB
  etcd: {listen: ['::1', 127.0.0.1:23790], certificate: cert.pem, key: /key.pem}
checks:
  allow_exec: api
  allow_link_local: true
  node:
    - {exec: [/usr/lib/nagios/plugins/check_disk, -w, 10%], fall: 3}
log: {level: debug, format: json}
";
    let argv = ["/usr/lib/nagios/plugins/check_disk", "-w", "10%"].map(str::to_owned).to_vec();
    let disk = Check {
        fall: 3,
        warn_after: 3,
        title: Some(CheckTitle { id: Some("node:1".into()), ..CheckTitle::default() }),
        ..Check::new(Probe::Exec { argv })
    };
    let socket = |text: &str| text.parse().unwrap();
    let plain = |text: &str| UpstreamAddress::plain(text.parse().unwrap());
    let endpoint = |host: &str, port| Endpoint { host: host.to_owned(), port };
    let network = |address: &str, prefix| ClientRange::Network { address: address.parse().unwrap(), prefix };
    let expected = Config {
        node: label("host-b"),
        domain: name("example.org"),
        alias_domains: vec![
            AliasDomain::new(name("service.consul")),
            AliasDomain::consul(name("consul")),
            AliasDomain::new(name("svc.example")),
        ],
        datacenter: label("dc2"),
        zone: Some(label("eu-1a")),
        meta: [("rack", "r1"), ("size", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        advertise: Advertise::Configured(vec!["10.0.0.8".parse().unwrap(), "2001:db8::8".parse().unwrap()]),
        data_dir: PathBuf::from("/etc/muster/data"),
        services_dir: PathBuf::from("/etc/muster/../services.d"),
        zones_dir: PathBuf::from("/zones"),
        dns: Dns {
            listen: ["0.0.0.0:53", "[::]:53", "[::1]:5353", "127.0.0.1:0", "127.0.0.1:0"].map(socket).to_vec(),
            ttl: 60,
            negative_ttl: 0,
            nearest: Policy { nearest: Nearest::Zone, min_healthy: "50%".parse().unwrap() },
            udp_payload: 4096,
            rate_limit: Some(rate(100, 0, 32, 64)),
            only_passing: true,
            ptr_domain: name("consul"),
            encrypted: Some(Encrypted {
                tls: vec![socket("10.0.0.8:853")],
                https: vec![socket("[::1]:443"), socket("10.0.0.8:8443")],
                quic: vec![socket("10.0.0.8:853")],
                certificate: PathBuf::from("/etc/muster/cert.pem"),
                key: PathBuf::from("/key.pem"),
            }),
            keys_dir: Some(PathBuf::from("/etc/muster/tsig")),
            dnssec: vec![name("corp.example"), name("example.org")],
            dnssec_keys_dir: PathBuf::from("/etc/muster/dnssec"),
            dnstap: Some(Dnstap {
                socket: PathBuf::from("/etc/muster/run/dnstap.sock"),
                messages: Selection::both(Kind::Auth).or(Selection::one(Kind::Forwarder, Direction::Query)),
            }),
            transfer: Transfer {
                allow: Access {
                    networks: vec![ClientRange::Loopback],
                    keys: vec![name("xfr")],
                    unsigned: vec![name("example.org")],
                },
                notify: vec![
                    Secondary { address: socket("10.0.9.1:53"), key: None },
                    Secondary { address: socket("[2001:db8::9]:5353"), key: Some(name("xfr")) },
                ],
            },
            dynamic: vec![Definition {
                origin: name("dyn.example"),
                name_servers: vec![name("ns.dyn.example")],
                grants: vec![Grant {
                    key: name("xfr"),
                    names: vec![Pattern::parse("_acme-challenge.**").unwrap()],
                    types: [16].into(),
                }],
            }],
            secondary: vec![
                SecondaryZone {
                    origin: name("a.test"),
                    primaries: vec![
                        plain("192.0.2.1:53"),
                        plain("[2001:db8::1]:5353"),
                        UpstreamAddress::parse("tls://192.0.2.2:853#ns.example").unwrap(),
                    ],
                    key: Some(name("xfr")),
                },
                SecondaryZone { origin: name("b.test"), primaries: vec![plain("192.0.2.1:53")], key: None },
            ],
        },
        resolver: Resolver {
            upstreams: Upstreams::Servers(vec![
                plain("9.9.9.9:53"),
                plain("1.1.1.1:5353"),
                UpstreamAddress {
                    address: socket("9.9.9.9:853"),
                    interface: None,
                    transport: UpstreamTransport::Tls(Some("dns.quad9.net".into())),
                },
                UpstreamAddress {
                    address: socket("[2001:db8::53]:443"),
                    interface: None,
                    transport: UpstreamTransport::Https { name: None, path: "/q".into() },
                },
            ]),
            cache: Cache { size: 64 << 20, bounds: CacheTtls { ttl: 3600, negative_ttl: 10, stale: 0 } },
            routes: vec![
                (name("corp.example"), vec![plain("10.0.0.2:53")]),
                (name("10.in-addr.arpa"), ["10.0.0.2:53", "[::1]:54"].map(plain).to_vec()),
            ],
            allow: vec![
                ClientRange::Loopback,
                ClientRange::Any,
                network("10.0.0.0", 8),
                network("2001:db8::", 32),
                network("192.0.2.1", 32),
            ],
            rebind_protection: Some(vec![name("corp.example"), name("zen.spamhaus.org")]),
            validation: Some(Validation {
                trust_anchors: Some(PathBuf::from("/etc/muster/anchors")),
                insecure: vec![name("lab.example")],
            }),
        },
        gossip: Gossip {
            listen: socket("10.0.0.8:7946"),
            join: vec![
                endpoint("10.0.0.9", 7946),
                endpoint("host-c", 7946),
                endpoint("host-d.example", 7947),
                endpoint("::1", 7946),
                endpoint("::1", 7948),
            ],
            seal: Seal::KeyFile(PathBuf::from("/etc/muster/gossip.key")),
            interval: Duration::from_secs(1),
            hold: Duration::from_secs(120),
            restart_hold: Duration::from_secs(45),
        },
        http: Http {
            listen: Vec::new(),
            socket: None,
            tokens_dir: None,
            tls: None,
            consul_version: ConsulVersion::parse("1.20.0+ent").ok(),
        },
        store: Some(Store {
            voters: ["host-c", "host-d", "host-e"].map(label).to_vec(),
            max_octets: 256 << 20,
            etcd: Some(Etcd {
                listen: vec![socket("[::1]:2379"), socket("127.0.0.1:23790")],
                tls: Some((PathBuf::from("/etc/muster/cert.pem"), PathBuf::from("/key.pem"))),
            }),
        }),
        checks: Checks { node: Arc::from([disk]), allow_exec: AllowExec::FilesAndApi, allow_link_local: true },
        log: Log { level: Level::Debug, format: Format::Json },
    };
    assert_eq!(read(text), expected);
}

#[test]
fn rate_limit_applies_to_clients_outside_unless_it_names_all() {
    let limit = |text: &str| read(text).dns.rate_limit;
    let outside = rate(9, 2, 24, 56);
    let all = ResponseRate { scope: RateScope::All, ..outside };
    assert_eq!(limit("dns: {rate_limit: {per_second: 9}}"), Some(outside));
    assert_eq!(limit("dns: {rate_limit: {per_second: 9, clients: all}}"), Some(all));
    assert_eq!(limit("dns: {rate_limit: {per_second: 9, clients: outside}}"), Some(outside));
    assert_eq!(limit("dns: {rate_limit: null}"), defaults().dns.rate_limit);
    assert_eq!(limit("dns: {rate_limit: off}"), None);
    // Without recursion, hosts of private networks are not limited by default.
    let private = [ClientRange::Loopback, ClientRange::Private];
    assert_eq!(read("resolver: {allow: []}").resolver.unlimited_clients(), private);
    assert_eq!(read("resolver: {allow: [192.0.2.1]}").resolver.unlimited_clients().len(), 1);
}

#[test]
fn tables_are_merged_and_other_values_replaced() {
    let config = parse(&[
        (
            "/a/10.yaml",
            "node: one\ndata_dir: data\ndns: {listen: [127.0.0.1, 127.0.0.2], ttl: 7s}\nresolver: {routes: {a: 10.0.0.1, b: 10.0.0.2}}\n",
        ),
        ("/a/20.yaml", ""),
        ("/b/30.yaml", "node: two\ndns: {listen: 127.0.0.3, negative_ttl: 2s}\nresolver: {routes: {b: 10.0.0.3}}\n"),
        ("/b/40.yaml", "services_dir: services\ndns:\nnode: null\n"),
    ]);
    let socket = |text: &str| text.parse().unwrap();
    let plain = |text: &str| UpstreamAddress::plain(text.parse().unwrap());
    let expected = Config {
        node: label("two"),
        data_dir: PathBuf::from("/a/data"),
        services_dir: PathBuf::from("/b/services"),
        dns: Dns {
            listen: vec![socket("127.0.0.3:53")],
            ttl: 7,
            negative_ttl: 2,
            udp_payload: 1232,
            encrypted: None,
            dnssec: Vec::new(),
            dnssec_keys_dir: PathBuf::from("/etc/muster/dnssec"),
            dnstap: None,
            ..defaults().dns
        },
        resolver: Resolver {
            routes: vec![(name("a"), vec![plain("10.0.0.1:53")]), (name("b"), vec![plain("10.0.0.3:53")])],
            ..defaults().resolver
        },
        ..defaults()
    };
    assert_eq!(config.unwrap(), expected);
}

#[test]
fn problems_name_the_right_file() {
    let got = parse(&[
        ("a", "nod: x\ngossip: {listen: 10.0.0.1}\nlog: {level: loud}\n"),
        ("b", "gossip: {interval: 1ms}\nnode: a_b\nnode: c\n"),
        ("c", "log: {level: info, fromat: text}\n"),
    ]);
    let expected = "\
a:1:1: unknown key `nod` (did you mean `node`?)
a:2:18: gossip on `10.0.0.1:7946` without a key: any host that reaches it could announce instances (set `key_file`, or `insecure: true` if the network is trusted)
b:1:20: expected a duration from 50ms to 10s, found `1ms`
b:2:7: `a_b` cannot be a node's name: '_' is not allowed in a DNS label: use letters, digits and hyphens (did you mean `a-b`?)
b:3:1: duplicate key `node` (the first one is in line 2)
c:1:20: unknown key `fromat` (did you mean `format`?)";
    assert_eq!(got.unwrap_err(), expected);
    let unreadable = parse(&[("a", "a: b: c"), ("c", "nod: x")]);
    assert_eq!(unreadable.unwrap_err().lines().map(|line| &line[..2]).collect::<Vec<_>>(), ["a:"]);
}

#[test]
fn invalid_configurations_are_refused() {
    let long_consul_zone =
        format!("alias_domains: [{{domain: {}, scheme: consul}}]", ["a".repeat(30), "b".repeat(18)].join("."));
    let long_zone = format!("domain: {}", ["a".repeat(40), "b".repeat(40), "c".repeat(40)].join("."));
    let entries: Vec<String> = (0..5).map(|key| format!("k{key}: {}", "x".repeat(252))).collect();
    let much_meta = format!("meta: {{{}}}", entries.join(", "));
    let label_64 = format!("node: {}", "a".repeat(64));
    let cases = [
        (
            "foo: 1",
            "1:1: no key of this file is one of the configuration (its keys are node, domain, alias_domains, datacenter, zone, meta, advertise, data_dir, services_dir, zones_dir, dns, resolver, gossip, http, store, checks, log)",
        ),
        ("meta: [a]", "1:7: expected a table such as `{version: \"2.3.1\"}`, found a list"),
        ("meta: {a=b: c}", "1:8: `a=b` cannot be a key of `meta` (keys are printable ASCII without `=`)"),
        (
            &much_meta,
            "1:7: a node's `meta` has at most 1024 octets, this one has 1275 (every node stores the `meta` of all nodes)",
        ),
        ("service_dir: x", "1:1: unknown key `service_dir` (did you mean `services_dir`?)"),
        (
            "- node: a",
            "1:1: expected the configuration, found a list (its keys are node, domain, alias_domains, datacenter, zone, meta, advertise, data_dir, services_dir, zones_dir, dns, resolver, gossip, http, store, checks, log)",
        ),
        (
            "node: a.b",
            "1:7: `a.b` cannot be a node's name: '.' is not allowed in a DNS label: use letters, digits and hyphens (did you mean `a-b`?)",
        ),
        (
            &label_64,
            "1:7: `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…` cannot be a node's name: a DNS label has at most 63 octets, this one has 64",
        ),
        ("domain: .", "1:9: `.` cannot be a zone's name: a DNS label has at least one character"),
        ("domain: a..b", "1:9: `a..b` cannot be a zone's name: a DNS label has at least one character"),
        (
            "domain: a b",
            "1:9: `a b` cannot be a zone's name: ' ' is not allowed in a DNS label: use letters, digits and hyphens",
        ),
        (
            &long_zone,
            "1:9: the zone's name has 124 octets in wire form, more than 122 (port and service names must fit in front of it)",
        ),
        ("alias_domains: [service.LOCAL.]", "1:17: duplicate zone `service.local.`"),
        ("alias_domains: [a, b, a]", "1:23: duplicate zone `a.`"),
        (
            "alias_domains: [local]",
            "1:17: the zones `local.` and `service.local.` overlap (a name cannot be in two zones)",
        ),
        (
            "alias_domains: a.service.local",
            "1:16: the zones `a.service.local.` and `service.local.` overlap (a name cannot be in two zones)",
        ),
        ("alias_domains: [{scheme: consul}]", "1:17: `domain` is missing (as in `{domain: consul, scheme: consul}`)"),
        ("alias_domains: [{domain: consul, scheme: nomad}]", "1:42: expected `muster` or `consul`, found `nomad`"),
        ("alias_domains: [{domain: consul, schema: consul}]", "1:34: unknown key `schema` (did you mean `scheme`?)"),
        (
            "domain: consul\nalias_domains: {domain: consul, scheme: consul}",
            "2:16: duplicate zone `consul.` (a zone has the names of one scheme)",
        ),
        (
            "domain: consul\nalias_domains: {domain: service.consul, scheme: consul}",
            "2:16: the zones `service.consul.` and `consul.` overlap (with `scheme: consul`, services of `service.consul.` have names such as `web.service.service.consul.`)",
        ),
        (
            "domain: dc1.consul\nalias_domains: {domain: consul, scheme: consul}",
            "2:16: the zones `consul.` and `dc1.consul.` overlap (below a zone with `scheme: consul`, only `service.consul.` can be another zone)",
        ),
        (
            "alias_domains: [{domain: a, scheme: consul}, {domain: b.a, scheme: consul}]",
            "1:46: the zones `b.a.` and `a.` overlap (a name cannot be in two zones)",
        ),
        (
            &long_consul_zone,
            "1:26: the zone's name has 51 octets in wire form, more than 50 (service names and datacenters must fit in front of it)",
        ),
        (
            "datacenter: service\nalias_domains: {domain: consul, scheme: consul}",
            "1:13: the datacenter `service` has no names in `consul.`: `service.consul.` has another meaning (choose another name, or remove the alias domain `consul.`)",
        ),
        (
            "dns: {ptr_domain: consul}",
            "1:19: `consul.` is neither `domain` nor one of `alias_domains` (targets of PTR records must have addresses in a zone of this node)",
        ),
        ("dns: {only_passing: 1}", "1:21: expected true or false, found the number `1`"),
        ("advertise: host-a", "1:12: expected an IP address, found `host-a` (host names are not resolved here)"),
        ("advertise: 0.0.0.0", "1:12: expected the IP address of a host, found `0.0.0.0`"),
        ("advertise: []", "1:12: expected at least one IP address, found a list"),
        ("advertise: [10.0.0.1, 10.0.0.1]", "1:23: duplicate address `10.0.0.1`"),
        (
            "advertise: 127.0.0.1\ngossip: {listen: 0.0.0.0, insecure: true}",
            "1:12: other hosts cannot reach `127.0.0.1`, and `gossip.listen` is `0.0.0.0:7946` (set an address of the network, or omit `advertise`)",
        ),
        (
            "advertise: [10.0.0.7, 'fe80::7']\ngossip: {listen: 10.0.0.7, insecure: true}",
            "1:23: other hosts cannot reach `fe80::7`, and `gossip.listen` is `10.0.0.7:7946` (set an address of the network, or omit `advertise`)",
        ),
        (
            "advertise: 'fd00::7'\ngossip: {listen: 0.0.0.0, insecure: true}",
            "1:12: no IPv4 address, which peers need: `gossip.listen` is `0.0.0.0:7946` (add one, or set `gossip.listen` to `[::]`)",
        ),
        (
            "advertise: 10.0.0.7\ngossip: {listen: '[::]', insecure: true}",
            "1:12: no IPv6 address, which peers need: `gossip.listen` is `[::]:7946` (add one, or set `gossip.listen` to `0.0.0.0`)",
        ),
        ("data_dir: [a]", "1:11: expected a path, found a list"),
        ("data_dir: ''", "1:11: expected a path, found an empty text"),
        ("dns: 127.0.0.1", "1:6: expected the table `dns`, found a text of 9 characters"),
        (
            "dns: {port: 53}",
            "1:7: unknown key `port` (the keys of the table `dns` are listen, ttl, negative_ttl, nearest, min_healthy, udp_payload, rate_limit, only_passing, ptr_domain, encrypted, keys_dir, transfer, dynamic, secondary, dnssec, dnssec_keys_dir, dnstap)",
        ),
        ("dns: {dnstap: {}}", "1:15: `socket` is missing (as in `socket: /run/dnstap/muster.sock`)"),
        ("dns: {dnstap: /run/x.sock}", "1:15: expected the table `dnstap`, found a text of 11 characters"),
        (
            "dns: {dnstap: {socket: /run/dnstap/a-path-that-is-longer-than-the-system-permits-for-a-socket/which-has-a-long-name-in-a-long-named-folder}}",
            "1:24: the path of a socket has at most 107 octets, and this one 115",
        ),
        (
            "dns: {dnstap: {socket: s, messages: []}}",
            "1:37: expected at least one kind of message, such as `auth`, found a list",
        ),
        (
            "dns: {dnstap: {socket: s, messages: [auth, resolver]}}",
            "1:44: expected `all`, `auth`, `auth-query`, `auth-response`, `client`, `client-query`, `client-response`, `forwarder`, `forwarder-query`, `forwarder-response`, `update`, `update-query` or `update-response`, found `resolver`",
        ),
        ("dns: {listen: []}", "1:15: expected at least one address, found a list"),
        (
            "dns: {listen: localhost}",
            "1:15: expected an address such as `127.0.0.1:53` or `[::1]:53`, found `localhost` (did you mean `127.0.0.1`?)",
        ),
        (
            "dns: {listen: ':53'}",
            "1:15: expected an address such as `127.0.0.1:53` or `[::1]:53`, found `:53` (did you mean `0.0.0.0:53`?)",
        ),
        ("dns: {listen: 53}", "1:15: expected an address such as `127.0.0.1:53` or `[::1]:53`, found the number `53`"),
        (
            "dns: {listen: 127.0.0.1:99999}",
            "1:15: expected an address such as `127.0.0.1:53` or `[::1]:53`, found `127.0.0.1:99999`",
        ),
        ("dns: {listen: [127.0.0.1, 127.0.0.1:53]}", "1:27: duplicate address `127.0.0.1:53`"),
        ("dns: {ttl: 5}", "1:12: expected a duration such as `5s`, found the number `5` (did you mean `5s`?)"),
        ("dns: {negative_ttl: 500ms}", "1:21: expected whole seconds, found `500ms` (DNS TTLs are whole seconds)"),
        (
            "zone: eu_1",
            "1:7: `eu_1` cannot be a zone's name: '_' is not allowed in a DNS label: use letters, digits and hyphens (did you mean `eu-1`?)",
        ),
        ("dns: {nearest: true}", "1:16: expected `none`, `zone` or `datacenter`, found `true`"),
        (
            "dns: {min_healthy: 10001}",
            "1:20: expected a number from 1 to 10000 or a share from 1% to 100%, found the number `10001`",
        ),
        ("dns: {rate_limit: 5}", "1:19: expected the table `rate_limit`, found a number"),
        ("dns: {rate_limit: {slip: 1}}", "1:19: `per_second` is missing (as in `per_second: 200`)"),
        (
            "dns: {rate_limit: {per_second: 0}}",
            "1:32: expected a number of answers from 1 to 1000000, found the number `0`",
        ),
        (
            "dns: {rate_limit: {per_second: 1, ipv4_prefix: 33}}",
            "1:48: expected a number of bits from 0 to 32, found the number `33`",
        ),
        ("dns: {rate_limit: {per_second: 1, clients: inside}}", "1:44: expected `outside` or `all`, found `inside`"),
        (
            "resolver: {rebind_exceptions: corp.example}",
            "1:31: exceptions without a protection (set `rebind_protection: true`)",
        ),
        ("resolver: {dnssec: true}", "1:20: expected `off` or `validate`, found `true`"),
        (
            "resolver: {dnssec: off, trust_anchors: anchors}",
            "1:40: `trust_anchors` without validation (set `dnssec: validate`)",
        ),
        (
            "resolver: {dnssec_insecure: [corp.example]}",
            "1:29: `dnssec_insecure` without validation (set `dnssec: validate`)",
        ),
        ("dns: {udp_payload: 511}", "1:20: expected a size from 512 to 4096, found the number `511`"),
        ("dns: {udp_payload: 4097}", "1:20: expected a size from 512 to 4096, found the number `4097`"),
        (
            "resolver: {upstreams: dns.example}",
            "1:23: expected an address such as `127.0.0.1:53` or `[::1]:53`, found `dns.example`",
        ),
        ("resolver: {upstreams: 10.0.0.1:0}", "1:23: expected the address of a DNS server, found `10.0.0.1:0`"),
        ("resolver: {upstreams: 0.0.0.0}", "1:23: expected the address of a DNS server, found `0.0.0.0`"),
        (
            "resolver: {upstreams: 'fe80::1'}",
            "1:23: expected an address such as `192.0.2.1` or `fe80::1%eth0`, found `fe80::1` (a link-local IPv6 address needs its interface; other addresses have none)",
        ),
        (
            "resolver: {upstreams: '10.0.0.1%eth0'}",
            "1:23: expected an address such as `192.0.2.1` or `fe80::1%eth0`, found `10.0.0.1%eth0` (a link-local IPv6 address needs its interface; other addresses have none)",
        ),
        ("resolver: {upstreams: [10.0.0.1, 10.0.0.1]}", "1:34: duplicate server `10.0.0.1:53`"),
        (
            "resolver: {upstreams: 'tls://dns.example'}",
            "1:23: expected a DNS server, found `tls://dns.example` (the host has to be an IP address, since its name could not be resolved; put the name after `#`. A link-local IPv6 address needs its interface, as in `fe80::1%eth0`)",
        ),
        (
            "resolver: {cache: {megabytes: 0}}",
            "1:31: expected a number of megabytes from 1 to 16384, found the number `0`",
        ),
        (
            "dns: {transfer: {allow: [\"key:xfr\"]}}",
            "1:26: a TSIG key without `dns.keys_dir` (set `keys_dir: /etc/muster/tsig`)",
        ),
        (
            "dns: {keys_dir: k, transfer: {notify: [10.0.0.9, {address: 10.0.0.9, key: xfr}], allow: [any]}}",
            "1:50: duplicate secondary `10.0.0.9:53`",
        ),
        (
            "dns: {transfer: {allow: [any], unsigned: [example.org]}}",
            "1:42: `unsigned` names example.org., which `dns.dnssec` does not sign (other zones are copied as they are: remove the name)",
        ),
        (
            "dns: {transfer: {notify: 10.0.0.9}}",
            "1:26: `notify` without `allow` (a secondary that is told of a change copies the zone: list its network or key in `allow`)",
        ),
        (
            "dns: {secondary: [{zone: a.test, primaries: [10.0.0.1, 10.0.0.1:53], key: xfr}]}",
            "1:56: duplicate primary `10.0.0.1:53`\n1:75: a TSIG key without `dns.keys_dir` (set `keys_dir: /etc/muster/tsig`)",
        ),
        (
            "dns: {secondary: [{zone: a.test, primaries: 'https://192.0.2.1/'}]}",
            "1:45: expected the address of a primary, found `https://192.0.2.1/` (zones are transferred over TCP or TLS, as from \
             `tls://192.0.2.1#ns.example`)",
        ),
        (
            "dns: {secondary: [{zone: a.test, primaries: []}, {primaries: 0.0.0.0}, {zone: b.test}]}",
            "1:45: expected at least one address of a primary, found a list\n\
             1:50: `zone` is missing (as in `zone: example.org`)\n\
             1:62: expected the address of a DNS server, found `0.0.0.0`\n\
             1:72: `primaries` is missing (as in `primaries: [192.0.2.1]`)",
        ),
        (
            "dns: {secondary: [{zone: service.local, primaries: 10.0.0.1}, {zone: a, primaries: 10.0.0.1}, {zone: A., primaries: 10.0.0.2}]}",
            "1:19: `service.local.` is a discovery zone (it has the services and nodes of this cluster; choose another name for one of them)\n\
             1:95: duplicate zone `a.`",
        ),
        (
            "dns: {transfer: {allow: everyone}}",
            "1:25: expected `loopback`, `private`, `any` or a network such as `10.0.0.0/8`, found `everyone`",
        ),
        (
            "dns: {encrypted: {tls: 127.0.0.1, key: k}}",
            "1:18: `certificate` is missing (as in `certificate: /etc/muster/tls/fullchain.pem`)",
        ),
        ("resolver: {routes: [a]}", "1:20: expected a table such as `{corp.example: 10.0.0.2}`, found a list"),
        (
            "resolver: {routes: {a.service.local: 10.0.0.1}}",
            "1:21: the route for `a.service.local.` has no effect: names in the zone `service.local.` are never forwarded (remove the route, or the zone from `alias_domains`)",
        ),
        (
            "alias_domains: {domain: consul, scheme: consul}\nresolver: {routes: {consul: 10.0.0.1, dc2.consul: 10.0.0.1}}",
            "2:21: the route for `consul.` has no effect: names in the zone `consul.` are never forwarded (remove the route, or the zone from `alias_domains`)\n\
             2:39: the route for `dc2.consul.` has no effect: names in the zone `consul.` are never forwarded (remove the route, or the zone from `alias_domains`)",
        ),
        ("resolver: {routes: {a: []}}", "1:24: expected at least one address, found a list"),
        ("resolver: {routes: {a: 10.0.0.1, A.: 10.0.0.2}}", "1:34: duplicate suffix `a.`"),
        (
            "resolver: {routes: {a..b: 10.0.0.1}}",
            "1:21: `a..b` cannot be a domain suffix: a DNS label has at least one character",
        ),
        (
            "resolver: {allow: [local]}",
            "1:20: expected `loopback`, `private`, `any` or a network such as `10.0.0.0/8`, found `local`",
        ),
        (
            "resolver: {allow: [10.0.0.0/33]}",
            "1:20: expected `loopback`, `private`, `any` or a network such as `10.0.0.0/8`, found `10.0.0.0/33`",
        ),
        (
            "resolver: {allow: [10.1.2.3/8]}",
            "1:20: expected the first address of a network, found `10.1.2.3/8` (did you mean `10.0.0.0/8`?)",
        ),
        (
            "gossip: {listen: 0.0.0.0}",
            "1:18: gossip on `0.0.0.0:7946` without a key: any host that reaches it could announce instances (set `key_file`, or `insecure: true` if the network is trusted)",
        ),
        (
            "gossip: {listen: [127.0.0.1]}",
            "1:18: expected an address such as `127.0.0.1:7946` or `[::1]:7946`, found a list",
        ),
        (
            "gossip: {join: [a:b]}",
            "1:17: expected a host or `host:port`, such as `10.0.0.7` or `[::1]:7946`, found `a:b`",
        ),
        (
            "gossip: {join: [10.0.0.300]}",
            "1:17: expected a host or `host:port`, such as `10.0.0.7` or `[::1]:7946`, found `10.0.0.300`",
        ),
        ("gossip: {interval: 20s}", "1:20: expected a duration from 50ms to 10s, found `20s`"),
        ("gossip: {hold: 25h}", "1:16: expected a duration from 0s to 24h, found `25h`"),
        (
            "http: {listen: 0.0.0.0}",
            "1:16: the HTTP API on `0.0.0.0:8500` without tokens: any host that reaches it could use it (set `tokens_dir`, listen on 127.0.0.1, or set `insecure: true` if the network is trusted)",
        ),
        (
            "gossip: {key_file: k}\nhttp: {listen: 0.0.0.0, tokens_dir: t}",
            "2:16: the HTTP API on `0.0.0.0:8500` without TLS: the tokens could be read on the network (set `certificate` and `key`, or `insecure: true` if the network is trusted)",
        ),
        (
            "http: {tokens_dir: t}",
            "1:20: tokens without a gossip key: every local user could join by gossip and announce instances (set `gossip.key_file` to a file with a key, which `muster keygen` prints, or `gossip.insecure: true` if all local users are trusted)",
        ),
        ("http: {certificate: c}", "1:21: TLS needs both `certificate` and `key`"),
        ("http: {insecure: yes}", "1:18: expected true or false, found `yes` (in YAML 1.2 that is text: write `true`)"),
        (
            "http: {consul_version: '1.20'}",
            "1:24: `consul_version` is not a semantic version: `1.20` (a version is MAJOR.MINOR.PATCH with at most 64 characters, such as `1.20.0`)",
        ),
        ("store: {}", "1:8: `voters` is missing (as in `voters: [host-a, host-b, host-c]`)"),
        ("store: host-a", "1:8: expected the table `store`, found a text of 6 characters"),
        (
            "store: {voter: host-a}",
            "1:8: `voters` is missing (as in `voters: [host-a, host-b, host-c]`)\n\
             1:9: unknown key `voter` (did you mean `voters`?)",
        ),
        (
            "store: {voters: []}",
            "1:17: the store has 1, 3 or 5 voters, found 0 (name the nodes that hold the store, as in `voters: [host-a, host-b, host-c]`)",
        ),
        (
            "store: {voters: [a, b]}",
            "1:17: the store has 1, 3 or 5 voters, found 2 (2 voters survive as many failures as 1)",
        ),
        (
            "store: {voters: [a, b, c, d]}",
            "1:17: the store has 1, 3 or 5 voters, found 4 (4 voters survive as many failures as 3)",
        ),
        (
            "store: {voters: [a, b, c, d, e, f]}",
            "1:17: the store has 1, 3 or 5 voters, found 6 (each write waits for a majority of the voters; other nodes forward requests to them)",
        ),
        ("store: {voters: [a, b, A]}", "1:24: duplicate voter `a`"),
        (
            "store: {voters: 10.0.0.1}",
            "1:17: `10.0.0.1` cannot be a node's name: '.' is not allowed in a DNS label: use letters, digits and hyphens (did you mean `10-0-0-1`?)",
        ),
        (
            "store: {voters: a, max_size: 1GB}",
            "1:30: expected a size such as `256MiB`, found `1GB` (did you mean `1GiB`?)",
        ),
        (
            "store: {voters: a, max_size: 1000}",
            "1:30: expected a size such as `256MiB`, found the number `1000` (a size is a whole number and one unit: KiB, MiB or GiB)",
        ),
        ("store: {voters: a, max_size: 15MiB}", "1:30: expected a size from 16MiB to 16GiB, found `15MiB`"),
        ("store: {voters: a, max_size: 17GiB}", "1:30: expected a size from 16MiB to 16GiB, found `17GiB`"),
        ("store: {voters: a, etcd: 127.0.0.1:2379}", "1:26: expected the table `etcd`, found a text of 14 characters"),
        ("store: {voters: a, etcd: {}}", "1:26: `listen` is missing (as in `listen: 127.0.0.1:2379`)"),
        (
            "store: {voters: a, etcd: {listen: [127.0.0.1, localhost]}}",
            "1:47: expected an address such as `127.0.0.1:2379` or `[::1]:2379`, found `localhost` (did you mean `127.0.0.1`?)",
        ),
        ("store: {voters: a, etcd: {listen: [127.0.0.1, 127.0.0.1:2379]}}", "1:47: duplicate address `127.0.0.1:2379`"),
        ("store: {voters: a, etcd: {listen: 127.0.0.1, key: k}}", "1:51: TLS needs both `certificate` and `key`"),
        (
            "store: {voters: a, etcd: {listen: 0.0.0.0}}",
            "1:35: etcd's API on `0.0.0.0:2379` without tokens: any host that reaches it could use it (set `http.tokens_dir`, listen on 127.0.0.1, or set `store.etcd.insecure: true` if the network is trusted)",
        ),
        (
            "gossip: {key_file: k}\nhttp: {tokens_dir: t}\nstore: {voters: a, etcd: {listen: 0.0.0.0}}",
            "3:35: etcd's API on `0.0.0.0:2379` without TLS: the tokens could be read on the network (set `certificate` and `key`, or `store.etcd.insecure: true` if the network is trusted)",
        ),
        (
            "store: {voters: a, etcd: {listen: 127.0.0.1:8500}}",
            "1:35: `127.0.0.1:8500` is in use: `http.listen` has the same port (clients of etcd expect port 2379)",
        ),
        (
            "dns: {listen: 0.0.0.0}\nstore: {voters: a, etcd: {listen: 127.0.0.1:53}}",
            "2:35: `127.0.0.1:53` is in use: `dns.listen` has the same port (clients of etcd expect port 2379)",
        ),
        (
            "store: {voters: a, etcd: {listen: 0.0.0.0:7946, insecure: true}}",
            "1:35: `0.0.0.0:7946` is in use: `gossip.listen` has the same port (clients of etcd expect port 2379)",
        ),
        (
            "dns: {encrypted: {https: 127.0.0.1:2379, certificate: c, key: k}}\nstore: {voters: a, etcd: {listen: 127.0.0.1}}",
            "2:35: `127.0.0.1:2379` is in use: `dns.encrypted.https` has the same port (clients of etcd expect port 2379)",
        ),
        ("checks: {allow_exec: 1}", "1:22: expected `true`, `false` or `api`, found the number `1`"),
        (
            "checks: {node: [{exec: [/bin/true]}]}",
            "1:18: this node does not allow `exec` checks (set `checks: {allow_exec: true}` in the node's configuration)",
        ),
        (
            "checks: {node: {http: 'a:1'}}",
            "1:23: expected a URL such as `http://127.0.0.1:8080/healthz`, found `a:1` (did you mean `http://a:1`?)",
        ),
        ("checks: [{tcp: 'a:1'}]", "1:9: expected the table `checks`, found a list"),
        (
            "log: {level: INFO}",
            "1:14: expected `error`, `warn`, `info`, `debug` or `trace`, found `INFO` (did you mean `info`?)",
        ),
        ("log: {format: [json]}", "1:15: expected `text` or `json`, found a list"),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(text), expected, "{text}");
    }
}

#[test]
fn open_addresses_need_protection_or_insecure() {
    for text in [
        "gossip: {listen: 0.0.0.0, insecure: true}",
        "gossip: {listen: 10.0.0.1, key_file: k}",
        "gossip: {listen: '[::1]'}",
        "gossip: {listen: 127.1.2.3}",
        "http: {listen: [127.0.0.1, 0.0.0.0:80], insecure: true}",
        "gossip: {key_file: k}\nhttp: {listen: 0.0.0.0, tokens_dir: t, certificate: c, key: k}",
        "gossip: {key_file: k}\nhttp: {tokens_dir: t}",
        "gossip: {insecure: true}\nhttp: {tokens_dir: t}",
        "http: {listen: [], socket: /run/muster/http.sock}",
        "dns: {listen: 0.0.0.0}",
        "store: {voters: a, etcd: {listen: 0.0.0.0, insecure: true}}",
        "gossip: {key_file: k}\nhttp: {tokens_dir: t}\nstore: {voters: a, etcd: {listen: 0.0.0.0, certificate: c, key: k}}",
        // Another address or family, or any free port.
        "store: {voters: a, etcd: {listen: [127.0.0.2:8500, '[::1]:8500', 127.0.0.1:0]}}",
    ] {
        read(text);
    }
}

#[test]
fn store_is_off_unless_it_has_voters() {
    let store = |text: &str| read(text).store;
    let one = Store { voters: vec![label("a")], max_octets: 1 << 30, etcd: None };
    for text in ["", "store:", "store: null"] {
        assert_eq!(store(text), None, "{text}");
    }
    for text in
        ["store: {voters: a}", "store: {voters: [a], max_size: null, etcd: }", "store: {voters: a, etcd: {listen: []}}"]
    {
        assert_eq!(store(text), Some(one.clone()), "{text}");
    }
    assert_eq!(store("store: {voters: [a, b, c, d, e], max_size: 16MiB}").unwrap().voters.len(), 5);
    assert_eq!(store("store: {voters: a, max_size: 16384MiB}").unwrap().max_octets, 16 << 30);
}

/// The default of `advertise` by the address family of gossip, and by the default routes of the host.
#[test]
fn default_address_is_that_of_the_default_route() {
    const IPV4: &str = "10.0.0.7";
    const IPV6: &str = "2001:db8::7";
    let (any, any_ipv6) = ("gossip: {listen: 0.0.0.0, insecure: true}", "gossip: {listen: '[::]', insecure: true}");
    let (own, own_ipv6) = ("gossip: {listen: 10.0.9.9, insecure: true}", "gossip: {listen: 'fd00::9', insecure: true}");
    let no_ipv4 = "no address for other hosts: gossip.listen is 0.0.0.0, and this host has no IPv4 default route";
    let no_ipv6 = "no address for other hosts: gossip.listen is [::], and this host has no IPv6 default route";
    /// Configuration, source addresses of the default routes, address in use, and the address or problem.
    type Case<'a> = (&'a str, &'a [&'a str], Option<&'a str>, Result<&'a str, &'a str>);
    let cases: &[Case<'_>] = &[
        // Gossip is loopback-only.
        ("", &[IPV4, IPV6], None, Ok(IPV4)),
        ("", &[IPV6], None, Ok(IPV6)),
        ("", &[], None, Ok("127.0.0.1")),
        ("gossip: {listen: '[::1]'}", &[], None, Ok("127.0.0.1")),
        ("", &["127.0.0.1", "fe80::1"], None, Ok("127.0.0.1")),
        ("", &[], Some(IPV4), Ok("127.0.0.1")),
        // Gossip on all interfaces.
        (any, &[IPV4, IPV6], None, Ok(IPV4)),
        (any, &[IPV6], None, Err(no_ipv4)),
        (any, &[], None, Err(no_ipv4)),
        (any, &["169.254.3.4"], None, Err(no_ipv4)),
        (any_ipv6, &[IPV4, IPV6], None, Ok(IPV6)),
        (any_ipv6, &[IPV4], None, Err(no_ipv6)),
        (any_ipv6, &["fe80::1"], None, Err(no_ipv6)),
        // Gossip on one address.
        (own, &[IPV4, IPV6], None, Ok(IPV4)),
        (own, &[IPV6], None, Ok("10.0.9.9")),
        (own, &[], None, Ok("10.0.9.9")),
        (own_ipv6, &[IPV4], None, Ok("fd00::9")),
        // The address in use is lost, and there is no other.
        (any, &[], Some("10.0.0.8"), Ok("10.0.0.8")),
        (any, &[IPV6], Some("10.0.0.8"), Ok("10.0.0.8")),
        (any, &[IPV4], Some("10.0.0.8"), Ok(IPV4)),
        // The family of gossip has changed.
        (any_ipv6, &[], Some("10.0.0.8"), Err(no_ipv6)),
        (any, &[], Some("127.0.0.1"), Err(no_ipv4)),
    ];
    for (text, sources, in_use, expected) in cases {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = HostAddresses::new(sources.iter().map(|source| ip(source)), []);
        let environment = Environment { addresses, in_use: in_use.map(ip), ..environment() };
        let config = Config::parse([(Path::new("f"), text.as_bytes())], &environment).unwrap();
        let seen = match &config.advertise {
            Advertise::Awaited(reason) => Err(reason.to_string()),
            other => Ok(other.addresses()[0].to_string()),
        };
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(seen, expected, "{text} {sources:?} {in_use:?}");
    }
}

#[test]
fn unix_socket_is_in_the_folder_of_the_service_manager_by_default() {
    let environment = Environment { runtime_dir: Some("/run/muster".into()), ..environment() };
    let cases = [
        ("", Some("/run/muster/api.sock")),
        ("http: {listen: []}", Some("/run/muster/api.sock")),
        ("http: {socket: /run/other.sock}", Some("/run/other.sock")),
    ];
    for (text, expected) in cases {
        let config = Config::parse([(Path::new("f"), text.as_bytes())], &environment).unwrap();
        assert_eq!(config.http.socket.as_deref(), expected.map(Path::new), "{text}");
    }
}

#[test]
fn configuration_follows_the_host_unless_advertise_is_set() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let moved = HostAddresses::single(ip("10.0.0.8"));
    let any = "gossip: {listen: 0.0.0.0, insecure: true}\n";
    let config = read(any);
    assert_eq!(config.follow(&environment().addresses), None);
    let next = config.follow(&moved).unwrap();
    assert_eq!(next, Config { advertise: Advertise::Host(ip("10.0.0.8")), ..config.clone() });
    assert_eq!(config.follow(&HostAddresses::default()), None, "a lost address is kept");
    let problem = config.address_problem(&HostAddresses::default()).unwrap();
    assert_eq!(problem.to_string(), "this host no longer has the advertised address 10.0.0.7");
    assert_eq!(config.address_problem(&environment().addresses), None);
    assert_eq!(config.address_problem(&moved), None, "another address replaces it");

    let configured = read(&format!("advertise: 203.0.113.7\n{any}"));
    assert_eq!((configured.follow(&moved), configured.address_problem(&moved)), (None, None));

    // A start before the network.
    let environment = Environment { addresses: HostAddresses::single(ip("fd00::7")), ..environment() };
    let waiting = Config::parse([(Path::new("f"), any.as_bytes())], &environment).unwrap();
    assert_eq!((waiting.advertise.addresses(), waiting.advertise.published()), (&[ip("127.0.0.1")][..], &[][..]));
    let hint = "this host has the address fd00::7: set `gossip.listen` to `[::]`, or set `advertise`";
    assert_eq!(waiting.address_problem(&environment.addresses).unwrap().hint(), hint);
    assert_eq!(waiting.follow(&moved).unwrap().advertise, Advertise::Host(ip("10.0.0.8")));
}

#[test]
fn invalid_host_name_needs_a_node_name() {
    let environment = Environment { host_name: "my_host".to_owned(), ..environment() };
    let parse = |text: &str| Config::parse([(Path::new("f"), text.as_bytes())], &environment);
    let problems = parse("domain: a\n").unwrap_err();
    let expected = "f:1:1: the host name `my_host` is not a valid node name: '_' is not allowed in a DNS label: use letters, digits and hyphens (set `node`)";
    assert_eq!(problems[0].to_string(), expected);
    assert_eq!(parse("node: a\n").unwrap().node, label("a"));
    assert_eq!(Config::dev(Path::new("/t"), &environment).unwrap().node, label("dev"));
}

#[test]
fn dev_uses_loopback_and_one_folder() {
    let expected = Config {
        advertise: Advertise::Configured(vec![IpAddr::from([127, 0, 0, 1])]),
        data_dir: PathBuf::from("/tmp/x/data"),
        services_dir: PathBuf::from("/tmp/x/services.d"),
        zones_dir: PathBuf::from("/tmp/x/zones"),
        dns: Dns { listen: vec!["127.0.0.1:8600".parse().unwrap()], ..defaults().dns },
        store: Some(Store { voters: vec![label("host-a")], max_octets: 1 << 30, etcd: None }),
        ..defaults()
    };
    assert_eq!(Config::dev(Path::new("/tmp/x"), &environment()).unwrap(), expected);
}
