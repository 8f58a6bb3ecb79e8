//! Names and ids as people and programs have them: registered by API and in files, in DNS, the catalog and `explain`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    net::TcpStream,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{
    agent::Agent,
    http::{ask, get, put},
    process::{self, Finish},
    wait::{self, DEADLINE, until},
};

const A: u16 = 1;
const PTR: u16 = 12;
const SRV: u16 = 33;

/// Names with the label that DNS has for them, or the reason why it has none.
const NAMES: &[(&str, Result<&str, &str>)] = &[
    ("web", Ok("web")),
    ("ConsulTest", Ok("consultest")),
    ("my_svc", Ok("my_svc")),
    ("My_Other_Svc", Ok("my_other_svc")),
    ("8080", Ok("8080")),
    ("trailing-", Ok("trailing-")),
    ("my.svc", Err("'.' is not a letter, digit, hyphen or underscore")),
    ("api/v1", Err("'/' is not a letter, digit, hyphen or underscore")),
    ("issue#7", Err("'#' is not a letter, digit, hyphen or underscore")),
    ("db:5432", Err("':' is not a letter, digit, hyphen or underscore")),
    ("two words", Err("' ' is not a letter, digit, hyphen or underscore")),
    ("100%", Err("'%' is not a letter, digit, hyphen or underscore")),
    ("a%2Fb", Err("'%' is not a letter, digit, hyphen or underscore")),
    ("größe", Err("'ö' is not a letter, digit, hyphen or underscore")),
    ("//double//", Err("'/' is not a letter, digit, hyphen or underscore")),
    ("_private", Err("names that begin with `_` are those of RFC 2782")),
    ("node", Err("`node` is reserved for the names of nodes")),
    (
        "a-name-of-more-than-sixty-three-octets-such-as-a-long-path-in-kubernetes",
        Err("a DNS label has at most 63 octets, this name has 72"),
    ),
];

/// Runs the program; returns its exit code, its output and its messages.
fn muster(arguments: &[&str]) -> (Option<i32>, String) {
    let output = process::muster().args(arguments).finish();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// Returns the begin of a stream, up to its first state.
fn first_state(agent: &Agent, path: &str) -> String {
    let mut stream = TcpStream::connect(agent.http()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).unwrap();
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    while !text.contains("event: state") || !text.ends_with("\n\n\r\n") {
        let len = stream.read(&mut piece).unwrap();
        assert_ne!(len, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&piece[..len]));
    }
    text
}

/// Encodes every octet of a text for a path or a query.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, octet| {
        let _ = write!(out, "%{octet:02x}");
        out
    })
}

