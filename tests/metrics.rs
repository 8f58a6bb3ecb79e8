//! Metrics of the agent: correct, bounded, documented, and matching the dashboard and the alerts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
};

use hickory_proto::op::ResponseCode;
use regex_lite::Regex;
use serde_json::Value;
use support::{
    agent::Agent,
    http::{self, ask_with},
    process::{self, Finish},
    skip,
    upstream::{Upstream, octets},
    wait,
};

/// Sends a request and returns the status, the head and the body.
fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, String, String) {
    let answer = ask_with(address, "GET", path, headers, "");
    (answer.status, answer.head, answer.body)
}

fn page(agent: &Agent) -> String {
    let (status, _, page) = get(agent.http(), "/metrics", "");
    assert_eq!(status, 200, "{page}");
    page
}

/// Returns the value of one series in the page.
fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map(|value| value.parse().unwrap())
}

/// Waits until a series has this value.
#[track_caller]
fn wait_for(agent: &Agent, series: &str, expected: f64) {
    wait::until_equal(series, &Some(expected), || value(&page(agent), series));
}

/// A family as the text format declares it.
#[derive(Debug, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

/// Parses the families of a page, by name.
fn families(page: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    let label = Regex::new(r#"([a-z_]+)="#).unwrap();
    let mut name = String::new();
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (declared, kind) = declared.split_once(' ').unwrap();
            declared.clone_into(&mut name);
            families.insert(name.clone(), Family { kind: kind.to_owned(), labels: BTreeSet::new() });
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&name), "{line} belongs to {name}");
            let labels = label.captures_iter(line).map(|found| found[1].to_owned()).filter(|label| label != "le");
            families.get_mut(&name).unwrap().labels.extend(labels);
        }
    }
    families
}

/// Starts an agent with samples for every kind of metric, and its upstream.
fn busy() -> (Agent, Upstream) {
    let upstream = Upstream::start(|asked| vec![octets(&asked.address([192, 0, 2, 1], 300))]);
    let config = format!(
        "resolver: {{upstreams: [\"{}\"], allow: [loopback]}}\nchecks: {{allow_exec: true}}\nlog: {{level: info}}\n\
         store: {{voters: [host-a]}}\ndns: {{listen: [127.0.0.1:0], secondary: [{{zone: copied.test, primaries: [\"{}\"]}}], \
         dnssec: [service.local], dnssec_keys_dir: keys, transfer: {{allow: [127.0.0.1], unsigned: [service.local], \
         notify: [\"127.0.0.1:9\"]}}}}\n",
        upstream.address(),
        upstream.address()
    );
    let agent = Agent::start_with(&config, &[], |folder| {
        let services = "services:\n\
                        - {service: web, port: 80, checks: [{exec: [/bin/true], interval: 1s}]}\n\
                        - {service: db, port: 81, checks: [{exec: [/bin/sh, -c, exit 2], interval: 1s}]}\n\
                        - {service: cache, port: 82, enabled: false}\n";
        fs::write(folder.join("services.d/all.yaml"), services).unwrap();
        fs::write(folder.join("services.d/broken.yaml"), "service: [").unwrap();
        let keygen = ["dnssec", "keygen", "service.local", "--dir"];
        assert!(process::muster().args(keygen).arg(folder.join("keys")).finish().status.success());
    });
    wait_for(&agent, "muster_store_has_leader", 1.0);
    for series in [
        "muster_notify_messages_total{zone=\"service.local.\",outcome=\"sent\"}",
        "muster_secondary_refreshes_total{zone=\"copied.test.\",outcome=\"failed\"}",
    ] {
        wait::until(series, || value(&page(&agent), series) > Some(0.0));
    }
    (agent, upstream)
}

