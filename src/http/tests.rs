//! The API with a synthetic cluster, and with slow clients.

use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch::channel};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    blocking::Sources,
    command::Commands,
    server::{Server, serve_connection},
    *,
};
use crate::{
    config::Advertise,
    dns::zone::{Settings, Tables},
    gossip::{
        command::{Command, Joined, KeyUse, KeyringCommand, KeyringReport},
        message::Identity,
    },
    model::{
        catalog::Catalog,
        keyring::{Key, KeyId},
        maintenance::Maintenance,
        member::{Cause, Member, Membership, PeerId, Reach},
        name::label,
    },
};

mod near;
mod parked;
mod parked_streams;
mod store;
mod streams;

/// A key that is easy to find in places where it must not appear.
const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=";

fn member(name: &str, address: &str, reach: Reach) -> Member {
    Member {
        id: PeerId { name: label(name), generation: 3 },
        address: address.parse().unwrap(),
        datacenter: None,
        zone: None,
        version: None,
        reach,
        since: Duration::from_secs(1_000_000_000),
        instances: 2,
        ttl: None,
        view: None,
        differs: None,
    }
}

fn agent_facts() -> Agent {
    Agent {
        node: label("host-a"),
        datacenter: label("dc1"),
        zone: None,
        domain: Name::parse("service.local").unwrap(),
        meta: BTreeMap::from([("rack".to_owned(), "r1".to_owned())]),
        version: "1.2.3",
        consul_version: None,
        advertise: Advertise::Configured(vec!["10.0.0.7".parse().unwrap()]),
        allow_link_local: false,
        allow_exec: false,
        gossip: "10.0.0.7:7946".parse().unwrap(),
        dns: vec!["127.0.0.1:53".parse().unwrap()],
        http: vec!["[::1]:8500".parse().unwrap()],
    }
}

/// Constant sources: a receiver keeps the last value after its sender is dropped.
fn sources(catalog: Catalog, known: Membership) -> Sources {
    Sources {
        catalog: channel(catalog).1,
        members: channel(Arc::new(known)).1,
        files: channel(Arc::default()).1,
        maintenance: channel(Maintenance::default()).1,
        keys: channel(None).1,
        address_problem: channel(None).1,
        zone_problems: channel(Arc::default()).1,
    }
}

/// Returns an agent with these members, and the commands it sends.
fn agent(known: Membership, shutdown: &CancellationToken) -> (Server, mpsc::Receiver<Command>) {
    let (cluster, given) = mpsc::channel(4);
    let queries = BlockingQueries::new(sources(Catalog::default(), known), Http::default(), shutdown.clone());
    (Server::new(api(queries, cluster, None, shutdown), shutdown.clone()), given)
}

/// Returns an API on top of these queries.
fn api(
    queries: Arc<BlockingQueries>,
    cluster: mpsc::Sender<Command>,
    guard: Guard,
    shutdown: &CancellationToken,
) -> Api {
    let (scrape, metrics, stopping) = (Scrape::new(Vec::new), Http::default(), shutdown.clone());
    let (events, report_texts) = (channel(EventLog::default()).1, channel(ReportTexts::new()).1);
    let agent = Arc::new(agent_facts());
    let settings = Settings::new(agent.node.clone(), agent.datacenter.clone(), agent.domain.clone());
    let tables = Arc::new(ArcSwap::from_pointee(Tables::new(settings)));
    let zones = muster::zones::Sources {
        tables: tables.clone(),
        copies: channel(Default::default()).1,
        secondary: [].into(),
        notified: [].into(),
        serials: channel(Default::default()).1,
        requests: None,
        records: muster::zones::RecordCounter::new(|_, _| 0),
    };
    let explain = muster::explain::Sources { tables, recursion: None, upstreams: None, services: Default::default() };
    let commands = Commands { cluster, registry: mpsc::channel(1).0, daemon: mpsc::channel(1).0, store: None };
    Api { agent, events, queries, report_texts, commands, guard, zones, explain, scrape, metrics, stopping }
}

