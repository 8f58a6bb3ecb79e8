//! Consul's API of the built program: registration, health, blocking queries, authorization, and the effect on DNS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    agent::Agent,
    http::{self, ask, ask_with, get, put},
    process::{self, Finish},
    skip,
    wait::until,
};

const SRV: u16 = 33;
const A: u16 = 1;

fn refused(agent: &Agent, method: &str, path: &str, body: &str, status: u16, text: &str) {
    let answer = ask(agent.http(), method, &format!("/v1/{path}"), body);
    assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
    assert!(answer.body.contains(text), "{method} {path}: {}", answer.body);
}

/// Restarts an agent without a drain.
fn restart(mut agent: Agent) -> Agent {
    agent.signal(Signal::SIGUSR1);
    agent.signal(Signal::SIGTERM);
    agent.start_again();
    agent.wait_until_answering();
    agent
}

#[test]
fn registered_service_is_answered_after_its_report() {
    let agent = Agent::start();
    put(&agent, "agent/service/register", &json!({"Name": "db", "ID": "db:1", "Port": 5432, "Check": {"TTL": "60s"}}));
    // The next query sees it, in the API and in DNS.
    assert_eq!(get(&agent, "agent/services").json()["db:1"]["Port"], 5432);
    assert_eq!(get(&agent, "agent/checks").json()["service:db:1"]["Status"], "critical");
    assert_eq!(get(&agent, "health/service/db?passing").json(), json!([]));
    assert!(agent.answers("db.service.local.", A).is_empty());

    put(&agent, "agent/check/pass/service:db:1?note=well", &Value::Null);
    let entry = &get(&agent, "health/service/db?passing").json()[0];
    assert_eq!((&entry["Service"]["ID"], &entry["Node"]["Node"]), (&json!("db:1"), &json!("host-a")));
    assert_eq!(entry["Checks"][0]["CheckID"], "serfHealth");
    assert_eq!(
        (&entry["Checks"][1]["CheckID"], &entry["Checks"][1]["Output"]),
        (&json!("service:db:1"), &json!("well"))
    );
    assert_eq!(agent.answers("db.service.local.", A), ["A 10.0.0.7"]);
    assert_eq!(get(&agent, "catalog/service/db").json()[0]["ServiceID"], "db:1");
    assert_eq!(get(&agent, "catalog/services").json(), json!({"db": []}));
    assert_eq!(get(&agent, "agent/health/service/id/db:1?format=text").body, "passing");

    for (path, body, code, status) in [
        ("agent/check/warn/service:db:1", Value::Null, 429, "warning"),
        ("agent/check/fail/service:db:1", Value::Null, 503, "critical"),
        ("agent/check/update/service:db:1", json!({"Status": "passing", "Output": "again"}), 200, "passing"),
    ] {
        put(&agent, path, &body);
        let health = get(&agent, "agent/health/service/name/db");
        assert_eq!((health.status, &health.json()[0]["AggregatedStatus"]), (code, &json!(status)), "{path}");
    }

    // A restart keeps the service and its state.
    let agent = restart(agent);
    assert_eq!(agent.answers("db.service.local.", A), ["A 10.0.0.7"]);
    put(&agent, "agent/service/deregister/db:1", &Value::Null);
    assert_eq!(get(&agent, "agent/services").json(), json!({}));
    assert_eq!(get(&agent, "health/service/db").json(), json!([]));
}