/// Asserts all that the agent shows of a service of this name, whose only instance has the port.
#[track_caller]
fn assert_shown(agent: &Agent, name: &str, port: u16, address: &str, label: Result<&str, &str>) {
    let path = encoded(name);
    let listed = get(agent, "catalog/services").json();
    assert!(listed.get(name).is_some(), "{name}: {listed}");
    let instances = get(agent, &format!("catalog/service/{path}")).json();
    assert_eq!((&instances[0]["ServiceName"], &instances[0]["ServicePort"]), (&json!(name), &json!(port)), "{name}");
    let upper = encoded(&name.to_ascii_uppercase());
    let health = get(agent, &format!("health/service/{upper}?passing")).json();
    assert_eq!(health[0]["Service"]["Service"], name, "a path is compared without case");
    let filter = |text: &str| {
        let expression = encoded(&format!("Service == {text:?}"));
        get(agent, &format!("agent/services?filter={expression}")).json().as_object().unwrap().len()
    };
    assert_eq!(filter(name), 1, "{name}: a filter has the letter case as registered");
    if name != name.to_ascii_uppercase() {
        assert_eq!(filter(&name.to_ascii_uppercase()), 0, "{name}: a filter compares the letter case");
    }

    let id = instances[0]["ServiceID"].as_str().unwrap();
    let explained = get(agent, &format!("muster/explain/{path}")).json();
    let (target, reverse) = (explained["Instances"][0]["ID"].as_str().unwrap(), agent.answers(&reverse(address), PTR));
    let by_id = get(agent, &format!("muster/explain/{}", encoded(id))).json();
    assert_eq!(by_id["Instances"][0]["ID"], target, "{name}: {by_id}");
    match label {
        Ok(label) => {
            let target = format!("{target}.{label}.service.local.");
            assert_eq!(agent.answers(&format!("{name}.service.local."), A), [format!("A {address}")], "{name}");
            let srv = [format!("SRV 1 10 {port} {target}")];
            assert_eq!(agent.answers(&format!("{name}.service.local."), SRV), srv, "{name}");
            assert_eq!(agent.answers(&format!("_{name}._tcp.service.local."), SRV), srv, "{name}");
            assert_eq!(agent.answers(&target, A), [format!("A {address}")], "{name}");
            assert_eq!(reverse, [format!("PTR {target}")], "{name}");
            assert_eq!((&explained["Kind"], &explained["RCode"]), (&json!("service"), &json!("NOERROR")), "{name}");
        }
        Err(reason) => {
            assert_eq!(reverse, [""; 0], "{name}");
            let summary = explained["Summary"].as_str().unwrap();
            let expected = format!(
                "DNS has no name for the service: {reason}; the HTTP API has it, with 1 of 1 instances healthy"
            );
            assert_eq!((&explained["Source"], summary), (&json!("catalog"), &*expected), "{name}");
            assert_eq!(explained["Instances"][0]["Answered"], false, "{name}");
        }
    }
}

fn reverse(address: &str) -> String {
    let mut parts: Vec<&str> = address.split('.').collect();
    parts.reverse();
    format!("{}.in-addr.arpa.", parts.join("."))
}

#[test]
fn registered_services_keep_their_names() {
    let agent = Agent::start();
    for (at, (name, label)) in NAMES.iter().enumerate() {
        let (port, address) = (1000 + at as u16, format!("10.1.0.{at}"));
        let weights = json!({"Passing": 10});
        let body = json!({"Name": name, "Port": port, "Address": address, "Weights": weights});
        put(&agent, "agent/service/register", &body);
        assert_shown(&agent, name, port, &address, *label);
    }
    for (name, _) in NAMES {
        let path = format!("/v1/agent/service/deregister/{}", encoded(name));
        assert_eq!(ask(agent.http(), "PUT", &path, "").status, 200, "{name}");
    }
    until("an empty catalog", || get(&agent, "catalog/services").json() == json!({}));
}

#[test]
fn services_of_files_keep_their_names() {
    let mut text = "services:\n".to_owned();
    for (at, (name, _)) in NAMES.iter().enumerate() {
        let _ = writeln!(text, "  - {{service: {name:?}, port: {}, address: 10.1.0.{at}}}", 1000 + at);
    }
    let agent = Agent::start_with("", &[], |folder| std::fs::write(folder.join("services.d/all.yaml"), &text).unwrap());
    for (at, (name, label)) in NAMES.iter().enumerate() {
        assert_shown(&agent, name, 1000 + at as u16, &format!("10.1.0.{at}"), *label);
    }
    let (_, validated) = muster(&["validate", agent.path("services.d/all.yaml").to_str().unwrap()]);
    for (name, label) in NAMES {
        let warning = label.err().unwrap_or_default();
        assert!(validated.contains(warning), "{name}: {validated}");
    }
    assert_eq!(validated.matches("DNS has no name for").count(), 12, "{validated}");
}

/// Ids with slashes, spaces and escapes; each is the rest of a path, encoded or not.
const IDS: &[&str] = &["app/1", "svc@node:25/", "a//b", "/", "two words", "a%2Fb", "größe", "App/1", "check/pass/x"];

