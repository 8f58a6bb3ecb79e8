//! Service files: definitions of valid files, and every problem of invalid files with its position and hint.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{net::IpAddr, path::Path, time::Duration};

use muster::{
    diagnostic::Diagnostic,
    files::service_file::{Defaults, MAX_FILE, ServiceFile, parse},
    model::{
        alpn::PortAlpn,
        flap_damping::Damping,
        health::Status,
        nearest::Nearest,
        service::{
            AliasTarget, Check, Definition, Endpoint, HttpProbe, Instance, InstanceKey, Pace, Probe, ProbeTls, Protocol,
        },
        tagged_addresses::TaggedAddress,
    },
};
use support::label;

const ADDRESS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7))];

fn read(bytes: &[u8]) -> Result<ServiceFile, Vec<Diagnostic>> {
    parse(Path::new("f"), bytes, &Defaults { node: &label("host-a"), addresses: &ADDRESS, allow_exec: true })
}

fn definitions(text: &str) -> Vec<Definition> {
    let file = read(text.as_bytes()).unwrap_or_else(|problems| panic!("{text}\n{}", shown(&problems)));
    file.entries.iter().map(|entry| (*entry.definition).clone()).collect()
}

/// The problems, one per line, without the file name.
fn shown(problems: &[Diagnostic]) -> String {
    let lines: Vec<String> = problems.iter().map(|p| p.to_string().split_off("f:".len())).collect();
    lines.join("\n")
}

/// The problems of an invalid file.
fn problems(text: &str) -> String {
    match read(text.as_bytes()) {
        Ok(file) => panic!("{text}\nhas no errors; warnings: {}", shown(&file.warnings)),
        Err(problems) => shown(&problems),
    }
}

fn check(probe: Probe) -> Check {
    let second = Duration::from_secs(1);
    Check { interval: 10 * second, timeout: 2 * second, rise: 1, fall: 2, ..Check::new(probe) }
}

fn endpoint(host: &str, port: u16) -> Endpoint {
    Endpoint { host: host.to_owned(), port }
}

#[test]
fn file_with_all_keys_is_read() {
    let text = r#"
service: Web
id: web-1
address: [10.0.0.8, "2001:db8::1"]
tagged_addresses: {wan: "198.51.100.8:443", wan_ipv6: "[2001:db8::2]:80", lb: lb_1.example}
port: 8080
ports: {http: 8080, metrics: {port: 9100, alpn: h2}}
alpn: [h3, http/1.1]
protocol: udp
tags: [v2, eu, 1.10]
meta: {version: 1.10, shard: 007, canary: true, note: ""}
priority: 2
weight: 20
ttl: 1m
nearest: zone
min_healthy: 50%
enabled: false
checks:
  - http: https://127.0.0.1:8080/healthz
    method: post
    headers: {Host: example.org, X-Probe: 1}
    body: "ping"
    expect_status: [200, 204]
    warn_status: 429
    follow_redirects: true
    tls_skip_verify: true
    tls_server_name: web.example
    interval: 500ms
    timeout: 250ms
    rise: 3
    fall: 4
    warn_after: 2
    output_max: 80
    initial: passing
  - tcp: "[::1]:8080"
  - udp: 127.0.0.1:514
  - grpc: localhost:9090/my.Service
  - grpc: 127.0.0.1:9090
  - {grpc: 127.0.0.1:9091, tls: true, tls_server_name: grpc.example}
  - h2ping: 127.0.0.1:9092
  - {h2ping: 127.0.0.1:9093, tls: false}
  - exec: [/usr/lib/nagios/plugins/check_x, -w, 5, ""]
  - systemd: nginx
  - systemd: var-lib.mount
  - alias: db
  - alias: {id: db/1}
  - ttl: 90s
damping: {half_life: 2m, falls: 5}
slow_start: 30s
"#;
    let http = HttpProbe {
        url: "https://127.0.0.1:8080/healthz".parse().unwrap(),
        method: "POST".to_owned(),
        headers: vec![("Host".to_owned(), "example.org".to_owned()), ("X-Probe".to_owned(), "1".to_owned())],
        body: Some("ping".to_owned()),
        expect_status: vec![200, 204],
        warn_status: vec![429],
        follow_redirects: true,
        tls: ProbeTls { skip_verify: true, server_name: Some("web.example".to_owned()) },
    };
    let named = ProbeTls { server_name: Some("grpc.example".to_owned()), ..ProbeTls::default() };
    let argv = ["/usr/lib/nagios/plugins/check_x", "-w", "5", ""].map(str::to_owned).to_vec();
    let expected = Definition {
        instance: Instance {
            external: None,
            tag_override: false,
            key: InstanceKey { service: label("web").into(), id: label("web-1") },
            addresses: vec!["10.0.0.8".parse().unwrap(), "2001:db8::1".parse().unwrap()].into(),
            port: Some(8080),
            ports: vec![(label("http"), 8080), (label("metrics"), 9100)].into(),
            alpn: vec![
                PortAlpn { port: None, ids: "h3,http/1.1".parse().unwrap() },
                PortAlpn { port: Some(label("metrics")), ids: "h2".parse().unwrap() },
            ]
            .into(),
            protocol: Protocol::Udp,
            tags: ["v2", "eu", "1.10"].map(str::to_owned).to_vec().into(),
            meta: [("version", "1.10"), ("shard", "007"), ("canary", "true"), ("note", "")].into(),
            priority: 2,
            weight: 20,
            ttl: Some(60),
            nearest: Some(Nearest::Zone),
            min_healthy: "50%".parse().ok(),
            registered_as: None,
            service_case: Some("Web".into()),
            tagged: [
                ("lan_ipv4", "10.0.0.8", 8080),
                ("lan_ipv6", "2001:db8::1", 8080),
                ("lb", "lb_1.example", 8080),
                ("wan", "198.51.100.8", 443),
                ("wan_ipv4", "10.0.0.8", 8080),
                ("wan_ipv6", "2001:db8::2", 80),
            ]
            .map(|(tag, address, port)| (tag.into(), TaggedAddress { address: address.into(), port }))
            .into_iter()
            .collect(),
            host: None,
        }
        .into(),
        enabled: false,
        checks: vec![
            Check {
                probe: Probe::Http(http),
                interval: Duration::from_millis(500),
                timeout: Duration::from_millis(250),
                rise: 3,
                fall: 4,
                warn_after: 2,
                initial: Status::Passing,
                output_max: Some(80),
                ..Check::new(Probe::Ttl { ttl: Duration::ZERO })
            },
            check(Probe::Tcp(endpoint("::1", 8080))),
            check(Probe::Udp(endpoint("127.0.0.1", 514))),
            check(Probe::Grpc { endpoint: endpoint("localhost", 9090), service: "my.Service".to_owned(), tls: None }),
            check(Probe::Grpc { endpoint: endpoint("127.0.0.1", 9090), service: String::new(), tls: None }),
            check(Probe::Grpc { endpoint: endpoint("127.0.0.1", 9091), service: String::new(), tls: Some(named) }),
            check(Probe::H2Ping { endpoint: endpoint("127.0.0.1", 9092), tls: Some(ProbeTls::default()) }),
            check(Probe::H2Ping { endpoint: endpoint("127.0.0.1", 9093), tls: None }),
            check(Probe::Exec { argv }),
            check(Probe::Systemd { unit: "nginx.service".to_owned() }),
            check(Probe::Systemd { unit: "var-lib.mount".to_owned() }),
            check(Probe::Alias(AliasTarget::Service(label("db").into()))),
            check(Probe::Alias(AliasTarget::Registered("db/1".into()))),
            check(Probe::Ttl { ttl: Duration::from_secs(90) }),
        ],
        pace: Pace {
            damping: Some(Damping { half_life: Duration::from_secs(120), hold_at: 5, release_below: 10 }),
            slow_start: Duration::from_secs(30),
        },
    };
    assert_eq!(definitions(text), [expected]);
}