#[test]
fn queries_are_counted_by_transport_type_code_and_source() {
    let (agent, _upstream) = busy();
    agent.ask("web.service.local.", 33);
    agent.ask("nothing.service.local.", 1);
    agent.ask("example.org.", 1);
    agent.ask("example.org.", 1);
    agent.ask("localhost.", 28);
    agent.ask_tcp("web.service.local.", 65_280);
    // Not a query: there is no reply.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(&[0xff; 40], agent.address()).unwrap();
    wait_for(&agent, "muster_dns_answers_total{transport=\"udp\",source=\"dropped\"}", 1.0);
    let page = page(&agent);
    let expected = [
        ("muster_dns_queries_total{transport=\"udp\",type=\"SRV\"}", 1.0),
        ("muster_dns_queries_total{transport=\"udp\",type=\"A\"}", 3.0),
        ("muster_dns_queries_total{transport=\"udp\",type=\"AAAA\"}", 1.0),
        ("muster_dns_queries_total{transport=\"tcp\",type=\"other\"}", 1.0),
        ("muster_dns_replies_total{transport=\"udp\",rcode=\"NOERROR\"}", 4.0),
        ("muster_dns_replies_total{transport=\"udp\",rcode=\"NXDOMAIN\"}", 1.0),
        ("muster_dns_replies_total{transport=\"tcp\",rcode=\"NOERROR\"}", 1.0),
        ("muster_dns_answers_total{transport=\"udp\",source=\"zone\"}", 2.0),
        ("muster_dns_answers_total{transport=\"udp\",source=\"upstream\"}", 1.0),
        ("muster_dns_answers_total{transport=\"udp\",source=\"cache\"}", 1.0),
        ("muster_dns_answers_total{transport=\"udp\",source=\"host\"}", 1.0),
        ("muster_dns_answers_total{transport=\"tcp\",source=\"zone\"}", 1.0),
        ("muster_dns_reply_duration_seconds_count{transport=\"udp\"}", 6.0),
        ("muster_dns_reply_duration_seconds_count{transport=\"tcp\"}", 1.0),
        ("muster_dns_cache_entries", 1.0),
    ];
    for (series, count) in expected {
        assert_eq!(value(&page, series), Some(count), "{series} in\n{page}");
    }
}

#[test]
fn truncated_replies_and_upstream_failures_are_counted() {
    let upstream = Upstream::start(|asked| vec![octets(&asked.nothing(ResponseCode::ServFail, 1))]);
    let config = format!("resolver: {{upstreams: [\"{}\"], allow: [loopback]}}\n", upstream.address());
    let agent = Agent::start_with(&config, &[], |folder| {
        let items: String = (0..80).map(|at| format!("- {{service: web, id: w{at}, port: {}}}\n", at + 1)).collect();
        fs::write(folder.join("services.d/web.yaml"), format!("services:\n{items}")).unwrap();
    });
    agent.ask("web.service.local.", 33);
    agent.ask("example.org.", 1);
    let name = upstream.address();
    let page = page(&agent);
    assert_eq!(value(&page, "muster_dns_truncated_total{transport=\"udp\"}"), Some(1.0), "{page}");
    let failed = value(&page, &format!("muster_upstream_failures_total{{upstream=\"{name}\",cause=\"refusal\"}}"));
    assert!(failed >= Some(1.0), "{page}");
    let asked = value(&page, &format!("muster_upstream_questions_total{{upstream=\"{name}\"}}"));
    let took = value(&page, &format!("muster_upstream_reply_duration_seconds_count{{upstream=\"{name}\"}}"));
    assert!(asked >= failed && took >= failed, "{page}");
    assert_eq!(value(&page, "muster_dns_replies_total{transport=\"udp\",rcode=\"SERVFAIL\"}"), Some(1.0), "{page}");
}

