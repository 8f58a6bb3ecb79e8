//! The API against a cluster that a test makes up, and against clients that take their time.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch::channel;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    blocking::Sources,
    command::{JoinOutcome, KeyReport, KeyringReport},
    server::{Server, converse},
    *,
};
use crate::{
    gossip::message::KeyringChange,
    model::{
        catalog::Catalog,
        keyring::{Key, KeyId},
        maintenance::Maintenance,
        member::{Cause, Member, Membership, PeerId, Reach},
        name::label,
    },
};

mod streams;

/// A key that is none of a cipher's, and easy to find where it must not be.
const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=";

fn member(name: &str, address: &str, reach: Reach) -> Member {
    Member {
        id: PeerId { name: label(name), generation: 3 },
        address: address.parse().unwrap(),
        datacenter: None,
        version: None,
        reach,
        since: Duration::from_secs(1_000_000_000),
        instances: 2,
        ttl: None,
        view: None,
        differs: None,
    }
}

fn facts() -> Agent {
    Agent {
        node: label("host-a"),
        datacenter: label("dc1"),
        domain: Name::parse("service.local").unwrap(),
        aliases: vec![],
        meta: BTreeMap::from([("rack".to_owned(), "r1".to_owned())]),
        version: "1.2.3",
        advertise: vec!["10.0.0.7".parse().unwrap()],
        gossip: "10.0.0.7:7946".parse().unwrap(),
        dns: vec!["127.0.0.1:53".parse().unwrap()],
        http: vec!["[::1]:8500".parse().unwrap()],
        ttl: 5,
    }
}

/// What does not change: a receiver keeps the last state when its sender is gone.
fn sources(catalog: Catalog, known: Membership) -> Sources {
    Sources {
        catalog: channel(catalog).1,
        members: channel(Arc::new(known)).1,
        files: channel(Arc::default()).1,
        maintenance: channel(Maintenance::default()).1,
        keys: channel(None).1,
    }
}

/// An agent of such a cluster, whose orders nobody takes before the test does.
fn agent(known: Membership, shutdown: &CancellationToken) -> (Server, mpsc::Receiver<Command>) {
    let (orders, given) = mpsc::channel(4);
    let hub = BlockingQueries::new(sources(Catalog::default(), known), Http::default(), shutdown.clone());
    (Server::new(api(hub, orders, None, shutdown), shutdown.clone()), given)
}

/// An API that shows what this hub knows.
fn api(hub: Arc<BlockingQueries>, orders: mpsc::Sender<Command>, guard: Guard, shutdown: &CancellationToken) -> Api {
    let (scrape, counted, stopping) = (Scrape::new(Vec::new), Http::default(), shutdown.clone());
    let events = channel(EventLog::default()).1;
    let beyond =
        Beyond { zones: channel(Arc::default()).1, services: Default::default(), routes: vec![], upstreams: None };
    Api { agent: Arc::new(facts()), events, hub, orders, guard, beyond, scrape, counted, stopping }
}

/// Until the last request is answered, who asks is told that the agent is about to go.
#[tokio::test]
async fn an_agent_that_stops_is_not_ready() {
    let (shutdown, stopping) = (CancellationToken::new(), CancellationToken::new());
    let hub =
        BlockingQueries::new(sources(Catalog::default(), Membership::default()), Http::default(), shutdown.clone());
    let api = Api { stopping: stopping.clone(), ..api(hub, mpsc::channel(1).0, None, &shutdown) };
    let server = Server::new(api, shutdown);
    assert_eq!(ask(&server, "GET /readyz", "").await, (200, "ready\n".to_owned()));
    stopping.cancel();
    assert_eq!(ask(&server, "GET /readyz", "").await, (503, "not ready: the agent is stopping\n".to_owned()));
    assert_eq!(ask(&server, "GET /healthz", "").await, (200, "ok\n".to_owned()));
}

fn connect(server: &Server) -> (DuplexStream, JoinHandle<()>) {
    let (client, stream) = duplex(64 * 1024);
    (client, tokio::spawn(converse(stream, server.clone())))
}