#[test]
fn withheld_instances_are_not_answered_and_show_the_reason() {
    let agent = Agent::start();
    agent.write_service("web.yaml", "service: web\nport: 80\n");
    agent.wait_for_answers("web.service.local.", A, &["A 10.0.0.7"]);
    let state =
        |agent: &Agent| get(agent, "muster/explain/web").json()["Instances"][0]["State"].as_str().unwrap().to_owned();
    let cases = [
        (
            "agent/service/maintenance/web-host-a?enable=true&reason=new+disk",
            "agent/service/maintenance/web-host-a?enable=false",
            "maintenance",
            "_service_maintenance:web-host-a",
        ),
        (
            "agent/maintenance?enable=true&reason=new+disk",
            "agent/maintenance?enable=false",
            "node-maintenance",
            "_node_maintenance",
        ),
        (
            "muster/drain/web-host-a?reason=new+disk",
            "muster/resume/web-host-a",
            "draining",
            "_service_maintenance:web-host-a",
        ),
        (
            "muster/drain/HOST-A?reason=new+disk&for=1h",
            "muster/resume/host-a",
            "draining",
            "_service_maintenance:web-host-a",
        ),
    ];
    let mut agent = agent;
    for (begin, end, expected, check) in cases {
        put(&agent, begin, &Value::Null);
        assert!(agent.answers("web.service.local.", A).is_empty(), "{begin}");
        let message = agent.ask("web.service.local.", A);
        let (code, text) = support::extended_error(&message).unwrap();
        assert!(code == 14 && text.contains("new disk"), "{begin}: {code} {text}");
        assert_eq!(state(&agent), expected);
        let checks = get(&agent, "health/node/host-a").json();
        let found = checks.as_array().unwrap().iter().find(|found| found["CheckID"] == check);
        assert_eq!(
            found.map(|found| (&found["Status"], &found["Notes"])),
            Some((&json!("critical"), &json!("new disk"))),
            "{begin}"
        );
        assert_eq!(get(&agent, "health/service/web?passing").json(), json!([]), "{begin}");
        // The hold survives a restart.
        agent = restart(agent);
        agent.write_service("web.yaml", "service: web\nport: 80\n");
        until("the service of the file is known", || get(&agent, "muster/explain/web").json()["Kind"] != "unknown");
        assert_eq!(state(&agent), expected, "after a restart");
        put(&agent, end, &Value::Null);
        agent.wait_for_answers("web.service.local.", A, &["A 10.0.0.7"]);
    }
}

#[test]
fn blocking_queries_return_when_their_own_part_changes() {
    let agent = Agent::start();
    agent.write_service("web.yaml", "service: web\n");
    // DNS answers the service before the API shows it.
    until("the API shows web", || get(&agent, "health/service/web").json() != json!([]));
    // The change, and whether each query returns.
    let register = |name: &str, tags: &[&str]| json!({"Name": name, "Tags": tags});
    let cases = [
        ("agent/service/register", register("db", &[]), [false, true, true, true]),
        ("agent/service/register", register("db", &["v2"]), [false, true, true, true]),
        ("agent/maintenance?enable=true", Value::Null, [true, false, true, true]),
        ("agent/service/deregister/db", Value::Null, [false, true, true, true]),
    ];
    let paths = ["health/service/web", "catalog/services", "health/state/any", "health/service/db"];
    for (change, body, expected) in cases {
        let http = agent.http();
        let waiting: Vec<_> = paths
            .iter()
            .map(|path| {
                let seen = get(&agent, path).index();
                let query = format!("/v1/{path}?index={seen}&wait=700ms");
                thread::spawn(move || (ask(http, "GET", &query, "").index(), seen))
            })
            .collect();
        put(&agent, change, &body);
        for ((path, waited), returns) in paths.iter().zip(waiting).zip(expected) {
            let (index, seen) = waited.join().unwrap();
            assert_eq!(index > seen, returns, "{path} after {change} {body}");
        }
    }
    // An index ahead of the agent's, as after a restart, is answered at once.
    let ahead = get(&agent, &format!("catalog/services?index={}", u64::MAX));
    assert_eq!(ahead.index(), get(&agent, "catalog/services").index());
    assert_eq!(ahead.header("X-Consul-KnownLeader"), Some("true"));
}