#[test]
fn gauges_reflect_catalog_checks_and_files() {
    let (agent, _upstream) = busy();
    wait_for(&agent, "muster_checks{kind=\"exec\",status=\"passing\"}", 1.0);
    wait_for(&agent, "muster_check_turns_total{kind=\"exec\",status=\"passing\"}", 1.0);
    wait_for(&agent, "muster_instances{standing=\"passing\"}", 1.0);
    let shown = page(&agent);
    let expected = [
        ("muster_instances{standing=\"critical\"}", 1.0),
        ("muster_instances{standing=\"disabled\"}", 1.0),
        ("muster_services{state=\"answered\"}", 1.0),
        ("muster_services{state=\"empty\"}", 2.0),
        ("muster_members{reach=\"alive\"}", 1.0),
        ("muster_view_nodes{freshness=\"live\"}", 1.0),
        ("muster_partitioned", 0.0),
        ("muster_gossip_sealed", 0.0),
        ("muster_files_with_problems{folder=\"services\",severity=\"error\"}", 1.0),
        ("muster_reloads_total{folder=\"services\",outcome=\"problems\"}", 1.0),
        ("muster_reloads_total{folder=\"zones\",outcome=\"good\"}", 1.0),
        ("muster_http_requests_in_flight", 1.0),
        ("muster_build_info{version=\"0.1.0\"}", 1.0),
    ];
    for (series, count) in expected {
        assert_eq!(value(&shown, series), Some(count), "{series} in\n{shown}");
    }
    // Earlier connections may take a moment to close.
    wait_for(&agent, "muster_http_connections", 1.0);
    assert!(value(&shown, "process_open_fds") > Some(10.0) && value(&shown, "process_cpu_seconds_total") > Some(0.0));
    fs::remove_file(agent.path("services.d/broken.yaml")).unwrap();
    wait_for(&agent, "muster_files_with_problems{folder=\"services\",severity=\"error\"}", 0.0);
    let version = value(&page(&agent), "muster_catalog_version");
    agent.write_service("one.yaml", "service: one\nport: 1\n");
    wait_for(&agent, "muster_services{state=\"answered\"}", 2.0);
    assert!(value(&page(&agent), "muster_catalog_version") > version);
}

/// Names of clients become no labels: a transfer of an unknown zone is counted without a zone.
#[test]
fn transfers_and_notify_are_counted_by_zone() {
    let (agent, _upstream) = busy();
    let axfr = 252;
    agent.ask_tcp("service.local.", axfr);
    agent.ask_tcp("stranger.test.", axfr);
    agent.ask_tcp("copied.test.", axfr);
    wait_for(&agent, "muster_zone_transfers_total{zone=\"service.local.\",outcome=\"whole\"}", 1.0);
    wait_for(&agent, "muster_zone_transfers_total{zone=\"\",outcome=\"refused\"}", 1.0);
    wait_for(&agent, "muster_zone_transfers_total{zone=\"copied.test.\",outcome=\"refused\"}", 1.0);
    let shown = page(&agent);
    assert!(!shown.contains("stranger"), "{shown}");
    assert_eq!(value(&shown, "muster_zone_updates_total{zone=\"\",outcome=\"refused\"}"), Some(0.0), "{shown}");
    assert!(value(&shown, "muster_served_zone_records{zone=\"service.local.\"}") > Some(1.0), "{shown}");
}

/// The count of a generated zone is that of a copy, and follows its changes.
#[test]
fn generated_zones_have_a_number_of_records() {
    let aliases = "alias_domains: [other.test, {domain: consul, scheme: consul}]\n";
    let agent = Agent::start_with(aliases, &[], |_| ());
    let records = |zone: &str| value(&page(&agent), &format!("muster_served_zone_records{{zone=\"{zone}\"}}")).unwrap();
    let counted = |zone: &str| {
        let shown = get(agent.http(), &format!("/v1/muster/zones/{zone}"), "").2;
        serde_json::from_str::<Value>(&shown).unwrap()["Records"].as_array().unwrap().len() as f64
    };
    for zone in ["service.local.", "other.test.", "consul."] {
        wait::until_equal(zone, &counted(zone), || records(zone));
        assert!(records(zone) >= 2.0, "{zone}: {}", records(zone));
    }
    let before = records("service.local.");
    agent.write_service("web.yaml", "service: web\nport: 80\n");
    wait::until("records of the service", || records("service.local.") > before);
}

#[test]
fn blocking_queries_are_counted_while_they_wait() {
    let (agent, _upstream) = busy();
    let index = get(agent.http(), "/v1/catalog/services", "").1;
    let index = index.lines().find_map(|line| line.strip_prefix("x-consul-index: ")).unwrap().to_owned();
    let path = format!("/v1/catalog/services?index={index}&wait=5m");
    let waiting = http::begin(agent.http(), "GET", &path, "", "");
    wait_for(&agent, "muster_http_waiting", 1.0);
    assert_eq!(value(&page(&agent), "muster_http_requests_in_flight"), Some(2.0));
    drop(waiting);
    wait_for(&agent, "muster_http_waiting", 0.0);
    let answered = "muster_http_requests_total{endpoint=\"/v1/catalog/services\",status=\"2xx\"}";
    assert_eq!(value(&page(&agent), answered), Some(1.0), "an abandoned request is not answered");
}

