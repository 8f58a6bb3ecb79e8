//! Each kind of check that clients register, against a real peer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    thread,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use serde_json::{Value, json};
use support::{
    agent::Agent,
    http::{ask, get, put},
    program::free,
    wait::until,
};
use tokio::runtime::Runtime;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

const A: u16 = 1;

/// Starts a server that answers `/STATUS` with that status, and redirects `/to/STATUS`.
fn http_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 1024];
            let len = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..len]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let answer = match path.strip_prefix("/to/") {
                Some(status) => format!("302 Found\r\nlocation: /{status}"),
                None => format!("{} Status", path.trim_start_matches('/')),
            };
            let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes());
        }
    });
    address
}

/// Starts servers of gRPC's health service, and so of HTTP/2, without and with TLS.
fn grpc_servers(runtime: &Runtime) -> [SocketAddr; 2] {
    let key = rcgen::generate_simple_self_signed(vec!["grpc.example".to_owned()]).unwrap();
    let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (_, service) = tonic_health::server::health_reporter();
    [None, Some(acceptor)].map(|acceptor| {
        let service = TowerToHyperService::new(service.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (service, acceptor) = (service.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    match acceptor {
                        None => drop(http2.serve_connection(TokioIo::new(stream), service).await),
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            drop(http2.serve_connection(TokioIo::new(stream), service).await);
                        }
                    }
                });
            }
        });
        address
    })
}

/// Returns status and output of each check of the agent.
fn checks(agent: &Agent) -> BTreeMap<String, (String, String)> {
    let Value::Object(checks) = get(agent, "agent/checks").json() else { panic!("no object") };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    checks.iter().map(|(id, check)| (id.clone(), (text(&check["Status"]), text(&check["Output"])))).collect()
}

#[test]
fn each_kind_has_the_status_of_its_peer() {
    let agent = Agent::start_with("checks: {allow_exec: api}\n", &[], |_| {});
    let runtime = Runtime::new().unwrap();
    let (http, [grpc, secure]) = (http_server(), grpc_servers(&runtime));
    let closed = free();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (silent_at, closed_udp_at) = (silent.local_addr().unwrap(), free());
    let url = |path: &str| format!("http://{http}/{path}");
    put(&agent, "agent/service/register", &json!({"Name": "db", "ID": "db:1"}));
    // Id, fields, status, begin of the output.
    let cases = [
        ("http", json!({"HTTP": url("204")}), "passing", ""),
        ("http-429", json!({"HTTP": url("429")}), "warning", "http: 429 Too Many Requests"),
        ("http-500", json!({"HTTP": url("500")}), "critical", "http: 500 Internal Server Error"),
        ("http-302", json!({"HTTP": url("to/200"), "TTL": "0s"}), "passing", ""),
        ("http-loop", json!({"HTTP": url("to/to/500")}), "critical", "after a redirect: http: 500"),
        ("http-no", json!({"HTTP": url("to/200"), "DisableRedirects": true}), "critical", "http: 302 Found to /200"),
        ("tcp", json!({"TCP": http}), "passing", ""),
        ("tcp-closed", json!({"TCP": closed}), "critical", "connection refused"),
        ("udp", json!({"UDP": silent_at, "Timeout": "100ms"}), "passing", ""),
        ("udp-closed", json!({"UDP": closed_udp_at}), "critical", "connection refused"),
        ("grpc", json!({"GRPC": grpc}), "passing", ""),
        ("grpc-none", json!({"GRPC": format!("{grpc}/none")}), "critical", "grpc: NOT_FOUND"),
        ("grpc-tls", json!({"GRPC": secure, "GRPCUseTLS": true, "TLSSkipVerify": true}), "passing", ""),
        ("grpc-untrusted", json!({"GRPC": secure, "GRPCUseTLS": true}), "critical", "tls: certificate"),
        ("h2ping", json!({"H2PING": secure, "TLSSkipVerify": true}), "passing", ""),
        ("h2ping-plain", json!({"H2PING": grpc, "H2PingUseTLS": false}), "passing", ""),
        ("h2ping-no-tls", json!({"H2PING": grpc}), "critical", "tls: "),
        ("args", json!({"Args": ["sh", "-c", "echo full; exit 1"]}), "warning", "exit 1: full"),
        ("output", json!({"Args": ["sh", "-c", "echo full; exit 1"], "OutputMaxSize": 3}), "warning", "exit 1: ful"),
        ("ttl", json!({"TTL": "10m", "Status": "warning"}), "warning", "no result yet"),
        ("alias", json!({"AliasService": "db:1"}), "passing", ""),
        ("alias-none", json!({"AliasService": "none"}), "critical", "none: no local instance"),
    ];
    let registered: Vec<Value> = cases
        .iter()
        .map(|(id, fields, ..)| {
            let mut check = fields.clone();
            check
                .as_object_mut()
                .unwrap()
                .extend([("CheckID".to_owned(), json!(id)), ("Interval".to_owned(), json!("200ms"))]);
            check
        })
        .collect();
    put(&agent, "agent/service/register", &json!({"Name": "web", "Checks": registered}));
    let differing = || {
        let known = checks(&agent);
        let differs = |(id, _, status, output): &&(&str, Value, &str, &str)| {
            !known.get(*id).is_some_and(|known| known.0 == *status && known.1.starts_with(output))
        };
        cases.iter().filter(differs).map(|(id, ..)| format!("{id}: {:?}", known.get(*id))).collect::<Vec<_>>()
    };
    until("each check has the result of its peer", || differing().is_empty());
    assert_eq!(checks(&agent)["output"].1, "exit 1: ful");
}

