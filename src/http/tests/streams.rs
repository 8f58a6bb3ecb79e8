//! Streams of a synthetic cluster that changes, and clients that read slowly.

use std::collections::BTreeMap;

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::watch,
    time::sleep,
};

use super::*;
use crate::{
    config::AddressProblem,
    diagnostic::{Diagnostic, FolderReport, Reports},
    dns::zone::zone_problems::ZoneProblem,
    model::{
        announcement::{Announcement, Announcements, HoldReason, InstanceState, Node},
        catalog::{Freshness, NodeView, View},
        health::Status,
        journal::KEPT,
        keyring::Keyring,
        maintenance::{self, Hold},
        service::{Instance, InstanceKey},
        token::{Scope, Token, Tokens},
    },
};

/// A server with a cluster that the test controls.
pub(super) struct TestAgent {
    pub(super) server: Server,
    pub(super) tables: Arc<ArcSwap<Tables>>,
    pub(super) catalog: watch::Sender<Catalog>,
    members: watch::Sender<Arc<Membership>>,
    files: watch::Sender<Arc<Reports>>,
    maintenance: watch::Sender<Maintenance>,
    _keys: watch::Sender<Option<Keyring>>,
    _address_problem: watch::Sender<Option<AddressProblem>>,
    _zone_problems: watch::Sender<Arc<[ZoneProblem]>>,
    pub(super) shutdown: CancellationToken,
    /// Metrics of the waiting clients.
    pub(super) metrics: Http,
}

impl TestAgent {
    pub(super) fn new(guard: Guard) -> Self {
        let shutdown = CancellationToken::new();
        let (catalog, shown) = channel(Catalog::starting_at(1000));
        let (members, known) = channel(Arc::default());
        let (files, reported) = channel(Arc::default());
        let (maintenance, held) = channel(Maintenance::default());
        let (keys, ring) = channel(None);
        let (problem, address_problem) = channel(None);
        let (zones, zone_problems) = channel(Arc::default());
        let sources = Sources {
            catalog: shown,
            members: known,
            files: reported,
            maintenance: held,
            keys: ring,
            address_problem,
            zone_problems,
        };
        let metrics = Http::default();
        let queries = BlockingQueries::new(sources, metrics.clone(), shutdown.clone());
        tokio::spawn(queries.clone().run());
        let cluster = mpsc::channel(1).0;
        let api = api(queries, cluster, guard, &shutdown);
        let tables = api.explain.tables.clone();
        let server = Server::new(api, shutdown.clone());
        let (_keys, _address_problem, _zone_problems) = (keys, problem, zones);
        Self {
            server,
            tables,
            catalog,
            members,
            files,
            maintenance,
            _keys,
            _address_problem,
            _zone_problems,
            shutdown,
            metrics,
        }
    }

    /// Changes the state of the instance `web-1` on the node `host-b`.
    pub(super) fn announce(&self, status: Status, reason: &str) {
        self.catalog.send_modify(|catalog| {
            let touched = catalog.update(view(status, reason));
            let mut tables = Tables::clone(&self.tables.load());
            tables.update(catalog, &touched);
            self.tables.store(Arc::new(tables));
        });
    }

    /// Starts a stream and reads its head.
    pub(super) async fn stream(&self, path: &str, headers: &str) -> Stream {
        self.stream_over("1.1", path, &format!("connection: keep-alive\r\n{headers}")).await
    }

    /// Starts a stream over a version of HTTP: one over 1.1 is chunked and parks.
    pub(super) async fn stream_over(&self, version: &str, path: &str, headers: &str) -> Stream {
        let (mut client, served) = connect(&self.server);
        let request = format!("GET {path} HTTP/{version}\r\nhost: [::1]\r\n{headers}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Stream { lines: BufReader::new(client), served };
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.lines.read_line(&mut head).await.unwrap(), 0, "{head}");
        }
        assert!(head.starts_with(&format!("HTTP/{version} 200")), "{head}");
        assert!(head.contains("\r\ncontent-type: text/event-stream\r\n"), "{head}");
        assert_eq!(head.contains("\r\ntransfer-encoding: chunked\r\n"), version == "1.1", "{head}");
        stream
    }
}

pub(super) struct Stream {
    lines: BufReader<DuplexStream>,
    pub(super) served: JoinHandle<()>,
}