/// Sends queries, frames and requests that contain a word to all ports.
fn probe_with(agent: &Agent, word: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..500_u16 {
        let label = format!("{word}{number}");
        let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, label.len() as u8];
        packet.extend(label.as_bytes());
        packet.extend([0, (number >> 3) as u8, number as u8, 0, (number % 3) as u8]);
        socket.send_to(&packet, agent.address()).unwrap();
        socket.send_to(&packet, agent.gossip()).unwrap();
    }
    let paths =
        ["/", "/v1/agent/service/", "/v1/health/state/", "/v1/catalog/service/", "/v1/health/node/", "/metrics?"];
    for path in paths {
        for end in ["", "\"}1", "%22%0a"] {
            get(agent.http(), &format!("{path}{word}{end}"), &format!("X-{word}: {word}\r\nAccept: {word}\r\n"));
        }
    }
    // A reply means that the earlier packets were processed.
    agent.ask("web.service.local.", 33);
}

/// Untrusted input adds no series and no label value.
#[test]
fn untrusted_input_adds_no_series() {
    let (agent, _upstream) = busy();
    wait_for(&agent, "muster_checks{kind=\"exec\",status=\"passing\"}", 1.0);
    let series = |page: &str| -> BTreeSet<String> {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    probe_with(&agent, "stranger");
    let before = series(&page(&agent));
    probe_with(&agent, "outlander");
    let page = page(&agent);
    assert_eq!(series(&page), before);
    assert!(!page.contains("stranger") && !page.contains("outlander"), "{page}");
}

/// Parses the rows of docs/metrics.md: name, type, labels.
fn documented() -> BTreeMap<String, Family> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { return None };
        let name = words(name).into_iter().next()?;
        assert!(meaning.len() > 10, "{name} has a description");
        Some((name, Family { kind: kind.to_owned(), labels: words(labels) }))
    };
    text.lines().filter(|line| line.starts_with("| `")).filter_map(row).collect()
}

#[test]
fn documentation_lists_exactly_the_exported_metrics() {
    let (agent, _upstream) = busy();
    agent.ask("example.org.", 1);
    get(agent.http(), "/metrics", "");
    let (shown, documented) = (families(&page(&agent)), documented());
    let names = |families: &BTreeMap<String, Family>| families.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&documented), names(&shown));
    for (name, family) in &shown {
        assert_eq!(&documented[name], family, "{name}");
    }
}

/// Collects every text under a key of that name in a JSON document.
fn texts_of<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(text) if name == key => found.push(text),
                    _ => texts_of(field, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts_of(item, key, found)),
        _ => {}
    }
}

/// Dashboard and alerts use existing series, labels and label values.
#[test]
fn dashboard_and_alerts_use_existing_series() {
    let (agent, _upstream) = busy();
    agent.ask("example.org.", 1);
    get(agent.http(), "/metrics", "");
    let page = page(&agent);
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(packaging.join("grafana/muster.json")).unwrap()).unwrap();
    let rules = fs::read_to_string(packaging.join("prometheus/muster.rules.yaml")).unwrap();
    let mut asked = Vec::new();
    texts_of(&dashboard, "expr", &mut asked);
    assert!(asked.len() >= 20, "{} panels", asked.len());
    let alerts = asked.len();
    asked.extend(rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")));
    assert!(asked.len() >= alerts + 8, "{} alerts", asked.len() - alerts);
    let families = families(&page);
    let metric = Regex::new(r"\b((?:muster|process)_[a-z_]+)\s*(\{[^}]*\})?").unwrap();
    let label = Regex::new(r#"([a-z_]+)\s*(=~?|!~?=?)\s*"([^"]*)""#).unwrap();
    for text in asked {
        for found in metric.captures_iter(text) {
            let name = &found[1];
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let family = families.get(name).or_else(|| families.get(base).filter(|family| family.kind == "histogram"));
            let family = family.unwrap_or_else(|| panic!("no metric {name}, used in {text:?}"));
            for matcher in label.captures_iter(found.get(2).map_or("", |labels| labels.as_str())) {
                // Labels that Prometheus adds to every series.
                if matches!(&matcher[1], "job" | "instance") {
                    continue;
                }
                assert!(family.labels.contains(&matcher[1]), "{name} has no label {}: {text}", &matcher[1]);
                for word in matcher[3].split('|') {
                    let shown = format!("{}=\"{word}\"", &matcher[1]);
                    assert!(word.contains(".*") || page.contains(&shown), "no series has {shown}: {text}");
                }
            }
        }
    }
}

fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let output = process::command("promtool").args(arguments).finish_with(input);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success() && output.stderr.is_empty(), printed)
}

