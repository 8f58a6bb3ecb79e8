//! The JSON gateway, as clients without gRPC use it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    runtime::Runtime,
};

use crate::{
    store::TestStore,
    support::{
        document::{block, commands},
        process::{self, Finish},
        skip,
    },
};

/// A response with a line for each message, and its connection.
pub struct Lines(BufReader<TcpStream>);

impl Lines {
    /// Sends a request on a connection of its own.
    pub async fn start(address: SocketAddr, head: &str, body: &str) -> Self {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let request = format!("{head}\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        connection.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(connection))
    }

    /// Returns the next message, or the error that ends the stream.
    pub async fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).await.unwrap() > 0, "the stream ended");
            if let Ok(value @ Value::Object(_)) = serde_json::from_str(&line) {
                return value;
            }
        }
    }
}

/// Sends a request on a connection of its own. Returns the status and the body.
pub async fn send(address: SocketAddr, head: &str, body: &str) -> (u16, Value) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!("{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if head.contains("chunked") { unchunked(body) } else { body.to_owned() };
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        text.push_str(&rest[..length]);
        body = rest[length..].trim_start();
    }
    text
}

async fn post(store: &TestStore, path: &str, body: Value) -> (u16, Value) {
    send(store.address, &format!("POST {path} HTTP/1.1"), &body.to_string()).await
}

