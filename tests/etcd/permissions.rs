//! Tokens that may access some keys, over the JSON gateway: both ways into the API have the same services behind them.

use data_encoding::BASE64;
use muster::model::token::{KeyAccess, KeyGrant, Permissions, Scope, Token, Tokens};
use serde_json::{Value, json};

use crate::{
    gateway::{Lines, send},
    store::TestStore,
};

const OPERATE: &str = "correct-horse-battery";
const APP: &str = "staple-correct-horse";
const READ: &str = "battery-staple-horse";
const DENIED: &str = "etcdserver: permission denied";

fn app() -> Token {
    let keys = vec![KeyGrant::new("app/", KeyAccess::Write), KeyGrant::new("shared/", KeyAccess::Read)];
    Token::new("app", Permissions { scope: None, keys }, APP)
}

fn tokens() -> Tokens {
    Tokens::new(vec![Token::new("deploy", Scope::Operate, OPERATE), app(), Token::new("prometheus", Scope::Read, READ)])
}

fn octets(text: &str) -> String {
    BASE64.encode(text.as_bytes())
}

fn head(token: &str, path: &str) -> String {
    format!("POST /v3/{path} HTTP/1.1\r\nToken: {token}")
}

async fn post(store: &TestStore, token: &str, path: &str, body: Value) -> (u16, Value) {
    send(store.address, &head(token, path), &body.to_string()).await
}

fn key(key: &str) -> Value {
    json!({"key": octets(key)})
}

