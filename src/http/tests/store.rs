//! The store's endpoints on a state without voters.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{streams::TestAgent, *};
use crate::{
    model::health::Status as Health,
    store::{
        lease::LifetimeId,
        request::{MemberStatus, MembershipChange, Request as StoreRequest, Status, Store, StoreError},
        state::State as StoreState,
    },
};

mod blocking;
mod entries;
mod keys;
mod sessions;
mod tokens;
mod transactions;

/// An API with a store in memory.
pub(super) struct StoreAgent {
    pub(super) server: Server,
    pub(super) shutdown: CancellationToken,
    /// Number of reads that wait.
    pub(super) waiting: Arc<AtomicUsize>,
}

impl StoreAgent {
    pub(super) fn new(guard: Guard) -> Self {
        Self::with_catalog(guard, Catalog::default())
    }

    /// Returns an agent whose catalog has host-a, and host-b with a service whose check is critical.
    pub(super) fn with_nodes() -> Self {
        let nodes = TestAgent::new(None);
        nodes.announce(Health::Critical, "down");
        let catalog = nodes.catalog.borrow().clone();
        Self::with_catalog(None, catalog)
    }

    fn with_catalog(guard: Guard, catalog: Catalog) -> Self {
        let waiting = Arc::new(AtomicUsize::new(0));
        let (requests, received) = mpsc::channel(16);
        tokio::spawn(serve(received, waiting.clone()));
        let shutdown = CancellationToken::new();
        let known =
            Membership { members: vec![member("host-b", "10.0.0.8:7946", Reach::Alive)], ..Membership::default() };
        let queries = BlockingQueries::new(sources(catalog, known), Http::default(), shutdown.clone());
        let mut api = api(queries, mpsc::channel(1).0, guard, &shutdown);
        api.commands.store = Some(Store::new(requests));
        Self { server: Server::new(api, shutdown.clone()), shutdown, waiting }
    }

