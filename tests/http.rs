//! HTTP API and client commands of the built program: endpoints, errors, hostile clients, exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Output,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    agent::Agent,
    http::{exchange, status},
    process::{self, Finish},
    program::free,
    run, skip,
    wait::{DEADLINE, until},
};

/// Returns a request without a body.
fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

/// Runs a command against an agent.
fn muster(address: &str, arguments: &[&str]) -> Output {
    muster_with(address, arguments, "", &[])
}

fn muster_with(address: &str, arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = process::muster();
    command.args(arguments).env("MUSTER_HTTP_ADDR", address).envs(environment.iter().copied()).finish_with(input)
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn endpoints_respond_and_explain_errors() {
    let agent = Agent::start();
    let cases: &[(&str, &str, u16, &str)] = &[
        ("GET /v1/agent/self", "", 200, "\"NodeName\":\"host-a\""),
        ("GET /v1/agent/self?pretty", "", 200, "{\n    \"Config\": {\n        \"Datacenter\": \"dc1\""),
        ("GET /v1/agent/self?a=b&pretty=1", "", 200, "\n    \"Config\""),
        ("GET /v1/agent/members", "", 200, "[{\"Name\":\"host-a\""),
        ("GET /v1/agent/members?segment=_all", "", 200, "[{\"Name\":\"host-a\""),
        ("GET /v1/agent/members?wan", "", 200, "[{\"Name\":\"host-a.dc1\""),
        ("GET /", "", 301, "GET /v1/ lists the endpoints"),
        ("GET /v1/", "", 404, "GET /v1/agent/self"),
        ("GET /v1/agent", "", 404, "GET /v1/agent/self"),
        ("GET /v1/agent/self/", "", 404, "GET /v1/agent/self"),
        ("GET /v1/agent/%73elf", "", 404, "GET /v1/agent/self"),
        ("GET //v1/agent/self", "", 404, "GET /v1/agent/self"),
        ("GET /v1/agent/../agent/self", "", 404, "GET /v1/agent/self"),
        ("GET /v1/agent/leave", "", 405, "allowed: PUT"),
        ("POST /v1/agent/join/host-b", "", 405, "allowed: PUT"),
        ("PATCH /v1/operator/keyring", "", 405, "allowed: GET, POST, PUT, DELETE"),
        ("OPTIONS *", "", 404, "No such endpoint"),
        ("PUT /v1/agent/join/", "", 400, "Missing address"),
        ("PUT /v1/agent/join/a/b", "", 400, "Invalid address"),
        ("PUT /v1/agent/join/a%2Fb", "", 400, "Invalid address"),
        ("PUT /v1/agent/join/%zz", "", 400, "Invalid address"),
        ("PUT /v1/agent/join/%ff%fe", "", 400, "Invalid address"),
        ("PUT /v1/agent/join/%00", "", 400, "Invalid address"),
        ("PUT /v1/agent/join/10.0.0.300", "", 400, "Invalid address"),
        ("PUT /v1/agent/join/10.0.0.8:0", "", 400, "Invalid address"),
        ("PUT /v1/agent/join/[::1", "", 400, "Invalid address"),
        ("PUT /v1/agent/join/10.0.0.8", "Origin: http://evil.example\r\n", 403, "Origin"),
        ("PUT /v1/agent/leave", "Origin: null\r\n", 403, "Origin"),
        ("PUT /v1/agent/leave", "Host: evil.example\r\n", 403, "Host"),
        ("GET /v1/agent/self", "Host: evil.example\r\n", 403, "Host"),
        ("GET /ui/", "Host: evil.example\r\n", 403, "Host"),
        ("DELETE /v1/operator/keyring", "Origin: http://127.0.0.1\r\n", 403, "Origin"),
        ("POST /v1/agent/leave", "Origin: http://evil.example\r\n", 403, "Origin"),
        ("POST /v1/operator/keyring", "Content-Length: 2\r\n", 400, "Invalid body"),
        ("POST /v1/operator/keyring", "Content-Length: 70000\r\n", 413, "the limit is 65536 octets"),
        ("POST /v1/operator/keyring", "Content-Length: 99999999999999999999999\r\n", 400, ""),
        ("GET /v1/agent/self", "Content-Length: 1\r\nContent-Length: 2\r\n", 400, ""),
        ("GET /v1/agent/self", "no header\r\n", 400, ""),
    ];
    for (line, headers, expected, text) in cases {
        let octets = [request(line, headers), b"{}".to_vec()].concat();
        let answer = exchange(agent.http(), &octets);
        assert_eq!(status(&answer), *expected, "{line} {headers}: {answer}");
        assert!(body(&answer).contains(text), "{line} {headers}: {answer}");
        if *expected == 405 {
            assert!(answer.contains("\r\nallow: "), "{line}: {answer}");
        }
        if *expected == 200 {
            assert!(answer.contains("\r\ncontent-type: application/json\r\n"), "{line}: {answer}");
            serde_json::from_str::<Value>(body(&answer)).unwrap();
        }
    }
    let head = exchange(agent.http(), request("HEAD /v1/agent/self", ""));
    assert_eq!((status(&head), body(&head)), (200, ""));
    assert_eq!(agent.answers("service.local.", 6).len(), 1, "no cross-origin request made the agent leave");
}

#[test]
fn hostile_clients_cost_only_their_connection() {
    let agent = Agent::start();
    let long = "x".repeat(100_000);
    let many: String = (0..1000).map(|n| format!("x{n}: y\r\n")).collect();
    let chunks = format!(
        "POST /v1/operator/keyring HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n{long}{long}"
    );
    let cases: &[(&str, Vec<u8>, &[u16])] = &[
        ("a long target", request(&format!("GET /{long}"), ""), &[414, 431]),
        ("a long header", request("GET /v1/agent/self", &format!("x: {long}\r\n")), &[431]),
        ("many headers", request("GET /v1/agent/self", &many), &[431]),
        ("a long body in chunks", chunks.into_bytes(), &[413]),
        ("a wrong method", request("G(T /", ""), &[400]),
        ("a control character", request("GET /\u{1}", ""), &[400]),
        ("no version", b"GET /\r\n\r\n".to_vec(), &[400]),
        ("another version", b"GET / HTTP/3.0\r\n\r\n".to_vec(), &[400]),
        // The server closes the connection without a response.
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), &[400]),
        ("a proxy's request", request("CONNECT evil.example:443", ""), &[403, 404, 405]),
        ("a request by full URL", request("PUT http://evil.example/v1/agent/nothing", ""), &[403, 404]),
    ];
    for (case, octets, expected) in cases {
        let answer = exchange(agent.http(), octets);
        // The server closes before it has read a long request, and the reset may overtake the response.
        if !answer.is_empty() || octets.len() < 1_000 {
            let is_expected = if expected.is_empty() { answer.is_empty() } else { expected.contains(&status(&answer)) };
            assert!(is_expected, "{case}: {answer}");
        }
    }
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..50 {
        let mut junk = vec![0; rng.usize(1..3000)];
        rng.fill(&mut junk);
        junk.extend(b"\r\n\r\n");
        exchange(agent.http(), &junk);
    }
    assert_eq!(status(&exchange(agent.http(), request("GET /v1/agent/self", ""))), 200);
    let log = agent.log();
    assert!(!log.contains("ERROR") && !log.contains("WARN") && !log.contains("panicked"), "{log}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let agent = Agent::start();
    let first = "GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
    let answer = exchange(agent.http(), [first.as_bytes(), &request("GET /v1/agent/self", "")].concat());
    assert_eq!(answer.matches("HTTP/1.1 404").count(), 20, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

/// Python's `requests` sends head and body separately, and reuses the connection.
#[test]
fn refused_mutation_keeps_its_connection_usable() {
    let agent = Agent::start();
    let cases = [
        ("PUT /v1/kv/a", "", 400),
        ("PUT /v1/nothing", "", 404),
        ("POST /v1/agent/self", "", 405),
        ("PUT /v1/agent/leave", "Origin: http://evil.example\r\n", 403),
        ("PUT /v1/agent/check/pass/none", "", 404),
    ];
    for (line, header, expected) in cases {
        let mut stream = TcpStream::connect(agent.http()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n{header}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // Long enough for a response that does not wait for the body.
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let early = stream.read(&mut [0; 1]);
        assert!(early.is_err(), "{line}: response before the body");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&[b"{}", &*request("GET /v1/agent/self", "")].concat()).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        assert_eq!(status(&answers), expected, "{line}: {answers}");
        assert!(answers.contains("HTTP/1.1 200"), "{line}: {answers}");
    }
}

#[test]
fn connections_above_the_limit_are_closed() {
    let mut agent = Agent::start_with_files(128, "", |_| {});
    let idle: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(agent.http()).unwrap()).collect();
    agent.wait_for_log("HTTP connection limit reached");
    assert_eq!(agent.answers("service.local.", 6).len(), 1);
    drop(idle);
    until("a client is accepted", || !exchange(agent.http(), request("GET /v1/agent/self", "")).is_empty());
}

#[test]
fn commands_print_tables_and_json() {
    let agent = Agent::start_with("domain: corp.example\n", &[], |folder| {
        fs::write(folder.join("services.d/web.yaml"), "service: web\nport: 8080\n").unwrap();
    });
    let address = format!("http://{}", agent.http());
    let members = muster(&address, &["members"]);
    assert_eq!(members.status.code(), Some(0), "{}", err(&members));
    let rows: Vec<Vec<String>> =
        out(&members).lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    assert_eq!(rows[0], ["NAME", "ADDRESS", "STATE", "VERSION", "INSTANCES", "SINCE", "VIEW"]);
    assert_eq!(rows[1][..5], ["host-a", &agent.gossip().to_string(), "alive", env!("CARGO_PKG_VERSION"), "1"]);
    let status = out(&muster(&address, &["status"]));
    for expected in ["host-a at 10.0.0.7", "corp.example.", "1 alive", "not encrypted", &agent.http().to_string()] {
        assert!(status.contains(expected), "{expected} in {status}");
    }
    for (command, path) in [("members", "/0/Name"), ("status", "/Config/NodeName")] {
        let output = out(&muster(&address, &[command, "--json"]));
        let json: Value = serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"));
        assert_eq!(json.pointer(path), Some(&Value::from("host-a")), "{output}");
    }
    // The option overrides the variable, and the scheme is optional.
    let output = muster("127.0.0.1:1", &["members", "--http-addr", &agent.http().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}

#[test]
fn commands_reach_an_agent_over_ipv6() {
    if !skip::loopback_v6("commands_reach_an_agent_over_ipv6") {
        return;
    }
    let agent = Agent::start_with("", &[], |folder| {
        let config = "node: host-six\nadvertise: \"fd00::7\"\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
                      dns: {listen: [127.0.0.1:0]}\nhttp: {listen: [\"[::1]:0\"]}\ngossip: {listen: \"[::1]:0\"}\n";
        fs::write(folder.join("muster.yaml"), config).unwrap();
    });
    let output = muster(&agent.http().to_string(), &["members"]);
    assert!(out(&output).contains(&format!("host-six  {}  alive", agent.gossip())), "{}{}", out(&output), err(&output));
    assert_eq!(muster(&agent.http().to_string(), &["leave"]).status.code(), Some(0));
}

#[test]
fn refused_command_prints_the_reason_and_exits_1() {
    let agent = Agent::start();
    let address = agent.http().to_string();
    let cases: &[(&[&str], &str, &str)] = &[
        (&["join", "127.0.0.1:1"], "", "127.0.0.1:1: no answer from 127.0.0.1:1"),
        (&["join", "a b/c"], "", "a b/c: Invalid address"),
        (&["keyring", "list"], "", "gossip is not encrypted: set gossip.key_file"),
        (&["keyring", "install", "-"], "c2Vj\n", "a key is 32 octets in base64"),
        (&["keyring", "use", "00ff00ff", "--json"], "", "gossip is not encrypted"),
        (&["keyring", "use", "00ff", "--json"], "", "Invalid key: expected a key id"),
        (&["force-leave", "host-z"], "", "Node host-z is unknown to this agent"),
        (&["force-leave", "host-a"], "", "is this agent itself"),
    ];
    for (arguments, input, expected) in cases {
        let output = muster_with(&address, arguments, input, &[]);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}{}", out(&output), err(&output));
        assert!(err(&output).contains(expected), "{arguments:?}: {}", err(&output));
    }
}

#[test]
fn unreachable_agent_exits_2_with_advice() {
    let closed = free();
    let address = format!("http://{closed}");
    let every: &[&[&str]] = &[
        &["members"],
        &["members", "--json"],
        &["status"],
        &["leave"],
        &["join", "10.0.0.8"],
        &["keyring", "list"],
        &["keyring", "use", "00ff"],
        &["keyring", "remove", "00ff"],
    ];
    for arguments in every {
        let output = muster(&address, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", err(&output));
        for expected in [address.as_str(), "`muster agent`", "--http-addr"] {
            assert!(err(&output).contains(expected), "{arguments:?}: {}", err(&output));
        }
        assert_eq!(out(&output), "", "{arguments:?}");
    }
    let cases: &[(&[&str], &str)] = &[
        (&["members", "--http-addr", "ftp://127.0.0.1:8500"], "the scheme \"ftp\" is unknown"),
        (&["members", "--http-addr", "127.0.0.1:x"], "the port must be an integer from 1 to 65535, got \"x\""),
        (&["members", "--token-file", "/nowhere"], "/nowhere"),
        (&["join"], "<ADDR>"),
        (&["keyring"], "install"),
        (&["force-leave"], "<NODE>"),
        (&["keyring", "remove", "-"], "standard input has no key"),
    ];
    for (arguments, expected) in cases {
        let output = muster(&address, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", err(&output));
        assert!(err(&output).contains(expected), "{arguments:?}: {}", err(&output));
    }
}

/// Answers every connection with the same response, and returns the requests.
fn fake_server(answer: &'static str) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut octet = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut octet).unwrap() == 1 {
                head.push(octet[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            if sender.send(String::from_utf8(head).unwrap()).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

#[test]
fn commands_are_sent_only_to_muster_agents() {
    // The response of a Consul agent, which would leave its cluster, and of a server that responds to any path.
    for response in [
        "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found",
        "HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{\"Config\":{\"Server\":1}}",
    ] {
        let (address, requests) = fake_server(response);
        for arguments in [&["leave"][..], &["join", "10.0.0.8"], &["keyring", "use", "00ff"], &["status"]] {
            let output = muster(&address.to_string(), arguments);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", err(&output));
            assert!(err(&output).contains("is not a muster agent"), "{arguments:?}: {}", err(&output));
            let request = requests.recv_timeout(DEADLINE).unwrap();
            assert!(request.starts_with("GET /v1/muster/status HTTP/1.1\r\n"), "{arguments:?}: {request}");
        }
        assert!(requests.try_recv().is_err(), "nothing else was sent");
    }
    let (address, _requests) = fake_server("HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nno \x1b[2Jway");
    let output = muster(&address.to_string(), &["members"]);
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(1), "muster: no \\u{1b}[2Jway\n"));
}

#[test]
fn token_is_sent_and_never_printed() {
    let folder = run::temp_dir();
    let path = folder.path().join("token");
    fs::write(&path, "from-file\n").unwrap();
    let from_file = ["members", "--token-file", path.to_str().unwrap()];
    // An empty variable counts as unset.
    let cases: &[(&[&str], &str, Option<&str>)] = &[
        (&["members"], "", None),
        (&["members"], "from-variable", Some("from-variable")),
        (&from_file, "from-variable", Some("from-file")),
    ];
    let (address, requests) = fake_server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]");
    for (arguments, variable, expected) in cases {
        let output = muster_with(&address.to_string(), arguments, "", &[("MUSTER_HTTP_TOKEN", variable)]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let request = requests.recv_timeout(DEADLINE).unwrap();
        let token = request.lines().find_map(|line| line.strip_prefix("x-consul-token: "));
        assert_eq!(token, *expected, "{request}");
    }
    let output = muster_with(&address.to_string(), &["members"], "", &[("MUSTER_HTTP_TOKEN", "a\u{7}secret")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("MUSTER_HTTP_TOKEN") && !err(&output).contains("secret"), "{}", err(&output));
}

#[test]
fn leave_responds_and_stops_the_agent() {
    let mut agent = Agent::start();
    let address = agent.http().to_string();
    let output = muster(&address, &["leave"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "host-a: leaving the cluster and stopping the agent\n");
    assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
    let mut agent = Agent::start();
    let output = muster(&agent.http().to_string(), &["leave", "--json"]);
    assert_eq!(out(&output), "{}\n", "{}", err(&output));
    assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
}

#[test]
fn keygen_needs_no_agent_and_prints_a_new_key_each_time() {
    let key = || out(&muster("127.0.0.1:1", &["keygen"]));
    let (one, other) = (key(), key());
    assert_ne!(one, other);
    assert_eq!(data_encoding::BASE64.decode(one.trim_end().as_bytes()).unwrap().len(), 32, "{one}");
}

#[test]
fn taken_http_port_is_reported_with_its_configuration_key() {
    let agent = Agent::start();
    let folder = run::temp_dir();
    let path = folder.path().join("muster.yaml");
    let config = format!(
        "data_dir: data\ndns: {{listen: [127.0.0.1:0]}}\nhttp: {{listen: [{}]}}\ngossip: {{listen: 127.0.0.1:0}}\n",
        agent.http()
    );
    fs::write(&path, config).unwrap();
    let output = process::muster().args(["agent", "--config"]).arg(&path).finish();
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    for expected in [&format!("cannot listen for HTTP on {}", agent.http()), "http.listen"] {
        assert!(err(&output).contains(expected), "{}", err(&output));
    }
}

#[test]
fn agent_without_http_starts_and_stops() {
    let mut agent = Agent::start_with("http: {listen: []}\n", &[], |_| {});
    assert_eq!(agent.answers("service.local.", 6).len(), 1);
    assert!(!agent.log().contains("listening for HTTP"), "{}", agent.log());
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
}