#[test]
fn minimal_file_has_defaults() {
    let expected = Definition {
        instance: Instance::new(
            InstanceKey { service: label("web").into(), id: label("web-host-a") },
            ADDRESS.to_vec(),
        )
        .into(),
        enabled: true,
        checks: Vec::new(),
        pace: Pace::default(),
    };
    for text in
        ["service: web\n", "services: [{service: web}]", "service: web\nport:\nchecks: null\nmeta: ~\ntags: []\n"]
    {
        assert_eq!(definitions(text), std::slice::from_ref(&expected), "{text:?}");
    }
}

#[test]
fn equivalent_files_have_equal_definitions() {
    let expected = definitions("service: web\nport: 80\ntags: [a]\n---\n".trim_end_matches("---\n"));
    let cases = [
        "service: web\r\nport: 80\r\ntags: [a]\r\n",
        "\u{feff}service: web\nport: 80\ntags: [a]\n",
        "---\n# comment\nservice: web\nport: 80\ntags: a\n...\n",
        "{\"service\": \"web\", \"port\": 80, \"tags\": [\"a\"]}",
        "services:\n  - service: web\n    ports: {}\n    port: 0x50\n    tags: [a]\n",
        "services:\n- &w {service: web, port: 80, tags: [a]}\n",
        "services:\n- {service: web, port: 80, <<: {port: 81, tags: [a]}}\n",
    ];
    for text in cases {
        assert_eq!(definitions(text), expected, "{text:?}");
    }
}

/// An editor may have truncated the file before writing it. Only an empty list defines no services.
#[test]
fn file_without_content_is_refused_with_a_warning() {
    let cases = [
        ("", "1:1: warning: the file is empty"),
        ("\n \n", "1:1: warning: the file is empty"),
        ("\u{feff}", "1:1: warning: the file is empty"),
        ("# nothing\n", "1:1: warning: the file has no content"),
        ("---\n", "1:1: warning: the file has no content"),
        ("null", "1:1: warning: the file has no content"),
        ("~\n", "1:1: warning: the file has no content"),
        ("services:\n", "1:1: warning: `services` has no content"),
        ("services: ~\n", "1:1: warning: `services` has no content"),
    ];
    for (text, expected) in cases {
        let hint = " (to withdraw its services, delete the file or write `services: []`)";
        assert_eq!(problems(text), format!("{expected}{hint}"), "{text:?}");
    }
    let file = read(b"services: []\n").unwrap();
    assert!(file.entries.is_empty());
    assert_eq!(shown(&file.warnings), "1:11: warning: the list of services is empty (the file defines no service)");
}