/// Sends a request and reads the answer to the end of the connection: its status and its body.
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
async fn members_stand_as_consul_would_say_and_as_we_do() {
    let cases = [
        (Reach::Alive, 1, "alive", None),
        (Reach::Suspect, 1, "suspect", None),
        (Reach::Held, 4, "held", None),
        (Reach::Gone(Cause::Left), 3, "left", Some("it left")),
        (Reach::Gone(Cause::Refused), 4, "gone", Some("its agent has ended")),
    ];
    for (reach, status, word, cause) in cases {
        let known = Membership { members: vec![member("host-b", "[fd00::7]:7946", reach)], ..Membership::default() };
        let (server, _orders) = agent(known, &CancellationToken::new());
        let expected = json!([{
            "Name": "host-b", "Addr": "fd00::7", "Port": 7946, "Status": status,
            "Tags": {"role": "node", "id": "926aafe6-887d-59f0-8c6b-a5768d960423"},
            "ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2, "DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4,
            "Muster": {
                "Reach": word, "Cause": cause, "Since": "2001-09-09T01:46:40Z", "Instances": 2, "Version": null,
                "Generation": 3, "Datacenter": null, "View": null, "ViewDiffersSince": null,
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
                version: Some("1.2.3".into()),
                since: Duration::MAX,
                ..member("host-a", "10.0.0.7:7946", Reach::Alive)
            },
            member("host-b", "10.0.0.8:7946", Reach::Held),
            member("host-c", "10.0.0.9:7946", Reach::Held),
            member("host-d", "10.0.0.10:7946", Reach::Gone(Cause::Left)),
        ],
        partitioned: Some(Duration::ZERO),
        rejected: vec![("no key opens it", 7)],
        sealed: true,
    };
    let (server, _orders) = agent(known, &CancellationToken::new());
    let myself = json_of(&server, "/v1/agent/self").await;
    let expected = json!({
        "Domain": "service.local.", "Advertise": ["10.0.0.7"], "Generation": 3, "Sealed": true,
        "Listen": {"Dns": ["127.0.0.1:53"], "Http": ["[::1]:8500"], "Gossip": "10.0.0.7:7946"},
        "Partitioned": "1970-01-01T00:00:00Z", "Members": {"alive": 1, "held": 2, "left": 1}, "Diverging": {},
        "Rejected": {"no key opens it": 7}, "Files": [], "Held": [],
    });
    assert_eq!(myself["Muster"], expected);
    assert_eq!(myself["Meta"], json!({"rack": "r1"}));
    assert_eq!(myself["Config"]["NodeID"], myself["Member"]["Tags"]["id"]);
    assert_eq!(myself["Member"]["Muster"]["Since"], "9999-12-31T23:59:59Z", "a wrong clock is no panic");
    let expected = json!({"members": "4", "failed": "2", "left": "1", "encrypted": "true"});
    assert_eq!(myself["Stats"]["serf_lan"], expected);
    // Before gossip knows of this node, too.
    let (server, _orders) = agent(Membership::default(), &CancellationToken::new());
    assert_eq!(json_of(&server, "/v1/agent/self").await["Member"]["Name"], "host-a");
}

#[tokio::test]
async fn a_join_tells_whom_it_reached() {
    let (server, mut orders) = agent(Membership::default(), &CancellationToken::new());
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let cases = [
        ("[fd00::8]:7947", "[fd00::8]:7947", Ok(())),
        ("%5Bfd00::8%5D", "[fd00::8]:7946", Ok(())),
        ("::1", "[::1]:7946", Ok(())),
        ("host-b", "host-b:7946", Err("Nobody is there.")),
    ];
    for (asked, target, outcome) in cases {
        let carry_out = async {
            let Some(Command::Join { target, done }) = orders.recv().await else { panic!("no join") };
            let reached =
                JoinOutcome { asked: addresses(&["[fd00::8]:1", "10.0.0.8:1"]), answered: addresses(&["10.0.0.8:1"]) };
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
async fn the_keyring_shows_ids_and_changes_everywhere_or_says_where_not() {
    let (server, mut orders) = agent(Membership::default(), &CancellationToken::new());
    let body = format!(r#"{{"Key": "{KEY}"}}"#);
    let key = Key::from_base64(KEY).unwrap();
    let report = |answered, refusals: &[(&str, &str)]| KeyringReport {
        nodes: 3,
        answered,
        keys: vec![
            KeyReport { id: KeyId([0, 0, 0, 0xff]), nodes: 3, primary_on: 2 },
            KeyReport { id: KeyId([0, 0, 0x11, 0xee]), nodes: 1, primary_on: 0 },
        ],
        refusals: refusals.iter().map(|(node, why)| ((*node).to_owned(), (*why).to_owned())).collect(),
    };
    let shown = r#"[{"WAN":false,"Datacenter":"dc1","Segment":"","Messages":{"host-b":"full"},"Keys":{"000000ff":3,"000011ee":1},"PrimaryKeys":{"000000ff":2},"NumNodes":3,"Muster":{"Answered":2}}]"#;
    let cases = [
        ("GET", KeyringChange::List, report(2, &[("host-b", "full")]), 200, shown),
        ("POST", KeyringChange::Install(key.clone()), report(3, &[]), 200, ""),
        ("PUT", KeyringChange::Use(key.id()), report(3, &[]), 200, ""),
        ("DELETE", KeyringChange::Remove(key.id()), report(3, &[]), 200, ""),
        (
            "DELETE",
            KeyringChange::Remove(key.id()),
            report(2, &[("host-b", "it seals with it")]),
            500,
            "1 of 3 nodes have done it.\nhost-b: it seals with it\n1 did not answer: `muster members` shows who.\n\
             Give the same order again when that is mended.\n",
        ),
    ];
    for (method, order, report, status, shown) in cases {
        let carry_out = async {
            let Some(Command::Keyring { change, done }) = orders.recv().await else { panic!("no order") };
            done.send(Ok(report)).unwrap();
            change
        };
        let request = format!("{method} /v1/operator/keyring");
        let (answer, given) = tokio::join!(ask(&server, &request, &body), carry_out);
        assert!(given == order, "{method}: {given:?}");
        assert_eq!(answer, (status, shown.to_owned()), "{method}");
    }
}

#[tokio::test]
async fn what_is_no_key_is_refused_and_not_repeated() {
    let (server, _orders) = agent(Membership::default(), &CancellationToken::new());
    let long = format!(r#"{{"Key": "{}"}}"#, "c2Vj".repeat(40));
    let cases = [
        ("POST", "", "The body has to be JSON"),
        ("POST", "c2Vj", "The body has to be JSON"),
        ("PUT", r#""c2Vj""#, "The body has to be JSON"),
        ("PUT", r#"{"Key": ["c2Vj"]}"#, "The body has to be JSON"),
        ("PUT", r#"{"Key": ""}"#, "The body has to be JSON"),
        ("DELETE", r#"{"key": "c2Vj"}"#, "The body has to be JSON"),
        ("DELETE", r#"{"Key": "c2Vj\u001b"}"#, "The body has to be JSON"),
        ("DELETE", &long, "The body has to be JSON"),
        ("POST", r#"{"Key": "c2Vj"}"#, "That is no key: a key is 32 octets in base64"),
        ("POST", r#"{"Key": "c2Vj!"}"#, "That is no key: a key is one word of base64"),
        ("PUT", r#"{"Key": "c2Vj"}"#, "A key is named by its id"),
        ("DELETE", r#"{"Key": "00c2V"}"#, "A key is named by its id"),
    ];
    for (method, body, expected) in cases {
        let (status, text) = ask(&server, &format!("{method} /v1/operator/keyring"), body).await;
        assert_eq!(status, 400, "{method} {body}: {text}");
        assert!(text.starts_with(expected) && !text.contains("c2V"), "{method} {body}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_take_their_time_are_given_up() {
    let keyring = "POST /v1/operator/keyring HTTP/1.1\r\nhost: [::1]\r\ncontent-length: 9\r\n\r\n";
    let chunks = "PUT /v1/event/fire/x HTTP/1.1\r\nhost: [::1]\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
    let cases: &[(&str, &str, u64, &str)] = &[
        ("says nothing", "", 10, ""),
        ("sends its head bit by bit", "GET /v1/agent/self HTTP/1.1\r\nx: ", 10, ""),
        ("waits after an answer", "GET /v1/x HTTP/1.1\r\n\r\n", 10, "HTTP/1.1 404"),
        ("sends its body bit by bit", keyring, 30, "HTTP/1.1 408"),
        ("sends chunks without end", chunks, 30, "HTTP/1.1 408"),
    ];
    for (case, sent, seconds, expected) in cases {
        let (server, _orders) = agent(Membership::default(), &CancellationToken::new());
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
async fn a_stop_lets_answers_out_and_waits_for_no_idler() {
    let shutdown = CancellationToken::new();
    let (server, mut orders) = agent(Membership::default(), &shutdown);
    let (_idle, idle) = connect(&server);
    let (mut half, half_served) = connect(&server);
    half.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let stop = async {
        let Some(Command::Leave { done }) = orders.recv().await else { panic!("no order") };
        shutdown.cancel();
        tokio::time::sleep(Duration::from_secs(1)).await;
        done.send(Ok(())).unwrap();
    };
    let started = Instant::now();
    let ((status, body), ()) = tokio::join!(ask(&server, "PUT /v1/agent/leave", ""), stop);
    assert_eq!((status, body.as_str()), (200, ""));
    idle.await.unwrap();
    half_served.await.unwrap();
    assert!(started.elapsed() <= Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn every_endpoint_that_is_listed_is_there_and_takes_no_other_method() {
    let (server, orders) = agent(Membership::default(), &CancellationToken::new());
    // Whoever gives an order hears that nobody takes it.
    drop(orders);
    for (pattern, methods) in endpoints::paths() {
        let part = |part: &'static str| if part.starts_with('{') { "host-b" } else { part };
        let path: Vec<&str> = pattern.split('/').map(part).collect();
        let path = path.join("/");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "MUSTER"] {
            // A stream has no end.
            let asked = timeout(Duration::from_secs(1), ask(&server, &format!("{method} {path}"), "")).await;
            let (status, text) = asked.unwrap_or((200, String::new()));
            if methods.split(", ").any(|listed| listed == method) {
                assert!(status != 405 && !text.starts_with("There is nothing here"), "{method} {path}: {text}");
            } else {
                assert_eq!(status, 405, "{method} {path}: {text}");
                assert!(text.ends_with(&format!("it takes {methods}.\n")), "{method} {path}: {text}");
            }
        }
    }
}
