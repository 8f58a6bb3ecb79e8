//! Malformed and hostile HTTP requests: no request may cause a server error or stop the agent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{
    agent::Agent,
    http::{ask, exchange, get, put},
    process::{self, Finish},
    skip,
    wait::until,
};

const A: u16 = 1;
/// Seed of schemathesis, so that runs are reproducible.
const SEED: &str = "20";

/// An agent with a service from a file and a registered service.
fn agent() -> Agent {
    prepared(Agent::start())
}

fn prepared(agent: Agent) -> Agent {
    agent.write_service("web.yaml", "service: web\nport: 80\n");
    agent.wait_for_answers("web.service.local.", A, &["A 10.0.0.7"]);
    put(&agent, "agent/service/register", &json!({"Name": "db", "Check": {"TTL": "10m", "Status": "passing"}}));
    agent
}

/// The same agent with a store that has a key, and is its only voter.
fn store_agent() -> Agent {
    let agent = Agent::start_with("store: {voters: [host-a]}\n", &[], |_| {});
    let put_key = || ask(agent.http(), "PUT", "/v1/kv/app/color", "blue").status == 200;
    until("the store has a leader", put_key);
    prepared(agent)
}

/// Asserts that the agent still works.
fn assert_healthy(agent: &Agent) {
    assert_eq!(get(agent, "agent/self").status, 200);
    assert_eq!(agent.answers("web.service.local.", A), ["A 10.0.0.7"]);
    let log = agent.log();
    assert!(!log.contains("panicked") && !log.contains(" ERROR "), "{log}");
}

/// Returns the status codes of the responses, in order.
fn statuses(answer: &str) -> Vec<u16> {
    let heads = answer.split("HTTP/1.").skip(1);
    heads.map(|rest| rest[2..5].parse().unwrap()).collect()
}

fn put_json(body: &str) -> Vec<u8> {
    put_octets(body.as_bytes())
}

fn put_octets(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "PUT /v1/agent/service/register HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn chunked(chunks: &str) -> Vec<u8> {
    let head = "PUT /v1/agent/service/register HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    [head.as_bytes(), chunks.as_bytes()].concat()
}