/// The core schema of YAML 1.2.2, §10.3.2. Hints must fit the written form of the scalar.
#[test]
fn scalars_follow_yaml_1_2_and_hints_fit_the_written_form() {
    const TEXT: &str = "expected a port from 1 to 65535, found";
    let ports = [
        ("8080", Ok(8080)),
        ("08080", Ok(8080)),
        ("0008080", Ok(8080)),
        ("+8080", Ok(8080)),
        ("+08080", Ok(8080)),
        ("0x50", Ok(80)),
        ("0o120", Ok(80)),
        ("0120", Ok(120)),
        ("00", Err("the number `00`")),
        ("-080", Err("the number `-080`")),
        ("0099999999999999999999", Err("the number `0099999999999999999999`")),
        ("8080.0", Err("the number `8080.0`")),
        ("08080.0", Err("the number `08080.0`")),
        ("1e3", Err("the number `1e3`")),
        ("8_080", Err("`8_080` (that is text: write `8080`)")),
        ("80,81", Err("`80,81`")),
        ("1:30", Err("`1:30`")),
        ("2024-01-01", Err("`2024-01-01`")),
        ("yes", Err("`yes`")),
        ("\"8080\"", Err("`8080` (that is text: write it without quotes)")),
        ("'8080'", Err("`8080` (that is text: write it without quotes)")),
        ("'08080'", Err("`08080` (that is text: write `8080`)")),
        ("' 8080'", Err("` 8080` (that is text: write `8080`)")),
        ("'0x50'", Err("`0x50`")),
        ("'99999'", Err("`99999`")),
        ("|-\n  8080", Err("`8080` (that is text: write `8080`)")),
        (">\n  8080", Err("`8080\\n` (that is text: write `8080`)")),
    ];
    for (written, expected) in ports {
        let text = format!("service: web\nport: {written}\n");
        match expected {
            Ok(port) => assert_eq!(definitions(&text)[0].instance.port, Some(port), "{written}"),
            Err(found) => {
                let place = if written.contains('\n') { "3:3" } else { "2:7" };
                assert_eq!(problems(&text), format!("{place}: {TEXT} {found}"), "{written}");
            }
        }
    }
    // No value means the default; text is read as written, including zeros.
    assert_eq!(definitions("service: web\nport: ~\n")[0].instance.port, None);
    let meta = &definitions("service: web\nmeta: {a: 08080, b: 1.10, c: yes, d: '08'}\ntags: [007]\n")[0].instance;
    assert_eq!(meta.meta.iter().map(|(_, value)| value).collect::<Vec<_>>(), ["08080", "1.10", "yes", "08"]);
    assert_eq!(*meta.tags, ["007"]);

    let booleans = [
        ("True", "Ok"),
        ("tRUE", "`tRUE` (that is text: write `true`)"),
        ("'true'", "`true` (that is text: write it without quotes)"),
        ("'TRUE'", "`TRUE` (that is text: write `true`)"),
        ("|-\n  true", "`true` (that is text: write `true`)"),
        ("yes", "`yes` (in YAML 1.2 that is text: write `true`)"),
        ("'off'", "`off` (in YAML 1.2 that is text: write `false`)"),
        ("0", "the number `0`"),
        ("00", "the number `00`"),
    ];
    let durations = [
        ("010s", "Ok"),
        ("10", "the number `10` (did you mean `10s`?)"),
        ("'10'", "`10` (did you mean `10s`?)"),
        ("010", "the number `010` (did you mean `10s`?)"),
        ("10S", "`10S` (did you mean `10s`?)"),
        ("10 ms", "`10 ms` (did you mean `10ms`?)"),
        ("1m30s", "`1m30s` (a duration is a whole number and one unit: ms, s, m or h)"),
        ("1:30", "`1:30` (a duration is a whole number and one unit: ms, s, m or h)"),
        ("1.5", "the number `1.5` (a duration is a whole number and one unit: ms, s, m or h)"),
        ("-5", "the number `-5` (a duration is a whole number and one unit: ms, s, m or h)"),
        ("s", "`s` (a duration is a whole number and one unit: ms, s, m or h)"),
    ];
    for (key, place, what, cases) in
        [("enabled", "2:10", "true or false", &booleans[..]), ("ttl", "2:6", "a duration such as `5s`", &durations[..])]
    {
        for (written, found) in cases {
            let text = format!("service: web\n{key}: {written}\n");
            match *found {
                "Ok" => assert_eq!(definitions(&text).len(), 1, "{text}"),
                found if written.contains('\n') => assert!(problems(&text).ends_with(found), "{text}"),
                found => assert_eq!(problems(&text), format!("{place}: expected {what}, found {found}"), "{text}"),
            }
        }
    }
}

#[test]
fn first_named_port_is_the_default_port() {
    let cases = [
        ("port: 80", Some(80)),
        ("ports: {z: 1, a: 2}", Some(1)),
        ("port: 80\nports: {z: 1}", Some(80)),
        ("ports: {}", None),
    ];
    for (text, port) in cases {
        assert_eq!(definitions(&format!("service: web\n{text}\n"))[0].instance.port, port, "{text}");
    }
}

#[test]
fn default_timeout_is_2_s_but_at_most_the_interval() {
    let cases = [("", 2000), ("interval: 1s, ", 1000), ("interval: 1m, ", 2000), ("timeout: 5s, ", 5000)];
    for (keys, millis) in cases {
        let text = format!("service: web\nchecks: {{{keys}tcp: 127.0.0.1:80}}\n");
        assert_eq!(definitions(&text)[0].checks[0].timeout, Duration::from_millis(millis), "{text}");
    }
}

#[test]
fn definitions_have_their_position() {
    let file = read(b"services:\n  - id: a\n    service: web\n\n  - {service: db}\n").unwrap();
    let places: Vec<_> = file.entries.iter().map(|entry| (entry.line, entry.column)).collect();
    assert_eq!(places, [(3, 5), (5, 6)]);
}

#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let text = "\
service: NAME
port: \"8080\"
address: 10.0.0.300
enabled: yes
prot: tcp
checks:
  - http: 127.0.0.1:8080/healthz
    intervall: 10
    timeout: 20s
  - {}
port: 80
";
    let expected = "\
1:10: `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…` cannot be a service's name: a name has at most 255 octets, this one has 256
2:7: expected a port from 1 to 65535, found `8080` (that is text: write it without quotes)
3:10: expected an IP address, found `10.0.0.300`
4:10: expected true or false, found `yes` (in YAML 1.2 that is text: write `true`)
5:1: unknown key `prot` (did you mean `port`?)
7:11: expected a URL such as `http://127.0.0.1:8080/healthz`, found `127.0.0.1:8080/healthz` (did you mean `http://127.0.0.1:8080/healthz`?)
8:5: unknown key `intervall` (did you mean `interval`?)
9:14: the timeout is longer than the interval (a probe must end before the next one starts)
10:5: the check has no probe (add one of http, tcp, udp, grpc, h2ping, exec, systemd, alias, ttl)
11:1: duplicate key `port` (the first one is in line 2)";
    assert_eq!(problems(&text.replace("NAME", &"a".repeat(256))), expected);
}

