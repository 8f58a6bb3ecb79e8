//! Requests of each program, in the program's order, and its use of the responses. Comments name files of the program's
//! source.

use std::{collections::BTreeMap, thread};

use serde_json::{Value, json};

use crate::{
    go::{AgentService, CatalogNode, CatalogService, HealthCheck, Node, ServiceEntry, aggregated, get, get_plain, put},
    support::{agent::Agent, http::ask, wait::until},
};

/// Wait of a blocking query, in Go's notation.
const WAIT: &str = "wait=120000ms&stale=";

/// Returns the response to a blocking query during which `change` happens.
fn when_changed<T: serde::de::DeserializeOwned + Send>(agent: &Agent, path: &str, change: impl FnOnce()) -> T {
    let mark = if path.contains('?') { '&' } else { '?' };
    let (_, seen): (Value, u64) = get(agent, path);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| get::<T>(agent, &format!("{path}{mark}index={seen}&{WAIT}")));
        change();
        let (answer, index) = waiting.join().unwrap();
        assert!(index > seen, "{path}: {index} after {seen}");
        answer
    })
}

fn register(agent: &Agent, id: &str, tags: &[&str]) {
    let check = json!({"TTL": "1h", "Status": "passing"});
    let body = json!({
        "ID": id, "Name": "web", "Tags": tags, "Port": 8080, "Address": format!("10.1.0.{}", id.len()),
        "Meta": {"rack": "r1"}, "Check": check,
    });
    put(agent, "agent/service/register", &body.to_string());
}

/// `discovery/consul/consul.go`: `getDatacenter`, `watchServices`, `watch`.
#[test]
fn prometheus() {
    let agent = Agent::start();
    // Every value of `self` must be an object: Go decodes it as a map of maps.
    let own: BTreeMap<String, BTreeMap<String, Value>> = get_plain(&agent, "agent/self");
    assert_eq!(own["Config"]["Datacenter"], "dc1");

    let tags = "catalog/services?stale=&wait=120000ms";
    let services: BTreeMap<String, Vec<String>> =
        when_changed(&agent, tags, || register(&agent, "a", &["metrics", "v1"]));
    assert_eq!(services, BTreeMap::from([("web".into(), vec!["metrics".into(), "v1".into()])]));

    // `ServiceMultipleTags` of `api/health.go` repeats the tag.
    let path = "health/service/web?stale=&tag=metrics&tag=v1&wait=120000ms";
    let (entries, _): (Vec<ServiceEntry>, u64) = get(&agent, path);
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    // The resulting labels: `__meta_consul_node`, `_address`, `_tagged_address_lan`, …
    assert_eq!((entry.node.node.as_str(), entry.node.address.as_str()), ("host-a", "10.0.0.7"));
    assert_eq!(entry.node.datacenter, "dc1");
    assert_eq!(entry.node.tagged_addresses["lan"], "10.0.0.7");
    assert!(entry.node.meta.is_empty());
    assert_eq!(
        (entry.service.id.as_str(), entry.service.address.as_str(), entry.service.port),
        ("a", "10.1.0.1", 8080)
    );
    assert_eq!((entry.service.tags.join(","), &*entry.service.meta["rack"]), ("metrics,v1".to_owned(), "r1"));
    assert_eq!(aggregated(&entry.checks), "passing");

    for (change, health) in [
        ("agent/check/warn/service:a", "warning"),
        ("agent/check/fail/service:a", "critical"),
        ("agent/service/maintenance/a?enable=true", "maintenance"),
        ("agent/service/maintenance/a?enable=false", "critical"),
        ("muster/drain/a", "maintenance"),
    ] {
        let entries: Vec<ServiceEntry> = when_changed(&agent, path, || put(&agent, change, ""));
        assert_eq!(aggregated(&entries[0].checks), health, "{change}");
    }
}

