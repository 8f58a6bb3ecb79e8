//! Instances that are registered with a host name: the agent looks up its addresses and follows them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    agent::Agent,
    extended_error,
    http::{ask, get, put},
    upstream::{Upstream, octets},
    wait::until,
};

const A: u16 = 1;
const PTR: u16 = 12;
const SRV: u16 = 33;
const AAAA: u16 = 28;

/// A static zone that the agent serves itself.
const ZONE: &str = "@ 60 SOA ns h 1 60 60 60 60\n@ NS ns\nns A 192.0.2.53\ndb 1 A 10.2.0.1\ndb 1 A 10.2.0.2\ndb 1 AAAA fd00::2\n\
                    alias CNAME db\nempty TXT x\nloop CNAME db.service.local.\nlo A 127.0.0.1\nnone A 0.0.0.0\n";

fn agent_with(config: &str, service: &str) -> Agent {
    Agent::start_with(config, &[], |folder| {
        fs::write(folder.join("zones/corp.example.zone"), ZONE).unwrap();
        if !service.is_empty() {
            fs::write(folder.join("services.d/all.yaml"), service).unwrap();
        }
    })
}

fn register(agent: &Agent, name: &str, address: &str) {
    put(agent, "agent/service/register", &json!({"Name": name, "Port": 80, "Address": address}));
}

fn explained(agent: &Agent, name: &str) -> Value {
    get(agent, &format!("muster/explain/{name}")).json()["Instances"][0].clone()
}

#[test]
fn address_of_a_host_name_is_answered() {
    let agent = agent_with("", "{service: filed, port: 80, address: Alias.Corp.Example}\n");
    register(&agent, "web", "db.corp.example.");
    agent.wait_for_answers("filed.service.local.", A, &["A 10.2.0.1", "A 10.2.0.2"]);
    assert_eq!(agent.answers("web.service.local.", A), ["A 10.2.0.1", "A 10.2.0.2"], "answered with the registration");
    assert_eq!(agent.answers("web.service.local.", AAAA), ["AAAA fd00::2"]);
    let target = agent.answers("web.service.local.", SRV)[0].rsplit(' ').next().unwrap().to_owned();
    assert_eq!(agent.answers(&target, A), ["A 10.2.0.1", "A 10.2.0.2"]);
    let pointers = agent.answers("1.0.2.10.in-addr.arpa.", PTR);
    assert!(pointers.contains(&format!("PTR {target}")), "{pointers:?}");
    // As in Consul, the API has the address as registered.
    let service = &get(&agent, "catalog/service/web").json()[0];
    assert_eq!((&service["ServiceAddress"], &service["ServicePort"]), (&json!("db.corp.example"), &json!(80)));
    assert_eq!(service["ServiceTaggedAddresses"]["lan_ipv4"]["Address"], "10.2.0.1");
    assert_eq!(get(&agent, "agent/services").json()["filed-host-a"]["Address"], "Alias.Corp.Example");
    let instance = explained(&agent, "web");
    assert_eq!(instance["Addresses"], json!(["10.2.0.1", "10.2.0.2", "fd00::2"]));
    assert_eq!((&instance["Host"], &instance["HostProblem"]), (&json!("db.corp.example"), &Value::Null));

    // A changed record is followed.
    fs::write(agent.path("zones/corp.example.zone"), ZONE.replace("10.2.0.2", "10.2.0.3")).unwrap();
    agent.wait_for_answers("web.service.local.", A, &["A 10.2.0.1", "A 10.2.0.3"]);
    agent.wait_for_answers("filed.service.local.", A, &["A 10.2.0.1", "A 10.2.0.3"]);
    assert_eq!(agent.answers("3.0.2.10.in-addr.arpa.", PTR), pointers);
    assert_eq!(agent.answers("2.0.2.10.in-addr.arpa.", PTR), [""; 0]);
}