#[tokio::test(flavor = "multi_thread")]
async fn token_reaches_its_keys_only() {
    let store = TestStore::with(Some(tokens())).await;
    let put = |key: &str, lease: i64| json!({"key": octets(key), "value": "", "lease": lease});
    for (path, body) in [
        ("lease/grant", json!({"ID": 7, "TTL": 60})),
        ("kv/put", put("other", 7)),
        ("kv/put", put("shared/a", 0)),
        ("lease/grant", json!({"ID": 8, "TTL": 60})),
    ] {
        assert_eq!(post(&store, OPERATE, path, body).await.0, 200);
    }
    let range = |key: &str, end: &str| json!({"key": octets(key), "range_end": octets(end)});
    let within = |request: Value| json!({"success": [{"request_txn": {"failure": [request]}}]});
    let named = |name: &str, lease: i64| json!({"name": octets(name), "lease": lease});
    let leader = |key: &str, lease: i64| json!({"leader": {"key": octets(key), "rev": 1, "lease": lease}});
    let cases = [
        // Keys.
        ("kv/range", key("app/a"), 200),
        ("kv/range", key("shared/a"), 200),
        ("kv/range", range("app/", "app0"), 200),
        ("kv/range", key("other"), 403),
        ("kv/range", range("app/", "b"), 403),
        ("kv/range", range("\0", "\0"), 403),
        ("kv/put", put("app/a", 0), 200),
        ("kv/put", put("shared/a", 0), 403),
        ("kv/deleterange", key("app/b"), 200),
        ("kv/deleterange", key("shared/a"), 403),
        ("kv/txn", json!({"compare": [{"key": octets("shared/a"), "target": "VERSION"}]}), 200),
        ("kv/txn", json!({"compare": [{"key": octets("other"), "target": "VERSION"}]}), 403),
        ("kv/txn", within(json!({"request_put": put("app/b", 0)})), 200),
        ("kv/txn", within(json!({"request_put": put("other", 0)})), 403),
        ("kv/compaction", json!({"revision": 2}), 403),
        // Leases: 7 has a key of others, 8 has none.
        ("lease/grant", json!({"ID": 9, "TTL": 60}), 200),
        ("kv/put", put("app/leased", 9), 200),
        ("kv/put", put("app/leased", 7), 403),
        ("kv/txn", within(json!({"request_put": put("app/leased", 7)})), 403),
        ("lease/timetolive", json!({"ID": 7, "keys": true}), 403),
        ("lease/timetolive", json!({"ID": 9, "keys": true}), 200),
        ("lease/revoke", json!({"ID": 7}), 403),
        ("lease/revoke", json!({"ID": 8}), 200),
        ("lease/leases", json!({}), 403),
        // Locks and elections.
        ("lock/lock", named("app/lock", 9), 200),
        ("lock/lock", named("lock", 9), 403),
        ("lock/lock", named("shared/lock", 0), 403),
        ("lock/lock", named("app/lock", 7), 403),
        ("lock/unlock", key("app/lock/9"), 200),
        ("lock/unlock", key("shared/a"), 403),
        ("election/campaign", named("app/elect", 9), 200),
        ("election/campaign", named("elect", 9), 403),
        ("election/leader", json!({"name": octets("app/elect")}), 200),
        ("election/leader", json!({"name": octets("elect")}), 403),
        ("election/proclaim", leader("other", 7), 403),
        ("election/resign", leader("other", 7), 403),
        ("election/resign", leader("app/elect/9", 9), 200),
        // The cluster.
        ("cluster/member/list", json!({}), 200),
        ("maintenance/status", json!({}), 200),
        ("maintenance/alarm", json!({}), 200),
        ("maintenance/alarm", json!({"action": "DEACTIVATE"}), 403),
        ("maintenance/defragment", json!({}), 403),
        ("maintenance/hashkv", json!({}), 403),
    ];
    for (path, body, expected) in cases {
        let name = format!("{path} {body}");
        let (status, answer) = post(&store, APP, path, body).await;
        assert_eq!(status, expected, "{name}: {answer}");
        if status == 403 {
            assert_eq!((&answer["message"], &answer["code"]), (&json!(DENIED), &json!(7)), "{name}");
        }
    }
    for (path, expected) in
        [("kv/range", 403), ("lease/grant", 403), ("lease/leases", 200), ("maintenance/status", 200)]
    {
        let (status, answer) = post(&store, READ, path, key("app/a")).await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    for (path, body) in [
        ("lease/keepalive", json!({"ID": 7})),
        ("election/observe", json!({"name": octets("elect")})),
        ("maintenance/snapshot", json!({})),
    ] {
        let (_, answer) = post(&store, APP, path, body).await;
        let text = answer.to_string();
        assert!(text.contains(DENIED), "{path}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_sees_only_keys_of_its_token_and_ends_with_it() {
    let store = TestStore::with(Some(tokens())).await;
    let create = |key: &str| json!({"create_request": {"key": octets(key), "range_end": octets("app0")}}).to_string();
    let mut refused = Lines::start(store.address, &head(APP, "watch"), &create("app")).await;
    let result = refused.next().await["result"].clone();
    assert_eq!((&result["created"], &result["canceled"]), (&json!(true), &json!(true)));
    assert!(result["cancel_reason"].as_str().unwrap().ends_with(DENIED), "{result}");

    let mut watch = Lines::start(store.address, &head(APP, "watch"), &create("app/")).await;
    assert_eq!(watch.next().await["result"]["created"], true);
    assert_eq!(post(&store, APP, "kv/put", key("app/a")).await.0, 200);
    assert_eq!(watch.next().await["result"]["events"][0]["kv"]["key"], octets("app/a"));
    let changed = Token::new("app", Permissions { scope: None, keys: vec![] }, APP);
    store.set_tokens(Tokens::new(vec![changed]));
    let error = watch.next().await["error"].clone();
    assert_eq!((&error["grpc_code"], error["message"].as_str().unwrap().contains("token")), (&json!(14), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_token_gets_no_lock_that_it_waits_for() {
    for (path, end) in [("lock/lock", "lock/unlock"), ("election/campaign", "kv/deleterange")] {
        let store = TestStore::with(Some(tokens())).await;
        let named = json!({"name": octets("app/l")});
        let (status, held) = post(&store, OPERATE, path, named.clone()).await;
        assert_eq!(status, 200, "{held}");
        let held = if held["key"].is_null() { held["leader"]["key"].clone() } else { held["key"].clone() };
        let waiting = post(&store, APP, path, named.clone());
        let revoke = async {
            // The key of the waiting client is behind that of the holder.
            let both = json!({"key": octets("app/l/"), "range_end": octets("app/l0"), "count_only": true});
            while post(&store, OPERATE, "kv/range", both.clone()).await.1["count"] != "2" {
                tokio::task::yield_now().await;
            }
            store.set_tokens(Tokens::new(vec![Token::new("deploy", Scope::Operate, OPERATE)]));
        };
        let ((status, answer), ()) = tokio::join!(waiting, revoke);
        assert_eq!((status, &answer["message"]), (401, &json!("etcdserver: invalid auth token")), "{path}");
        // Its place is free: the next client waits for the holder alone.
        let next = post(&store, OPERATE, path, named);
        let release = post(&store, OPERATE, end, json!({"key": held}));
        let ((status, answer), _) = tokio::join!(next, release);
        assert_eq!(status, 200, "{path}: {answer}");
    }
}