#[test]
fn ids_are_the_rest_of_a_path() {
    let agent = Agent::start();
    // A client may leave all characters but these as they are.
    let plain = |id: &str| id.replace('%', "%25").replace(' ', "%20").replace('ö', "%C3%B6").replace('ß', "%C3%9F");
    for (at, id) in IDS.iter().enumerate() {
        let service = json!({"Name": format!("web{at}"), "ID": id, "Check": {"TTL": "10m"}});
        for path in [plain(id), encoded(id)] {
            put(&agent, "agent/service/register", &service);
            let checked = |status: &str| {
                let checks = get(&agent, "agent/checks").json();
                assert_eq!(checks[format!("service:{id}")]["Status"], status, "{id}: {checks}");
            };
            checked("critical");
            put(&agent, &format!("agent/check/pass/service:{path}"), &Value::Null);
            checked("passing");
            put(&agent, &format!("agent/check/warn/service:{path}?note=disk"), &Value::Null);
            checked("warning");
            put(&agent, &format!("agent/check/update/service:{path}"), &json!({"Status": "passing"}));
            assert_eq!(get(&agent, &format!("agent/service/{path}")).json()["ID"], *id);
            assert_eq!(get(&agent, &format!("agent/health/service/id/{path}?format=text")).body, "passing", "{id}");
            put(&agent, &format!("agent/service/maintenance/{path}?enable=true"), &Value::Null);
            assert_eq!(get(&agent, &format!("agent/health/service/id/{path}?format=text")).body, "maintenance");
            put(&agent, &format!("agent/service/maintenance/{path}?enable=false"), &Value::Null);
            put(&agent, &format!("muster/drain/{path}"), &Value::Null);
            put(&agent, &format!("muster/resume/{path}"), &Value::Null);
            let explained = get(&agent, &format!("muster/explain/{path}")).json();
            assert_eq!(explained["Instances"][0]["RegisteredAs"], *id, "{explained}");
            put(&agent, &format!("agent/check/deregister/service:{path}"), &Value::Null);
            put(&agent, &format!("agent/service/deregister/{path}"), &Value::Null);
            let unknown = ask(agent.http(), "PUT", &format!("/v1/agent/service/deregister/{path}"), "");
            assert_eq!(unknown.status, 404, "{id}");
        }
    }
}

#[test]
fn rest_of_a_path_is_taken_in_streams_and_by_all_methods() {
    let agent = Agent::start();
    put(&agent, "agent/service/register", &json!({"Name": "api/v1", "Port": 80}));
    for path in ["api/v1", "api%2Fv1", "API%2fV1"] {
        assert_eq!(get(&agent, &format!("health/checks/{path}")).json(), json!([]), "{path}");
        let text = first_state(&agent, &format!("/v1/watch/health/service/{path}"));
        assert!(text.contains("\"Service\":\"api/v1\""), "{path}: {text}");
    }
    let other = ask(agent.http(), "POST", "/v1/agent/service/deregister/a/b/c", "");
    assert_eq!((other.status, other.header("Allow")), (405, Some("PUT")), "{}", other.body);
    let empty = ask(agent.http(), "PUT", "/v1/agent/service/deregister/", "");
    assert_eq!((empty.status, empty.body.as_str()), (400, "Missing id: append it to the path.\n"));
    let fired = put(&agent, "event/fire/deploy/web//v2", &Value::Null).json();
    assert_eq!(fired["Name"], "deploy/web//v2");
}

#[test]
fn ids_of_files_are_any_text() {
    let agent = Agent::start();
    let ids = ["app/1", "Web-1", "web 2"];
    let services: String = ids.iter().map(|id| format!("  - {{service: web, id: {id:?}, port: 80}}\n")).collect();
    agent.write_service("web.yaml", &format!("services:\n{services}"));
    until("three instances", || get(&agent, "agent/services").json().as_object().unwrap().len() == 3);
    for id in ids {
        assert_eq!(get(&agent, &format!("agent/service/{}", encoded(id))).json()["ID"], id);
    }
    let mut targets = agent.answers("web.service.local.", SRV);
    targets.sort();
    assert_eq!(targets.len(), 3, "{targets:?}");
    assert!(targets.contains(&"SRV 1 10 80 web-1.web.service.local.".to_owned()), "{targets:?}");
}

