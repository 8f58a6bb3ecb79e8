//! Conformance with Consul's documentation: JSON, types, headers, status codes and refusals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    agent::Agent,
    http::{ask, get, put},
    process,
    wait::until,
};

const TXT: u16 = 16;

/// An agent with metadata, a service from a file and a registered service.
fn agent() -> Agent {
    let agent = Agent::start_with(
        "meta: {rack: r1, size: 2}\nhttp: {listen: [127.0.0.1:0], consul_version: 1.20.0+ent}\n",
        &[],
        |_| {},
    );
    agent.write_service("web.yaml", "service: web\nport: 80\ntags: [v2, eu]\nmeta: {env: prod}\n");
    agent.wait_for_answers("web.service.local.", 1, &["A 10.0.0.7"]);
    let check = json!({"TTL": "10m", "Status": "passing", "Notes": "by itself"});
    put(&agent, "agent/service/register", &json!({"Name": "db", "ID": "db:1", "Port": 5432, "Check": check}));
    agent
}

/// Returns the first difference; `"#number"`, `"#text"` and `"#id"` match any value of that kind.
fn differs(expected: &Value, found: &Value, at: &str) -> Option<String> {
    match (expected, found) {
        (Value::String(word), Value::Number(_)) if word == "#number" => None,
        (Value::String(word), Value::String(_)) if word == "#text" => None,
        (Value::String(word), Value::String(id)) if word == "#id" && id.len() == 36 => None,
        (Value::Object(expected), Value::Object(found)) => {
            let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            if keys(expected) != keys(found) {
                return Some(format!("{at}: expected keys {:?}, got {:?}", keys(expected), keys(found)));
            }
            expected.iter().find_map(|(key, value)| differs(value, &found[key], &format!("{at}.{key}")))
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            expected.iter().zip(found).enumerate().find_map(|(n, (e, f))| differs(e, f, &format!("{at}[{n}]")))
        }
        _ => (expected != found).then(|| format!("{at}: expected {expected}, got {found}")),
    }
}

fn node() -> Value {
    json!({
        "ID": "#id", "Node": "host-a", "Address": "10.0.0.7", "Datacenter": "dc1", "Meta": {"rack": "r1", "size": "2"},
        "TaggedAddresses": {"lan": "10.0.0.7", "lan_ipv4": "10.0.0.7", "wan": "10.0.0.7", "wan_ipv4": "10.0.0.7"},
        "CreateIndex": "#number", "ModifyIndex": "#number",
    })
}

fn service() -> Value {
    let address = json!({"Address": "10.0.0.7", "Port": 5432});
    json!({
        "ID": "db:1", "Service": "db", "Tags": [], "Meta": {}, "Port": 5432, "Address": "10.0.0.7",
        "TaggedAddresses": {"lan_ipv4": address, "wan_ipv4": address}, "Weights": {"Passing": 1, "Warning": 1},
        "EnableTagOverride": false, "Datacenter": "dc1", "Proxy": {}, "Connect": {},
        "CreateIndex": "#number", "ModifyIndex": "#number",
    })
}

fn check() -> Value {
    json!({
        "Node": "host-a", "CheckID": "service:db:1", "Name": "#text", "Status": "passing", "Notes": "by itself", "Output": "",
        "ServiceID": "db:1", "ServiceName": "db", "ServiceTags": [], "Type": "", "Definition": {},
        "CreateIndex": "#number", "ModifyIndex": "#number",
    })
}

fn node_check() -> Value {
    let mut check = check();
    for (key, value) in
        [("CheckID", "serfHealth"), ("Output", "#text"), ("Notes", ""), ("ServiceID", ""), ("ServiceName", "")]
    {
        check[key] = value.into();
    }
    check
}