/// `pkg/provider/consulcatalog/consul_catalog.go`: `getConsulServicesData`, `fetchService`, `watchServices`.
#[test]
fn traefik() {
    let agent = Agent::start();
    let rule = "traefik.http.routers.web.rule=Host(`web.example`) && PathPrefix(`/a`)";
    register(&agent, "a", &["traefik.enable=true", rule]);
    register(&agent, "bb", &["traefik.enable=true", rule]);
    register(&agent, "ccc", &[]);
    let (services, _): (BTreeMap<String, Vec<String>>, u64) = get(&agent, "catalog/services?stale=");
    assert!(services["web"].contains(&rule.to_owned()), "{services:?}");

    let path = "health/service/web?tag=traefik.enable%3Dtrue";
    let statuses = |entries: &[ServiceEntry]| -> BTreeMap<String, &'static str> {
        let of = |entry: &ServiceEntry| {
            // Keyed by both ids, which must be unique together.
            assert!(!entry.node.id.is_empty());
            (entry.node.id.clone() + &entry.service.id, aggregated(&entry.checks))
        };
        entries.iter().map(of).collect()
    };
    let (entries, _): (Vec<ServiceEntry>, u64) = get(&agent, path);
    assert_eq!(statuses(&entries).into_values().collect::<Vec<_>>(), ["passing", "passing"]);

    // The watch of checks, `watch/funcs.go`, requests all checks.
    let checks: Vec<HealthCheck> =
        when_changed(&agent, "health/state/any", || put(&agent, "agent/check/fail/service:bb", ""));
    assert!(checks.iter().any(|check| check.service_id == "bb" && check.status == "critical"));
    let (entries, _): (Vec<ServiceEntry>, u64) = get(&agent, path);
    assert_eq!(statuses(&entries).into_values().collect::<Vec<_>>(), ["passing", "critical"]);
}

/// `client/fingerprint/consul.go` of Nomad: attributes of the agent. Jobs with services require version 1.8.
#[test]
fn nomad() {
    let agent = Agent::start_with("http: {listen: [127.0.0.1:0], consul_version: 1.20.0}\n", &[], |_| {});
    let own: BTreeMap<String, BTreeMap<String, Value>> = get_plain(&agent, "agent/self");
    let text = |part: &str, key: &str| own[part][key].as_str().unwrap().to_owned();
    assert_eq!(text("Config", "Version"), "1.20.0");
    assert_eq!((text("Config", "Revision"), text("Config", "NodeName")), (String::new(), "host-a".to_owned()));
    assert_eq!((text("Config", "Datacenter"), &own["Config"]["Server"]), ("dc1".to_owned(), &Value::Bool(false)));
    assert_eq!(own["DebugConfig"]["ConnectEnabled"], Value::Bool(false));
    for (key, expected) in [("GRPCPort", -1.0), ("GRPCTLSPort", -1.0), ("DNSPort", f64::from(agent.address().port()))] {
        assert_eq!(own["DebugConfig"][key].as_f64(), Some(expected), "{key}");
    }
    let address = own["DebugConfig"]["DNSAddrs"][0].as_str().unwrap().to_owned();
    assert_eq!(address, format!("udp://{}", agent.address()));
    assert!(own["Member"]["Tags"].get("segment").is_none());
}

/// `registry/consul/passing.go`: the instances to which Fabio sends requests if `registry.consul.checksRequired` is
/// `one`, its default.
fn fabio_passing(checks: &[HealthCheck]) -> Vec<String> {
    let is_own = |check: &HealthCheck| {
        !check.service_id.is_empty()
            && !["serfHealth", "_node_maintenance"].contains(&&*check.check_id)
            && !check.check_id.starts_with("_service_maintenance:")
    };
    let is_out = |one: &HealthCheck| {
        checks.iter().filter(|check| check.node == one.node).any(|check| {
            check.check_id == "_node_maintenance"
                || (check.check_id == "serfHealth" && check.status == "critical")
                || (check.check_id == format!("_service_maintenance:{}", one.service_id) && check.status == "critical")
        })
    };
    let mut passing: Vec<String> = checks
        .iter()
        .filter(|check| is_own(check) && check.status == "passing" && !is_out(check))
        .map(|check| format!("{} {}.{}", check.service_name, check.node, check.service_id))
        .collect();
    passing.sort();
    passing.dedup();
    passing
}