#[test]
fn critical_check_of_the_node_takes_its_instances_out_of_answers() {
    let mut agent = Agent::start_with("checks:\n  node: {ttl: 10m, initial: passing}\n", &[], |_| {});
    agent.write_service("web.yaml", "service: web\nport: 80\n");
    let name = "web.service.local.";
    agent.wait_for_answers(name, A, &["A 10.0.0.7"]);
    put(&agent, "agent/check/register", &json!({"Name": "Disk", "Notes": "df -h", "TTL": "10m", "Status": "passing"}));
    let ids = |agent: &Agent| checks(agent).into_keys().collect::<Vec<_>>();
    assert_eq!(ids(&agent), ["Disk", "node:1"]);
    agent.wait_for_answers(name, A, &["A 10.0.0.7"]);

    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/check/fail/Disk?note=91+%25", "").status, 200);
    agent.wait_for_answers(name, A, &[]);
    let known = get(&agent, "health/service/web").json();
    let shown = |check: &Value| {
        [&check["CheckID"], &check["Status"], &check["Output"], &check["Notes"], &check["ServiceID"]]
            .map(|v| v.as_str().unwrap().to_owned())
    };
    let disk = known[0]["Checks"].as_array().unwrap().iter().find(|check| check["CheckID"] == "Disk").unwrap();
    assert_eq!(shown(disk), ["Disk", "critical", "91 %", "df -h", ""]);
    assert_eq!(get(&agent, "health/service/web?passing").json(), json!([]));
    let critical = get(&agent, "health/state/critical").json();
    assert_eq!(critical.as_array().unwrap().iter().map(|check| check["CheckID"].clone()).collect::<Vec<_>>(), ["Disk"]);
    let explained = ask(agent.http(), "GET", "/v1/muster/explain/web", "").body;
    assert!(explained.contains("on a node with a critical check: Disk: 91 %"), "{explained}");

    // A restart of the agent changes nothing.
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    agent.wait();
    agent.start_again();
    agent.wait_until_answering();
    assert_eq!(agent.answers(name, A), [""; 0]);
    assert_eq!(checks(&agent)["Disk"].0, "critical");

    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/check/pass/Disk", "").status, 200);
    agent.wait_for_answers(name, A, &["A 10.0.0.7"]);
    let update = json!({"Status": "critical", "Output": "by itself"}).to_string();
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/check/update/node:1", &update).status, 200);
    agent.wait_for_answers(name, A, &[]);
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/check/pass/node:1", "").status, 200);
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/check/deregister/Disk", "").status, 200);
    assert_eq!(ids(&agent), ["node:1"]);
    let refused = ask(agent.http(), "PUT", "/v1/agent/check/deregister/node:1", "");
    assert_eq!((refused.status, refused.body.contains("edit checks.node")), (400, true));

    // Maintenance of the node is one of its checks, also without instances.
    std::fs::remove_file(agent.path("services.d/web.yaml")).unwrap();
    until("the service is gone", || get(&agent, "agent/services").json() == json!({}));
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/maintenance?enable=true&reason=kernel", "").status, 200);
    assert_eq!(checks(&agent)["_node_maintenance"], ("critical".to_owned(), "kernel".to_owned()));
    let of_node = get(&agent, "health/node/host-a").json();
    let ids_of_node: Vec<&Value> = of_node.as_array().unwrap().iter().map(|check| &check["CheckID"]).collect();
    assert_eq!(ids_of_node, ["serfHealth", "_node_maintenance", "node:1"]);
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/maintenance?enable=false", "").status, 200);
    assert_eq!(ids(&agent), ["node:1"]);
}