/// Each text follows `service: web`, so it begins in line 2.
#[test]
fn invalid_keys_are_refused() {
    let long_id = format!("id: {}", "a".repeat(256));
    let tag = format!("tags: [{}]", "a".repeat(256));
    let meta = format!("meta: {{k: {}}}", "a".repeat(254));
    let port_name = format!("ports: {{{}: 1}}", "a".repeat(63));
    let addresses = format!("address: [{}]", (1..=17).map(|n| format!("10.0.0.{n}")).collect::<Vec<_>>().join(", "));
    let tagged: Vec<String> = (0..15).map(|at| format!("t{at}: 192.0.2.7")).collect();
    let tagged = format!("tagged_addresses: {{{}}}", tagged.join(", "));
    let cases = [
        (
            "foo: 1",
            "2:1: unknown key `foo` (the keys of a service are service, id, address, tagged_addresses, port, ports, alpn, protocol, tags, meta, priority, weight, ttl, nearest, min_healthy, enabled, checks, damping, slow_start)",
        ),
        ("adress: 10.0.0.7", "2:1: unknown key `adress` (did you mean `address`?)"),
        ("Tags: [a]", "2:1: unknown key `Tags` (did you mean `tags`?)"),
        (&long_id, "2:5: an id has 1 to 255 octets and no control characters, this one has 256"),
        ("id: \"\"", "2:5: expected an instance's id, found an empty text"),
        ("id: [a]", "2:5: expected an instance's id, found a list"),
        ("port: http", "2:7: expected a port from 1 to 65535, found `http`"),
        ("port: 0", "2:7: expected a port from 1 to 65535, found the number `0`"),
        ("port: 65536", "2:7: expected a port from 1 to 65535, found the number `65536`"),
        ("port: 8080.0", "2:7: expected a port from 1 to 65535, found the number `8080.0`"),
        ("port: -1", "2:7: expected a port from 1 to 65535, found the number `-1`"),
        ("port: 99999999999999999999", "2:7: expected a port from 1 to 65535, found the number `99999999999999999999`"),
        ("port: [80]", "2:7: expected a port from 1 to 65535, found a list"),
        ("port: {http: 80}", "2:7: expected a port from 1 to 65535, found a table"),
        ("port: true", "2:7: expected a port from 1 to 65535, found `true`"),
        ("ports: 80", "2:8: expected a table such as `{http: 8080}`, found a number"),
        ("alpn: [h2]", "2:7: `alpn` is of the port, and the service has none (add `port`)"),
        (
            "port: 80\nalpn: [h2, h2]",
            "3:7: duplicate ALPN id `h2` (the ids of TLS's protocol negotiation, as in `alpn: [h2, http/1.1]`)",
        ),
        ("ports: {http: {alpn: h2}}", "2:15: `port` is missing (as in `port: 8443`)"),
        ("ports: {http: }", "2:9: expected a port from 1 to 65535, found nothing"),
        (
            "ports: {my_port: 80}",
            "2:9: `my_port` cannot be a port's name: '_' is not allowed in a DNS label: use letters, digits and hyphens (did you mean `my-port`?)",
        ),
        ("ports: {http: 80, HTTP: 81}", "2:19: duplicate port name `http` (port names are case-insensitive)"),
        (&port_name, "2:9: a port's name has at most 62 octets: `_` goes before it"),
        ("protocol: TCP", "2:11: expected `tcp` or `udp`, found `TCP` (did you mean `tcp`?)"),
        ("protocol: sctp", "2:11: expected `tcp` or `udp`, found `sctp`"),
        (
            "address: [10.0.0.7, web-1.example]",
            "2:21: expected an IP address, found `web-1.example` (a host name is the only address of an instance)",
        ),
        ("address: 10.0.0.7:80", "2:10: expected an IP address, found `10.0.0.7:80` (did you mean `10.0.0.7`?)"),
        ("address: 0.0.0.0", "2:10: expected the IP address of a host, found `0.0.0.0`"),
        ("address: 224.0.0.1", "2:10: expected the IP address of a host, found `224.0.0.1`"),
        (
            "address: ::ffff:10.0.0.7",
            "2:10: expected an IP address, found `::ffff:10.0.0.7` (did you mean `10.0.0.7`?)",
        ),
        (
            "address: []",
            "2:10: expected at least one IP address, found a list (omit the key to use the node's addresses)",
        ),
        (&addresses, "2:10: at most 16 addresses are allowed, found 17"),
        (
            "tagged_addresses: 192.0.2.7",
            "2:19: expected a table such as `{wan: 198.51.100.7}`, found a text of 9 characters",
        ),
        (
            "tagged_addresses: {wan: 192.0.2.300, lan: {address: 192.0.2.7}, lb: 'a:0', x: }",
            "2:25: expected an address such as `198.51.100.7` or `198.51.100.7:8080`, found `192.0.2.300`\n\
             2:43: expected an address such as `198.51.100.7` or `198.51.100.7:8080`, found a table\n\
             2:69: expected an address such as `198.51.100.7` or `198.51.100.7:8080`, found `a:0`\n\
             2:76: expected an address such as `198.51.100.7` or `198.51.100.7:8080`, found nothing",
        ),
        (
            "tagged_addresses: {'': 192.0.2.7}",
            "2:20: a tag of an address has 1 to 255 octets and no control characters",
        ),
        (&tagged, "2:19: at most 16 tagged addresses with those of `address` are allowed, found 17"),
        ("tags: {a: b}", "2:7: expected a tag, found a table"),
        ("tags: [[a]]", "2:8: expected a tag, found a list"),
        ("tags: [a, ]", ""),
        ("tags: [~]", "2:8: expected a tag, found nothing (an empty text is written \"\")"),
        ("tags: [\"a\\nb\"]", "2:8: expected a tag without control characters, found '\\n'"),
        (&tag, "2:8: a tag has at most 255 octets, this one has 256"),
        ("meta: [a]", "2:7: expected a table such as `{version: \"2.3.1\"}`, found a list"),
        ("meta: {a=b: c}", "2:8: `a=b` cannot be a key of `meta` (keys are printable ASCII without `=`)"),
        ("meta: {é: c}", "2:8: `é` cannot be a key of `meta` (keys are printable ASCII without `=`)"),
        ("meta: {a: [b]}", "2:11: expected a text, found a list"),
        ("meta: {a: }", "2:8: expected a text, found nothing (an empty text is written \"\")"),
        (&meta, "2:11: `key=value` has at most 255 octets, this one has 256 (a TXT record has no more room)"),
        ("priority: -1", "2:11: expected a priority from 0 to 65535, found the number `-1`"),
        ("weight: 70000", "2:9: expected a weight from 0 to 65535, found the number `70000`"),
        ("weight: 0.5", "2:9: expected a weight from 0 to 65535, found the number `0.5`"),
        ("damping: yes", "2:10: expected `damping`, such as `{half_life: 1m, falls: 3}`, found a text of 3 characters"),
        ("damping: {falls: 1}", "2:18: expected a number of falls from 2 to 100, found the number `1`"),
        ("damping: {half_life: 1ms}", "2:22: expected a duration from 1s to 24h, found `1ms`"),
        (
            "damping: {half: 1s}",
            "2:11: unknown key `half` (the keys of `damping`, such as `{half_life: 1m, falls: 3}` are half_life, falls)",
        ),
        ("slow_start: 25h", "2:13: expected a duration from 1s to 24h, found `25h`"),
        ("nearest: region", "2:10: expected `none`, `zone` or `datacenter`, found `region`"),
        ("nearest: zones", "2:10: expected `none`, `zone` or `datacenter`, found `zones` (did you mean `zone`?)"),
        ("min_healthy: 0", "2:14: expected a number from 1 to 10000 or a share from 1% to 100%, found the number `0`"),
        ("min_healthy: 101%", "2:14: expected a number from 1 to 10000 or a share from 1% to 100%, found `101%`"),
        (
            "min_healthy: 0.5",
            "2:14: expected a number from 1 to 10000 or a share from 1% to 100%, found the number `0.5` (write a share as a whole percentage, such as `50%`)",
        ),
        (
            "min_healthy: \"2\"",
            "2:14: expected a number from 1 to 10000 or a share from 1% to 100%, found `2` (that is text: write it without quotes)",
        ),
        ("min_healthy: [1]", "2:14: expected a number from 1 to 10000 or a share from 1% to 100%, found a list"),
        ("ttl: 5", "2:6: expected a duration such as `5s`, found the number `5` (did you mean `5s`?)"),
        ("ttl: 500ms", "2:6: expected whole seconds, found `500ms` (DNS TTLs are whole seconds)"),
        ("ttl: 2147483648s", "2:6: expected a duration from 0s to 2147483647s, found `2147483648s`"),
        (
            "ttl: 99999999999999999999s",
            "2:6: expected a duration from 0s to 2147483647s, found `99999999999999999999s`",
        ),
        (
            "ttl: 1.5s",
            "2:6: expected a duration such as `5s`, found `1.5s` (a duration is a whole number and one unit: ms, s, m or h)",
        ),
        ("ttl: 5 s", "2:6: expected a duration such as `5s`, found `5 s` (did you mean `5s`?)"),
        (
            "ttl: 1d",
            "2:6: expected a duration such as `5s`, found `1d` (a duration is a whole number and one unit: ms, s, m or h)",
        ),
        (
            "ttl: [5s]",
            "2:6: expected a duration such as `5s`, found a list (a duration is a whole number and one unit: ms, s, m or h)",
        ),
        (
            "ttl: -5s",
            "2:6: expected a duration such as `5s`, found `-5s` (a duration is a whole number and one unit: ms, s, m or h)",
        ),
        ("enabled: \"true\"", "2:10: expected true or false, found `true` (that is text: write it without quotes)"),
        ("enabled: off", "2:10: expected true or false, found `off` (in YAML 1.2 that is text: write `false`)"),
        ("enabled: 1", "2:10: expected true or false, found the number `1`"),
        ("services: []", "1:1: unknown key `service` (did you mean `services`?)"),
    ];
    for (text, expected) in cases {
        let text = format!("service: web\n{text}\n");
        if expected.is_empty() {
            definitions(&text);
        } else {
            assert_eq!(problems(&text), expected, "{text}");
        }
    }
}