/// The queries do not follow the catalog after a shutdown, so an upgrade must not wait for what it shows.
#[tokio::test(start_paused = true)]
async fn shutdown_ends_the_wait_for_a_change_of_the_catalog() {
    let shutdown = CancellationToken::new();
    let sources = sources(Catalog::default(), Membership::default());
    let queries = BlockingQueries::new(sources, Http::default(), shutdown.clone());
    let began = Instant::now();
    tokio::join!(queries.wait_for_catalog(|_| false, Duration::from_secs(2)), async { shutdown.cancel() });
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// Readiness fails as soon as the agent starts to stop; liveness does not.
#[tokio::test]
async fn stopping_agent_is_not_ready() {
    let (shutdown, stopping) = (CancellationToken::new(), CancellationToken::new());
    let queries =
        BlockingQueries::new(sources(Catalog::default(), Membership::default()), Http::default(), shutdown.clone());
    let api = Api { stopping: stopping.clone(), ..api(queries, mpsc::channel(1).0, None, &shutdown) };
    let server = Server::new(api, shutdown);
    assert_eq!(ask(&server, "GET /readyz", "").await, (200, "ready\n".to_owned()));
    stopping.cancel();
    assert_eq!(ask(&server, "GET /readyz", "").await, (503, "not ready: the agent is stopping\n".to_owned()));
    assert_eq!(ask(&server, "GET /healthz", "").await, (200, "ok\n".to_owned()));
}

fn connect(server: &Server) -> (DuplexStream, JoinHandle<()>) {
    let (client, stream) = duplex(64 * 1024);
    (client, tokio::spawn(serve_connection(stream, server.clone())))
}

/// Sends a request and reads until the connection ends; returns status and body.
async fn ask(server: &Server, request: &str, body: &str) -> (u16, String) {
    let (mut client, _) = connect(server);
    let head =
        format!("{request} HTTP/1.1\r\nhost: [::1]\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn json_of(server: &Server, path: &str) -> Value {
    let (status, body) = ask(server, &format!("GET {path}"), "").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn members_have_the_status_of_consul_and_of_muster() {
    let cases = [
        (Reach::Alive, 1, "alive", None),
        (Reach::Suspect, 1, "suspect", None),
        (Reach::Held, 4, "held", None),
        (Reach::Gone(Cause::Left), 3, "left", Some("left the cluster")),
        (Reach::Gone(Cause::Refused), 4, "gone", Some("agent stopped")),
    ];
    for (reach, status, word, cause) in cases {
        let known = Membership { members: vec![member("host-b", "[fd00::7]:7946", reach)], ..Membership::default() };
        let (server, _commands) = agent(known, &CancellationToken::new());
        let expected = json!([{
            "Name": "host-b", "Addr": "fd00::7", "Port": 7946, "Status": status,
            "Tags": {"role": "node", "id": "926aafe6-887d-59f0-8c6b-a5768d960423"},
            "ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2, "DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4,
            "Muster": {
                "Reach": word, "Cause": cause, "Since": "2001-09-09T01:46:40Z", "Instances": 2, "Version": null,
                "Generation": 3, "Datacenter": null, "Zone": null, "View": null, "ViewDiffersSince": null,
            },
        }]);
        assert_eq!(json_of(&server, "/v1/agent/members").await, expected);
    }
}

#[tokio::test]
async fn self_counts_the_cluster() {
    let known = Membership {
        members: vec![
            Member {
                datacenter: Some(label("dc1")),
                zone: None,
                version: Some("1.2.3".into()),
                since: Duration::MAX,
                ..member("host-a", "10.0.0.7:7946", Reach::Alive)
            },
            member("host-b", "10.0.0.8:7946", Reach::Held),
            member("host-c", "10.0.0.9:7946", Reach::Held),
            member("host-d", "10.0.0.10:7946", Reach::Gone(Cause::Left)),
        ],
        partitioned: Some(Duration::ZERO),
        doubted: Some(Duration::from_secs(1)),
        rejected: vec![("no key opens it", 7)],
        sealed: true,
    };
    let (server, _commands) = agent(known, &CancellationToken::new());
    let myself = json_of(&server, "/v1/agent/self").await;
    let status = json_of(&server, "/v1/muster/status").await;
    let expected = json!({
        "Version": "1.2.3", "Domain": "service.local.", "Zone": null, "Advertise": ["10.0.0.7"], "AddressProblem": null, "Store": false, "StoreProblem": null, "ZoneProblems": [], "Generation": 3, "Sealed": true,
        "Listen": {"Dns": ["127.0.0.1:53"], "Http": ["[::1]:8500"], "Gossip": "10.0.0.7:7946"},
        "Partitioned": "1970-01-01T00:00:00Z", "Doubted": "1970-01-01T00:00:01Z", "Members": {"alive": 1, "held": 2, "left": 1}, "Diverging": {},
        "ExternalNodes": 0, "Conflicts": [], "Rejected": {"no key opens it": 7}, "Files": [], "Held": [],
    });
    assert_eq!(status["Muster"], expected);
    assert_eq!(myself["Meta"], json!({"rack": "r1"}));
    assert_eq!(myself["Config"]["NodeID"], myself["Member"]["Tags"]["id"]);
    assert_eq!(myself["Member"]["Muster"]["Since"], "9999-12-31T23:59:59Z", "an out-of-range time does not panic");
    let expected = json!({"members": "4", "failed": "2", "left": "1", "encrypted": "true"});
    assert_eq!(myself["Stats"]["serf_lan"], expected);
    // Also before the membership contains this node.
    let (server, _commands) = agent(Membership::default(), &CancellationToken::new());
    assert_eq!(json_of(&server, "/v1/agent/self").await["Member"]["Name"], "host-a");
}

#[tokio::test]
async fn join_reports_the_reached_address() {
    let (server, mut commands) = agent(Membership::default(), &CancellationToken::new());
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let cases = [
        ("[fd00::8]:7947", "[fd00::8]:7947", Ok(())),
        ("%5Bfd00::8%5D", "[fd00::8]:7946", Ok(())),
        ("::1", "[::1]:7946", Ok(())),
        ("host-b", "host-b:7946", Err("No response.")),
    ];
    for (asked, target, outcome) in cases {
        let carry_out = async {
            let Some(Command::Join { target, done }) = commands.recv().await else { panic!("no join") };
            let reached = Joined {
                asked: addresses(&["[fd00::8]:1", "10.0.0.8:1"]),
                by: Identity {
                    id: PeerId { name: label("host-b"), generation: 1 },
                    address: "10.0.0.8:1".parse().unwrap(),
                },
            };
            done.send(outcome.map(|()| reached).map_err(str::to_owned)).unwrap();
            target.to_string()
        };
        let request = format!("PUT /v1/agent/join/{asked}");
        let ((status, body), given) = tokio::join!(ask(&server, &request, ""), carry_out);
        assert_eq!(given, target, "{asked}");
        match outcome {
            Ok(()) => assert_eq!(
                (status, body.as_str()),
                (200, r#"{"Asked":["[fd00::8]:1","10.0.0.8:1"],"Answered":["10.0.0.8:1"]}"#)
            ),
            Err(reason) => assert_eq!((status, body), (500, format!("{reason}\n"))),
        }
    }
}

#[tokio::test]
async fn keyring_shows_ids_and_reports_failed_nodes() {
    let (server, mut commands) = agent(Membership::default(), &CancellationToken::new());
    let body = format!(r#"{{"Key": "{KEY}"}}"#);
    let key = Key::from_base64(KEY).unwrap();
    let texts = |of: &[(&str, &str)]| of.iter().map(|(node, why)| ((*node).to_owned(), (*why).to_owned())).collect();
    let report = |applied, refusals: &[(&str, &str)], absent: &[(&str, &str)]| KeyringReport {
        nodes: 3,
        answered: 3 - absent.len(),
        keys: BTreeMap::from([
            (KeyId([0, 0, 0, 0xff]), KeyUse { nodes: 3, primary_on: 2 }),
            (KeyId([0, 0, 0x11, 0xee]), KeyUse { nodes: 1, primary_on: 0 }),
        ]),
        refusals: texts(refusals),
        absent: texts(absent),
        applied,
        unknown_key: None,
    };
    let full = &[("host-b", "full")];
    let gone = &[("host-c", "not asked: gone")];
    let shown = r#"[{"WAN":false,"Datacenter":"dc1","Segment":"","Messages":{"host-b":"full","host-c":"not asked: gone"},"Keys":{"000000ff":3,"000011ee":1},"PrimaryKeys":{"000000ff":2},"NumNodes":3,"Muster":{"Answered":2}}]"#;
    let forced = shown.replace(r#""host-b":"full","#, "");
    let (list, install) = (KeyringCommand::List, KeyringCommand::Install(key.clone()));
    let (make_primary, remove) = (KeyringCommand::Use(key.id()), KeyringCommand::Remove(key.id()));
    let refused = "Refused: no node has changed its keys.\n";
    let advice = "Wait until these nodes are back, remove those that never return with `muster force-leave NODE`, or repeat \
                  the request with `force` (--force) to change the other nodes.\n";
    let absent = format!("{refused}host-c: not asked: gone\n{advice}");
    let cut_off =
        format!("{refused}host-c: not asked: gone\nA node without a key that stays cannot return by itself. {advice}");
    let unknown = KeyringReport { unknown_key: Some(key.id()), ..report(false, &[], &[]) };
    let no_node = format!("No node that answered has the key {}: see `muster keyring list`.\n", key.id());
    let cases = [
        ("GET /v1/operator/keyring", list, false, report(true, full, gone), 200, shown.to_owned()),
        ("POST /v1/operator/keyring", install, false, report(true, &[], &[]), 200, String::new()),
        ("PUT /v1/operator/keyring", make_primary.clone(), false, report(true, &[], &[]), 200, String::new()),
        ("DELETE /v1/operator/keyring", remove.clone(), false, report(true, &[], &[]), 200, String::new()),
        ("DELETE /v1/operator/keyring?force", remove.clone(), true, report(true, &[], gone), 200, forced),
        ("PUT /v1/operator/keyring?force=false", make_primary.clone(), false, report(false, &[], gone), 409, absent),
        ("DELETE /v1/operator/keyring", remove.clone(), false, report(false, &[], gone), 409, cut_off),
        ("DELETE /v1/operator/keyring", remove.clone(), false, unknown, 404, no_node),
        (
            "PUT /v1/operator/keyring",
            make_primary,
            false,
            report(false, full, &[]),
            409,
            format!("{refused}host-b: full\nFix these nodes, then repeat the request.\n"),
        ),
        (
            "DELETE /v1/operator/keyring?force=1",
            remove,
            true,
            report(true, full, gone),
            500,
            "1 of 3 nodes applied the change.\nhost-b: full\nhost-c: not asked: gone\n\
             Fix the failed nodes, then repeat the request.\n"
                .to_owned(),
        ),
    ];
    for (request, change, force, report, status, response) in cases {
        let carry_out = async {
            let Some(Command::Keyring { change, force, done }) = commands.recv().await else { panic!("no command") };
            done.send(Ok(report)).unwrap();
            (change, force)
        };
        let (answer, given) = tokio::join!(ask(&server, request, &body), carry_out);
        assert!(given == (change, force), "{request}: {given:?}");
        assert_eq!(answer, (status, response), "{request}");
    }
}

#[tokio::test]
async fn invalid_key_is_refused_and_not_quoted() {
    let (server, _commands) = agent(Membership::default(), &CancellationToken::new());
    let long = format!(r#"{{"Key": "{}"}}"#, "c2Vj".repeat(40));
    let cases = [
        ("POST", "", "Invalid body"),
        ("POST", "c2Vj", "Invalid body"),
        ("PUT", r#""c2Vj""#, "Invalid body"),
        ("PUT", r#"{"Key": ["c2Vj"]}"#, "Invalid body"),
        ("PUT", r#"{"Key": ""}"#, "Invalid body"),
        ("DELETE", r#"{"key": "c2Vj"}"#, "Invalid body"),
        ("DELETE", r#"{"Key": "c2Vj\u001b"}"#, "Invalid body"),
        ("DELETE", &long, "Invalid body"),
        ("POST", r#"{"Key": "c2Vj"}"#, "Invalid key: a key is 32 octets in base64"),
        ("POST", r#"{"Key": "c2Vj!"}"#, "Invalid key: a key is one word of base64"),
        ("PUT", r#"{"Key": "c2Vj"}"#, "Invalid key: expected a key id"),
        ("DELETE", r#"{"Key": "00c2V"}"#, "Invalid key: expected a key id"),
    ];
    for (method, body, expected) in cases {
        let (status, text) = ask(&server, &format!("{method} /v1/operator/keyring"), body).await;
        assert_eq!(status, 400, "{method} {body}: {text}");
        assert!(text.starts_with(expected) && !text.contains("c2V"), "{method} {body}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_clients_are_disconnected() {
    let keyring = "POST /v1/operator/keyring HTTP/1.1\r\nhost: [::1]\r\ncontent-length: 9\r\n\r\n";
    let chunks = "PUT /v1/event/fire/x HTTP/1.1\r\nhost: [::1]\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
    let cases: &[(&str, &str, u64, &str)] = &[
        ("sends nothing", "", 10, ""),
        ("sends its head slowly", "GET /v1/agent/self HTTP/1.1\r\nx: ", 10, ""),
        ("idles after a response", "GET /v1/x HTTP/1.1\r\n\r\n", 10, "HTTP/1.1 404"),
        ("sends its body slowly", keyring, 30, "HTTP/1.1 408"),
        ("sends endless chunks", chunks, 30, "HTTP/1.1 408"),
    ];
    for (case, sent, seconds, expected) in cases {
        let (server, _commands) = agent(Membership::default(), &CancellationToken::new());
        let (mut client, served) = connect(&server);
        let started = Instant::now();
        client.write_all(sent.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(client);
        let drip = async {
            while sent.ends_with("x: ") {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if writer.write_all(b"x").await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let mut answer = String::new();
        tokio::select! {
            read = reader.read_to_string(&mut answer) => drop(read.unwrap()),
            () = drip => {}
        }
        assert_eq!(started.elapsed().as_secs(), *seconds, "{case}");
        assert!(answer.starts_with(expected), "{case}: {answer}");
        served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn stop_finishes_open_requests_and_closes_idle_connections() {
    let shutdown = CancellationToken::new();
    let (server, mut commands) = agent(Membership::default(), &shutdown);
    let (_idle, idle) = connect(&server);
    let (mut half, half_served) = connect(&server);
    half.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let stop = async {
        let Some(Command::Leave { done }) = commands.recv().await else { panic!("no command") };
        shutdown.cancel();
        tokio::time::sleep(Duration::from_secs(1)).await;
        done.send(()).unwrap();
    };
    let started = Instant::now();
    let ((status, body), ()) = tokio::join!(ask(&server, "PUT /v1/agent/leave", ""), stop);
    assert_eq!((status, body.as_str()), (200, ""));
    idle.await.unwrap();
    half_served.await.unwrap();
    assert!(started.elapsed() <= Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn every_listed_endpoint_exists_and_refuses_other_methods() {
    let (server, commands) = agent(Membership::default(), &CancellationToken::new());
    // Commands fail, because their receiver is dropped.
    drop(commands);
    for (pattern, methods) in endpoints::paths() {
        let part = |part: &'static str| if part.starts_with('{') { "host-b" } else { part };
        let path: Vec<&str> = pattern.split('/').map(part).collect();
        let path = path.join("/");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "MUSTER"] {
            // A stream does not end.
            let asked = timeout(Duration::from_secs(1), ask(&server, &format!("{method} {path}"), "")).await;
            let (status, text) = asked.unwrap_or((200, String::new()));
            if methods.split(", ").any(|listed| listed == method) {
                assert!(status != 405 && !text.starts_with("No such endpoint"), "{method} {path}: {text}");
            } else {
                assert_eq!(status, 405, "{method} {path}: {text}");
                assert!(text.ends_with(&format!("allowed: {methods}.\n")), "{method} {path}: {text}");
            }
        }
    }
}