#[test]
fn agent_shows_the_newest_text_of_a_ttl_check_before_it_is_announced() {
    let agent = Agent::start_with("checks:\n  node: {ttl: 10m, initial: passing}\n", &[], |_| {});
    put(&agent, "agent/service/register", &json!({"Name": "web", "ID": "web:1", "Check": {"TTL": "10m"}}));
    let say = |id: &str, text: &str| {
        let update = json!({"Status": "warning", "Output": text}).to_string();
        assert_eq!(ask(agent.http(), "PUT", &format!("/v1/agent/check/update/{id}"), &update).status, 200);
    };
    ["service:web:1", "node:1"].iter().for_each(|id| say(id, "load 0"));
    let announced = get(&agent, "health/service/web");
    let outputs_of = |checks: &Value| {
        let outputs =
            checks.as_array().unwrap().iter().map(|check| (check["CheckID"].clone(), check["Output"].clone()));
        outputs.filter(|(id, _)| id != "serfHealth").collect::<Vec<_>>()
    };
    for text in ["load 1", "load 2"] {
        ["service:web:1", "node:1"].iter().for_each(|id| say(id, text));
        let warning = ("warning".to_owned(), text.to_owned());
        let all = [("node:1", &warning), ("service:web:1", &warning)].map(|(id, found)| (id.to_owned(), found.clone()));
        assert_eq!(checks(&agent), BTreeMap::from(all));
        let expected = [(json!("node:1"), json!(text)), (json!("service:web:1"), json!(text))];
        let by_id = ask(agent.http(), "GET", "/v1/agent/health/service/id/web:1", "").json();
        assert_eq!(outputs_of(&by_id["Checks"]), expected);
        let by_name = ask(agent.http(), "GET", "/v1/agent/health/service/name/web", "").json();
        assert_eq!(outputs_of(&by_name[0]["Checks"]), expected);
        // The cluster has the first text, and no client was woken.
        let known = get(&agent, "health/service/web");
        assert_eq!((known.index(), known.body), (announced.index(), announced.body.clone()));
    }
    // A report with another status is announced at once.
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/check/fail/service:web:1?note=down", "").status, 200);
    assert_eq!(checks(&agent)["service:web:1"], ("critical".to_owned(), "down".to_owned()));
}

#[test]
fn check_of_the_node_needs_the_scope_of_its_maintenance() {
    let token = |scope: &str| format!("- {{name: {scope}, scope: {scope}, token: 0123456789-{scope}-0123456789}}\n");
    let config = "http: {listen: [127.0.0.1:0], tokens_dir: tokens.d}\nchecks:\n  node: {ttl: 10m, initial: passing}\n";
    let agent = Agent::start_with(config, &[], |folder| {
        std::fs::create_dir(folder.join("tokens.d")).unwrap();
        let text = format!("tokens:\n{}{}", token("register"), token("operate"));
        std::fs::write(folder.join("tokens.d/all.yaml"), text).unwrap();
    });
    let send = |scope: &str, path: &str, body: &Value| {
        let path = format!("/v1/{path}?token=0123456789-{scope}-0123456789");
        ask(agent.http(), "PUT", &path, &body.to_string()).status
    };
    let disk = json!({"Name": "Disk", "TTL": "10m", "Status": "passing"});
    assert_eq!(send("register", "agent/check/register", &disk), 403);
    assert_eq!(send("operate", "agent/check/register", &disk), 200);
    let update = json!({"Status": "critical"});
    let by_catalog = |id: &str| json!({"Node": "host-a", "CheckID": id});
    let of_disk = [
        ("agent/check/pass/Disk", json!({})),
        ("agent/check/warn/Disk", json!({})),
        ("agent/check/fail/Disk", json!({})),
        ("agent/check/update/Disk", update.clone()),
        ("agent/check/register", disk.clone()),
    ];
    let of_configured = [("agent/check/fail/node:1", json!({})), ("agent/check/update/node:1", update)];
    let removals = [("agent/check/deregister/Disk", json!({})), ("catalog/deregister", by_catalog("Disk"))];
    for (path, body) in of_disk.iter().chain(&of_configured).chain(&removals) {
        assert_eq!(send("register", path, body), 403, "{path} {body}");
    }
    // The id of a check of the node is not that of a check of a service.
    let taken = json!({"Name": "web", "Check": {"CheckID": "Disk", "TTL": "1m"}});
    assert_eq!(send("register", "agent/service/register", &taken), 400);
    for (path, body) in of_disk.iter().chain(&of_configured) {
        assert_eq!(send("operate", path, body), 200, "{path} {body}");
    }
    for (path, body) in &removals {
        assert_eq!(send("operate", "agent/check/register", &disk), 200);
        assert_eq!(send("operate", path, body), 200, "{path} {body}");
    }
    // Checks of services need no more than before.
    let web = json!({"Name": "web", "Check": {"TTL": "1m"}});
    assert_eq!(send("register", "agent/service/register", &web), 200);
    assert_eq!(send("register", "agent/check/fail/service:web", &json!({})), 200);
    assert_eq!(send("register", "agent/check/deregister/service:web", &json!({})), 200);
}