#[test]
fn invalid_files_are_refused() {
    let long = format!("service: {}", "a".repeat(256));
    let cases = [
        ("port: 80", "1:1: `service` is missing (as in `service: web`)"),
        ("service:\nport: 80", "1:1: `service` is missing (as in `service: web`)"),
        (
            &long,
            "1:10: `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…` cannot be a service's name: a name has at most 255 octets, this one has 256",
        ),
        ("- service: web", "1:1: expected a service, found a list (put a list of services under the key `services`)"),
        (
            "web",
            "1:1: expected a service, found a text of 3 characters (a service file has keys such as `service: web`)",
        ),
        ("port: 80\nbogus: secret\nbogus: secret", "1:1: `service` is missing (as in `service: web`)"),
        (
            "servce: web",
            "1:1: `service` is missing (as in `service: web`)\n1:1: unknown key `servce` (did you mean `service`?)",
        ),
        (
            "services: {web: {port: 80}}",
            "1:11: expected a list of services, found a table (write each service as a list item that begins with `- service: NAME`)",
        ),
        (
            "services:\n  - web\n  - port: 80\n  -\n",
            "2:5: expected a service, found a text of 3 characters\n3:5: `service` is missing (as in `service: web`)\n4:4: expected a service, found nothing",
        ),
        (
            "services:\n  - service: web\n  - service: db\n  - service: WEB\n    port: 80\n",
            "4:5: duplicate instance `web/web-host-a`; the first one is in line 2 (give each instance its own `id`)",
        ),
        ("services:\n  - service: web\n    id: a\n  - service: db\n    id: a\n", ""),
        ("service: {{ name }}", "1:11: a key must be text (a value that begins with `[`, `{` or `*` has to be quoted)"),
    ];
    for (text, expected) in cases {
        if expected.is_empty() {
            assert_eq!(definitions(text).len(), 2, "{text}");
        } else {
            assert_eq!(problems(text), expected, "{text}");
        }
    }
}

