//! DNS-SD, SVCB and HTTPS of services in a running agent: files and registrations, `dig`, `explain`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use serde_json::json;
use support::{
    agent::Agent,
    http::{get, put},
    process, skip,
};

const PTR: u16 = 12;
const HTTPS: u16 = 65;

const FILE: &str = "services:
- {service: web, id: Web One, port: 8443, alpn: [h2, http/1.1], tags: [v2], meta: {path: /}}
- {service: dns, id: dns-1, protocol: udp, ports: {dns: {port: 853, alpn: doq}}}
";

fn agent() -> Agent {
    let agent = Agent::start_with("", &[], |folder| std::fs::write(folder.join("services.d/all.yaml"), FILE).unwrap());
    let service = json!({"Name": "app", "ID": "app-1", "Port": 443, "Meta": {"muster-alpn": "h3, h2"}});
    put(&agent, "agent/service/register", &service);
    agent.wait_for_answers("_app._tcp.service.local", PTR, &["PTR app-1-host-a._app._tcp.service.local."]);
    agent
}

#[test]
fn dig_browses_services() {
    const TEST: &str = "dig_browses_services";
    if !skip::tool(TEST, "dig", "bind9-dnsutils") {
        return;
    }
    let agent = agent();
    let port = agent.address().port().to_string();
    let dig = |question: &[&str]| {
        let output =
            process::command("dig").args(["@127.0.0.1", "-p", &port, "+short"]).args(question).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" | ")
    };
    let web = "Web\\032One._web._tcp.service.local.";
    let cases: &[(&[&str], &str)] = &[
        (&["PTR", "b._dns-sd._udp.service.local"], "service.local."),
        (
            &["PTR", "_services._dns-sd._udp.service.local"],
            "_app._tcp.service.local. | _dns._udp.service.local. | _web._tcp.service.local.",
        ),
        (&["PTR", "_web._tcp.service.local"], web),
        (&["PTR", "_v2._sub._web._tcp.service.local"], web),
        (&["SRV", web], "1 10 8443 web-one-xcbef36-host-a.web.service.local."),
        (&["TXT", web], "\"path=/\""),
        (&["TXT", "dns-1._dns._udp.service.local"], "\"\""),
        (&["PTR", "_dns._udp.dns.service.local"], "dns-1._dns._udp.dns.service.local."),
    ];
    for (question, expected) in cases {
        assert_eq!(dig(question), *expected, "{question:?}");
    }
    // Older versions of dig show the parameters in hexadecimal.
    let target = "web-one-xcbef36-host-a.web.service.local.";
    let shown = dig(&["TYPE65", "web.service.local"]);
    assert!(shown.contains(target) || shown.starts_with("\\#"), "{shown}");
}

#[test]
fn https_records_are_of_ports_with_alpn_ids() {
    let agent = agent();
    let target = "web-one-xcbef36-host-a.web.service.local.";
    let shown = agent.answers("web.service.local", HTTPS);
    assert_eq!(shown, [format!("HTTPS 2 {target} alpn=h2,http/1.1, port=8443 ipv4hint=10.0.0.7,")]);
    let shown = agent.answers("app-1-host-a.app.service.local", HTTPS);
    assert_eq!(shown, ["HTTPS 2 . alpn=h3,h2, port=443 ipv4hint=10.0.0.7,"]);
    assert!(agent.answers("dns.service.local", HTTPS).is_empty());
    let shown = agent.answers("_dns.dns.service.local", 64);
    assert_eq!(shown, ["SVCB 2 dns-1.dns.service.local. alpn=doq, port=853 ipv4hint=10.0.0.7,"]);
}

#[test]
fn explain_describes_names_of_dns_sd() {
    let agent = agent();
    let cases = [
        ("_web._tcp.service.local", "protocol", "service", json!(["SRV", "PTR"])),
        ("_v2._sub._web._tcp.service.local", "tag", "service", json!(["PTR"])),
        ("app-1-host-a._app._tcp.service.local", "dns-sd", "instance", json!(["TXT", "SRV"])),
        ("_services._dns-sd._udp.service.local", "dns-sd", "browse", json!(["PTR"])),
        ("lb._dns-sd._udp.service.local", "dns-sd", "browse", json!(["PTR"])),
        ("_dns.dns.service.local", "svcb", "service", json!(["SVCB"])),
        ("web.service.local", "service", "service", json!(["A", "SRV", "HTTPS"])),
    ];
    for (name, source, kind, records) in cases {
        let explained = get(&agent, &format!("muster/explain/{name}")).json();
        let mut expected = records.as_array().unwrap().clone();
        let mut shown = explained["Records"].as_array().unwrap().clone();
        expected.sort_by_key(ToString::to_string);
        shown.sort_by_key(ToString::to_string);
        assert_eq!((&explained["Source"], &explained["Kind"]), (&json!(source), &json!(kind)), "{name}: {explained}");
        assert_eq!(shown, expected, "{name}");
    }
    let explained = get(&agent, "muster/explain/dns.service.local").json();
    assert_eq!(explained["Instances"][0]["Alpn"], json!({"dns": ["doq"]}));
}