#[test]
fn tags_with_underscores_have_names() {
    let agent = Agent::start_with("alias_domains: [{domain: consul, scheme: consul}]\n", &[], |_| ());
    put(&agent, "agent/service/register", &json!({"Name": "my_svc", "Port": 80, "Tags": ["Blue_Green", "a.b"]}));
    assert_eq!(agent.answers("blue_green.my_svc.service.local.", A), ["A 10.0.0.7"]);
    assert_eq!(agent.answers("_my_svc._blue_green.service.local.", SRV).len(), 1);
    assert_eq!(agent.ask("a\\.b.my_svc.service.local.", A).metadata.response_code.to_string(), "Non-Existent Domain");
    let found = get(&agent, "health/service/my_svc?tag=BLUE_GREEN").json();
    assert_eq!(found[0]["Service"]["Tags"], json!(["Blue_Green", "a.b"]));
    let reason =
        "DNS has no name for the tag \"a.b\" of the service my_svc: '.' is not a letter, digit, hyphen or underscore";
    let note = "The HTTP API has the tag: /v1/health/service/my_svc?tag=a.b. A tag of letters, digits, hyphens and underscores has a name.";
    for (name, prefix) in [
        ("A.b.my_svc.service.local", "NXDOMAIN: "),
        ("_my_svc._a.b.service.local.", "NXDOMAIN: "),
        ("a.b.my_svc.service.consul", "NXDOMAIN: "),
        ("a.b.my_svc.service.dc1.consul", "NXDOMAIN: "),
        ("a.b.my_svc", ""),
    ] {
        let explained = get(&agent, &format!("muster/explain/{name}")).json();
        assert_eq!(
            (&explained["Summary"], &explained["Notes"]),
            (&json!(format!("{prefix}{reason}")), &json!([note])),
            "{name}"
        );
    }
    for name in ["x.b.my_svc.service.local", "a.my_svc.service.local"] {
        let explained = get(&agent, &format!("muster/explain/{name}")).json();
        assert_eq!(explained["Summary"], "NXDOMAIN: no node declares this name", "{name}");
    }
}

#[test]
fn label_with_a_dot_is_not_a_service_whose_name_has_one() {
    let agent = Agent::start();
    put(&agent, "agent/service/register", &json!({"Name": "my.svc", "Port": 80}));
    for name in ["my\\.svc.service.local.", "my.svc.service.local.", "_my\\.svc._tcp.service.local."] {
        assert_eq!(agent.ask(name, A).metadata.response_code.to_string(), "Non-Existent Domain", "{name}");
    }
    let explained = get(&agent, "muster/explain/my.svc.service.local").json();
    let note = "Service \"my.svc\" has no DNS name: '.' is not a letter, digit, hyphen or underscore.";
    assert_eq!((&explained["Kind"], &explained["Notes"][0]), (&json!("unknown"), &json!(note)));
}