#[test]
fn promtool_accepts_metrics_and_rules() {
    if !skip::tool("promtool_accepts_metrics_and_rules", "promtool", "prometheus") {
        return;
    }
    let (agent, _upstream) = busy();
    agent.ask("example.org.", 1);
    let (valid, printed) = promtool(&["check", "metrics"], &page(&agent));
    assert!(valid, "{printed}");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus/muster.rules.yaml");
    let (valid, printed) = promtool(&["check", "rules", rules.to_str().unwrap()], "");
    assert!(valid, "{printed}");
}

#[test]
fn text_formats_and_consul_json_agree() {
    let (agent, _upstream) = busy();
    agent.ask("web.service.local.", 33);
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3\r\n";
    let (status, head, open) = get(agent.http(), "/metrics", accept);
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE muster_dns_queries counter\n"), "{open}");
    let (_, head, plain) = get(agent.http(), "/v1/agent/metrics?format=prometheus", "");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let series = "muster_dns_queries_total{transport=\"udp\",type=\"SRV\"}";
    assert_eq!((value(&open, series), value(&plain, series)), (Some(1.0), Some(1.0)));
    let (status, _, json) = get(agent.http(), "/v1/agent/metrics", "");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status, 200);
    let stamp = Regex::new(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC$").unwrap();
    assert!(stamp.is_match(json["Timestamp"].as_str().unwrap()), "{json}");
    let find = |kind: &str, name: &str, label: &str, word: &str| {
        let all = json[kind].as_array().unwrap();
        all.iter().find(|one| one["Name"] == name && (label.is_empty() || one["Labels"][label] == word)).cloned()
    };
    let queries = find("Counters", "muster_dns_queries", "type", "SRV").unwrap();
    assert_eq!((&queries["Count"], &queries["Sum"]), (&1.into(), &1.0.into()), "{queries}");
    assert_eq!(find("Gauges", "muster_members", "reach", "alive").unwrap()["Value"], 1.0);
    let took = find("Samples", "muster_dns_reply_duration_seconds", "transport", "udp").unwrap();
    assert!(took["Count"] == 1 && took["Mean"].as_f64() > Some(0.0), "{took}");
    assert_eq!(json["Points"], Value::Array(vec![]));
}

#[test]
fn metrics_require_a_token_and_health_endpoints_do_not() {
    let token = "0123456789abcdef-read";
    let agent = Agent::start_with("http: {listen: [127.0.0.1:0], tokens_dir: tokens}\n", &[], |folder| {
        fs::create_dir(folder.join("tokens")).unwrap();
        let text = format!("tokens:\n- {{name: prometheus, scope: read, token: {token}}}\n");
        fs::write(folder.join("tokens/all.yaml"), text).unwrap();
    });
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let (status, head, text) = get(agent.http(), path, "");
        assert_eq!((status, text.as_str()), (200, body), "{path}");
        assert!(head.contains("content-type: text/plain"), "{head}");
    }
    for path in ["/metrics", "/v1/agent/metrics", "/v1/agent/metrics?format=prometheus"] {
        assert_eq!(get(agent.http(), path, "").0, 403, "{path}");
        assert_eq!(get(agent.http(), path, &format!("Authorization: Bearer {token}\r\n")).0, 200, "{path}");
    }
    let good = get(agent.http(), "/metrics", &format!("X-Consul-Token: {token}\r\n")).2;
    assert_eq!(value(&good, "muster_reloads_total{folder=\"tokens\",outcome=\"good\"}"), Some(1.0), "{good}");
}