/// Each text is the only check of a service, in line 2 from column 9.
#[test]
fn invalid_checks_are_refused() {
    let cases = [
        ("tcp", "2:9: expected a check, found a text of 3 characters"),
        (
            "[{tcp: 8080}]",
            "2:16: expected `host:port`, such as `127.0.0.1:8080` or `[::1]:8080`, found the number `8080` (did you mean `127.0.0.1:8080`?)",
        ),
        (
            "{tcp: 127.0.0.1}",
            "2:15: expected `host:port`, such as `127.0.0.1:8080` or `[::1]:8080`, found `127.0.0.1` (the port is missing)",
        ),
        (
            "{tcp: \"127.0.0.1:0\"}",
            "2:15: expected `host:port`, such as `127.0.0.1:8080` or `[::1]:8080`, found `127.0.0.1:0`",
        ),
        (
            "{tcp: \"10.0.0.300:80\"}",
            "2:15: expected `host:port`, such as `127.0.0.1:8080` or `[::1]:8080`, found `10.0.0.300:80`",
        ),
        (
            "{tcp: \"::1:80\"}",
            "2:15: expected `host:port`, such as `127.0.0.1:8080` or `[::1]:8080`, found `::1:80` (the port is missing)",
        ),
        ("{tcp: a b:80}", "2:15: expected `host:port`, such as `127.0.0.1:8080` or `[::1]:8080`, found `a b:80`"),
        ("{htpp: \"http://a/\"}", "2:10: unknown key `htpp` (did you mean `http`?)"),
        (
            "{interval: 5s}",
            "2:9: the check has no probe (add one of http, tcp, udp, grpc, h2ping, exec, systemd, alias, ttl)",
        ),
        (
            "{http: \"http://a/\", tcp: \"a:1\"}",
            "2:29: a check has one probe, and this check already has `http` (make it a separate check)",
        ),
        ("{tcp: \"a:1\", method: GET}", "2:22: `method` is only valid in `http` checks"),
        (
            "{http: }",
            "2:10: expected a URL such as `http://127.0.0.1:8080/healthz`, found nothing (an empty text is written \"\")",
        ),
        ("{http: \"ftp://a/\"}", "2:16: expected a URL such as `http://127.0.0.1:8080/healthz`, found `ftp://a/`"),
        ("{http: \"http://\"}", "2:16: expected a URL such as `http://127.0.0.1:8080/healthz`, found `http://`"),
        (
            "{http: \"http://a:0/\"}",
            "2:16: expected a URL such as `http://127.0.0.1:8080/healthz`, found `http://a:0/`",
        ),
        (
            "{http: \"http//me:secret@a/\"}",
            "2:16: expected a URL such as `http://127.0.0.1:8080/healthz`, found a text of 18 characters",
        ),
        (
            "{http: \"a/?token=secret\"}",
            "2:16: expected a URL such as `http://127.0.0.1:8080/healthz`, found a text of 15 characters",
        ),
        ("{http: \"http://a/\", method: \"GET /\"}", "2:37: expected an HTTP method such as `GET`, found `GET /`"),
        ("{http: \"http://a/\", expect_status: 2xx}", "2:44: expected an HTTP status from 200 to 599, found `2xx`"),
        (
            "{http: \"http://a/\", expect_status: [200, 99]}",
            "2:50: expected an HTTP status from 200 to 599, found the number `99`",
        ),
        ("{http: \"http://a/\", headers: [a]}", "2:38: expected a table such as `{Host: example.org}`, found a list"),
        ("{http: \"http://a/\", headers: {\"a b\": c}}", "2:39: `a b` is not a valid header name"),
        (
            "{http: \"http://a/\", headers: {a: \"b\\r\\nc\"}}",
            "2:42: expected a header's value of printable ASCII, found a text of 4 characters",
        ),
        (
            "{grpc: \"http://a:1/b\"}",
            "2:16: expected `host:port` or `host:port/SERVICE`, found `http://a:1/b` (did you mean `a:1/b`?)",
        ),
        ("{grpc: a}", "2:16: expected `host:port` or `host:port/SERVICE`, found `a`"),
        (
            "{exec: /bin/x -a}",
            "2:16: expected a list of a program and its arguments, found a text of 9 characters (no shell is involved: did you mean `[/bin/x, …]`?)",
        ),
        ("{exec: []}", "2:16: expected a list of a program and its arguments, found an empty list"),
        (
            "{exec: [x]}",
            "2:17: expected the absolute path of a program, found `x` (PATH is not searched: write `/usr/bin/…`)",
        ),
        ("{exec: [/x, [a]]}", "2:21: expected a text, found a list"),
        ("{exec: [/x, \"a\\0\"]}", "2:21: an argument cannot contain a NUL octet"),
        ("{systemd: \"a b\"}", "2:19: expected a systemd unit such as `nginx.service`, found `a b`"),
        ("{systemd: [a]}", "2:19: expected a systemd unit such as `nginx.service`, found a list"),
        ("{alias: web}", "2:17: the service is an alias of itself (name another service, or `{id: ID}`)"),
        ("{alias: {}}", "2:17: `id` is missing (as in `alias: {id: db-1}`)"),
        ("{alias: {id: \"\"}}", "2:22: expected an instance's id, found an empty text"),
        ("{alias: {name: db, id: db-1}}", "2:18: unknown key `name` (the keys of an alias are id)"),
        ("{alias: \"\"}", "2:17: expected a service's name, found an empty text"),
        (
            "{ttl: 30s, interval: 5s, fall: 2}",
            "2:20: a ttl check is not probed, so it has no `interval`\n2:34: a ttl check is not probed, so it has no `fall`",
        ),
        (
            "{tcp: \"a:1\", interval: 10}",
            "2:32: expected a duration such as `5s`, found the number `10` (did you mean `10s`?)",
        ),
        ("{tcp: \"a:1\", interval: 50ms}", "2:32: expected a duration from 100ms to 24h, found `50ms`"),
        ("{tcp: \"a:1\", interval: 25h}", "2:32: expected a duration from 100ms to 24h, found `25h`"),
        ("{tcp: \"a:1\", timeout: 0s}", "2:31: expected a duration from 1ms to 24h, found `0s`"),
        (
            "{tcp: \"a:1\", interval: 1s, timeout: 2s}",
            "2:45: the timeout is longer than the interval (a probe must end before the next one starts)",
        ),
        ("{tcp: \"a:1\", rise: 0}", "2:28: expected a number of passes from 1 to 1000, found the number `0`"),
        ("{tcp: \"a:1\", fall: 1001}", "2:28: expected a number of failures from 1 to 1000, found the number `1001`"),
        (
            "{tcp: \"a:1\", fall: 2, warn_after: 3}",
            "2:43: `warn_after` is 3, and the check is critical after 2 failures (`fall`) (set it below `fall`)",
        ),
        ("{tcp: \"a:1\", tls: true}", "2:22: `tls` is only valid in `grpc`, `h2ping` checks"),
        (
            "{tcp: \"a:1\", tls_server_name: a}",
            "2:22: `tls_server_name` is only valid in `http`, `grpc`, `h2ping` checks",
        ),
        ("{grpc: \"a:1\", tls_skip_verify: true}", "2:40: `tls_skip_verify` without TLS (set `tls: true`)"),
        (
            "{grpc: \"a:1\", tls: true, tls_server_name: a b}",
            "2:51: expected the server's name in its certificate, found `a b`",
        ),
        ("{udp: a}", "2:15: expected `host:port`, such as `127.0.0.1:8080` or `[::1]:8080`, found `a`"),
        (
            "{tcp: \"a:1\", output_max: 0}",
            "2:34: expected a number of octets from 1 to 4294967295, found the number `0`",
        ),
        ("{tcp: \"a:1\", initial: pass}", "2:31: expected `passing`, `warning` or `critical`, found `pass`"),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(&format!("service: web\nchecks: {text}\n")), expected, "{text}");
    }
    let many = format!("service: web\nchecks: [{}]\n", "{alias: a}, ".repeat(33));
    assert_eq!(problems(&many), "2:9: at most 32 checks are allowed, found 33");
}