    /// Sends a request with these header lines. Returns status, head and body.
    pub(super) async fn exchange(&self, request: &str, headers: &str, body: &str) -> (u16, String, String) {
        let (mut client, _) = connect(&self.server);
        let head = format!(
            "{request} HTTP/1.1\r\nhost: [::1]\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
    }

    /// Sends a request. Returns status and body.
    pub(super) async fn ask(&self, request: &str, body: &str) -> (u16, String) {
        ask(&self.server, request, body).await
    }

    /// Creates a session without a lock delay; returns its id.
    pub(super) async fn session(&self, body: &str) -> String {
        let (status, text) = self.ask("PUT /v1/session/create", body).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()["ID"].as_str().unwrap().to_owned()
    }

    /// Waits until this number of reads wait.
    pub(super) async fn wait_for(&self, waiting: usize) {
        while self.waiting.load(Ordering::SeqCst) != waiting {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Carries out requests as the store's task does, without voters.
async fn serve(mut requests: mpsc::Receiver<StoreRequest>, waiting: Arc<AtomicUsize>) {
    let state = tokio::sync::watch::Sender::new(StoreState::new(64 << 20));
    while let Some(request) = requests.recv().await {
        match request {
            StoreRequest::Write { command, done } => {
                let mut outcome = None;
                state.send_modify(|state| outcome = Some(state.apply(command)));
                let _ = done.send(outcome.ok_or(StoreError::NoLeader));
            }
            StoreRequest::Read { query, wait, mut done, .. } => {
                let (mut states, waiting) = (state.subscribe(), waiting.clone());
                tokio::spawn(async move {
                    if let Some(wait) = wait {
                        waiting.fetch_add(1, Ordering::SeqCst);
                        let changed = states.wait_for(|state| state.read(&query).unwrap().index != wait.index);
                        tokio::select! {
                            _ = timeout(wait.limit, changed) => {}
                            () = done.closed() => {}
                        }
                        waiting.fetch_sub(1, Ordering::SeqCst);
                    }
                    let answer = states.borrow().read(&query).unwrap();
                    let _ = done.send(Ok(answer));
                });
            }
            StoreRequest::Renew { id, done } => {
                let lifetime = state.borrow().lifetime(id);
                assert!(matches!(id, LifetimeId::Session(_)));
                let _ = done.send(Ok(lifetime.map(|lifetime| lifetime.ttl)));
            }
            StoreRequest::Status { done } => {
                let member = |id, node: &str, is_voter| MemberStatus {
                    id,
                    node: node.to_owned(),
                    is_voter,
                    lag: None,
                    unreached: is_voter.then_some(Duration::from_millis(250)),
                };
                let members = vec![member(1, "host-a", true), member(2, "host-b", true), member(3, "host-c", false)];
                let _ = done.send(Status { leader: Some("host-b".to_owned()), members, ..Status::default() });
            }
            StoreRequest::Membership { change, done } => {
                let _ = done.send(match change {
                    MembershipChange::Remove(node) if node == "host-z" => {
                        Err(StoreError::Membership("host-z is not a member of the store".to_owned()))
                    }
                    MembershipChange::Add(_) | MembershipChange::Remove(_) => Ok(()),
                });
            }
            StoreRequest::Watch { .. } => {}
        }
    }
}

#[tokio::test]
async fn status_shows_the_leader_and_the_voters() {
    let agent = StoreAgent::new(None);
    assert_eq!(json_of(&agent.server, "/v1/status/leader").await, json!("10.0.0.8:7946"));
    assert_eq!(json_of(&agent.server, "/v1/status/peers").await, json!(["10.0.0.7:7946", "10.0.0.8:7946"]));
}

#[tokio::test]
async fn voters_are_shown_and_changed() {
    let agent = StoreAgent::new(None);
    let status = json_of(&agent.server, "/v1/muster/store").await;
    assert_eq!((&status["Leader"], &status["ClusterID"]), (&json!("host-b"), &json!("")));
    let learner =
        json!({"ID": "0000000000000003", "Node": "host-c", "Voter": false, "Lag": null, "UnreachedMilliseconds": null});
    assert_eq!(status["Members"][2], learner);
    let cases = [
        ("PUT /v1/muster/store/voters/host-d", 200, ""),
        ("DELETE /v1/muster/store/voters/host-b", 200, ""),
        ("DELETE /v1/muster/store/voters/host-z", 409, "host-z is not a member of the store"),
        ("PUT /v1/muster/store/voters/a.b", 400, "\"a.b\" is not a valid node name"),
        ("PUT /v1/muster/store/voters/", 400, "Missing node"),
    ];
    for (request, status, text) in cases {
        let (found, body) = agent.ask(request, "").await;
        assert!(found == status && body.starts_with(text), "{request}: {found} {body}");
    }
}

/// Returns an export, by HTTP/1.0, which has no chunks.
async fn exported(agent: &StoreAgent, prefix: &str) -> Value {
    let (mut client, _) = connect(&agent.server);
    let request = format!("GET /v1/muster/store/export/{prefix} HTTP/1.0\r\nhost: [::1]\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head[9..].starts_with("200"), "{head}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn export_has_all_keys_of_a_prefix() {
    let agent = StoreAgent::new(None);
    assert_eq!(exported(&agent, "").await, json!([]));
    let mut expected = Vec::new();
    // Several pages.
    for number in 0..40 {
        let key = format!("a/{number:02}");
        agent.ask(&format!("PUT /v1/kv/{key}?flags={number}"), "x").await;
        expected.push(json!({"key": key, "flags": number, "value": "eA=="}));
    }
    agent.ask("PUT /v1/kv/b", "").await;
    assert_eq!(exported(&agent, "a%2F").await, json!(expected));
    expected.push(json!({"key": "b", "flags": 0, "value": ""}));
    assert_eq!(exported(&agent, "").await, json!(expected));
}

#[tokio::test]
async fn cluster_without_store_refuses_with_a_reason() {
    let (server, _commands) = agent(Membership::default(), &CancellationToken::new());
    let requests = [
        ("GET /v1/kv/a", ""),
        ("GET /v1/kv/?keys", ""),
        ("PUT /v1/kv/a", "x"),
        ("DELETE /v1/kv/a", ""),
        ("PUT /v1/session/create", ""),
        ("PUT /v1/session/renew/x", ""),
        ("PUT /v1/session/destroy/x", ""),
        ("GET /v1/session/info/adf4238a-882b-9ddc-4a9d-5b6758e4159e", ""),
        ("GET /v1/session/list", ""),
        ("PUT /v1/txn", "[]"),
        ("GET /v1/muster/store", ""),
        ("GET /v1/muster/store/export/", ""),
        ("GET /v1/muster/store/key/a", ""),
        ("GET /v1/muster/store/leases", ""),
        ("GET /v1/muster/store/sessions", ""),
        ("PUT /v1/muster/store/voters/host-b", ""),
        ("DELETE /v1/muster/store/voters/host-b", ""),
    ];
    for (request, body) in requests {
        let (status, text) = ask(&server, request, body).await;
        assert_eq!(status, 400, "{request}: {text}");
        assert!(text.starts_with("this cluster has no store: set store.voters"), "{request}: {text}");
    }
}
