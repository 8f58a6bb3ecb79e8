//! Keys without values, and numbers of keys.

use super::*;
use crate::model::token::{KeyAccess, KeyGrant, Permissions, Scope, Token, Tokens};

#[tokio::test]
async fn key_is_shown_without_its_value() {
    let agent = StoreAgent::with_nodes();
    let session = agent.session(r#"{"LockDelay": "0s"}"#).await;
    agent.ask(&format!("PUT /v1/kv/a/lock?flags=7&acquire={session}"), "secret").await;
    agent.ask("PUT /v1/kv/a/free", "").await;
    let path = |key: &str| format!("/v1/muster/store/key/{key}");
    let state = json_of(&agent.server, &path("a%2Flock")).await;
    let index = state["ModifyIndex"].as_u64().unwrap();
    let expected = json!({
        "Key": "a/lock", "Octets": 6, "Flags": 7, "LockIndex": 1, "Session": session, "Lease": null, "Version": 1,
        "CreateIndex": index, "ModifyIndex": index,
    });
    assert_eq!(state, expected);
    let state = json_of(&agent.server, &path("a/free")).await;
    assert_eq!((&state["Octets"], &state["Session"]), (&json!(0), &json!(null)));
    let (status, head, body) = agent.exchange(&format!("GET {}", path("none")), "", "").await;
    assert!(status == 404 && body == "There is no such key.\n" && head.contains("x-consul-index: "), "{head} {body}");
    let (status, text) = agent.ask(&format!("GET {}", path("%ff")), "").await;
    assert!(status == 400 && text.starts_with("Invalid key"), "{status} {text}");
    // Waits for a change of the key.
    let waiting = format!("GET {}?index={index}&wait=1m", path("a/lock"));
    let changed = tokio::join!(agent.ask(&waiting, ""), async {
        agent.wait_for(1).await;
        agent.ask("PUT /v1/kv/a/lock", "more").await;
    });
    assert!(changed.0.1.contains("\"Octets\":4"), "{changed:?}");
}

#[tokio::test]
async fn keys_of_sessions_are_counted() {
    let agent = StoreAgent::with_nodes();
    let (holder, idle) = (agent.session("").await, agent.session("").await);
    for key in ["a", "b"] {
        agent.ask(&format!("PUT /v1/kv/{key}?acquire={holder}"), "").await;
    }
    let counts = json_of(&agent.server, "/v1/muster/store/sessions").await;
    let count = |id: &str| counts.as_array().unwrap().iter().find(|one| one["ID"] == *id).unwrap()["Keys"].clone();
    assert_eq!((count(&holder), count(&idle)), (json!(2), json!(0)));
    assert_eq!(json_of(&agent.server, "/v1/muster/store/leases").await, json!({"Total": 0, "Leases": []}));
}

#[tokio::test]
async fn names_of_keys_need_access_to_the_keys() {
    let secret = |name: &str| format!("{name}-{name}-{name}-{name}");
    let app = |scope| Permissions { scope, keys: vec![KeyGrant::new("app/", KeyAccess::Read)] };
    let names = ["keys", "both", "read"];
    let tokens = Tokens::new(vec![
        Token::new("keys", app(None), &secret("keys")),
        Token::new("both", app(Some(Scope::Read)), &secret("both")),
        Token::new("read", Scope::Read, &secret("read")),
    ]);
    let (_tokens, guard) = channel(tokens);
    let agent = StoreAgent::new(Some(guard));
    let cases = [
        ("GET /v1/muster/store/key/app/a", vec!["keys", "both"]),
        ("GET /v1/muster/store/key/other", vec![]),
        ("GET /v1/muster/store/leases", vec!["both", "read"]),
        ("GET /v1/muster/store/sessions", vec!["both", "read"]),
    ];
    for (request, permitted) in cases {
        for name in names {
            let header = format!("x-consul-token: {}\r\n", secret(name));
            let (status, _, text) = agent.exchange(request, &header, "").await;
            assert_eq!(status != 403, permitted.contains(&name), "{name}: {request}: {status} {text}");
        }
    }
}