#[test]
fn parameters_take_effect_or_are_refused() {
    let agent = Agent::start();
    agent.write_service(
        "web.yaml",
        "services:\n- {service: web, id: a, port: 80, tags: [v1, eu], meta: {env: prod}}\n- {service: web, id: b, port: 81, tags: [v2, eu]}\n",
    );
    agent.wait_for_answers("b.web.service.local.", A, &["A 10.0.0.7"]);
    let ids = |path: &str| -> Vec<String> {
        let all = get(&agent, path).json();
        let id = |one: &Value| one["Service"]["ID"].as_str().or(one["ServiceID"].as_str()).unwrap().to_owned();
        all.as_array().unwrap().iter().map(id).collect()
    };
    until("the API lists both instances", || ids("health/service/web").len() == 2);
    let cases: &[(&str, &[&str])] = &[
        ("health/service/web", &["a", "b"]),
        ("health/service/WEB", &["a", "b"]),
        ("health/service/none", &[]),
        ("health/service/web?tag=V1", &["a"]),
        ("health/service/web?tag=eu&tag=v2", &["b"]),
        ("catalog/service/web?tag=none", &[]),
        ("catalog/service/web?stale&consistent=&cached=true&dc=dc1&near=_agent", &["a", "b"]),
        ("health/service/web?filter=Service.Meta.env+%3D%3D+prod", &["a"]),
        ("catalog/service/web?filter=%22v2%22+in+ServiceTags", &["b"]),
        ("health/service/web?passing=false", &["a", "b"]),
        ("health/service/web?wait=120000ms&index=0", &["a", "b"]),
    ];
    for (path, expected) in cases {
        assert_eq!(ids(path), *expected, "{path}");
    }
    assert!(get(&agent, "catalog/nodes?pretty").body.starts_with("[\n    {\n        \"ID\""));
    let cases = [
        ("GET", "health/service/web?dc=elsewhere", "", 400, "No path to datacenter elsewhere"),
        ("GET", "health/service/web?ns=team", "", 400, "muster has no namespaces"),
        ("GET", "health/service/web?index=x", "", 400, "index must be an integer from 0 to"),
        (
            "GET",
            "health/service/web?index=1&wait=soon",
            "",
            400,
            "wait must be a duration such as 30s or 5m, got \"soon\"",
        ),
        ("GET", "health/service/web?filter=x", "", 400, "expected an operator"),
        ("GET", "health/service/web?passing=maybe", "", 400, "passing must be true or false, got \"maybe\""),
        ("GET", "health/service/a%0Ab", "", 400, "is not a valid service name"),
        ("GET", "health/state/ill", "", 400, "expected any, passing, warning, critical"),
        ("GET", "agent/service/none", "", 404, "unknown service ID"),
        ("GET", "agent/health/service/name/none", "", 404, "no instance of service"),
        ("GET", "kv/a", "", 400, "this cluster has no store"),
        ("GET", "session/list", "", 400, "this cluster has no store"),
        ("PUT", "agent/maintenance", "", 400, "Missing value for enable"),
        ("PUT", "agent/service/register", "{", 400, "Request decode failed"),
        (
            "PUT",
            "agent/service/register",
            r#"{"Name": "x", "Check": {"Args": ["/bin/true"]}}"#,
            400,
            "not accepted over HTTP",
        ),
        ("PUT", "agent/service/deregister/a", "", 400, "defined by a service file"),
        ("PUT", "agent/check/pass/none", "", 404, "Unknown check ID"),
        ("PUT", "agent/check/update/none", r#"{"Status": "fine"}"#, 400, "Invalid check status"),
        ("PUT", "catalog/register", r#"{"Node": "host-z", "Service": {"Service": "x"}}"#, 400, "Address is missing"),
        ("PUT", "catalog/deregister", r#"{"Node": "host-z", "Datacenter": "dc2"}"#, 400, "this agent is in dc1"),
        ("PUT", "muster/drain/none", "", 404, "Unknown instance"),
    ];
    for (method, path, body, status, text) in cases {
        refused(&agent, method, path, body, status, text);
    }
    assert_eq!(get(&agent, "catalog/datacenters").json(), json!(["dc1"]));
    assert_eq!(get(&agent, "status/peers").json().as_array().unwrap().len(), 1);
}

#[test]
fn service_list_counts_answered_instances_and_states() {
    let agent = Agent::start();
    agent.write_service(
        "all.yaml",
        "services:\n- {service: web, id: a, tags: [v2]}\n- {service: web, id: b, tags: [eu]}\n\
         - {service: web, id: c, checks: [{ttl: 1h}]}\n- {service: mail, enabled: false}\n- {service: api}\n",
    );
    agent.wait_for_answers("b.web.service.local.", A, &["A 10.0.0.7"]);
    put(&agent, "agent/service/maintenance/b?enable=true", &Value::Null);
    let summary = |name: &str, tags: &[&str], checks: [usize; 3], answered: usize, states: Value| {
        let all: u64 = states.as_object().unwrap().values().filter_map(Value::as_u64).sum();
        json!({
            "Name": name, "Datacenter": "dc1", "Tags": tags, "Nodes": ["host-a"], "InstanceCount": all,
            "ChecksPassing": checks[0], "ChecksWarning": checks[1], "ChecksCritical": checks[2],
            "Muster": {"Answered": answered, "States": states, "Tier": null},
        })
    };
    let expected = json!([
        summary("api", &[], [1, 0, 0], 1, json!({"passing": 1})),
        summary("mail", &[], [1, 0, 1], 0, json!({"disabled": 1})),
        summary("web", &["eu", "v2"], [3, 0, 2], 1, json!({"critical": 1, "maintenance": 1, "passing": 1})),
    ]);
    assert_eq!(get(&agent, "internal/ui/services").json(), expected);
    assert_eq!(get(&agent, "internal/ui/services?dc=dc1").json(), expected);
    put(&agent, "agent/maintenance?enable=true", &Value::Null);
    let summaries = get(&agent, "internal/ui/services").json();
    assert_eq!(summaries[0], summary("api", &[], [1, 0, 1], 0, json!({"node-maintenance": 1})));
}

#[test]
fn commands_explain_drain_and_resume() {
    let agent = Agent::start();
    agent.write_service("web.yaml", "service: web\nport: 80\nttl: 0s\n");
    agent.wait_for_answers("web.service.local.", A, &["A 10.0.0.7"]);
    let muster = |arguments: &[&str]| -> (i32, String) {
        let mut command = process::muster();
        let output = command.args(arguments).env("MUSTER_HTTP_ADDR", agent.http().to_string()).finish();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text)
    };
    let cases: &[(&[&str], i32, &str)] = &[
        (&["services"], 0, "web      1 of 1    -"),
        (&["instances", "web"], 0, "web-host-a  host-a  10.0.0.7:80  10      passing"),
        (&["instances", "wep"], 1, "Did you mean web?"),
        (&["explain", "_web._tcp.service.local"], 0, "+ web/web-host-a on host-a: passing"),
        (&["explain", "wep"], 1, "NXDOMAIN: no node declares this name"),
        (&["drain", "web-host-a", "--reason", "kernel"], 0, "safe to stop"),
        (&["explain", "web"], 0, "draining: kernel"),
        (&["resume", "web-host-a"], 0, "web/web-host-a: resumed; answered while its checks pass"),
        (&["explain", "web-host-a"], 0, "TTL 0 s, from the ttl of web/web-host-a"),
        (&["drain", "host-a", "--timeout", "0s"], 1, "not safe to stop: cached answers may remain for another"),
        (&["resume", "host-a", "--json"], 0, "\"web/web-host-a\""),
        (&["drain", "nobody"], 1, "Unknown instance \"nobody\""),
        // Holds of the node and of the instance end separately.
        (&["drain", "web-host-a", "--no-wait"], 0, "web/web-host-a: withdrawn"),
        (&["resume", "host-a"], 0, "web/web-host-a: still drained by itself: muster resume web-host-a\n"),
        (&["drain", "host-a", "--no-wait"], 0, "web/web-host-a: withdrawn"),
        (&["resume", "web-host-a"], 0, "web/web-host-a: still drained with its node: muster resume host-a\n"),
        (&["resume", "web-host-a", "--json"], 0, "\"Target\": \"host-a\""),
        (&["resume", "host-a"], 0, "web/web-host-a: resumed; answered while its checks pass"),
        (&["resume", "host-a"], 0, "host-a: not drained or in maintenance"),
        (&["reload"], 0, "reloaded"),
    ];
    for (arguments, code, expected) in cases {
        let (exit, text) = muster(arguments);
        assert_eq!(exit, *code, "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
    agent.wait_for_answers("web.service.local.", SRV, &["SRV 1 10 80 web-host-a.web.service.local."]);
}

#[test]
fn tokens_authorize_by_scope_and_reload_without_restart() {
    let file = |text: &str| format!("tokens:\n{text}");
    let read = "- {name: prometheus, scope: read, token: reads-reads-reads-reads}\n";
    let register = "- {name: web, scope: register, token: registers-registers-regi}\n";
    let operate = "- {name: root, scope: operate, token: operates-operates-operat}\n";
    let mut agent =
        Agent::start_with("http: {listen: [127.0.0.1:0], tokens_dir: tokens.d, socket: http.sock}\n", &[], |folder| {
            std::fs::create_dir(folder.join("tokens.d")).unwrap();
            std::fs::write(folder.join("tokens.d/all.yaml"), file(&[read, register, operate].concat())).unwrap();
        });
    let with = |agent: &Agent, method: &str, path: &str, header: &str| -> u16 {
        let body = if path.contains("service/register") { r#"{"Name": "db"}"# } else { "" };
        ask_with(agent.http(), method, path, header, body).status
    };
    let tokens = [
        "",
        "wrong-wrong-wrong-wrong",
        "reads-reads-reads-reads",
        "registers-registers-regi",
        "operates-operates-operat",
    ];
    let cases = [
        ("GET", "/v1/catalog/services", [403, 403, 200, 200, 200]),
        ("PUT", "/v1/agent/service/register", [403, 403, 403, 200, 200]),
        ("PUT", "/v1/agent/reload", [403, 403, 403, 403, 200]),
        ("GET", "/v1/operator/keyring", [403, 403, 403, 403, 500]),
        ("GET", "/v1/nothing", [403, 403, 404, 404, 404]),
    ];
    for (method, path, expected) in cases {
        for (token, expected) in tokens.iter().zip(expected) {
            for header in [format!("X-Consul-Token: {token}\r\n"), format!("Authorization: Bearer {token}\r\n")] {
                assert_eq!(with(&agent, method, path, &header), expected, "{method} {path} {header}");
            }
            assert_eq!(with(&agent, method, &format!("{path}?token={token}"), ""), expected, "{method} {path} {token}");
        }
    }
    // With tokens, reads accept any host name.
    let named = "Host: muster.corp.example\r\nX-Consul-Token: reads-reads-reads-reads\r\n";
    assert_eq!(with(&agent, "GET", "/v1/catalog/services", named), 200);
    // The mode of the socket file restricts access.
    let socket = format!("unix://{}", agent.path("http.sock").display());
    let output = process::muster().args(["reload", "--http-addr", &socket]).env_remove("MUSTER_HTTP_TOKEN").finish();
    assert!(output.status.success(), "{output:?}");

    // A valid file replaces the tokens; a broken file keeps the previous ones.
    let bearer = |token: &str| format!("X-Consul-Token: {token}\r\n");
    std::fs::write(agent.path("tokens.d/all.yaml"), "tokens: [{name: a, token: operates-operates-operat}]").unwrap();
    agent.wait_for_log("the token has no `scope`");
    assert_eq!(with(&agent, "PUT", "/v1/agent/reload", &bearer("operates-operates-operat")), 200);
    // A blocking query whose token is revoked does not receive the result.
    let withdrawn = bearer("operates-operates-operat");
    let index = ask_with(agent.http(), "GET", "/v1/catalog/services", &withdrawn, "").index();
    let path = format!("/v1/catalog/services?index={index}&wait=1m");
    let waiting = http::begin(agent.http(), "GET", &path, &withdrawn, "");
    let next = "- {name: root, scope: operate, token: operates-next-operates-next}\n";
    std::fs::write(agent.path("tokens.d/all.yaml"), file(next)).unwrap();
    until("the new token is loaded", || {
        with(&agent, "PUT", "/v1/agent/reload", &bearer("operates-next-operates-next")) == 200
    });
    assert_eq!(with(&agent, "PUT", "/v1/agent/reload", &bearer("operates-operates-operat")), 403);
    let gone = "/v1/agent/service/deregister/db";
    assert_eq!(with(&agent, "PUT", gone, &bearer("operates-next-operates-next")), 200);
    let answer = waiting.answer();
    assert!(answer.status == 403 && answer.body.contains("the token was revoked"), "{}", answer.body);
    assert!(!agent.log().contains("operates"), "{}", agent.log());
}

#[test]
fn api_with_certificate_uses_tls_only() {
    if !skip::tool("api_with_certificate_uses_tls_only", "curl", "curl") {
        return;
    }
    let agent =
        Agent::start_with("http: {listen: [127.0.0.1:0], certificate: cert.pem, key: key.pem}\n", &[], |folder| {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
            std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        });
    let curl = |url: &str| {
        let mut command = process::command("curl");
        command.args(["-s", "-m", "20", "-w", "%{http_code}", "--cacert"]).arg(agent.path("cert.pem")).arg(url);
        String::from_utf8(command.finish().stdout).unwrap()
    };
    assert_eq!(curl(&format!("https://{}/v1/catalog/services", agent.http())), "{}200");
    assert_eq!(curl(&format!("http://{}/v1/catalog/services", agent.http())), "000", "no cleartext HTTP");
}
