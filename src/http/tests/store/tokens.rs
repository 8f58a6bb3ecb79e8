//! Access of tokens to keys and sessions.

use super::*;
use crate::model::token::{KeyAccess, KeyGrant, Permissions, Scope, Token, Tokens};

#[tokio::test]
async fn tokens_reach_only_the_keys_that_they_are_granted() {
    let secret = |name: &str| format!("{name}-{name}-{name}-{name}");
    let keys = |access| Permissions { scope: None, keys: vec![KeyGrant::new("app/", access)] };
    let names = ["reader", "writer", "read", "register", "operate"];
    let tokens = Tokens::new(vec![
        Token::new("reader", keys(KeyAccess::Read), &secret("reader")),
        Token::new("writer", keys(KeyAccess::Write), &secret("writer")),
        Token::new("read", Scope::Read, &secret("read")),
        Token::new("register", Scope::Register, &secret("register")),
        Token::new("operate", Scope::Operate, &secret("operate")),
    ]);
    let (_tokens, guard) = channel(tokens);
    let agent = StoreAgent::new(Some(guard));
    let txn = |verb: &str, key: &str| json!([{"KV": {"Verb": verb, "Key": key}}]).to_string();
    // Request, body, and the tokens that are not refused.
    let cases = [
        ("PUT /v1/kv/app/a", "x".to_owned(), vec!["writer", "operate"]),
        ("GET /v1/kv/app/a", String::new(), vec!["reader", "writer", "operate"]),
        ("GET /v1/kv/app/?recurse", String::new(), vec!["reader", "writer", "operate"]),
        ("GET /v1/kv/app/?keys", String::new(), vec!["reader", "writer", "operate"]),
        ("GET /v1/kv/app?recurse", String::new(), vec!["operate"]),
        ("GET /v1/kv/app?keys", String::new(), vec!["operate"]),
        ("GET /v1/kv/?keys", String::new(), vec!["operate"]),
        ("GET /v1/kv/other", String::new(), vec!["operate"]),
        ("DELETE /v1/kv/app/?recurse", String::new(), vec!["writer", "operate"]),
        ("DELETE /v1/kv/?recurse", String::new(), vec!["operate"]),
        ("PUT /v1/txn", txn("get-tree", "app/"), vec!["reader", "writer", "operate"]),
        ("PUT /v1/txn", txn("get-tree", ""), vec!["operate"]),
        ("PUT /v1/txn", txn("set", "app/a"), vec!["writer", "operate"]),
        ("PUT /v1/txn", txn("set", "other"), vec!["operate"]),
        ("PUT /v1/session/create", String::new(), vec!["writer", "register", "operate"]),
        ("PUT /v1/session/destroy/x", String::new(), vec!["writer", "register", "operate"]),
        ("GET /v1/session/info/x", String::new(), names.to_vec()),
        ("GET /v1/session/list", String::new(), vec!["read", "register", "operate"]),
        ("GET /v1/catalog/services", String::new(), vec!["read", "register", "operate"]),
    ];
    for (request, body, permitted) in cases {
        for name in names {
            let header = format!("x-consul-token: {}\r\n", secret(name));
            let (status, _, text) = agent.exchange(request, &header, &body).await;
            assert_eq!(status != 403, permitted.contains(&name), "{name}: {request} {body}: {status} {text}");
            assert!(status != 403 || text.starts_with("Permission denied: "), "{name}: {request}: {text}");
        }
        let (status, text) = agent.ask(request, &body).await;
        assert_eq!(status, 403, "{request} without a token: {text}");
    }
    let header = format!("x-consul-token: {}\r\n", secret("reader"));
    let (_, _, text) = agent.exchange("PUT /v1/kv/app/a", &header, "secret").await;
    assert_eq!(text, "Permission denied: write access to key app/a is required: see the keys of the token.\n");
}