/// `registry/consul/service.go`, `routecmd.go`, `register.go`, `kv.go`.
#[test]
fn fabio() {
    let agent = Agent::start();
    let route = "urlprefix-web.example/ proto=http";
    register(&agent, "a", &[route]);
    register(&agent, "bb", &[route]);
    // Fabio's own registration, and its heartbeat by `UpdateTTL` of `api/agent.go`.
    let body = json!({
        "ID": "fabio-host-a-9998", "Name": "fabio", "Tags": null, "Port": 9998, "Address": "10.0.0.7",
        "EnableTagOverride": false, "Meta": null, "Weights": null, "Check": null, "Proxy": null, "Connect": null,
        "Checks": [
            {"CheckID": "fabio-host-a-9998-ttl", "TTL": "15s", "DeregisterCriticalServiceAfter": "1m0s"},
            {"HTTP": "http://127.0.0.1:1/health", "Interval": "1s", "Timeout": "3s"},
        ],
    });
    put(&agent, "agent/service/register", &body.to_string());
    let beat = json!({"Status": "passing", "Output": ""}).to_string();
    put(&agent, "agent/check/update/fabio-host-a-9998-ttl", &beat);
    let own: BTreeMap<String, AgentService> = get_plain(&agent, "agent/services");
    assert_eq!(own["fabio-host-a-9998"].service, "fabio");
    // The first result of the HTTP check would end the wait for a change below.
    until("the HTTP check has failed", || {
        let checks: Vec<Value> = get_plain(&agent, "health/checks/fabio");
        checks.iter().any(|check| check["Output"].as_str().is_some_and(|output| output.contains("refused")))
    });

    let changes = [
        ("agent/check/fail/service:a", vec!["web host-a.bb"]),
        ("agent/check/pass/service:a", vec!["web host-a.a", "web host-a.bb"]),
        ("agent/service/maintenance/a?enable=true", vec!["web host-a.bb"]),
        ("agent/service/maintenance/a?enable=false", vec!["web host-a.a", "web host-a.bb"]),
        ("muster/drain/bb", vec!["web host-a.a"]),
        ("agent/maintenance?enable=true", vec![]),
        ("agent/maintenance?enable=false", vec!["web host-a.a"]),
        ("muster/resume/bb", vec!["web host-a.a", "web host-a.bb"]),
    ];
    for (change, expected) in changes {
        let checks: Vec<HealthCheck> = when_changed(&agent, "health/state/any", || put(&agent, change, ""));
        // Fabio first discards checks without a tag that has the prefix.
        let tagged = |check: &HealthCheck| {
            check.service_id.is_empty() || check.service_tags.iter().any(|tag| tag.starts_with("urlprefix-"))
        };
        let checks: Vec<HealthCheck> = checks.into_iter().filter(tagged).collect();
        assert_eq!(fabio_passing(&checks), expected, "{change}");
    }
    let (services, _): (Vec<CatalogService>, u64) = get(&agent, "catalog/service/web?stale=");
    let one = services.iter().find(|service| service.service_id == "a").unwrap();
    assert_eq!((one.service_address.as_str(), one.service_port, one.address.as_str()), ("10.1.0.1", 8080, "10.0.0.7"));
    assert_eq!((one.service_tags[0].as_str(), one.service_name.as_str()), (route, "web"));
    // Manual routes: Fabio logs the error and continues. With a 404, it would assume a store without routes.
    let answer = ask(agent.http(), "GET", "/v1/kv/fabio/config?recurse=", "");
    assert_eq!(answer.status, 400, "{}", answer.body);
}

/// `dependency/*.go`: `catalog_datacenters`, `catalog_services`, `catalog_service`, `catalog_nodes`, `catalog_node`,
/// `health_service`.
#[test]
fn consul_template() {
    let agent = Agent::start();
    register(&agent, "a", &["v1"]);
    assert_eq!(get_plain::<Vec<String>>(&agent, "catalog/datacenters"), ["dc1"]);
    const OPTIONS: &str = "dc=dc1&stale=&wait=60000ms";
    let (services, _): (BTreeMap<String, Vec<String>>, u64) = get(&agent, &format!("catalog/services?{OPTIONS}"));
    assert_eq!(services["web"], ["v1"]);
    let (instances, _): (Vec<CatalogService>, u64) = get(&agent, &format!("catalog/service/web?{OPTIONS}&tag=v1"));
    let one = &instances[0];
    assert_eq!((one.service_meta["rack"].as_str(), one.node_meta.len(), one.datacenter.as_str()), ("r1", 0, "dc1"));
    assert_eq!(one.tagged_addresses["wan"], "10.0.0.7");
    let (nodes, _): (Vec<Node>, u64) = get(&agent, &format!("catalog/nodes?{OPTIONS}&near=_agent"));
    assert_eq!(nodes[0].node, "host-a");
    // `agent/self` has the node's name if the template names none; an unknown node is `null`.
    let own: BTreeMap<String, BTreeMap<String, Value>> = get_plain(&agent, "agent/self");
    let name = own["Config"]["NodeName"].as_str().unwrap();
    let (node, _): (Option<CatalogNode>, u64) = get(&agent, &format!("catalog/node/{name}?{OPTIONS}"));
    let node = node.unwrap();
    assert_eq!((node.node.id.len(), node.services["a"].port), (36, 8080));
    let (unknown, _): (Option<CatalogNode>, u64) = get(&agent, "catalog/node/unknown");
    assert!(unknown.is_none());

    // `passing` is the default; `|any` and similar select by the aggregated status.
    let passing = format!("health/service/web?{OPTIONS}&passing=1");
    let (entries, _): (Vec<ServiceEntry>, u64) = get(&agent, &passing);
    let (service, checks) = (&entries[0].service, &entries[0].checks);
    assert_eq!((service.weights.passing, service.weights.warning), (1, 1));
    assert_eq!(service.tagged_addresses["lan_ipv4"].port, 8080);
    assert!(checks.len() >= 2 && checks.iter().all(|check| check.node == "host-a"), "{checks:?}");
    let entries: Vec<ServiceEntry> = when_changed(&agent, &passing, || put(&agent, "agent/check/fail/service:a", ""));
    assert!(entries.is_empty());
    // A blocking query for an unknown service.
    let entries: Vec<ServiceEntry> = when_changed(&agent, "health/service/db?passing=1", || {
        put(&agent, "agent/service/register", &json!({"Name": "db"}).to_string());
    });
    assert_eq!(entries[0].service.service, "db");
    // `{{ key }}`: an error. With a 404, the template would be rendered without the key.
    assert_eq!(ask(agent.http(), "GET", "/v1/kv/a?stale=&wait=60000ms", "").status, 400);
}

