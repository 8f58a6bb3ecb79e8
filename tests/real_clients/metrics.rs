//! Prometheus and VictoriaMetrics: scrape targets follow the catalog.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use serde_json::{Value, json};

use crate::{
    scene::{DOCUMENT, Scene, listen, report, services},
    support::{backend::Backend, document::block, http::try_ask, machine::Machine, process, run, skip},
};

const A: u16 = 1;
/// Scrape interval of one second, to shorten the test.
const OFTEN: &str = "global: {scrape_interval: 1s, scrape_timeout: 1s}\n";
/// Token for the writes of the test; the token for reading is in the document.
const OPERATE_TOKEN: &str = "operates-operates-operates";

/// Returns the program's targets; null if it does not respond yet.
fn targets(at: SocketAddr) -> Value {
    let answer = try_ask(at, "GET", "/api/v1/targets", "").filter(|answer| answer.status == 200);
    answer.map_or(Value::Null, |answer| answer.json()["data"].take())
}

/// Returns the scraped targets of a job: the value of a label, and the result of the last scrape.
fn scraped(targets: &Value, job: &str, label: &str) -> BTreeMap<String, String> {
    let all = targets["activeTargets"].as_array().cloned().unwrap_or_default();
    let of_job = all.iter().filter(|target| target["labels"]["job"] == job);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_job.map(|target| (text(&target["discoveredLabels"][label]), text(&target["health"]))).collect()
}

