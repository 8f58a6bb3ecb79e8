//! Prometheus and VictoriaMetrics: what is scraped is what muster knows.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use serde_json::{Value, json};

use crate::{
    scene::{DOCUMENT, Scene, listen, report, services},
    support::{backend::Backend, document::block, http::try_ask, machine::Machine, process, run, skip},
};

const A: u16 = 1;
/// A scrape a second, to be done before long.
const OFTEN: &str = "global: {scrape_interval: 1s, scrape_timeout: 1s}\n";
/// A token for the orders of the test; the one for reading is the document's.
const OPERATES: &str = "operates-operates-operates";

/// What the program says of its targets.
fn targets(at: SocketAddr) -> Value {
    let answer = try_ask(at, "GET", "/api/v1/targets", "").filter(|answer| answer.status == 200);
    answer.map_or(Value::Null, |answer| answer.json()["data"].take())
}

/// The targets that are scraped: what a label says, and whether the last scrape went well.
fn scraped(targets: &Value, job: &str, label: &str) -> BTreeMap<String, String> {
    let all = targets["activeTargets"].as_array().cloned().unwrap_or_default();
    let of_job = all.iter().filter(|target| target["labels"]["job"] == job);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_job.map(|target| (text(&target["discoveredLabels"][label]), text(&target["health"]))).collect()
}

/// Those that the rules leave out, with their health in the catalog.
fn left_out(targets: &Value) -> BTreeMap<String, String> {
    let all = targets["droppedTargets"].as_array().cloned().unwrap_or_default();
    let text = |target: &Value, label: &str| target["discoveredLabels"][label].as_str().unwrap_or_default().to_owned();
    all.iter().map(|target| (text(target, "__meta_consul_service_id"), text(target, "__meta_consul_health"))).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Flips, registrations, deregistrations and drains change the targets; labels are as Prometheus names them.
#[test]
fn consul_sd_of_victoria_metrics_follows() {
    if !skip::tool("consul_sd_of_victoria_metrics_follows", "victoria-metrics", "victoria-metrics") {
        return;
    }
    let of_rack = "tags: [metrics, v1], meta: {rack: r1},";
    let config = "http: {listen: [127.0.0.1:0], tokens_dir: tokens.d}\n";
    let shown = block(DOCUMENT, "prometheus consul");
    let token = shown.split("token: ").nth(1).unwrap().split_whitespace().next().unwrap();
    let tokens = format!(
        "tokens:\n- {{name: prometheus, scope: read, token: {token}}}\n- {{name: root, scope: operate, token: {OPERATES}}}\n"
    );
    let scene = Scene::start_with(&[("a", of_rack), ("b", of_rack), ("untagged", "")], config, |folder| {
        fs::create_dir(folder.join("tokens.d")).unwrap();
        fs::write(folder.join("tokens.d/all.yaml"), tokens).unwrap();
    });
    let order = |path: &str, body: &str| scene.order(&format!("{path}?token={OPERATES}"), body);
    let api = listen();
    let path = scene.write("scrape.yaml", &[OFTEN, &scene.configuration("prometheus consul", api)].concat());
    let mut command = process::command("victoria-metrics");
    command.arg(format!("-httpListenAddr={api}")).arg("-retentionPeriod=1").arg("-memory.allowedBytes=64MB");
    command.arg(format!("-storageDataPath={}", scene.folder.path().join("data").display()));
    command.arg("-promscrape.consulSDCheckInterval=1s").arg(format!("-promscrape.config={}", path.display()));
    let mut program = scene.program(command);
    let mut shows = |what: &str, due: &[(&str, &str)]| {
        program.wait_for(what, &map(due), || scraped(&targets(api), "services", "__meta_consul_service_id"));
    };
    shows("at first", &[("a", "up"), ("b", "up")]);

    let all = targets(api);
    let target = all["activeTargets"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["discoveredLabels"]["__meta_consul_service_id"] == "a");
    let (labels, address) = (&target.unwrap()["discoveredLabels"], scene.backends[0].1.address());
    for (label, due) in [
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
        assert_eq!(labels[label], due, "{label} of {labels}");
    }
    assert_eq!(target.unwrap()["labels"]["rack"], "r1");

    let other = Backend::start(&["c"]).remove(0);
    let (ip, port) = (other.address().ip(), other.address().port());
    let body = json!({"Name": "c", "Address": ip, "Port": port, "Tags": ["metrics"]});
    order("agent/service/register", &body.to_string());
    shows("one is registered", &[("a", "up"), ("b", "up"), ("c", "up")]);
    order("agent/check/fail/service:a", "");
    order("muster/drain/b", "");
    shows("one is ill, one drained", &[("c", "up")]);
    assert_eq!(left_out(&targets(api)), map(&[("a", "critical"), ("b", "maintenance")]));
    order("agent/check/pass/service:a", "");
    order("muster/resume/b", "");
    order("agent/service/deregister/c", "");
    shows("two are back, one is gone", &[("a", "up"), ("b", "up")]);
}

/// On a host that asks muster, since Prometheus asks the servers of resolv.conf.
#[test]
fn dns_sd_of_prometheus_follows() {
    let test = "dns_sd_of_prometheus_follows";
    if !skip::machines(test) || !skip::tool(test, "prometheus", "prometheus") {
        return;
    }
    let machine = Machine::new("nameserver 127.0.0.1\n", "files dns");
    let world = machine.start_world();
    let backends = machine.namespace.enter(|| Backend::start(&["a", "b"]));
    let agent = machine.start_agent("127.0.0.1:53", &world, &services(&[("a", ""), ("b", "")], &backends));
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
    for (what, ill) in [("at first", None), ("one is ill", Some(0)), ("it is well again", None)] {
        let there: Vec<usize> = (0..2).filter(|at| Some(*at) != ill).collect();
        for (at, name) in ["a", "b"].iter().enumerate() {
            machine.namespace.enter(|| report(&agent, name, Some(at) != ill));
        }
        let addresses: Vec<String> = there.iter().map(|at| format!("A {}", backends[*at].address().ip())).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        machine.namespace.enter(|| agent.wait_for_answers("web.service.local.", A, &addresses));
        let by_name = there.iter().map(|at| format!("{}.web.service.local:{port}", ["a", "b"][*at]));
        let by_address = there.iter().map(|at| backends[*at].address().to_string());
        let up = |target: String| (target, "up".to_owned());
        let due: (BTreeMap<_, _>, BTreeMap<_, _>) = (by_name.map(up).collect(), by_address.map(up).collect());
        prometheus.wait_for(what, &due, || {
            let targets = machine.namespace.enter(|| targets(api));
            (scraped(&targets, "web", "__address__"), scraped(&targets, "web-by-address", "__address__"))
        });
    }
}
