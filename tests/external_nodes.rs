//! External nodes: hosts without an agent, registered through one, in the catalog, in DNS and in explanations.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use serde_json::{Value, json};
use support::{
    agent::Agent,
    http::{ask, get, put},
    process,
    wait::until,
};

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// Runs a command of `muster` on an agent; returns its exit code and its output.
fn muster(agent: &Agent, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = process::muster();
    let output = command.args(arguments).args(["--http-addr", &agent.http().to_string()]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn register(agent: &Agent, body: &Value) {
    assert_eq!(put(agent, "catalog/register", body).json(), json!(true), "{body}");
}

fn deregister(agent: &Agent, body: &Value) {
    assert_eq!(put(agent, "catalog/deregister", body).json(), json!(true), "{body}");
}

/// A database with a check of its host and one of its service.
fn db1() -> Value {
    json!({
        "Node": "DB1", "Address": "10.9.0.1", "ID": "11111111-2222-3333-4444-555555555555", "Datacenter": "dc1",
        "TaggedAddresses": {"lan_ipv6": "fd00::9", "wan": "192.0.2.9"}, "NodeMeta": {"external-node": "true"},
        "Service": {"Service": "pg", "Port": 5432, "Tags": ["primary"], "Meta": {"v": "16"}, "EnableTagOverride": true,
            "Weights": {"Passing": 10}},
        "Checks": [
            {"Node": "DB1", "CheckID": "ping", "Name": "Ping", "Status": "passing", "Notes": "by esm"},
            {
                "CheckID": "tcp", "Name": "TCP", "ServiceID": "pg", "Status": "passing", "Output": "connected",
                "Definition": {"TCP": "10.9.0.1:5432"},
            },
        ],
    })
}

#[test]
fn index_of_a_node_follows_its_own_changes() {
    let agent = Agent::start();
    register(&agent, &json!({"Node": "db1", "Address": "10.9.0.1", "Service": {"Service": "pg"}}));
    register(&agent, &json!({"Node": "db2", "Address": "10.9.0.2"}));
    // Returns CreateIndex and ModifyIndex of both nodes and of the agent's own.
    let indexes = || {
        let nodes = get(&agent, "catalog/nodes").json();
        let of = |node: &Value| [&node["CreateIndex"], &node["ModifyIndex"]].map(|index| index.as_u64().unwrap());
        nodes.as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    let before = indexes();
    assert!(before.iter().all(|[created, modified]| created == modified), "{before:?}");
    assert!(before[0][0] < before[1][0], "{before:?}");
    register(&agent, &json!({"Node": "db1", "Address": "10.9.0.1", "NodeMeta": {"rack": "r1"}}));
    let after = indexes();
    assert_eq!(after[0][0], before[0][0]);
    assert!(after[0][1] > before[1][1], "{after:?}");
    assert_eq!(after[1..], before[1..]);
    assert_eq!(get(&agent, "catalog/nodes").index(), after[0][1]);
    // Each list has the same.
    let node = get(&agent, "catalog/node/db1").json()["Node"].clone();
    assert_eq!((&node["CreateIndex"], &node["ModifyIndex"]), (&json!(after[0][0]), &json!(after[0][1])));
    assert_eq!(get(&agent, "health/service/pg").json()[0]["Node"], node);
    assert_eq!(get(&agent, "catalog/node-services/db1").json()["Node"], node);
    // A service of the node is no change of the node.
    register(&agent, &json!({"Node": "db2", "Address": "10.9.0.2", "Service": {"Service": "pg"}}));
    assert_eq!(indexes(), after);
}

#[test]
fn external_node_is_in_the_catalog_and_in_dns() {
    let agent = Agent::start();
    register(&agent, &db1());
    // Read after write.
    let nodes = get(&agent, "catalog/nodes?node-meta=external-node:true").json();
    let node = &nodes[0];
    assert_eq!((nodes.as_array().unwrap().len(), &node["Node"]), (1, &json!("DB1")));
    assert_eq!(node["ID"], "11111111-2222-3333-4444-555555555555");
    assert_eq!((&node["Address"], &node["Datacenter"]), (&json!("10.9.0.1"), &json!("dc1")));
    let tagged = json!({
        "lan": "10.9.0.1", "wan": "192.0.2.9", "lan_ipv4": "10.9.0.1", "wan_ipv4": "10.9.0.1", "lan_ipv6": "fd00::9",
        "wan_ipv6": "fd00::9",
    });
    assert_eq!(node["TaggedAddresses"], tagged);
    let names: Vec<Value> =
        get(&agent, "catalog/nodes").json().as_array().unwrap().iter().map(|node| node["Node"].clone()).collect();
    assert_eq!(names, ["DB1", "host-a"]);
    let members = get(&agent, "agent/members").json();
    assert_eq!(members.as_array().unwrap().len(), 1, "an external node is no member");
    assert_eq!(get(&agent, "agent/services").json(), json!({}), "nor are its services those of the agent");

    let service = get(&agent, "catalog/service/pg").json()[0].clone();
    assert_eq!(
        (&service["Node"], &service["ServiceID"], &service["ServicePort"]),
        (&json!("DB1"), &json!("pg"), &json!(5432))
    );
    assert_eq!(
        (&service["NodeMeta"]["external-node"], &service["ServiceEnableTagOverride"]),
        (&json!("true"), &json!(true))
    );
    assert_eq!(get(&agent, "catalog/node/db1").json()["Services"]["pg"]["Address"], "10.9.0.1");
    assert_eq!(get(&agent, "catalog/node-services/DB1").json()["Services"][0]["ID"], "pg");
    assert_eq!(get(&agent, "catalog/node/host-a").json()["Services"], json!({}));
    let checks = get(&agent, "health/node/db1").json();
    let ids: Vec<&Value> = checks.as_array().unwrap().iter().map(|check| &check["CheckID"]).collect();
    assert_eq!(ids, ["ping", "tcp"]);
    assert_eq!(
        (&checks[0]["Notes"], &checks[0]["ServiceID"], &checks[0]["Node"]),
        (&json!("by esm"), &json!(""), &json!("DB1"))
    );
    assert_eq!((&checks[1]["Definition"]["TCP"], &checks[1]["Output"]), (&json!("10.9.0.1:5432"), &json!("connected")));
    let entry = get(&agent, "health/service/pg?passing&node-meta=external-node:true").json()[0].clone();
    assert_eq!((&entry["Node"]["Node"], entry["Checks"].as_array().unwrap().len()), (&json!("DB1"), 2));
    assert_eq!(get(&agent, "health/state/any?node-meta=external-node:true").json().as_array().unwrap().len(), 2);
    assert_eq!(
        get(&agent, "health/service/pg?filter=Node.Meta.external-node+%3D%3D+true").json().as_array().map(Vec::len),
        Some(1)
    );

    for (name, qtype, expected) in [
        ("db1.node.service.local.", A, "A 10.9.0.1"),
        ("db1.node.service.local.", AAAA, "AAAA fd00::9"),
        ("db1.node.service.local.", TXT, r#"TXT "datacenter=dc1" "external-node=true""#),
        ("pg.service.local.", A, "A 10.9.0.1"),
        ("pg.service.local.", SRV, "SRV 1 10 5432 pg-db1.pg.service.local."),
        ("primary.pg.service.local.", SRV, "SRV 1 10 5432 pg-db1.pg.service.local."),
        ("pg-db1.pg.service.local.", TXT, r#"TXT "v=16""#),
        ("1.0.9.10.in-addr.arpa.", PTR, "PTR pg-db1.pg.service.local."),
    ] {
        assert_eq!(agent.answers(name, qtype), [expected], "{name}");
    }
    deregister(&agent, &json!({"Node": "db1", "ServiceID": "pg"}));
    assert_eq!(agent.answers("1.0.9.10.in-addr.arpa.", PTR), ["PTR db1.node.service.local."]);
    assert_eq!(agent.answers("pg.service.local.", A), [""; 0]);
    deregister(&agent, &json!({"Node": "db1"}));
    assert_eq!(agent.answers("db1.node.service.local.", A), [""; 0]);
    assert_eq!(get(&agent, "catalog/node/db1").json(), Value::Null);
}

#[test]
fn reported_status_decides_about_answers() {
    let agent = Agent::start();
    register(&agent, &db1());
    let reported = |check: &str, service: &str, status: &str| {
        let check = json!({"CheckID": check, "ServiceID": service, "Status": status, "Output": "lost"});
        register(&agent, &json!({"Node": "db1", "SkipNodeUpdate": true, "Check": check}));
    };
    let answer = || agent.answers("pg.service.local.", SRV);
    let answered = |weight: u16| vec![format!("SRV 1 {weight} 5432 pg-db1.pg.service.local.")];
    for (check, service, status, expected) in [
        ("tcp", "pg", "critical", vec![]),
        ("tcp", "pg", "warning", answered(1)),
        ("tcp", "pg", "passing", answered(10)),
        ("ping", "", "critical", vec![]),
    ] {
        reported(check, service, status);
        assert_eq!(answer(), expected, "{check} {status}");
    }
    // The node still has an address.
    assert_eq!(agent.answers("db1.node.service.local.", A), ["A 10.9.0.1"]);
    assert_eq!(get(&agent, "health/service/pg?passing").json(), json!([]));
    let (code, text) = muster(&agent, &["explain", "pg"]);
    assert_eq!(code, Some(0), "{text}");
    for expected in ["check ping of node db1: lost", "external node db1, registered through host-a"] {
        assert!(text.contains(expected), "{text}");
    }
    let (_, text) = muster(&agent, &["explain", "db1"]);
    assert!(text.contains("external node db1, registered through host-a; 0 of 1 answered"), "{text}");
    assert!(text.contains("\nchecks of the node:\n    critical ping: lost\n"), "{text}");
    reported("ping", "", "passing");
    assert_eq!(answer(), answered(10));
    // An operator may drain it.
    assert_eq!(muster(&agent, &["drain", "pg-db1", "--no-wait"]).0, Some(0));
    assert_eq!(answer(), [""; 0]);
    assert_eq!(muster(&agent, &["resume", "pg-db1"]).0, Some(0));
    assert_eq!(answer(), answered(10));
}

#[test]
fn holds_of_an_external_instance_count_while_its_agent_is_in_maintenance() {
    let agent = Agent::start();
    register(&agent, &db1());
    let is_answered = || !agent.answers("pg.service.local.", SRV).is_empty();
    // Maintenance of the agent's host does not concern the external node, and nothing waits for it.
    let started = std::time::Instant::now();
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/maintenance?enable=true", "").status, 200);
    assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
    assert!(is_answered());
    assert_eq!(muster(&agent, &["drain", "pg-db1", "--no-wait"]).0, Some(0));
    assert!(!is_answered());
    let (_, text) = muster(&agent, &["resume", "host-a"]);
    assert_eq!(text, "pg/pg-db1: still drained by itself: muster resume pg-db1\n");
    assert!(!is_answered());
    let (_, text) = muster(&agent, &["resume", "pg-db1"]);
    assert!(text.starts_with("pg/pg-db1: resumed;"), "{text}");
    assert!(is_answered());
}

#[test]
fn report_of_output_alone_wakes_no_blocking_query() {
    let agent = Agent::start();
    let report = |status: &str, output: &str| {
        let mut body = db1();
        (body["Checks"][1]["Status"], body["Checks"][1]["Output"]) = (json!(status), json!(output));
        register(&agent, &body);
    };
    register(&agent, &db1());
    let index = || get(&agent, "health/service/pg").index();
    let before = index();
    report("passing", "connected in 3 ms");
    report("passing", "connected in 4 ms");
    assert_eq!(index(), before);
    assert_eq!(get(&agent, "health/node/db1").json()[1]["Output"], "connected");
    report("warning", "connected in 900 ms");
    assert_ne!(index(), before);
    assert_eq!(get(&agent, "health/node/db1").json()[1]["Output"], "connected in 900 ms");
}

#[test]
fn external_node_survives_the_restart_of_its_agent() {
    let mut agent = Agent::start();
    register(&agent, &db1());
    register(&agent, &json!({"Node": "rack 1/db.2", "Address": "10.9.0.2", "Service": {"Service": "pg"}}));
    agent.signal(nix::sys::signal::Signal::SIGKILL);
    agent.wait();
    agent.start_again();
    agent.wait_until_answering();
    assert_eq!(agent.answers("db1.node.service.local.", A), ["A 10.9.0.1"]);
    until("both instances are answered", || agent.answers("pg.service.local.", A).len() == 2);
    let checks = get(&agent, "health/node/DB1").json();
    assert_eq!((&checks[0]["Notes"], &checks[1]["Definition"]["TCP"]), (&json!("by esm"), &json!("10.9.0.1:5432")));
    // A name that is no label has no name in DNS.
    let (_, text) = muster(&agent, &["explain", "rack 1/db.2"]);
    assert!(text.contains("DNS has no name for it: ' ' is not a letter, digit, hyphen or underscore"), "{text}");
    assert_eq!(ask(agent.http(), "GET", "/v1/catalog/node/rack%201%2Fdb.2", "").json()["Node"]["Address"], "10.9.0.2");
}

#[test]
fn two_owners_of_one_name_are_a_conflict_with_one_winner() {
    let (a, b) = (Agent::start(), Agent::start_host_b());
    let node = |address: &str| json!({"Node": "db1", "Address": address, "Service": {"Service": "pg", "Port": 5432}});
    register(&a, &node("10.9.0.1"));
    register(&b, &node("10.9.0.2"));
    register(&b, &json!({"Node": "db2", "Address": "10.9.0.3"}));
    assert_eq!(ask(a.http(), "PUT", &format!("/v1/agent/join/{}", b.gossip()), "").status, 200);
    for agent in [&a, &b] {
        until("the conflict is diagnosed", || {
            get(agent, "muster/status").json()["Muster"]["Conflicts"]
                == json!([{"Node": "db1", "Owners": ["host-a", "host-b"], "Counts": "host-a"}])
        });
        agent.wait_for_answers("db1.node.service.local.", A, &["A 10.9.0.1"]);
        agent.wait_for_answers("pg.service.local.", A, &["A 10.9.0.1"]);
        agent.wait_for_answers("db2.node.service.local.", A, &["A 10.9.0.3"]);
        let (code, text) = muster(agent, &["status"]);
        let expected = "external node db1 is registered through host-a and host-b: host-a counts";
        assert!(code == Some(1) && text.contains(expected), "{text}");
        let (_, text) = muster(agent, &["explain", "db1"]);
        assert!(text.contains("Conflict: external node db1 is registered through host-a and host-b"), "{text}");
        assert_eq!(agent.log().matches("conflict: external node is announced more than once").count(), 1);
        assert_eq!(get(agent, "catalog/node/db1").json()["Services"].as_object().unwrap().len(), 1);
    }
    // Nodes of others are refused.
    for (agent, body, expected) in [
        (&a, json!({"Node": "db2", "Address": "10.9.0.4"}), "external node db2 is registered through host-b"),
        (&a, json!({"Node": "host-b", "Address": "10.9.0.4"}), "host-b has an agent and announces its own services"),
        (&a, json!({"Node": "db3", "Address": "10.9.0.4", "Datacenter": "dc2"}), "this agent is in dc1"),
    ] {
        for path in ["/v1/catalog/register", "/v1/catalog/deregister"] {
            let refused = ask(agent.http(), "PUT", path, &body.to_string());
            assert!(refused.status == 400 && refused.body.contains(expected), "{path} {body}: {}", refused.body);
        }
    }
    // One of the owners gives up.
    deregister(&a, &json!({"Node": "db1"}));
    for agent in [&a, &b] {
        agent.wait_for_answers("db1.node.service.local.", A, &["A 10.9.0.2"]);
        until("the conflict has ended", || get(agent, "muster/status").json()["Muster"]["Conflicts"] == json!([]));
    }
    // It goes with its owner, and another agent may register it then.
    drop(b);
    a.wait_for_answers("db1.node.service.local.", A, &[]);
    until("its instances are critical", || {
        get(&a, "health/service/pg").json()[0]["Checks"][0]["Output"]
            == "registered through host-b, which is not live or unreachable"
    });
    let (_, text) = muster(&a, &["explain", "db1"]);
    assert!(text.contains("registered through host-b, which is gone"), "{text}");
    register(&a, &node("10.9.0.1"));
    assert_eq!(a.answers("db1.node.service.local.", A), ["A 10.9.0.1"]);
}

#[test]
fn tags_of_the_catalog_survive_registrations_with_tag_override() {
    let mut agent = Agent::start();
    let registration = |tag_override: bool| json!({"Name": "web", "Port": 80, "Tags": ["v1"], "EnableTagOverride": tag_override, "Check": {"TTL": "1h"}});
    let tags = |agent: &Agent| get(agent, "catalog/service/web").json()[0]["ServiceTags"].clone();
    let service = |tags: &[&str]| json!({"Node": "host-a", "Address": "10.0.0.7", "Service": {"Service": "web", "Port": 81, "Tags": tags}});
    put(&agent, "agent/service/register", &registration(true));
    assert_eq!(get(&agent, "agent/services").json()["web"]["EnableTagOverride"], true);
    register(&agent, &service(&["primary", "v2"]));
    let shown = get(&agent, "catalog/service/web").json()[0].clone();
    assert_eq!(
        (&shown["ServiceTags"], &shown["ServicePort"]),
        (&json!(["primary", "v2"]), &json!(80)),
        "only tags change"
    );
    put(&agent, "agent/service/register", &registration(true));
    put(&agent, "agent/check/register", &json!({"Name": "disk", "ServiceID": "web", "TTL": "1h"}));
    assert_eq!(tags(&agent), json!(["primary", "v2"]));
    agent.signal(nix::sys::signal::Signal::SIGKILL);
    agent.wait();
    agent.start_again();
    agent.wait_until_answering();
    assert_eq!(tags(&agent), json!(["primary", "v2"]));
    put(&agent, "agent/service/register", &registration(false));
    assert_eq!(tags(&agent), json!(["v1"]));
    // Without the permission, nothing changes.
    register(&agent, &service(&["v3"]));
    let shown = get(&agent, "agent/service/web").json();
    assert_eq!((&shown["Tags"], &shown["Port"]), (&json!(["v1"]), &json!(80)));
}

/// As in Consul, where the agent restores its services in the catalog.
#[test]
fn registration_in_the_catalog_keeps_the_definition_and_the_checks_of_the_agent() {
    let agent = Agent::start();
    let check = json!({"TTL": "10m", "Status": "critical"});
    put(&agent, "agent/service/register", &json!({"Name": "c", "ID": "id-c", "Port": 80, "Check": check}));
    let of_catalog = |id: &str, port: u16| json!({"Node": "HOST-A", "Address": "10.0.0.7", "Service": {"ID": id, "Service": "c", "Port": port}});
    register(&agent, &of_catalog("id-c", 81));
    assert_eq!(get(&agent, "agent/checks").json()["service:id-c"]["Status"], "critical");
    assert_eq!(get(&agent, "catalog/service/c").json()[0]["ServicePort"], 80);
    assert_eq!(agent.answers("c.service.local.", A), [""; 0]);
    // A service that the catalog alone has is changed by the catalog.
    for port in [90, 91] {
        register(&agent, &of_catalog("own", port));
        assert_eq!(get(&agent, "agent/service/own").json()["Port"], port);
    }
}

#[test]
fn requests_to_the_catalog_need_a_node() {
    let agent = Agent::start();
    put(&agent, "agent/service/register", &json!({"Name": "web"}));
    for (path, body, expected) in [
        ("deregister", json!({"ServiceID": "web"}), "Node is missing: it is the node's name"),
        ("deregister", json!({"Node": "", "ServiceID": "web"}), "Node is missing: it is the node's name"),
        ("deregister", json!({"Node": null, "ServiceID": "web"}), "Node is missing: it is the node's name"),
        ("deregister", json!({"Node": 5, "ServiceID": "web"}), "Node must be a string, got the number 5"),
        ("deregister", json!({"Node": "host-a", "ServiceID": 5}), "ServiceID must be a string, got the number 5"),
        ("deregister", json!({"Node": "host-a"}), "ServiceID or CheckID is missing"),
        ("deregister", json!([]), "the body must be a JSON object, got an array"),
        ("register", json!({}), "Node is missing: it is the node's name"),
        ("register", json!([]), "the body must be a JSON object, got an array"),
        ("register", json!({"Node": 5, "Service": {"Service": "x"}}), "Node must be a string, got the number 5"),
        ("register", json!({"Node": "host-a"}), "Service is missing"),
        ("register", json!({"Node": "host-a", "Service": []}), "Service is missing"),
        ("register", json!({"Node": "host-a", "Service": {"ID": "x"}}), "Service.Service is missing"),
        (
            "register",
            json!({"Node": "host-a", "Datacenter": 5, "Service": {"Service": "x"}}),
            "Datacenter must be a string",
        ),
        (
            "register",
            json!({"Node": "db1", "Address": "10.9.0.1", "Check": {"CheckID": "serfHealth"}}),
            "Check.CheckID: the id \"serfHealth\" is reserved",
        ),
    ] {
        let refused = ask(agent.http(), "PUT", &format!("/v1/catalog/{path}"), &body.to_string());
        assert!(refused.status == 400 && refused.body.contains(expected), "{path} {body}: {}", refused.body);
    }
    assert_eq!(get(&agent, "agent/service/web").status, 200);
}

/// In Consul, the node and the id identify a service.
#[test]
fn services_of_two_nodes_are_answered_whatever_their_ids_and_names() {
    let agent = Agent::start();
    for (node, id, address) in
        [("db1", "pg-eu", "10.9.0.1"), ("eu-db1", "pg", "10.9.0.2"), ("db1", "pg-db1", "10.9.0.1")]
    {
        register(&agent, &json!({"Node": node, "Address": address, "Service": {"ID": id, "Service": "pg"}}));
    }
    assert_eq!(get(&agent, "catalog/service/pg").json().as_array().unwrap().len(), 3);
    assert_eq!(agent.answers("pg.service.local.", A), ["A 10.9.0.1", "A 10.9.0.2"]);
}

#[test]
fn id_with_the_instance_name_of_another_member_is_refused() {
    let a = Agent::start();
    let b = Agent::start_with("", &[], |folder| {
        let config = "node: 1-host-a\nadvertise: 10.0.0.8\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
                      dns: {listen: [127.0.0.1:0]}\nhttp: {listen: [127.0.0.1:0]}\ngossip: {listen: 127.0.0.1:0}\n\
                      resolver: {allow: []}\n";
        std::fs::write(folder.join("muster.yaml"), config).unwrap();
    });
    put(&b, "agent/service/register", &json!({"Name": "web"}));
    assert_eq!(ask(a.http(), "PUT", &format!("/v1/agent/join/{}", b.gossip()), "").status, 200);
    a.wait_for_answers("web.service.local.", A, &["A 10.0.0.8"]);
    let body = json!({"Name": "web", "ID": "web-1"}).to_string();
    let refused = ask(a.http(), "PUT", "/v1/agent/service/register", &body);
    let expected = "Instance web/web-1-host-a is announced by 1-host-a, too: use another ID.";
    assert!(refused.status == 400 && refused.body.contains(expected), "{}", refused.body);
}

#[test]
fn owner_removes_its_node_also_while_a_member_has_the_name() {
    let (a, b) = (Agent::start(), Agent::start_host_b());
    let node = json!({"Node": "host-b", "Address": "10.9.0.2", "Service": {"Service": "pg", "Port": 5432}});
    register(&a, &node);
    put(&b, "agent/service/register", &json!({"Name": "web"}));
    assert_eq!(ask(a.http(), "PUT", &format!("/v1/agent/join/{}", b.gossip()), "").status, 200);
    let ids = |agent: &Agent| -> Vec<String> {
        get(agent, "catalog/node/host-b").json()["Services"].as_object().unwrap().keys().cloned().collect()
    };
    for agent in [&a, &b] {
        until("the conflict is diagnosed", || {
            get(agent, "muster/status").json()["Muster"]["Conflicts"][0]["Node"] == "host-b"
        });
        // One rule for all lists: the fields of the node are those of the member, the services of both are listed.
        until("the services of both are listed", || ids(agent) == ["pg", "web"]);
        assert_eq!(get(agent, "catalog/node/host-b").json()["Node"]["Address"], "10.0.0.8");
        assert_eq!(get(agent, "catalog/node-services/host-b").json()["Services"].as_array().unwrap().len(), 2);
        assert_eq!(get(agent, "catalog/service/pg").json().as_array().unwrap().len(), 1);
        agent.wait_for_answers("pg.service.local.", A, &["A 10.9.0.2"]);
    }
    assert_eq!(get(&b, "agent/services").json().as_object().unwrap().keys().collect::<Vec<_>>(), ["web"]);
    let refused = ask(b.http(), "PUT", "/v1/catalog/deregister", &json!({"Node": "host-b"}).to_string());
    assert_eq!(refused.status, 400, "{}", refused.body);
    let check = json!({"CheckID": "alive", "ServiceID": "pg", "Status": "critical", "Output": "lost"});
    register(&a, &json!({"Node": "host-b", "SkipNodeUpdate": true, "Check": check}));
    for agent in [&a, &b] {
        agent.wait_for_answers("pg.service.local.", A, &[]);
        until("its checks are listed", || get(agent, "health/node/host-b").body.contains("\"lost\""));
    }
    deregister(&a, &json!({"Node": "host-b"}));
    for agent in [&a, &b] {
        until("the conflict has ended", || get(agent, "muster/status").json()["Muster"]["Conflicts"] == json!([]));
        assert_eq!(ids(agent), ["web"]);
    }
    assert!(ask(a.http(), "PUT", "/v1/catalog/register", &node.to_string()).body.contains("host-b has an agent"));
    // An external node has no id of a member.
    let id = get(&a, "catalog/node/host-b").json()["Node"]["ID"].clone();
    let body = json!({"Node": "db1", "Address": "10.9.0.1", "ID": id}).to_string();
    let refused = ask(a.http(), "PUT", "/v1/catalog/register", &body);
    assert!(
        refused.status == 400 && refused.body.contains("is that of host-b, which has an agent"),
        "{}",
        refused.body
    );
}