fn get_raw(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

#[test]
fn malformed_requests_are_refused() {
    let agent = agent();
    let myself = "/v1/agent/self";
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        // Request lines and targets.
        ("HTTP/0.9", b"GET /v1/agent/self\r\n\r\n".to_vec(), &[400]),
        ("HTTP/1.0", b"GET /v1/agent/self HTTP/1.0\r\n\r\n".to_vec(), &[200]),
        // The server closes the connection without a response.
        ("HTTP/2 without asking", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[]),
        ("an absolute form (RFC 9112 3.2.2)", get_raw("http://localhost/v1/agent/self", ""), &[200]),
        ("dots", get_raw("/v1/agent/../agent/self", ""), &[404]),
        ("dots, encoded", get_raw("/v1/%2e%2e/v1/agent/self", ""), &[404]),
        ("two slashes", get_raw("//v1/agent/self", ""), &[404]),
        ("an asterisk", b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec(), &[404]),
        ("CONNECT", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n".to_vec(), &[403]),
        ("a NUL in a path", get_raw("/v1/agent/service/\0", ""), &[400]),
        ("an encoded NUL", get_raw("/v1/agent/service/%00", ""), &[404]),
        ("invalid UTF-8 in a path", get_raw("/v1/agent/service/%ff", ""), &[400]),
        ("invalid UTF-8 in a query", get_raw("/v1/catalog/services?filter=%ff%fe", ""), &[400]),
        ("a long path", get_raw(&format!("/v1/catalog/service/{}", "a".repeat(8000)), ""), &[400]),
        ("a long query", get_raw(&format!("{myself}?x={}", "a".repeat(12_000)), ""), &[200]),
        ("a head that is too long", get_raw(&format!("{myself}?x={}", "a".repeat(20_000)), ""), &[431]),
        ("thousands of parameters", get_raw(&format!("/v1/health/service/web?{}", "tag=&".repeat(2900)), ""), &[200]),
        ("too many lines", get_raw(myself, &"x: y\r\n".repeat(100)), &[431]),
        ("a folded line", get_raw(myself, "x: y\r\n z\r\n"), &[400]),
        ("a header without a name", get_raw(myself, ": y\r\n"), &[400]),
        ("two requests in one", [&b"GET /v1/agent/self HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &get_raw(myself, "")].concat(), &[200, 200]),
        // Bodies.
        ("the largest body", put_octets(&[b' '; 64 * 1024]), &[400]),
        ("one octet more", put_octets(&vec![b' '; 64 * 1024 + 1]), &[413]),
        ("one octet more, in chunks", chunked(&format!("10001\r\n{}\r\n0\r\n\r\n", " ".repeat(65_537))), &[413]),
        ("a chunk of no length", chunked("zz\r\n"), &[400]),
        ("a chunk of 2^68 octets", chunked("fffffffffffffffff\r\n"), &[400]),
        (
            "100-continue",
            b"PUT /v1/agent/service/register HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
            &[100, 400],
        ),
        // Ambiguous framing (RFC 9112 6.1): the connection ends, so that no second request is smuggled.
        (
            "a length and chunks",
            b"PUT /v1/agent/service/register HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/agent/self HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec(),
            &[400],
        ),
        ("two lengths", b"PUT /v1/agent/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".to_vec(), &[400]),
        ("a length below 0", b"PUT /v1/agent/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n".to_vec(), &[400]),
        ("chunked as inner encoding", b"PUT /v1/agent/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_vec(), &[400]),
        // JSON.
        ("deep lists", put_json(&"[".repeat(60_000)), &[400]),
        ("a deep value", put_json(&format!(r#"{{"Name":"x","Meta":{}{}}}"#, "[".repeat(200), "]".repeat(200))), &[400]),
        ("a number beyond floats", put_json(r#"{"Name":"x","Port":1e999}"#), &[400]),
        ("a number beyond integers", put_json(r#"{"Name":"x","Port":99999999999999999999}"#), &[400]),
        ("a duration without end", put_json(r#"{"Name":"x","Check":{"TTL":"99999999999999999999h"}}"#), &[400]),
        ("a duration in nanoseconds", put_json(r#"{"Name":"x","Check":{"TTL":18446744073709551615}}"#), &[400]),
        ("a key twice", put_json(r#"{"Name":"twice","Name":"twice"}"#), &[200]),
        ("invalid UTF-8 in JSON", put_octets(b"{\"Name\":\"\xff\"}"), &[400]),
        ("half a surrogate", put_json(r#"{"Name":"\ud800"}"#), &[400]),
        ("a NUL in a name", put_json(r#"{"Name":"a\u0000"}"#), &[400]),
        ("a NUL in an id", put_json(r#"{"Name":"a","ID":"\u0000"}"#), &[400]),
        ("a list where an object belongs", put_json("[]"), &[400]),
        ("an empty body", put_json(""), &[400]),
        ("thousands of checks", put_json(&format!(r#"{{"Name":"x","Checks":[{}]}}"#, vec![r#"{"TTL":"9s"}"#; 4000].join(","))), &[400]),
        ("thousands of keys", put_json(&format!("{{{}\"x\":1}}", "\"Name\":1,".repeat(7000))), &[400]),
        // Parameters.
        ("the largest index", get_raw("/v1/catalog/nodes?index=18446744073709551615&wait=1ms", ""), &[200]),
        ("an index beyond 64 bits", get_raw("/v1/catalog/nodes?index=18446744073709551616", ""), &[400]),
        ("a huge wait", get_raw("/v1/catalog/nodes?index=1&wait=999999999999999999999h", ""), &[400]),
        ("parentheses without end", get_raw(&format!("/v1/catalog/nodes?filter={}", "(".repeat(4000)), ""), &[400]),
        ("an expression that is too long", get_raw(&format!("/v1/catalog/nodes?filter={}", "a".repeat(5000)), ""), &[400]),
        ("an exponentially large pattern", get_raw("/v1/catalog/nodes?filter=Node+matches+%22((a%7B99%7D)%7B99%7D)%7B99%7D%22", ""), &[400]),
        ("a pattern with catastrophic backtracking", get_raw("/v1/catalog/nodes?filter=Node+matches+%22(h%2B)%2B%24%22", ""), &[200]),
    ];
    let mut wrong = Vec::new();
    for (case, request, expected) in cases {
        let answer = exchange(agent.http(), &request);
        if statuses(&answer) != expected {
            wrong.push(format!("{case}: expected {expected:?}: {answer:.200}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_healthy(&agent);
}

/// Extreme durations of holds.
#[test]
fn huge_hold_durations_are_accepted_or_refused() {
    let agent = agent();
    for period in ["1000000000000000h", "5000000000000000h", "1ns"] {
        put(&agent, &format!("agent/service/maintenance/db?enable=true&for={period}"), &Value::Null);
        put(&agent, "agent/service/maintenance/db?enable=false", &Value::Null);
    }
    let answer = ask(agent.http(), "PUT", "/v1/muster/drain/db?for=99999999999999999h", "");
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert_healthy(&agent);
}

/// Malformed requests to the store. Consul answers some of them with 500.
#[test]
fn malformed_requests_for_keys_are_refused() {
    let agent = store_agent();
    let unknown = "b3a4fbd1-3a5c-4b6e-9d7e-0c6a3f4b5d6e";
    let acquire = |session: &str| format!("/v1/kv/a?acquire={session}");
    let txn = |operation: &str| format!("[{{\"KV\": {operation}}}]");
    let cases: Vec<(&str, &str, String, u16)> = vec![
        ("PUT", "/v1/kv/", String::new(), 405),
        ("PUT", "/v1/kv/%00", "a NUL is an octet like others".to_owned(), 200),
        ("PUT", "/v1/kv/a?flags=1e3", String::new(), 400),
        ("PUT", "/v1/kv/a?cas=18446744073709551616", String::new(), 400),
        ("PUT", "/v1/kv/a", "x".repeat((512 << 10) + 1), 413),
        ("GET", "/v1/kv/a?index=-1", String::new(), 400),
        ("GET", "/v1/kv/a?wait=soon", String::new(), 400),
        ("PUT", "/v1/session/create", "{\"TTL\": \"soon\"}".to_owned(), 400),
        ("PUT", "/v1/session/create", "{\"TTL\": 7}".to_owned(), 400),
        ("PUT", "/v1/session/create", "{\"Behavior\": \"keep\"}".to_owned(), 400),
        ("PUT", "/v1/session/create", "{\"Node\": \"nowhere\"}".to_owned(), 400),
        ("PUT", "/v1/session/create", "{\"Checks\": [\"none\"]}".to_owned(), 400),
        ("PUT", "/v1/session/create", "[".repeat(60_000), 400),
        ("PUT", "/v1/session/renew/none", String::new(), 404),
        ("PUT", "/v1/session/destroy/none", String::new(), 200),
        ("GET", "/v1/session/info/none", String::new(), 400),
        ("PUT", "/v1/txn", "{".to_owned(), 400),
        ("PUT", "/v1/txn", "[{}]".to_owned(), 400),
        ("PUT", "/v1/txn", txn("{\"Verb\": \"set\", \"Key\": \"a\", \"Value\": \"%\"}"), 400),
        ("PUT", "/v1/txn", txn("{\"Verb\": \"lock\", \"Key\": \"a\", \"Session\": \"none\"}"), 409),
        ("PUT", "/v1/txn", txn("{\"Verb\": \"steal\", \"Key\": \"a\"}"), 409),
        ("PUT", "/v1/txn", format!("[{}]", vec!["{\"KV\": {\"Verb\": \"get\", \"Key\": \"a\"}}"; 129].join(",")), 413),
        ("PUT", "/v1/muster/store/voters/-", String::new(), 400),
        ("PUT", "/v1/muster/store/voters/nowhere", String::new(), 409),
        ("DELETE", "/v1/muster/store/voters/nowhere", String::new(), 409),
        ("DELETE", "/v1/muster/store/voters/host-a", String::new(), 409),
        ("GET", "/v1/muster/store/export/%ff", String::new(), 400),
    ];
    let mut wrong = Vec::new();
    for (method, path, body, expected) in cases {
        let answer = ask(agent.http(), method, path, &body);
        if answer.status != expected {
            wrong.push(format!("{method} {path} {body:.80}: {} instead of {expected}: {}", answer.status, answer.body));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (session, expected) in [("", 400), ("none", 400), (unknown, 500)] {
        let answer = ask(agent.http(), "PUT", &acquire(session), "");
        assert_eq!(answer.status, expected, "{session:?}: {}", answer.body);
    }
    assert_healthy(&agent);
}

/// The OpenAPI description is valid, and responses conform to it, also with a store.
#[test]
fn responses_conform_to_the_openapi_description() {
    let test = "responses_conform_to_the_openapi_description";
    if !["schemathesis", "openapi-spec-validator"].iter().all(|program| skip::python_tool(test, program)) {
        return;
    }
    let of_store = ["/v1/kv/", "/v1/session/", "/v1/txn", "/v1/status/", "/v1/muster/store"];
    conform(&agent(), |_| true);
    conform(&store_agent(), |path| of_store.iter().any(|prefix| path.starts_with(prefix)));
}

/// Runs schemathesis on the endpoints whose path is `tried`.
fn conform(agent: &Agent, tried: impl Fn(&str) -> bool) {
    let served = ask(agent.http(), "GET", "/v1/openapi.json", "");
    let run = |program: &str, arguments: &[&str]| {
        let output = process::command(program).args(arguments).current_dir(agent.path("")).finish();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "{program}: {said}");
    };
    fs::write(agent.path("openapi.json"), &served.body).unwrap();
    run("openapi-spec-validator", &["openapi.json"]);

    let mut description = served.json();
    let paths = description["paths"].as_object_mut().unwrap();
    // These stop the agent or affect other hosts.
    for path in ["/v1/agent/leave", "/v1/agent/join/{address}", "/v1/operator/keyring"] {
        assert!(paths.remove(path).is_some(), "{path}");
    }
    // Streams do not end.
    paths.retain(|path, _| !path.starts_with("/v1/watch/") && path != "/v1/muster/events" && tried(path));
    only_quiet_checks(&mut description);
    fs::write(agent.path("tried.json"), description.to_string()).unwrap();
    let url = format!("http://{}", agent.http());
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                  response_schema_conformance";
    let arguments = [
        "run",
        "tried.json",
        "--url",
        &url,
        "--checks",
        checks,
        "--seed",
        SEED,
        "--max-examples",
        "6",
        // Python 3.11 fails at times if threads parse at the same time ("AST constructor recursion depth mismatch").
        "--workers",
        "1",
        "--phases",
        "coverage,fuzzing",
        "--request-timeout",
        "20",
        "--suppress-health-check",
        "all",
        "--no-shrink",
        "--warnings",
        "off",
    ];
    run("schemathesis", &arguments);
    put(agent, "agent/maintenance?enable=false", &Value::Null);
    put(agent, "muster/resume/host-a", &Value::Null);
    assert_healthy(agent);
}

/// Removes checks that send requests, and indexes that block, from the description.
fn only_quiet_checks(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // Checks, not sessions.
            if fields.contains_key("TTL") && !fields.contains_key("Behavior") {
                for probe in ["HTTP", "TCP", "GRPC"] {
                    assert!(fields.remove(probe).is_some(), "{probe}");
                }
            }
            if fields.get("name") == Some(&json!("index")) {
                // The store of an agent with keys is beyond its first revision.
                fields["schema"]["maximum"] = 1.into();
            }
            fields.values_mut().for_each(only_quiet_checks);
        }
        Value::Array(list) => list.iter_mut().for_each(only_quiet_checks),
        _ => {}
    }
}