/// `consul/consul.go`: `Ping`, `Register` with what `buildCheck` makes of a container's variables, `Services`, `Deregister`.
#[test]
fn registrator() {
    let agent = Agent::start();
    assert!(get_plain::<String>(&agent, "status/leader").contains(':'));
    // One variable at a time; Go omits empty fields.
    let checks = [
        (
            "SERVICE_CHECK_HTTP",
            json!({"HTTP": "http://10.0.0.7:1/health", "Interval": "10s", "Timeout": "1s", "Method": "HEAD"}),
        ),
        ("SERVICE_CHECK_HTTPS", json!({"HTTP": "https://10.0.0.7:1/health", "Interval": "15s"})),
        ("SERVICE_CHECK_TTL", json!({"TTL": "30s", "Status": "passing"})),
        ("SERVICE_CHECK_TCP", json!({"TCP": "10.0.0.7:1", "Interval": "10s", "DeregisterCriticalServiceAfter": "10m"})),
        ("SERVICE_CHECK_GRPC", json!({"GRPC": "10.0.0.7:1", "Interval": "10s"})),
        ("SERVICE_CHECK_GRPC_USE_TLS", json!({"GRPC": "10.0.0.7:1", "GRPCUseTLS": true, "Interval": "10s"})),
        ("none", Value::Null),
    ];
    // Ids of registrator: host, container, port.
    let id = "host:elated_lamport:8080";
    for (variable, check) in checks {
        let body = json!({
            "ID": id, "Name": "web", "Tags": ["a", "b"], "Port": 8080, "Address": "10.0.0.7", "Check": check,
            "Meta": {"version": "1"}, "Checks": null,
        });
        put(&agent, "agent/service/register", &body.to_string());
        let services: BTreeMap<String, AgentService> = get_plain(&agent, "agent/services");
        let one = &services[id];
        assert_eq!((one.id.as_str(), one.service.as_str(), one.port), (id, "web", 8080), "{variable}");
        assert_eq!((one.address.as_str(), one.tags.join(",")), ("10.0.0.7", "a,b".to_owned()), "{variable}");
        put(&agent, &format!("agent/service/deregister/{id}"), "");
        assert!(get_plain::<BTreeMap<String, AgentService>>(&agent, "agent/services").is_empty(), "{variable}");
    }
    // A command needs `checks.allow_exec: api`.
    let check = json!({"Args": ["curl --silent 10.0.0.7"], "Interval": "10s"});
    let body = json!({"ID": id, "Name": "web", "Port": 8080, "Check": check}).to_string();
    let answer = ask(agent.http(), "PUT", "/v1/agent/service/register", &body);
    assert_eq!(answer.status, 400, "SERVICE_CHECK_SCRIPT: {}", answer.body);
    assert!(answer.body.contains("not accepted over HTTP"), "{}", answer.body);
}