impl Stream {
    /// Returns the fields of the next event without comments; `None`: the stream has ended. The sizes of chunks are no
    /// fields, and a chunk of size 0 is the last one.
    pub(super) async fn next(&mut self) -> Option<BTreeMap<String, String>> {
        let mut fields = BTreeMap::new();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).await.unwrap() == 0 || line == "0\r\n" {
                return None;
            }
            match line.trim_end().split_once(": ").filter(|(name, _)| !name.is_empty()) {
                Some((name, value)) => drop(fields.insert(name.to_owned(), value.to_owned())),
                None if !fields.is_empty() => return Some(fields),
                None => {}
            }
        }
    }

    /// Closes the connection and returns its task.
    pub(super) fn close(self) -> JoinHandle<()> {
        self.served
    }

    /// Sends a request after the stream and reads until the connection ends.
    pub(super) async fn request(&mut self, request: &str) -> String {
        self.lines.get_mut().write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        self.lines.read_to_string(&mut response).await.unwrap();
        response
    }

    /// Returns the data of the next event, skipping positions.
    async fn data(&mut self) -> Value {
        loop {
            if let Some(data) = self.next().await.unwrap().get("data") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    /// Returns the next state with its index.
    pub(super) async fn state(&mut self) -> (u64, Value) {
        let event = self.next().await.unwrap();
        assert_eq!(event["event"], "state");
        (event["id"].parse().unwrap(), serde_json::from_str(&event["data"]).unwrap())
    }
}

fn view(status: Status, reason: &str) -> View {
    let key = InstanceKey { service: label("web").into(), id: label("web-1") };
    let instance = Arc::new(Instance {
        port: Some(80),
        tags: vec!["v2".to_owned()].into(),
        ..Instance::new(key, vec!["10.0.0.8".parse().unwrap()])
    });
    let announcement = Announcement::new(instance, InstanceState::new(status, reason));
    let announcements = Announcements::from_iter([announcement.into_entry()]);
    let view = |name: &str, announcements| {
        let node = Node {
            name: label(name),
            addresses: vec!["10.0.0.8".parse().unwrap()],
            datacenter: label("dc1"),
            zone: None,
            meta: Default::default(),
            checks: None,
        };
        let view =
            NodeView { external: Default::default(), node: Arc::new(node), announcements, freshness: Freshness::Live };
        (label(name), Arc::new(view))
    };
    View::from_iter([view("host-a", Announcements::new()), view("host-b", announcements)])
}

#[tokio::test(start_paused = true)]
async fn stream_sends_the_endpoints_state_at_start_and_after_changes() {
    let agent = TestAgent::new(None);
    agent.announce(Status::Passing, "");
    let critical = || agent.announce(Status::Critical, "down");
    let joins = || {
        let both = vec![member("host-a", "10.0.0.7:1", Reach::Alive), member("host-b", "10.0.0.8:1", Reach::Alive)];
        agent.members.send_replace(Arc::new(Membership { members: both, ..Membership::default() }));
    };
    let leaves = || {
        agent.catalog.send_modify(|catalog| {
            catalog.update(View::new());
        });
    };
    // The path, and a change of its state.
    let cases: &[(&str, &dyn Fn())] = &[
        ("health/service/web", &critical),
        ("health/service/web?passing&tag=v2&near=_agent&dc=dc1", &critical),
        ("health/service/web?filter=Service.Port+%3D%3D+80", &critical),
        ("health/checks/web", &critical),
        ("health/state/critical", &critical),
        ("health/node/host-b", &critical),
        ("internal/ui/services", &critical),
        ("muster/explain/web", &critical),
        ("agent/members", &joins),
        ("agent/self", &joins),
        ("catalog/datacenters", &leaves),
        ("catalog/nodes", &leaves),
        ("catalog/node/host-b", &leaves),
        ("catalog/services", &leaves),
        ("catalog/service/web", &leaves),
    ];
    for (path, change) in cases {
        agent.announce(Status::Passing, "");
        agent.members.send_replace(Arc::default());
        sleep(Duration::from_secs(1)).await;
        let mut stream = agent.stream(&format!("/v1/watch/{path}"), "").await;
        let (index, first) = stream.state().await;
        assert_eq!(first, json_of(&agent.server, &format!("/v1/{path}")).await, "{path}");
        change();
        let (next, second) = stream.state().await;
        assert!(next > index, "{path}: {next} after {index}");
        assert_ne!(first, second, "{path}");
        assert_eq!(second, json_of(&agent.server, &format!("/v1/{path}")).await, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn reconnecting_client_receives_the_next_state() {
    let agent = TestAgent::new(None);
    agent.announce(Status::Passing, "");
    let path = "/v1/watch/health/service/web";
    let (seen, _) = agent.stream(path, "").await.state().await;
    let mut again = agent.stream(path, &format!("last-event-id: {seen}\r\n")).await;
    let mut by_query = agent.stream(&format!("{path}?index={seen}&wait=1s&pretty"), "").await;
    sleep(Duration::from_secs(5)).await;
    agent.announce(Status::Critical, "down");
    for stream in [&mut again, &mut by_query] {
        let (index, state) = stream.state().await;
        assert!(index > seen);
        assert_eq!(state[0]["Checks"][1]["Output"], "down");
    }
    // A position from another run counts as none.
    let mut other = agent.stream(path, "last-event-id: 18446744073709551615\r\n").await;
    assert!(other.state().await.0 > seen);
}

#[tokio::test(start_paused = true)]
async fn burst_ends_with_the_final_state_and_unchanged_states_are_not_repeated() {
    let agent = TestAgent::new(None);
    agent.announce(Status::Passing, "");
    let mut stream = agent.stream("/v1/watch/health/service/web", "").await;
    let mut other = agent.stream("/v1/watch/health/node/host-a", "").await;
    let (mut states, mut last) = (0, Value::Null);
    stream.state().await;
    other.state().await;
    for number in 0..1000 {
        agent.announce(Status::Critical, &format!("failure {number}"));
        sleep(Duration::from_millis(1)).await;
    }
    while last != "failure 999" {
        last = stream.state().await.1[0]["Checks"][1]["Output"].clone();
        states += 1;
    }
    assert!((10..=22).contains(&states), "{states} states in a second");
    let silent = timeout(Duration::from_secs(60), other.next()).await;
    assert!(silent.is_err(), "the state of this node is unchanged: {silent:?}");
}

#[tokio::test(start_paused = true)]
async fn invalid_request_is_refused_before_the_stream_starts() {
    let agent = TestAgent::new(None);
    let cases = [
        ("health/service/web?filter=x", 400, "expected an operator"),
        ("health/service/web?dc=elsewhere", 400, "No path to datacenter elsewhere"),
        ("health/state/ill", 400, "Invalid state"),
        ("catalog/nothing", 404, "No such endpoint"),
        ("operator/keyring", 404, "No such endpoint"),
    ];
    for (path, status, text) in cases {
        let (got, body) = ask(&agent.server, &format!("GET /v1/watch/{path}"), "").await;
        assert!(got == status && body.contains(text), "{path}: {got} {body}");
    }
    let (status, body) = ask(&agent.server, "HEAD /v1/watch/catalog/nodes", "").await;
    assert_eq!((status, body.as_str()), (200, ""));
}

#[tokio::test(start_paused = true)]
async fn idle_stream_sends_comments() {
    let agent = TestAgent::new(None);
    let mut stream = agent.stream("/v1/watch/catalog/nodes", "").await;
    stream.state().await;
    let started = Instant::now();
    // The end of the first state's chunk.
    stream.lines.read_line(&mut String::new()).await.unwrap();
    for _ in 0..4 {
        let mut lines = String::new();
        for _ in 0..4 {
            stream.lines.read_line(&mut lines).await.unwrap();
        }
        assert_eq!(lines, "3\r\n:\n\n\r\n");
    }
    let elapsed = started.elapsed().as_secs();
    assert!((60..=120).contains(&elapsed), "{elapsed} s");
}

#[tokio::test(start_paused = true)]
async fn client_that_stops_reading_is_disconnected() {
    let agent = TestAgent::new(None);
    let stream = agent.stream("/v1/watch/health/service/web", "").await;
    let started = Instant::now();
    let mut number = 0;
    while !stream.served.is_finished() {
        agent.announce(Status::Critical, &format!("failure {number}"));
        number += 1;
        sleep(Duration::from_millis(100)).await;
        assert!(started.elapsed() < Duration::from_secs(300), "the client is still connected");
    }
    assert!(started.elapsed() >= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn stop_ends_streams_and_answers_blocking_queries() {
    let agent = TestAgent::new(None);
    agent.announce(Status::Passing, "");
    let mut stream = agent.stream("/v1/watch/health/service/web", "").await;
    let (index, _) = stream.state().await;
    let started = Instant::now();
    let stop = async {
        sleep(Duration::from_secs(5)).await;
        agent.shutdown.cancel();
    };
    let waits = format!("GET /v1/health/service/web?index={index}");
    let ((status, _), end, ()) = tokio::join!(ask(&agent.server, &waits, ""), stream.next(), stop);
    assert_eq!((status, end), (200, None));
    assert_eq!(started.elapsed().as_secs(), 5, "the stop did not wait for clients");
}

#[tokio::test(start_paused = true)]
async fn stream_ends_when_its_token_is_revoked() {
    let tokens = |name: &str, text: &str| {
        let token = Token::new(name, Scope::Read, text);
        Tokens::new(vec![token])
    };
    let (guard, known) = channel(tokens("page", "reads-reads-reads-reads"));
    let agent = TestAgent::new(Some(known));
    let path = "/v1/watch/catalog/nodes";
    let (status, _) = ask(&agent.server, &format!("GET {path}"), "").await;
    assert_eq!(status, 403);
    let mut stream = agent.stream(&format!("{path}?token=reads-reads-reads-reads"), "").await;
    stream.state().await;
    guard.send_replace(tokens("page", "others-others-others-others"));
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn agent_shows_file_problems_and_holds() {
    let agent = TestAgent::new(None);
    let mut stream = agent.stream("/v1/watch/muster/status", "").await;
    stream.state().await;
    let path = std::path::Path::new("services.d/web.yaml");
    let mut problems = vec![Diagnostic::at(path, 3, 5, "no such key").with_hint("did you mean port?")];
    problems.extend((0..120).map(|_| Diagnostic::whole(path, "one of many").as_warning()));
    let report = FolderReport { in_service: "2 instances".to_owned(), problems, reads: 1 };
    agent.files.send_replace(Arc::new(Reports::from([("services.d".into(), report)])));
    let folder = stream.state().await.1["Muster"]["Files"][0].clone();
    let expected = json!({
        "File": "services.d/web.yaml", "Line": 3, "Column": 5, "Severity": "error", "Message": "no such key",
        "Hint": "did you mean port?",
    });
    assert_eq!(
        (&folder["Path"], &folder["InService"], &folder["Problems"][0]),
        (&json!("services.d"), &json!("2 instances"), &expected)
    );
    assert_eq!((folder["Problems"].as_array().unwrap().len(), &folder["MoreProblems"]), (100, &json!(21)));

    let key = InstanceKey { service: label("web").into(), id: label("web-1") };
    let hold = Hold { reason: "new disk".to_owned(), since: 10, until: Some(70) };
    let node = Hold { reason: String::new(), since: 10, until: None };
    agent.maintenance.send_modify(|held| {
        held.0.insert((maintenance::Scope::Instance(key), HoldReason::Draining), hold);
        held.0.insert((maintenance::Scope::Node, HoldReason::NodeMaintenance), node);
    });
    let expected = json!([
        {"Instance": null, "Gate": "node-maintenance", "Reason": "", "Since": "1970-01-01T00:00:10Z", "Until": null},
        {"Instance": "web/web-1", "Gate": "draining", "Reason": "new disk", "Since": "1970-01-01T00:00:10Z",
         "Until": "1970-01-01T00:01:10Z"},
    ]);
    assert_eq!(stream.state().await.1["Muster"]["Held"], expected);
}

#[tokio::test(start_paused = true)]
async fn events_are_streamed_and_stored() {
    let agent = TestAgent::new(None);
    let mut all = agent.stream("/v1/muster/events", "").await;
    let mut web = agent.stream("/v1/muster/events?service=web&node=host-b&kind=instance", "").await;
    let mut down = agent.stream("/v1/muster/events?kind=instance-down&kind=node&since=0", "").await;
    // The stream starts with its position, so that a client that reconnects early misses no event.
    assert_eq!((all.next().await.unwrap()["id"].as_str(), web.next().await.unwrap().len()), ("1000", 1));
    agent.announce(Status::Passing, "");
    sleep(Duration::from_secs(1)).await;
    agent.announce(Status::Critical, "refused");
    for (kind, sequence) in [("service-added", 1001), ("instance-added", 1002), ("instance-down", 1003)] {
        let event = all.data().await;
        assert_eq!((&event["Kind"], &event["Sequence"]), (&json!(kind), &json!(sequence)));
    }
    let received = [web.data().await, web.data().await, down.data().await];
    let kinds = received.each_ref().map(|data| data["Kind"].as_str().unwrap());
    assert_eq!(kinds, ["instance-added", "instance-down", "instance-down"]);
    let time = &received[1]["Time"];
    assert!(time.as_str().is_some_and(|time| humantime::parse_rfc3339(time).is_ok()), "{time}");
    let expected = json!({
        "Sequence": 1003, "Time": time, "Kind": "instance-down", "Node": "host-b", "Service": "web", "Instance": "web-1",
        "Was": "passing", "State": "critical", "Text": "web/web-1 on host-b is no longer answered: critical: refused",
    });
    assert_eq!(received[1], expected);
    // The same events as a list.
    let kinds = |list: Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|event| event["Kind"].as_str().unwrap().to_owned()).collect()
    };
    let cases = [
        ("follow=false", &["service-added", "instance-added", "instance-down"][..]),
        ("follow=false&since=1001", &["instance-added", "instance-down"]),
        ("follow=false&since=1003", &[]),
        ("follow=false&since=7", &["missed", "service-added", "instance-added", "instance-down"]),
        ("follow=false&kind=service", &["service-added"]),
        ("follow=false&node=host-a", &[]),
    ];
    for (query, expected) in cases {
        assert_eq!(kinds(json_of(&agent.server, &format!("/v1/muster/events?{query}")).await), expected, "{query}");
    }
    let cases = [
        ("kind=nothing", "expected one of service-added"),
        ("since=x", "since must be an integer from 0"),
        ("service=a%0Ab", "is not a valid service name"),
        ("follow=maybe", "follow must be true or false, got \"maybe\""),
    ];
    for (query, text) in cases {
        let (status, body) = ask(&agent.server, &format!("GET /v1/muster/events?{query}"), "").await;
        assert!(status == 400 && body.contains(text), "{query}: {status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_packets_cause_events_at_a_limited_rate() {
    let agent = TestAgent::new(None);
    let mut stream = agent.stream("/v1/muster/events?kind=gossip", "").await;
    let begin = Instant::now();
    let flood = async {
        for count in 1_u64.. {
            let rejected = vec![("forged", count), ("replayed", 7)];
            agent.members.send_replace(Arc::new(Membership { rejected, ..Membership::default() }));
            sleep(Duration::from_millis(50)).await;
        }
    };
    let listen = async {
        let received = [stream.data().await, stream.data().await, stream.data().await];
        // "messages rejected: 7 (replayed)"
        received.map(|event| event["Text"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned())
    };
    let received = tokio::select! {
        () = flood => unreachable!("the flood does not end"),
        received = listen => received,
    };
    assert_eq!(received, ["(forged)", "(replayed)", "(forged)"]);
    assert_eq!(begin.elapsed().as_secs(), 20, "one event per reason in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn slow_client_receives_the_number_of_missed_events() {
    let agent = TestAgent::new(None);
    agent.announce(Status::Passing, "");
    sleep(Duration::from_secs(1)).await;
    let mut stream = agent.stream("/v1/muster/events?since=1001", "").await;
    // Two events per iteration. Events that fit into the connection's buffers are sent before.
    for _ in 0..KEPT {
        agent.announce(Status::Critical, "refused");
        tokio::task::yield_now().await;
        agent.announce(Status::Passing, "");
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
    let (mut last, mut missed) = (1001, 0);
    while last < 1000 + KEPT as u64 {
        let event = stream.data().await;
        if let Some(sequence) = event["Sequence"].as_u64() {
            assert_eq!(sequence, last + 1, "every missed event is counted");
            last = sequence;
        } else {
            assert_eq!(event["Kind"], "missed");
            missed += event["Count"].as_u64().unwrap();
            last += event["Count"].as_u64().unwrap();
        }
    }
    assert!(missed > 0, "the journal is bounded");
}