/// Each part is within its bounds, but the instance is too large to gossip.
#[test]
fn instance_must_fit_in_gossip() {
    let tags = |count| (0..count).map(|n| format!("{n:0>250}")).collect::<Vec<_>>().join(", ");
    let meta = |count| (0..count).map(|n| format!("k{n:0>3}: {}", "x".repeat(240))).collect::<Vec<_>>().join(", ");
    let file = |rest: &str| format!("service: web\nport: 80\n{rest}\n");
    let cases = [
        (
            file(&format!("tags: [{}]", tags(33))),
            "3:1: an instance has at most 8192 octets in gossip, this one has 8389 \
             (shorten `tags` (8250 octets) or `meta` (0 octets))",
        ),
        (
            file(&format!("tags: [{}]\nmeta: {{{}}}", tags(12), meta(24))),
            "4:1: an instance has at most 8192 octets in gossip, this one has 9085 \
             (shorten `tags` (3000 octets) or `meta` (5856 octets))",
        ),
        // Escapes of control characters are longer in JSON than in the file.
        (
            file(&format!(
                "meta: {{{}}}",
                (0..8).map(|n| format!("k{n}: \"{}\"", "\\x01".repeat(250))).collect::<Vec<_>>().join(", ")
            )),
            "3:1: an instance has at most 8192 octets in gossip, this one has 12104 \
             (shorten `tags` (0 octets) or `meta` (2016 octets))",
        ),
    ];
    for (text, expected) in cases {
        let errors: Vec<_> = read(text.as_bytes()).unwrap_err().into_iter().filter(Diagnostic::is_error).collect();
        assert_eq!(shown(&errors), expected);
    }
    assert_eq!(definitions(&file(&format!("tags: [{}]", tags(31)))).len(), 1);
}

#[test]
fn exec_checks_need_permission_of_the_node() {
    let node = label("host-a");
    let defaults = Defaults { node: &node, addresses: &ADDRESS, allow_exec: false };
    let problems = parse(Path::new("f"), b"service: web\nchecks: {exec: [/bin/true]}\n", &defaults).unwrap_err();
    let expected =
        "2:10: this node does not allow `exec` checks (set `checks: {allow_exec: true}` in the node's configuration)";
    assert_eq!(shown(&problems), expected);
}