/// The end of a session releases or deletes its keys, so it takes the access to write them.
#[tokio::test]
async fn session_is_ended_only_by_tokens_that_may_write_its_keys() {
    let secret = |name: &str| format!("{name}-{name}-{name}-{name}");
    let writer = |prefix: &str| Permissions { scope: None, keys: vec![KeyGrant::new(prefix, KeyAccess::Write)] };
    let tokens = Tokens::new(vec![
        Token::new("shop", writer("shop/"), &secret("shop")),
        Token::new("bank", writer("bank/"), &secret("bank")),
        Token::new("register", Scope::Register, &secret("register")),
        Token::new("operate", Scope::Operate, &secret("operate")),
    ]);
    let (_tokens, guard) = channel(tokens);
    let agent = StoreAgent::new(Some(guard));
    let with = |name: &str| format!("x-consul-token: {}\r\n", secret(name));
    for holder in ["bank", "operate"] {
        let body = r#"{"Behavior": "delete", "LockDelay": "0s"}"#;
        let (status, _, text) = agent.exchange("PUT /v1/session/create", &with(holder), body).await;
        assert_eq!(status, 200, "{text}");
        let id = serde_json::from_str::<Value>(&text).unwrap()["ID"].as_str().unwrap().to_owned();
        let lock = format!("PUT /v1/kv/bank/vault?acquire={id}");
        assert_eq!(agent.exchange(&lock, &with(holder), "x").await.2.trim(), "true");
        let destroy = format!("PUT /v1/session/destroy/{id}");
        let in_txn = json!([{"Session": {"Verb": "delete", "Session": {"ID": id}}}]).to_string();
        for other in ["shop", "register"] {
            for (request, body) in [(&*destroy, ""), ("PUT /v1/txn", &*in_txn)] {
                let (status, _, text) = agent.exchange(request, &with(other), body).await;
                assert_eq!(status, 403, "{other}: {request}: {text}");
                let (status, _, _) = agent.exchange("GET /v1/kv/bank/vault", &with(holder), "").await;
                assert_eq!(status, 200, "{other}: {request}: the key is still there");
            }
        }
        let (status, _, text) = agent.exchange(&destroy, &with(holder), "").await;
        assert_eq!(status, 200, "{text}");
        let (status, _, _) = agent.exchange("GET /v1/kv/bank/vault", &with(holder), "").await;
        assert_eq!(status, 404);
    }
}

#[tokio::test]
async fn key_is_attached_only_to_a_session_whose_keys_the_token_may_write() {
    let secret = |name: &str| format!("{name}-{name}-{name}-{name}");
    let writer = |prefix: &str| Permissions { scope: None, keys: vec![KeyGrant::new(prefix, KeyAccess::Write)] };
    let tokens = Tokens::new(vec![
        Token::new("shop", writer("shop/"), &secret("shop")),
        Token::new("bank", writer("bank/"), &secret("bank")),
    ]);
    let (_tokens, guard) = channel(tokens);
    let agent = StoreAgent::new(Some(guard));
    let with = |name: &str| format!("x-consul-token: {}\r\n", secret(name));
    let (status, _, text) = agent.exchange("PUT /v1/session/create", &with("bank"), "").await;
    assert_eq!(status, 200, "{text}");
    let id = serde_json::from_str::<Value>(&text).unwrap()["ID"].as_str().unwrap().to_owned();
    for key in ["vault", "till"] {
        let lock = format!("PUT /v1/kv/bank/{key}?acquire={id}");
        assert_eq!(agent.exchange(&lock, &with("bank"), "x").await.2.trim(), "true");
    }
    let lock = format!("PUT /v1/kv/shop/a?acquire={id}");
    let in_txn = json!([{"KV": {"Verb": "lock", "Key": "shop/a", "Value": "", "Session": id}}]).to_string();
    for (request, body) in [(&*lock, "x"), ("PUT /v1/txn", &*in_txn)] {
        let (status, _, text) = agent.exchange(request, &with("shop"), body).await;
        assert!(status == 403 && text.contains(&id) && !text.contains("bank/"), "{request}: {status} {text}");
        assert_eq!(agent.exchange("GET /v1/kv/shop/a", &with("shop"), "").await.0, 404, "{request}");
    }
    let destroy = format!("PUT /v1/session/destroy/{id}");
    assert_eq!(agent.exchange(&destroy, &with("bank"), "").await.0, 200, "its owner ends it");
}