/// Returns the targets that relabelling drops, with their health in the catalog.
fn dropped(targets: &Value) -> BTreeMap<String, String> {
    let all = targets["droppedTargets"].as_array().cloned().unwrap_or_default();
    let text = |target: &Value, label: &str| target["discoveredLabels"][label].as_str().unwrap_or_default().to_owned();
    all.iter().map(|target| (text(target, "__meta_consul_service_id"), text(target, "__meta_consul_health"))).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Health changes, registrations, deregistrations and drains change the targets. The labels are those of Prometheus.
#[test]
fn victoria_metrics_consul_sd_follows_the_catalog() {
    if !skip::tool("victoria_metrics_consul_sd_follows_the_catalog", "victoria-metrics", "victoria-metrics") {
        return;
    }
    let of_rack = "tags: [metrics, v1], meta: {rack: r1},";
    let config = "http: {listen: [127.0.0.1:0], tokens_dir: tokens.d}\n";
    let shown = block(DOCUMENT, "prometheus consul");
    let token = shown.split("token: ").nth(1).unwrap().split_whitespace().next().unwrap();
    let tokens = format!(
        "tokens:\n- {{name: prometheus, scope: read, token: {token}}}\n- {{name: root, scope: operate, token: {OPERATE_TOKEN}}}\n"
    );
    let scene = Scene::start_with(&[("a", of_rack), ("b", of_rack), ("untagged", "")], config, |folder| {
        fs::create_dir(folder.join("tokens.d")).unwrap();
        fs::write(folder.join("tokens.d/all.yaml"), tokens).unwrap();
    });
    let write = |path: &str, body: &str| scene.put(&format!("{path}?token={OPERATE_TOKEN}"), body);
    let api = listen();
    let path = scene.write("scrape.yaml", &[OFTEN, &scene.configuration("prometheus consul", api)].concat());
    let mut command = process::command("victoria-metrics");
    command.arg(format!("-httpListenAddr={api}")).arg("-retentionPeriod=1").arg("-memory.allowedBytes=64MB");
    command.arg(format!("-storageDataPath={}", scene.folder.path().join("data").display()));
    command.arg("-promscrape.consulSDCheckInterval=1s").arg(format!("-promscrape.config={}", path.display()));
    let mut program = scene.program(command);
    let mut shows = |what: &str, expected: &[(&str, &str)]| {
        program.wait_for(what, &map(expected), || scraped(&targets(api), "services", "__meta_consul_service_id"));
    };
    shows("at first", &[("a", "up"), ("b", "up")]);

    let all = targets(api);
    let target = all["activeTargets"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["discoveredLabels"]["__meta_consul_service_id"] == "a");
    let (labels, address) = (&target.unwrap()["discoveredLabels"], scene.backends[0].1.address());
    for (label, expected) in [
        ("__address__", address.to_string().as_str()),
        ("__meta_consul_address", "10.0.0.7"),
        ("__meta_consul_dc", "dc1"),
        ("__meta_consul_health", "passing"),
        ("__meta_consul_node", "host-a"),
        ("__meta_consul_service", "web"),
        ("__meta_consul_service_address", &address.ip().to_string()),
        ("__meta_consul_service_metadata_rack", "r1"),
        ("__meta_consul_service_port", &address.port().to_string()),
        ("__meta_consul_tagged_address_lan", "10.0.0.7"),
        ("__meta_consul_tags", ",metrics,v1,"),
    ] {
        assert_eq!(labels[label], expected, "{label} of {labels}");
    }
    assert_eq!(target.unwrap()["labels"]["rack"], "r1");

    let other = Backend::start(&["c"]).remove(0);
    let (ip, port) = (other.address().ip(), other.address().port());
    let body = json!({"Name": "c", "Address": ip, "Port": port, "Tags": ["metrics"]});
    write("agent/service/register", &body.to_string());
    shows("c is registered", &[("a", "up"), ("b", "up"), ("c", "up")]);
    write("agent/check/fail/service:a", "");
    write("muster/drain/b", "");
    shows("a is critical, b is drained", &[("c", "up")]);
    assert_eq!(dropped(&targets(api)), map(&[("a", "critical"), ("b", "maintenance")]));
    write("agent/check/pass/service:a", "");
    write("muster/resume/b", "");
    write("agent/service/deregister/c", "");
    shows("a and b are back, c is deregistered", &[("a", "up"), ("b", "up")]);
}

/// Runs on a simulated host whose resolv.conf names muster, since Prometheus queries the servers of resolv.conf.
#[test]
fn prometheus_dns_sd_follows_health() {
    let test = "prometheus_dns_sd_follows_health";
    if !skip::machines(test) || !skip::tool(test, "prometheus", "prometheus") {
        return;
    }
    let machine = Machine::new("nameserver 127.0.0.1\n", "files dns");
    let upstream = machine.start_upstream();
    let backends = machine.namespace.enter(|| Backend::start(&["a", "b"]));
    let agent = machine.start_agent("127.0.0.1:53", &upstream, &services(&[("a", ""), ("b", "")], &backends));
    let port = backends[0].address().port();
    let shown = block(DOCUMENT, "prometheus dns").replace("9000", &port.to_string());
    let folder = run::temp_dir();
    let path = folder.path().join("prometheus.yaml");
    fs::write(&path, [OFTEN, &shown.replace("refresh_interval: 5s", "refresh_interval: 1s")].concat()).unwrap();
    let api = SocketAddr::from(([127, 0, 0, 1], 9090));
    let arguments = [
        format!("--config.file={}", path.display()),
        format!("--storage.tsdb.path={}", folder.path().join("data").display()),
        format!("--web.listen-address={api}"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut prometheus = machine.start("prometheus", &arguments, folder.path());
    for (what, failed) in [("at first", None), ("a is critical", Some(0)), ("a is passing again", None)] {
        let passing: Vec<usize> = (0..2).filter(|at| Some(*at) != failed).collect();
        for (at, name) in ["a", "b"].iter().enumerate() {
            machine.namespace.enter(|| report(&agent, name, Some(at) != failed));
        }
        let addresses: Vec<String> = passing.iter().map(|at| format!("A {}", backends[*at].address().ip())).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        machine.namespace.enter(|| agent.wait_for_answers("web.service.local.", A, &addresses));
        let by_name = passing.iter().map(|at| format!("{}.web.service.local:{port}", ["a", "b"][*at]));
        let by_address = passing.iter().map(|at| backends[*at].address().to_string());
        let up = |target: String| (target, "up".to_owned());
        let expected: (BTreeMap<_, _>, BTreeMap<_, _>) = (by_name.map(up).collect(), by_address.map(up).collect());
        prometheus.wait_for(what, &expected, || {
            let targets = machine.namespace.enter(|| targets(api));
            (scraped(&targets, "web", "__address__"), scraped(&targets, "web-by-address", "__address__"))
        });
    }
}