fn catalog_service() -> Value {
    let (node, service) = (node(), service());
    json!({
        "ID": "#id", "Node": "host-a", "Address": "10.0.0.7", "Datacenter": "dc1",
        "TaggedAddresses": node["TaggedAddresses"], "NodeMeta": node["Meta"], "ServiceKind": "", "ServiceID": "db:1",
        "ServiceName": "db", "ServiceTags": [], "ServiceAddress": "10.0.0.7",
        "ServiceTaggedAddresses": service["TaggedAddresses"], "ServiceWeights": service["Weights"], "ServiceMeta": {},
        "ServicePort": 5432, "ServiceEnableTagOverride": false, "ServiceProxy": {}, "ServiceConnect": {},
        "CreateIndex": "#number", "ModifyIndex": "#number",
    })
}

#[test]
fn json_has_the_fields_of_consul() {
    let agent = agent();
    let mut hashed = service();
    hashed["ContentHash"] = "#text".into();
    let only_db = "filter=Service+%3D%3D+db";
    let cases = [
        (format!("agent/services?{only_db}"), json!({"db:1": service()})),
        ("agent/service/db:1".to_owned(), hashed),
        ("agent/checks".to_owned(), json!({"service:db:1": check()})),
        ("catalog/datacenters".to_owned(), json!(["dc1"])),
        ("catalog/nodes".to_owned(), json!([node()])),
        ("catalog/services".to_owned(), json!({"db": [], "web": ["eu", "v2"]})),
        ("catalog/service/db".to_owned(), json!([catalog_service()])),
        ("catalog/service/none".to_owned(), json!([])),
        ("catalog/node/none".to_owned(), Value::Null),
        (format!("catalog/node/host-a?{only_db}"), json!({"Node": node(), "Services": {"db:1": service()}})),
        (format!("catalog/node-services/HOST-A?{only_db}"), json!({"Node": node(), "Services": [service()]})),
        ("catalog/node-services/none".to_owned(), json!({"Node": null, "Services": []})),
        ("health/node/none".to_owned(), json!([])),
        ("health/node/host-a".to_owned(), json!([node_check(), check()])),
        ("health/checks/db".to_owned(), json!([check()])),
        ("health/state/passing".to_owned(), json!([node_check(), check()])),
        ("health/state/critical".to_owned(), json!([])),
        (
            "health/service/db".to_owned(),
            json!([{"Node": node(), "Service": service(), "Checks": [node_check(), check()]}]),
        ),
        ("status/peers".to_owned(), json!(["#text"])),
        ("status/leader".to_owned(), json!("#text")),
        ("event/list".to_owned(), json!([])),
        ("coordinate/nodes".to_owned(), json!([])),
        ("coordinate/datacenters".to_owned(), json!([{"Datacenter": "dc1", "AreaID": "wan", "Coordinates": []}])),
        ("agent/version".to_owned(), json!({"SHA": "", "BuildDate": "", "HumanVersion": "1.20.0+ent", "FIPS": ""})),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(path, expected)| {
            let answer = get(&agent, path);
            assert_eq!(answer.header("Content-Type"), Some("application/json"), "{path}");
            differs(expected, &answer.json(), path)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(agent.answers("host-a.node.service.local.", TXT), [r#"TXT "datacenter=dc1" "rack=r1" "size=2""#]);
}

/// Programs compare the keys of `agent/self` with those of Consul, and require a version of Consul from it.
#[test]
fn agent_self_has_the_keys_and_the_version_of_consul() {
    let agent = agent();
    let own_instances = || get(&agent, "agent/self").json()["Member"]["Muster"]["Instances"].clone();
    until("the member counts its instances", || own_instances() == 2);
    let myself = get(&agent, "agent/self").json();
    let keys: Vec<&String> = myself.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["Config", "Coord", "DebugConfig", "Member", "Meta", "Stats", "xDS"]);
    assert_eq!(
        myself["Coord"],
        json!({"Adjustment": 0.0, "Error": 1.5, "Height": 1e-5, "Vec": [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]})
    );
    let disabled = json!({"Port": -1, "Ports": {"Plaintext": -1, "TLS": -1}, "SupportedProxies": {}});
    assert_eq!(myself["xDS"], disabled);
    let leader = get(&agent, "status/leader").json();
    let consul = json!({"server": "false", "known_servers": "1", "leader_addr": leader});
    assert_eq!(myself["Stats"]["consul"], consul);
    assert_eq!(myself["Config"]["Version"], "1.20.0+ent");
    assert_eq!(myself["Stats"]["build"]["version"], "1.20.0+ent");
    assert_eq!(myself["DebugConfig"]["DNSPort"], agent.address().port());
    let members = get(&agent, "agent/members").json();
    assert_eq!(members[0], myself["Member"]);
    assert_eq!(members[0]["Tags"]["build"], "1.20.0+ent");
    assert_eq!(members[0]["Muster"]["Version"], env!("CARGO_PKG_VERSION"));
    let wan = get(&agent, "agent/members?wan=1").json();
    assert_eq!((&wan[0]["Name"], &wan[0]["Tags"]), (&json!("host-a.dc1"), &members[0]["Tags"]));
    let status = get(&agent, "muster/status").json();
    assert_eq!(status["Config"], myself["Config"]);
    assert_eq!(status["Muster"]["Version"], env!("CARGO_PKG_VERSION"));
    let mut status = process::muster();
    let output = status.args(["status", "--http-addr", &agent.http().to_string()]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let expected = format!("{}, reported to Consul's clients as 1.20.0+ent", env!("CARGO_PKG_VERSION"));
    assert!(shown.contains(&expected), "{shown}");
}

#[test]
fn headers_and_methods_match_consul() {
    let agent = agent();
    for path in ["catalog/services", "catalog/nodes", "health/service/db", "agent/services", "event/list"] {
        let answer = get(&agent, path);
        for (name, value) in [
            ("X-Consul-KnownLeader", "true"),
            ("X-Consul-LastContact", "0"),
            ("X-Consul-Effective-Consistency", "stale"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert!(answer.header("X-Consul-Index").unwrap().parse::<u64>().unwrap() > 0, "{path}");
        let head = ask(agent.http(), "HEAD", &format!("/v1/{path}"), "");
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("Content-Length"), answer.header("Content-Length"), "{path}");
        let wrong = ask(agent.http(), "PUT", &format!("/v1/{path}"), "");
        assert_eq!((wrong.status, wrong.header("Allow")), (405, Some("GET,HEAD")), "{path}");
    }
    let wrong = ask(agent.http(), "GET", "/v1/agent/service/register", "");
    assert_eq!((wrong.status, wrong.header("Allow")), (405, Some("PUT")));
}

#[test]
fn node_meta_selects_nodes() {
    let agent = agent();
    let paths = [
        "catalog/nodes",
        "catalog/services",
        "catalog/service/db",
        "health/service/db",
        "health/checks/db",
        "health/state/any",
    ];
    for path in paths {
        let all = get(&agent, path).json();
        let none = if all.is_array() { json!([]) } else { json!({}) };
        let cases = [
            ("node-meta=rack:r1", &all),
            ("node-meta=rack:r1&node-meta=size:2", &all),
            ("node-meta=rack:r2", &none),
            ("node-meta=rack:r1&node-meta=size:3", &none),
            ("node-meta=rack", &none),
            ("node-meta=other:r1", &none),
        ];
        for (query, expected) in cases {
            assert_eq!(get(&agent, &format!("{path}?{query}")).json(), *expected, "{path}?{query}");
        }
    }
}

#[test]
fn filters_apply_to_the_fields_of_items() {
    let agent = agent();
    let cases = [
        ("catalog/services", "ServiceMeta.env == prod", json!({"web": ["eu", "v2"]})),
        ("catalog/services", r#"NodeMeta.rack == "r1" and ServiceName != web"#, json!({"db": []})),
        ("catalog/services", r#""v2" in ServiceTags"#, json!({"web": ["eu", "v2"]})),
        ("catalog/services", "ServicePort == 1", json!({})),
        ("health/service/db", r#"Checks.CheckID == "service:db:1" and Checks.Status == passing"#, Value::Null),
        ("health/service/db", "Checks.Status == critical", json!([])),
        ("health/service/db", "Node.Meta.rack != r1", json!([])),
        ("catalog/nodes", "Meta.rack == r2", json!([])),
        ("agent/checks", "ServiceName == web", json!({})),
        ("agent/services", r#"Tags contains "v2" and Meta contains env"#, Value::Null),
    ];
    for (path, expression, expected) in cases {
        let filter = expression.replace('%', "%25").replace(' ', "+").replace('"', "%22").replace('=', "%3D");
        let answer = get(&agent, &format!("{path}?filter={filter}"));
        assert_eq!(answer.status, 200, "{path} {expression}: {}", answer.body);
        if expected.is_null() {
            assert!(answer.body.len() > 2, "{path} {expression}: {}", answer.body);
        } else {
            assert_eq!(answer.json(), expected, "{path} {expression}");
        }
    }
}

#[test]
fn lists_of_the_mesh_and_of_peers_are_empty() {
    let agent = agent();
    for path in [
        "health/connect/db",
        "health/ingress/db",
        "catalog/connect/db",
        "catalog/gateway-services/gateway",
        "health/service/db?peer=dc2",
        "catalog/service/db?peer=dc2",
        "catalog/nodes?peer=dc2",
    ] {
        let answer = get(&agent, path);
        assert_eq!((answer.status, answer.json()), (200, json!([])), "{path}");
        assert!(answer.index() > 0, "{path}");
    }
}

#[test]
fn unsupported_requests_are_refused_with_a_reason() {
    let agent = agent();
    let cases = [
        ("GET", "agent/members?segment=a", "", 400, "muster has no segments"),
        ("PUT", "agent/join/10.0.0.1?wan=true", "", 400, "there is one cluster for all datacenters"),
        ("PUT", "agent/force-leave/host-a", "", 400, "this agent itself"),
        ("PUT", "agent/force-leave/host-z", "", 404, "Node host-z is unknown"),
        ("PUT", "agent/force-leave/a_b", "", 400, "is not a valid node name"),
        ("GET", "agent/service/db:1?filter=ID+%3D%3D+x", "", 400, "supports no filter"),
        ("PUT", "agent/service/deregister/web-host-a", "", 400, "defined by a service file"),
        ("PUT", "event/fire/x?tag=v2", "", 400, "`tag` requires `service`"),
        (
            "PUT",
            "event/fire/x?node=(",
            "",
            400,
            "`node` must be a regular expression: found open group without closing",
        ),
        ("PUT", "event/fire/x?dc=dc2", "", 400, "No path to datacenter dc2"),
        ("PUT", "event/fire/x", &"x".repeat(513), 400, "at most 512 octets, this one has 513"),
        ("GET", "agent/monitor", "", 400, "log"),
        ("PUT", "agent/token/default", "", 401, "ACL support disabled: muster has no ACLs"),
        ("GET", "acl/token/self", "", 401, "ACL support disabled: muster has no ACLs"),
        ("GET", "discovery-chain/web", "", 400, "muster has no service mesh"),
        ("GET", "internal/ui/nodes", "", 400, "the web UI of Consul"),
        ("PUT", "coordinate/update", "{}", 400, "muster has no network coordinates"),
        ("GET", "coordinate/node/host-a", "", 404, "no network coordinate"),
    ];
    for (method, path, body, status, text) in cases {
        let answer = ask(agent.http(), method, &format!("/v1/{path}"), body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert!(answer.body.contains(text), "{method} {path}: {}", answer.body);
    }
}

#[test]
fn keys_of_requests_ignore_case_and_underscores() {
    let agent = agent();
    put(&agent, "agent/check/update/service:db:1", &json!({"status": "warning", "output": "disk"}));
    assert_eq!(get(&agent, "agent/checks").json()["service:db:1"]["Output"], "disk");
    let registered = json!({"node": "host-a", "service": {"service": "cache", "id": "c", "port": 6379}});
    assert_eq!(put(&agent, "catalog/register", &registered).json(), json!(true));
    assert_eq!(get(&agent, "agent/service/c").json()["Port"], 6379);
    assert_eq!(put(&agent, "catalog/deregister", &json!({"node": "host-a", "service_id": "c"})).json(), json!(true));
    assert_eq!(get(&agent, "agent/service/c").status, 404);
    // A repeated registration keeps reported states and separately registered checks, unless these are replaced.
    let db = json!({"Name": "db", "ID": "db:1", "Port": 5432, "Check": {"TTL": "10m"}});
    let added = json!({"Name": "disk", "ServiceID": "db:1", "TTL": "10m", "Status": "passing"});
    put(&agent, "agent/check/register", &added);
    put(&agent, "agent/service/register", &db);
    let checks = get(&agent, "agent/checks").json();
    assert_eq!((&checks["service:db:1"]["Status"], &checks["disk"]["Name"]), (&json!("warning"), &json!("disk")));
    put(&agent, "agent/service/register?replace-existing-checks", &db);
    assert_eq!(get(&agent, "agent/checks").json()["disk"], Value::Null);
}

#[test]
fn tagged_addresses_are_shown_as_registered() {
    let mut agent = Agent::start();
    let text = "service: db\nid: db\naddress: 10.0.0.8\nport: 5432\ntagged_addresses: {wan: '198.51.100.8:15432', lb: db.example}\n";
    agent.write_service("db.yaml", text);
    agent.wait_for_answers("db.service.local.", 1, &["A 10.0.0.8"]);
    let (lan, wan) = (json!({"Address": "10.10.10.1", "Port": 8080}), json!({"Address": "web.example", "Port": 0}));
    let own = json!({"Address": "10.0.0.9", "Port": 80});
    let given = json!({"lan": {"address": "10.10.10.1", "port": 8080}, "wan": {"address": "web.example"}, "none": {}});
    put(&agent, "agent/service/register", &json!({"Name": "bare", "Port": 80, "TaggedAddresses": given}));
    let with_address = json!({"Name": "web", "Port": 80, "Address": "10.0.0.9", "TaggedAddresses": {"wan": wan}});
    put(&agent, "agent/service/register", &with_address);
    let external = json!({"Service": "ext", "TaggedAddresses": {"lan": lan}});
    put(&agent, "catalog/register", &json!({"Node": "db1", "Address": "10.9.0.1", "Service": external}));
    let of_db = json!({"Address": "10.0.0.8", "Port": 5432});
    let cases = [
        ("bare", "host-a", json!({"lan": lan, "wan": wan})),
        ("web", "host-a", json!({"wan": wan, "lan_ipv4": own, "wan_ipv4": own})),
        ("ext", "db1", json!({"lan": lan})),
        (
            "db",
            "host-a",
            json!({
                "lan_ipv4": of_db, "wan_ipv4": of_db, "wan": {"Address": "198.51.100.8", "Port": 15432},
                "lb": {"Address": "db.example", "Port": 5432},
            }),
        ),
    ];
    for start in 0..2 {
        for (service, node, expected) in &cases {
            let of_node = get(&agent, &format!("catalog/node/{node}")).json();
            let of_catalog = get(&agent, &format!("catalog/service/{service}")).json();
            let of_health = get(&agent, &format!("health/service/{service}")).json();
            let mut shown = vec![
                of_node["Services"][service]["TaggedAddresses"].clone(),
                of_catalog[0]["ServiceTaggedAddresses"].clone(),
                of_health[0]["Service"]["TaggedAddresses"].clone(),
            ];
            if *node == "host-a" {
                shown.push(get(&agent, "agent/services").json()[service]["TaggedAddresses"].clone());
                shown.push(get(&agent, &format!("agent/service/{service}")).json()["TaggedAddresses"].clone());
            }
            assert!(shown.iter().all(|shown| shown == expected), "start {start}, {service}: {shown:?}");
        }
        // DNS answers without them.
        agent.wait_for_answers("web.service.local.", 1, &["A 10.0.0.9"]);
        agent.wait_for_answers("bare.service.local.", 1, &["A 10.0.0.7"]);
        if start == 0 {
            agent.signal(nix::sys::signal::Signal::SIGTERM);
            agent.wait();
            agent.start_again();
            agent.wait_until_answering();
        }
    }
    let many: serde_json::Map<String, Value> = (0..17).map(|tag| (format!("t{tag}"), lan.clone())).collect();
    let refused = json!({"Name": "many", "TaggedAddresses": many}).to_string();
    let answer = ask(agent.http(), "PUT", "/v1/agent/service/register", &refused);
    assert_eq!((answer.status, answer.body.contains("at most 16 tagged addresses")), (400, true), "{}", answer.body);
}

/// Runs a blocking query while `change` happens.
fn wait_during(agent: &Agent, path: String, change: impl FnOnce()) -> support::http::Answer {
    let address = agent.http();
    let waiting = thread::spawn(move || ask(address, "GET", &path, ""));
    thread::sleep(Duration::from_millis(100));
    assert!(!waiting.is_finished(), "the query does not block");
    change();
    waiting.join().unwrap()
}

#[test]
fn hash_query_returns_when_the_content_changes() {
    let agent = agent();
    let before = get(&agent, "agent/service/db:1");
    let hash = before.header("X-Consul-ContentHash").unwrap().to_owned();
    assert_eq!(before.json()["ContentHash"], hash);
    let path = format!("/v1/agent/service/db:1?hash={hash}&wait=30s");
    let after = wait_during(&agent, path.clone(), || {
        // The health is not part of the content.
        put(&agent, "agent/check/warn/service:db:1", &Value::Null);
        put(&agent, "agent/service/register", &json!({"Name": "db", "ID": "db:1", "Port": 5433}));
    });
    assert_eq!(after.json()["Port"], 5433);
    assert_ne!(after.header("X-Consul-ContentHash"), Some(hash.as_str()));
    let started = Instant::now();
    assert_eq!(ask(agent.http(), "GET", &path, "").json()["Port"], 5433, "an outdated hash returns at once");
    assert!(started.elapsed() < Duration::from_secs(20), "the query blocked");
}

#[test]
fn blocking_query_receives_user_events() {
    let agent = agent();
    let fired = put(&agent, "event/fire/other", &Value::Null).json();
    let expected = json!({
        "ID": "#id", "Name": "other", "Payload": null, "NodeFilter": "", "ServiceFilter": "", "TagFilter": "", "Version": 1,
        "LTime": 1,
    });
    assert_eq!(differs(&expected, &fired, "event"), None);
    let path = "/v1/event/list?name=deploy&index=1&wait=30s".to_owned();
    let received = wait_during(&agent, path, || {
        put(&agent, "event/fire/other", &Value::Null);
        let answer = ask(agent.http(), "PUT", "/v1/event/fire/deploy?service=web&tag=v2&node=host", "v2.3.1");
        assert_eq!(answer.json()["Payload"], "djIuMy4x");
    });
    let event = &received.json()[0];
    assert_eq!((&event["Name"], &event["Payload"], &event["LTime"]), (&json!("deploy"), &json!("djIuMy4x"), &json!(3)));
    assert_eq!(
        (&event["ServiceFilter"], &event["TagFilter"], &event["NodeFilter"]),
        (&json!("web"), &json!("v2"), &json!("host"))
    );
    // The index derives from the last event's id, as in Consul.
    let id: String = event["ID"].as_str().unwrap().replace('-', "");
    let half = |at: usize| u64::from_str_radix(&id[at..at + 16], 16).unwrap();
    assert_eq!(received.header("X-Consul-Index").unwrap().parse(), Ok(half(0) ^ half(16)));
    // An event for other nodes is not shown.
    put(&agent, "event/fire/elsewhere?node=host-b", &Value::Null);
    put(&agent, "event/fire/here?dc=dc1", &Value::Null);
    until("the event is listed", || get(&agent, "event/list").json().as_array().unwrap().len() == 4);
    assert_eq!(get(&agent, "event/list?name=elsewhere").json(), json!([]));
}