/// `serviceregistry/ConsulServiceRegistry.java` and `ConsulAutoRegistration.java`, `discovery/TtlScheduler.java`,
/// `ConsulCatalogWatch.java`, `ConsulDiscoveryClient.java` and `ConsulServiceInstance.java`.
#[test]
fn spring_cloud_consul() {
    let agent = Agent::start();
    // The Java client writes unset fields as null.
    let body = json!({
        "ID": "web-8080", "Name": "web", "Tags": ["group=a"], "Address": "10.0.0.7", "Port": 8080,
        "Meta": {"secure": "false"}, "EnableTagOverride": null, "Checks": null, "Weights": null,
        "Check": {
            "Script": null, "DockerContainerID": null, "Shell": null, "Interval": null, "TTL": "30s", "HTTP": null,
            "Method": null, "Header": {}, "TCP": null, "Timeout": null, "DeregisterCriticalServiceAfter": "10m",
            "TLSSkipVerify": null, "Status": null, "GRPC": null, "GRPCUseTLS": null,
        },
    });
    // The first query has no index.
    let watch = "catalog/services?wait=2s";
    let services: BTreeMap<String, Vec<String>> =
        when_changed(&agent, watch, || put(&agent, "agent/service/register", &body.to_string()));
    assert!(services.contains_key("web"));
    put(&agent, "agent/check/pass/service:web-8080", "");
    let (entries, _): (Vec<ServiceEntry>, u64) = get(&agent, "health/service/web?passing=true");
    let service = &entries[0].service;
    assert_eq!((service.address.as_str(), service.port, &*service.meta["secure"]), ("10.0.0.7", 8080, "false"));

    // The client derives the status from the check's name.
    let out = |agent: &Agent| {
        let (checks, _): (Vec<HealthCheck>, u64) = get(agent, "health/checks/web");
        checks.iter().any(|check| check.service_id == "web-8080" && check.name == "Service Maintenance Mode")
    };
    assert!(!out(&agent));
    put(&agent, "agent/service/maintenance/web-8080?enable=true", "");
    assert!(out(&agent));
    put(&agent, "agent/service/maintenance/web-8080?enable=false", "");
    assert!(!out(&agent));
    put(&agent, "agent/service/deregister/web-8080", "");
    // A host name as address (`prefer-ip-address` is false by default) is shown as given.
    let mut named = body;
    named["Address"] = "host-a.example".into();
    put(&agent, "agent/service/register", &named.to_string());
    let (entries, _): (Vec<ServiceEntry>, u64) = get(&agent, "health/service/web");
    assert_eq!(entries[0].service.address, "host-a.example");
}

/// `registry/consul/consul.go` and `watcher.go`.
#[test]
fn go_micro() {
    let agent = Agent::start();
    // Endpoints and versions are compressed, hexadecimal tags.
    let tags =
        ["e-789caa564acc4d2d5152a8562ac8c92c5152c8cd2ccb2c4ecd2b01000000ffff", "v-789c32d033d03300040000ffff02ed00cf"];
    let id = "greeter-4f8f0a3e-8a54-4c5d-9b1f-1c2b3a4d5e6f";
    let body = json!({
        "ID": id, "Name": "greeter", "Tags": tags, "Port": 40001, "Address": "10.0.0.9",
        "Check": {"TTL": "1m30s", "DeregisterCriticalServiceAfter": "1m35s"},
    });
    put(&agent, "agent/service/register", &body.to_string());
    put(&agent, &format!("agent/check/pass/service:{id}?note="), "");
    // Test for an existing registration.
    let (checks, _): (Vec<HealthCheck>, u64) = get(&agent, "health/checks/greeter?stale=");
    assert!(checks.iter().any(|check| check.service_id == id), "{checks:?}");
    let nodes = |entries: &[ServiceEntry]| -> Vec<String> {
        let well = entries.iter().filter(|entry| !entry.checks.iter().any(|check| check.status == "critical"));
        well.map(|entry| format!("{}:{}", entry.service.address, entry.service.port)).collect()
    };
    let (entries, _): (Vec<ServiceEntry>, u64) = get(&agent, "health/service/greeter?stale=");
    assert_eq!(nodes(&entries), ["10.0.0.9:40001"]);
    assert_eq!(entries[0].service.tags, tags);
    // The watch plan has the type service, `watch/funcs.go`.
    let fail = format!("agent/check/fail/service:{id}");
    let entries: Vec<ServiceEntry> = when_changed(&agent, "health/service/greeter?stale=", || put(&agent, &fail, ""));
    assert!(nodes(&entries).is_empty());
    put(&agent, &format!("agent/service/deregister/{id}"), "");
    let (services, _): (BTreeMap<String, Vec<String>>, u64) = get(&agent, "catalog/services?stale=");
    assert!(services.is_empty());
    // Names with dots, the default before version 2 of go-micro, have no name in DNS. The catalog has them.
    put(&agent, "agent/service/register", r#"{"Name": "go.micro.srv.greeter"}"#);
    let (entries, _): (Vec<ServiceEntry>, u64) = get(&agent, "health/service/go.micro.srv.greeter?stale=");
    assert_eq!(entries.len(), 1, "{entries:?}");
}