#[test]
fn instance_without_an_address_is_not_answered_and_says_why() {
    let agent = agent_with("", "");
    let cases = [
        ("absent.corp.example", "NXDOMAIN"),
        ("empty.corp.example", "the name has no A and AAAA records"),
        ("loop.corp.example", "names in service.local. have the addresses of instances: use the address itself"),
        ("lo.corp.example", "the address 127.0.0.1 is not that of a host that other hosts can reach"),
        ("none.corp.example", "the address 0.0.0.0 is not that of a host that other hosts can reach"),
        ("elsewhere.example", "not in this agent's zones, and resolver.allow is empty"),
    ];
    put(&agent, "agent/service/register", &json!({"Name": "db", "Address": "10.2.0.9"}));
    for (at, (host, reason)) in cases.iter().enumerate() {
        let name = format!("web{at}");
        register(&agent, &name, host);
        let instance = explained(&agent, &name);
        assert_eq!((&instance["State"], &instance["Answered"]), (&json!("unresolved"), &json!(false)), "{instance}");
        let why = instance["Why"].as_str().unwrap();
        assert!(why.starts_with(&format!("without an address: {host}: {reason}")), "{why}");
        assert_eq!(instance["HostProblem"].as_str().map(|text| why.ends_with(text)), Some(true), "{instance}");
        let answer = agent.ask(&format!("{name}.service.local."), A);
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
        let (code, text) = extended_error(&answer).unwrap();
        assert!(code == 14 && text.contains(reason), "{text}");
        assert_eq!(agent.ask(&format!("{name}.service.local."), SRV).answers.len(), 0);
        assert_eq!(get(&agent, &format!("health/service/{name}?passing")).json(), json!([]));
        assert_eq!(get(&agent, &format!("catalog/service/{name}")).json()[0]["ServiceAddress"], *host);
    }
}

#[test]
fn host_name_in_a_zone_of_services_is_refused() {
    let agent = agent_with("", "");
    let service = |name: &str| json!({"Name": "web", "Address": name});
    let of_node = json!({"Node": "db1", "Address": "web.service.local"});
    let of_service =
        json!({"Node": "db1", "Address": "10.9.0.1", "Service": {"Service": "pg", "Address": "x.service.local"}});
    for (path, body) in [
        ("agent/service/register", service("WEB.Service.Local.")),
        ("catalog/register", of_node),
        ("catalog/register", of_service),
    ] {
        let refused = ask(agent.http(), "PUT", &format!("/v1/{path}"), &body.to_string());
        let expected = "is in service.local., whose names have the addresses of instances";
        assert!(refused.status == 400 && refused.body.contains(expected), "{}", refused.body);
    }
}

/// Upstream with one address, whose last octet can be set; 0: SERVFAIL.
fn upstream(last: &Arc<AtomicU8>) -> Upstream {
    let last = last.clone();
    Upstream::start(move |asked| {
        let reply = match (last.load(Ordering::SeqCst), asked.qtype()) {
            (0, _) => asked.reply(ResponseCode::ServFail),
            (last, RecordType::A) => asked.address([192, 0, 2, last], 1),
            _ => asked.nothing(ResponseCode::NoError, 1),
        };
        vec![octets(&reply)]
    })
}

#[test]
fn upstream_is_followed_and_a_failure_keeps_the_addresses() {
    let last = Arc::new(AtomicU8::new(1));
    let upstream = upstream(&last);
    // Clients need no permission for the agent's own questions.
    let config = format!("resolver: {{allow: [192.0.2.0/24], upstreams: [\"{}\"]}}\n", upstream.address());
    let mut agent = agent_with(&config, "");
    register(&agent, "web", "db.example.org");
    assert_eq!(agent.answers("web.service.local.", A), ["A 192.0.2.1"]);
    last.store(2, Ordering::SeqCst);
    agent.wait_for_answers("web.service.local.", A, &["A 192.0.2.2"]);

    last.store(0, Ordering::SeqCst);
    until("a failure", || explained(&agent, "web")["HostProblem"].is_string());
    assert_eq!(agent.answers("web.service.local.", A), ["A 192.0.2.2"]);
    let instance = explained(&agent, "web");
    assert_eq!((&instance["State"], &instance["Answered"]), (&json!("passing"), &json!(true)), "{instance}");
    agent.wait_for_log("host name not resolved; its last addresses stay in use");

    // Neither a reload nor a restart loses the addresses.
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/reload", "").status, 200);
    assert_eq!(agent.answers("web.service.local.", A), ["A 192.0.2.2"]);
    agent.signal(Signal::SIGTERM);
    agent.start_again();
    agent.wait_until_answering();
    agent.wait_for_answers("web.service.local.", A, &["A 192.0.2.2"]);

    last.store(3, Ordering::SeqCst);
    agent.wait_for_answers("web.service.local.", A, &["A 192.0.2.3"]);
    until("no problem", || explained(&agent, "web")["HostProblem"].is_null());
}