#[test]
fn file_with_warnings_is_used() {
    let long = format!("service: {}\nid: a\n", "a".repeat(63));
    let cases = [
        (
            "service: web\nid: v2\ntags: [V2]\n",
            "3:8: warning: the tag `V2` is not reachable by name: it equals the instance's id (choose another `id`)",
        ),
        (
            "service: web\ntags: [tcp]\n",
            "2:8: warning: `_SERVICE._tcp` selects the protocol, not the tag `tcp` (choose another tag; `protocol` sets the transport)",
        ),
        (
            "service: web\ntags: [v1.2]\n",
            "2:7: warning: DNS has no name for the tag `v1.2`: '.' is not a letter, digit, hyphen or underscore (such a tag is in the HTTP API only)",
        ),
        (
            "service: web\ntags: [_b, v1.2]\n",
            "2:7: warning: DNS has no name for the tag `_b` and 1 other: names that begin with `_` are those of RFC 2782 (such a tag is in the HTTP API only)",
        ),
        (
            "service: web\ntags: [Udp]\n",
            "2:8: warning: `_SERVICE._Udp` selects the protocol, not the tag `Udp`, except in an alias domain with `scheme: consul` (choose another tag; `protocol` sets the transport)",
        ),
        (
            "service: web\nmeta: {muster-nearest: zone, muster-min-healthy: bogus}\n",
            "2:8: warning: `muster-nearest` has no effect in a service file (set `nearest` of the service; only the HTTP API reads `muster-nearest`)\n\
             2:30: warning: `muster-min-healthy` has no effect in a service file (set `min_healthy` of the service; only the HTTP API reads `muster-min-healthy`)",
        ),
        (
            "service: web\nmeta: {muster-alpn: h2}\n",
            "2:8: warning: `muster-alpn` has no effect in a service file (set `alpn` of the service; only the HTTP API reads `muster-alpn`)",
        ),
        ("service: web\ntags: [a, b, a]\n", "2:14: warning: duplicate tag `a` (remove one of them)"),
        (
            "service: web\naddress: [10.0.0.1, 10.0.0.1]\n",
            "2:21: warning: duplicate address `10.0.0.1` (remove one of them)",
        ),
        ("service: web\nchecks: [{alias: a}, {alias: a}]\n", "2:22: warning: duplicate check (remove one of them)"),
        (&long, "1:10: warning: a service name of 63 octets has no `_SERVICE._tcp` form (shorten it by one octet)"),
    ];
    for (text, expected) in cases {
        let file = read(text.as_bytes()).unwrap();
        assert_eq!((file.entries.len(), shown(&file.warnings).as_str()), (1, expected), "{text}");
        let instance = &file.entries[0].definition.instance;
        assert!(instance.addresses.len() == 1 && instance.tags.len() < 3, "duplicates are dropped");
    }
    let both = read(b"service: web\ntags: [tcp]\nport: x\n").unwrap_err();
    assert_eq!(both.iter().filter(|problem| problem.is_error()).count(), 1);
    assert_eq!(both.len(), 2);
}

#[test]
fn invalid_yaml_is_one_problem() {
    let large = vec![b'#'; MAX_FILE + 1];
    let utf16: Vec<u8> = "service: web".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let bomb: String =
        (1..20).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","))).collect();
    let bomb = format!("a0: &a0 [x]\n{bomb}");
    let cases: &[(&[u8], &str)] = &[
        (&large, "1:1: the file is larger than 1024 KiB (split it into several files)"),
        (&utf16, "1:1: the file is UTF-16 (save it as UTF-8)"),
        (
            b"\x7fELF\x02\x01\x01\0\0",
            "1:1: the character U+007F is not text (is this a YAML file? If it is, save it as UTF-8)",
        ),
        (b"service: web\nid: \xe9\n", "2:5: this is not UTF-8 text (is this a YAML file? If it is, save it as UTF-8)"),
        (
            bomb.as_bytes(),
            "7:10: the file has more than 250000 values, including those repeated by aliases (split it into several files)",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(shown(&read(bytes).unwrap_err()), *expected);
    }
}

#[test]
fn at_most_a_thousand_problems_are_listed() {
    let text: String = (0..5000).map(|n| format!("key-{n}: x\n")).collect();
    let problems = read(format!("service: web\n{text}").as_bytes()).unwrap_err();
    assert_eq!(problems.len(), 1001);
    assert_eq!(problems[1000].message, "and 4000 more problems");
}

/// No content makes the parser panic. The same function is a target of `cargo fuzz`.
#[test]
fn mutated_files_do_not_panic() {
    let seeds = [
        "service: web\nid: a\naddress: [10.0.0.7, ::1]\nports: {http: 80}\nmeta: {version: 1.10}\nttl: 5s\n\
         checks:\n  - http: http://127.0.0.1:8080/healthz\n    interval: 10s\n    expect_status: 200\n  - exec: [/x, 5]\n",
        "services:\n  - &w\n    service: web\n    tags: [a, 'b', \"c\\n\"]\n  - <<: *w\n    id: \"two\"\n    checks: {tcp: a:1}\n",
        "service: web\r\nmeta:\r\n  note: |\r\n    several\r\n    lines\r\nchecks:\r\n- grpc: '[::1]:1/x'\r\n- alias: db\r\n",
    ];
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..6000 {
        let mut bytes = seeds[round % seeds.len()].as_bytes().to_vec();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes.insert(at, random.choice(*b"[]{}:,-?&*!|>'\"%@`#~ \n\t\r\\0").unwrap_or(0)),
                2 => drop(bytes.remove(at)),
                _ => {
                    let end = (at + random.usize(..20)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = random.usize(..=bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        let _ = read(&bytes);
    }
}