#[test]
fn letter_cases_of_one_name_are_one_service() {
    let agent = Agent::start();
    for (name, port) in [("Web", 1), ("web", 2)] {
        put(&agent, "agent/service/register", &json!({"Name": name, "ID": name, "Port": port, "Tags": [name]}));
    }
    // As in Consul: both are listed, a path finds all instances, and a filter compares the letter case.
    assert_eq!(get(&agent, "catalog/services").json(), json!({"Web": ["Web"], "web": ["web"]}));
    let ports = |path: &str| {
        let found = get(&agent, path).json();
        let mut ports: Vec<u64> =
            found.as_array().unwrap().iter().map(|one| one["ServicePort"].as_u64().unwrap()).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(ports("catalog/service/WEB"), [1, 2]);
    assert_eq!(ports("catalog/service/web?filter=ServiceName+%3D%3D+Web"), [1]);
    assert_eq!(ports("catalog/service/web?filter=Web+in+ServiceTags"), [1]);
    assert_eq!(ports("catalog/service/web?tag=WEB"), [1, 2]);
    assert_eq!(agent.answers("WEB.service.local.", SRV).len(), 2);
    let explained = get(&agent, "muster/explain/web").json();
    let note = "The name is registered as \"Web\", \"web\": one service, since names compare without case.";
    assert_eq!(explained["Notes"][0], note);
    let listed = get(&agent, "internal/ui/services").json();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["InstanceCount"]), (1, &json!(2)), "{listed}");
    // A change of the letter case alone wakes clients that wait for the list.
    let index = get(&agent, "catalog/services").index();
    put(&agent, "agent/service/register", &json!({"Name": "WEB", "ID": "Web", "Port": 1, "Tags": ["Web"]}));
    let changed = get(&agent, &format!("catalog/services?index={index}&wait=10s"));
    assert_eq!(changed.json(), json!({"WEB": ["Web"], "web": ["web"]}));
}

#[test]
fn commands_take_any_name() {
    let agent = Agent::start();
    for name in ["api/v1", "two words", "My_Svc"] {
        put(&agent, "agent/service/register", &json!({"Name": name, "ID": format!("{name}/1"), "Port": 80}));
    }
    let run = |arguments: &[&str]| {
        let address = agent.http().to_string();
        let (code, text) = muster(&[arguments, &["--http-addr", &address]].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
        text
    };
    for name in ["api/v1", "two words"] {
        assert!(run(&["explain", name]).contains("DNS has no name for the service: "), "{name}");
        assert!(run(&["instances", name]).contains("passing"), "{name}");
        run(&["drain", &format!("{name}/1"), "--no-wait"]);
        let explained = run(&["explain", &format!("{name}/1")]);
        assert!(
            explained.contains("draining") && explained.contains(&format!("registered as {name}/1")),
            "{explained}"
        );
        run(&["resume", &format!("{name}/1")]);
    }
    assert!(run(&["explain", "my_svc"]).contains("1 of 1 answered"), "{}", run(&["explain", "my_svc"]));
    assert!(run(&["services"]).contains("My_Svc"));
}

#[test]
fn names_outlive_a_restart() {
    let mut agent = Agent::start();
    put(&agent, "agent/service/register", &json!({"Name": "Two Words/ä%", "ID": "a b/1", "Check": {"TTL": "10m"}}));
    put(&agent, "agent/check/pass/service:a%20b/1", &Value::Null);
    put(&agent, "muster/drain/a%20b/1", &Value::Null);
    agent.signal(Signal::SIGTERM);
    agent.start_again();
    agent.wait_until_answering();
    let found = wait::poll(|| {
        let found = get(&agent, &format!("health/service/{}", encoded("two words/ä%"))).json();
        if found[0].is_object() { Ok(found) } else { Err(found.to_string()) }
    });
    assert_eq!(found[0]["Service"]["Service"], "Two Words/ä%");
    let statuses: Vec<&str> =
        found[0]["Checks"].as_array().unwrap().iter().map(|check| check["Status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["passing", "critical", "passing"], "{found}");
}

#[test]
fn names_out_of_bounds_are_refused() {
    let agent = Agent::start();
    let long = "a".repeat(256);
    for (name, reason) in [
        ("", "Name is missing"),
        ("a\nb", "Name must be a string of 1 to 255 octets without control characters"),
        (&long, "Name must be a string of 1 to 255 octets without control characters"),
    ] {
        let body = json!({"Name": name}).to_string();
        let answer = ask(agent.http(), "PUT", "/v1/agent/service/register", &body);
        assert!(answer.status == 400 && answer.body.contains(reason), "{name:?}: {} {}", answer.status, answer.body);
    }
}