#[test]
fn invalid_addresses_are_refused() {
    let agent = Agent::start();
    for address in ["10.0.0.300", "10.0.0.7:80", "two words", "0.0.0.0", "größe.example", "a..b"] {
        let body = json!({"Name": "web", "Address": address}).to_string();
        let answer = ask(agent.http(), "PUT", "/v1/agent/service/register", &body);
        assert!(answer.status == 400 && answer.body.starts_with("Address must be"), "{address}: {}", answer.body);
    }
}

/// As in Consul's tutorial about external services.
fn learn(address: &str, status: &str) -> Value {
    json!({
        "Node": "hashicorp", "Address": address, "NodeMeta": {"external-node": "true", "external-probe": "true"},
        "Service": {"ID": "learn1", "Service": "learn", "Port": 80},
        "Checks": [{
            "Name": "http-check", "status": status,
            "Definition": {"http": "https://learn.hashicorp.com/consul/", "interval": "30s"},
        }],
    })
}

#[test]
fn external_node_with_a_host_name_is_answered() {
    let agent = agent_with("", "");
    assert_eq!(put(&agent, "catalog/register", &learn("Db.Corp.Example", "passing")).json(), json!(true));
    let addresses = ["A 10.2.0.1", "A 10.2.0.2"];
    let name = "learn1-hashicorp.learn.service.local.";
    assert_eq!(agent.answers("hashicorp.node.service.local.", A), addresses, "answered with the registration");
    assert_eq!(agent.answers("hashicorp.node.service.local.", AAAA), ["AAAA fd00::2"]);
    assert_eq!(agent.answers("learn.service.local.", A), addresses);
    assert_eq!(agent.answers("learn.service.local.", SRV), [format!("SRV 1 1 80 {name}")]);
    assert_eq!(agent.answers(name, A), addresses);
    assert_eq!(agent.answers("1.0.2.10.in-addr.arpa.", PTR), [format!("PTR {name}")]);
    // The API has the address as registered.
    let node = &get(&agent, "catalog/node/hashicorp").json()["Node"];
    assert_eq!(
        (&node["Address"], &node["TaggedAddresses"]["lan"]),
        (&json!("Db.Corp.Example"), &json!("Db.Corp.Example"))
    );
    assert_eq!(node["TaggedAddresses"]["lan_ipv4"], "10.2.0.1");
    let service = &get(&agent, "catalog/service/learn").json()[0];
    assert_eq!(
        (&service["Address"], &service["ServiceAddress"]),
        (&json!("Db.Corp.Example"), &json!("Db.Corp.Example"))
    );
    assert_eq!(get(&agent, "health/service/learn?passing").json()[0]["Node"]["Address"], "Db.Corp.Example");
    let note = &get(&agent, "muster/explain/hashicorp").json()["Notes"][0];
    assert_eq!(note, "addresses of Db.Corp.Example: 10.2.0.1, 10.2.0.2, fd00::2");
    assert_eq!(explained(&agent, "learn")["Host"], "Db.Corp.Example");

    // A changed record is followed, and reports of checks keep the addresses.
    fs::write(agent.path("zones/corp.example.zone"), ZONE.replace("10.2.0.2", "10.2.0.3")).unwrap();
    let addresses = ["A 10.2.0.1", "A 10.2.0.3"];
    agent.wait_for_answers("hashicorp.node.service.local.", A, &addresses);
    agent.wait_for_answers("learn.service.local.", A, &addresses);
    put(&agent, "catalog/register", &learn("Db.Corp.Example", "critical"));
    assert_eq!(agent.answers("learn.service.local.", A), [""; 0]);
    assert_eq!(agent.answers("hashicorp.node.service.local.", A), addresses);
    put(&agent, "catalog/register", &learn("10.2.0.9", "passing"));
    assert_eq!(agent.answers("learn.service.local.", A), ["A 10.2.0.9"], "an address replaces the host name");
    assert_eq!(agent.answers("hashicorp.node.service.local.", A), ["A 10.2.0.9"]);
}