fn header(revision: &str) -> Value {
    json!({"cluster_id": "42", "member_id": "7", "revision": revision, "raft_term": "3"})
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_served_in_json() {
    let store = TestStore::start().await;
    let kv = json!({"key": "Zm9v", "value": "YmFy", "create_revision": "2", "mod_revision": "2", "version": "1"});
    let steps = [
        ("/v3/kv/put", json!({"key": "Zm9v", "value": "YmFy"}), 200, json!({"header": header("2")})),
        ("/v3/kv/range", json!({"key": "Zm9v"}), 200, json!({"header": header("2"), "kvs": [kv], "count": "1"})),
        ("/v3beta/kv/range", json!({"key": "eA=="}), 200, json!({"header": header("2")})),
        (
            "/v3/kv/txn",
            json!({
                "compare": [{"key": "Zm9v", "target": "VERSION", "version": 1, "result": 0}],
                "success": [{"request_delete_range": {"key": "Zm9v"}}],
            }),
            200,
            json!({
                "header": header("3"),
                "succeeded": true,
                "responses": [{"response_delete_range": {"header": header("3"), "deleted": "1"}}],
            }),
        ),
        (
            "/v3/kv/range",
            json!({}),
            400,
            json!({
                "error": "etcdserver: key is not provided",
                "code": 3,
                "message": "etcdserver: key is not provided",
            }),
        ),
        ("/v3/kv/lease/revoke", json!({"ID": "5"}), 404, {
            let text = "etcdserver: requested lease not found";
            json!({"error": text, "code": 5, "message": text})
        }),
        ("/v3/lease/grant", json!({"ID": 5, "TTL": "60"}), 200, json!({"header": header("3"), "ID": "5", "TTL": "60"})),
        (
            "/v3/lease/keepalive",
            json!({"ID": "5"}),
            200,
            json!({"result": {"header": header("3"), "ID": "5", "TTL": "60"}}),
        ),
        ("/v3/nothing", json!({}), 404, json!({"error": "Not Found", "code": 5, "message": "Not Found"})),
        ("/v3/auth/status", json!({}), 200, json!({"header": header("3"), "authRevision": "1"})),
    ];
    for (path, request, status, expected) in steps {
        let (found, answer) = post(&store, path, request).await;
        assert_eq!((found, answer), (status, expected), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_is_a_line_for_each_response() {
    let store = TestStore::start().await;
    let create = json!({"create_request": {"key": "Zm9v", "start_revision": "2"}});
    let body = format!("{create} {}", json!({"progress_request": {}}));
    let mut lines = Lines::start(store.address, "POST /v3/watch HTTP/1.1", &body).await;
    post(&store, "/v3/kv/put", json!({"key": "Zm9v", "value": "YmFy"})).await;
    let mut results = vec![];
    while results.len() < 3 {
        results.push(lines.next().await["result"].clone());
    }
    assert_eq!(results[0]["created"], true);
    // Progress is reported once all watches have seen the revision of the request.
    let progress = results.iter().find(|result| result["watch_id"] == "-1").unwrap();
    assert!(progress["header"]["revision"].is_string());
    let event = results.iter().find_map(|result| result["events"].get(0)).unwrap();
    assert_eq!(event["kv"]["key"], "Zm9v");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_a_watch_from_a_future_revision_is_that_of_the_store() {
    let store = TestStore::start().await;
    post(&store, "/v3/kv/put", json!({"key": "Zm9v", "value": "YmFy"})).await;
    let create = json!({"create_request": {"key": "Zm9v", "start_revision": "1000"}});
    let body = format!("{create} {}", json!({"progress_request": {}}));
    let mut lines = Lines::start(store.address, "POST /v3/watch HTTP/1.1", &body).await;
    let (created, progress) = (lines.next().await, lines.next().await);
    assert_eq!((&created["result"]["created"], &progress["result"]["watch_id"]), (&json!(true), &json!("-1")));
    assert_eq!(progress["result"]["header"]["revision"], "2");
    let (_, answer) = post(&store, "/v3/auth/status", json!({})).await;
    assert_eq!(answer["header"]["revision"], "2");
}

/// Clients repeat such calls at the next server.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_last_are_told_that_the_server_stops() {
    let store = TestStore::start().await;
    let queues = [
        ("/v3/lock/lock", json!({"name": "bG9jaw=="})),
        ("/v3/election/campaign", json!({"name": "ZWxlY3Rpb24=", "value": "YQ=="})),
    ];
    for (path, body) in &queues {
        let (status, response) = post(&store, path, body.clone()).await;
        assert_eq!(status, 200, "{path}: {response}");
    }
    let watch = json!({"create_request": {"key": "Zm9v"}});
    let mut watch = Lines::start(store.address, "POST /v3/watch HTTP/1.1", &watch.to_string()).await;
    assert_eq!(watch.next().await["result"]["created"], json!(true));
    let observe = json!({"name": "ZWxlY3Rpb24="});
    let mut observe = Lines::start(store.address, "POST /v3/election/observe HTTP/1.1", &observe.to_string()).await;
    assert_eq!(observe.next().await["result"]["kv"]["value"], json!("YQ=="));
    let address = store.address;
    let waiting = queues.map(|(path, body)| {
        tokio::spawn(async move { send(address, &format!("POST {path} HTTP/1.1"), &body.to_string()).await })
    });
    let all = json!({"key": "AA==", "range_end": "AA==", "count_only": true});
    while post(&store, "/v3/kv/range", all.clone()).await.1["count"] != json!("4") {}
    store.stop_server();
    let stopped = "etcdserver: server stopped";
    for call in waiting {
        let (status, response) = call.await.unwrap();
        assert_eq!((status, &response["message"]), (503, &json!(stopped)));
    }
    for lines in [&mut watch, &mut observe] {
        assert_eq!(lines.next().await["error"]["message"], json!(stopped));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_and_health_are_served() {
    let store = TestStore::start().await;
    let get = async |path: &str| send(store.address, &format!("GET {path} HTTP/1.1"), "").await;
    assert_eq!(get("/version").await, (200, json!({"etcdserver": "3.5.21", "etcdcluster": "3.5.0"})));
    assert_eq!(get("/health").await, (200, json!({"health": "true", "reason": ""})));
    store.set_headless(true);
    assert_eq!(get("/health").await, (503, json!({"health": "false", "reason": "etcdserver: no leader"})));
    assert_eq!(get("/v3/kv/range").await.0, 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_web_pages_are_rejected() {
    let store = TestStore::start().await;
    let head = "POST /v3/kv/put HTTP/1.1\r\nOrigin: http://example.com";
    let (status, _) = send(store.address, head, r#"{"key": "Zm9v"}"#).await;
    assert_eq!(status, 403);
}

#[test]
fn documented_request_has_the_documented_answer() {
    if !skip::tool("documented_request_has_the_documented_answer", "curl", "curl") {
        return;
    }
    let runtime = Runtime::new().unwrap();
    let store = runtime.block_on(TestStore::start());
    let put = json!({"key": "Y29uZmlnL2NvbG9y", "value": "Ymx1ZQ=="});
    assert_eq!(runtime.block_on(post(&store, "/v3/kv/put", put)).0, 200);
    for (command, expected) in commands(&block("docs/etcd.md", "run: gateway")) {
        let command = command.replace("localhost:2379", &store.address.to_string());
        let output = process::command("sh").args(["-c", &command]).finish();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Parts of the answer are left out.
        let mut rest = text.as_str();
        for part in expected.trim().split('…') {
            rest = rest.split_once(part).unwrap_or_else(|| panic!("{command} prints {text}")).1;
        }
    }
}