#[test]
fn service_on_an_external_node_has_a_host_name_of_its_own() {
    let agent = agent_with("", "");
    let body = json!({
        "Node": "db1", "Address": "10.9.0.1", "Service": {"Service": "pg", "Port": 5432, "Address": "alias.corp.example"},
    });
    put(&agent, "catalog/register", &body);
    assert_eq!(agent.answers("pg.service.local.", A), ["A 10.2.0.1", "A 10.2.0.2"]);
    assert_eq!(agent.answers("db1.node.service.local.", A), ["A 10.9.0.1"]);
    let service = &get(&agent, "catalog/service/pg").json()[0];
    assert_eq!((&service["Address"], &service["ServiceAddress"]), (&json!("10.9.0.1"), &json!("alias.corp.example")));
}

#[test]
fn external_node_without_an_address_is_not_answered_and_says_why() {
    let agent = agent_with("", "");
    put(&agent, "catalog/register", &learn("absent.corp.example", "passing"));
    for name in ["hashicorp.node.service.local.", "learn.service.local."] {
        let answer = agent.ask(name, A);
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0), "{name}");
    }
    let (code, text) = extended_error(&agent.ask("learn.service.local.", A)).unwrap();
    assert!(code == 14 && text.contains("absent.corp.example: NXDOMAIN"), "{text}");
    let instance = explained(&agent, "learn");
    assert_eq!(
        (&instance["State"], &instance["Host"]),
        (&json!("unresolved"), &json!("absent.corp.example")),
        "{instance}"
    );
    let note = get(&agent, "muster/explain/hashicorp").json()["Notes"][0].clone();
    assert!(note.as_str().unwrap().starts_with("no addresses of absent.corp.example: NXDOMAIN"), "{note}");
    assert_eq!(get(&agent, "catalog/node/hashicorp").json()["Node"]["Address"], "absent.corp.example");
    assert_eq!(get(&agent, "health/service/learn?passing").json(), json!([]));
    let text = json!({"Node": "db2", "Address": "10.2.0.300"}).to_string();
    let refused = ask(agent.http(), "PUT", "/v1/catalog/register", &text);
    assert!(refused.status == 400 && refused.body.contains("an IP address or a host name"), "{}", refused.body);
}

#[test]
fn addresses_of_an_external_node_survive_a_restart_without_its_upstream() {
    let last = Arc::new(AtomicU8::new(7));
    let upstream = upstream(&last);
    let config = format!("resolver: {{allow: [192.0.2.0/24], upstreams: [\"{}\"]}}\n", upstream.address());
    let mut agent = agent_with(&config, "");
    put(&agent, "catalog/register", &learn("learn.hashicorp.example", "passing"));
    assert_eq!(agent.answers("learn.service.local.", A), ["A 192.0.2.7"]);
    agent.signal(Signal::SIGTERM);
    last.store(0, Ordering::SeqCst);
    agent.start_again();
    agent.wait_until_answering();
    assert_eq!(agent.answers("learn.service.local.", A), ["A 192.0.2.7"]);
    assert_eq!(agent.answers("hashicorp.node.service.local.", A), ["A 192.0.2.7"]);
    until("the failed lookup is explained", || {
        let note = get(&agent, "muster/explain/hashicorp").json()["Notes"][0].clone();
        note.as_str().is_some_and(|note| {
            note.starts_with("last known addresses of learn.hashicorp.example: 192.0.2.7; SERVFAIL")
        })
    });
}
