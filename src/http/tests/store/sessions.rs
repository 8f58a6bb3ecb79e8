//! Sessions: creation with checks, renewal, lists.

use super::{keys::scenario, *};

#[tokio::test]
async fn session_is_created_renewed_listed_and_destroyed() {
    let agent = StoreAgent::with_nodes();
    let id = agent.session(r#"{"name": "leader", "TTL": "30s", "lockdelay": "1s", "Behavior": "delete"}"#).await;
    let shown = json!([{
        "ID": id, "Name": "leader", "Node": "host-a", "LockDelay": 1_000_000_000, "Behavior": "delete", "TTL": "30s",
        "NodeChecks": ["serfHealth"], "ServiceChecks": null, "CreateIndex": 2, "ModifyIndex": 2,
    }]);
    for path in [format!("info/{id}"), "list".to_owned(), "node/host-a".to_owned(), "node/HOST-A".to_owned()] {
        assert_eq!(json_of(&agent.server, &format!("/v1/session/{path}")).await, shown, "{path}");
    }
    let (status, text) = agent.ask(&format!("PUT /v1/session/renew/{id}"), "").await;
    assert_eq!((status, serde_json::from_str::<Value>(&text).unwrap()), (200, shown));
    let (info, renew) = (format!("GET /v1/session/info/{id}"), format!("PUT /v1/session/renew/{id}"));
    let (destroy, missing) = (format!("PUT /v1/session/destroy/{id}"), format!("Session id '{id}' not found\n"));
    scenario(
        &agent,
        &[
            ("GET /v1/session/node/host-b", "", 200, "[]"),
            (&destroy, "", 200, "true"),
            (&destroy, "", 200, "true"),
            (&info, "", 200, "[]"),
            (&renew, "", 404, &missing),
            ("PUT /v1/session/renew/none", "", 404, "Session id 'none' not found\n"),
            ("GET /v1/session/list", "", 200, "[]"),
            ("GET /v1/session/info/none", "", 400, "Invalid session id…"),
        ],
    )
    .await;
}

#[tokio::test]
async fn session_without_ttl_can_be_renewed() {
    let agent = StoreAgent::new(None);
    let id = agent.session("").await;
    let (status, text) = agent.ask(&format!("PUT /v1/session/renew/{id}"), "").await;
    assert!(status == 200 && text.contains(r#""LockDelay":15000000000,"Behavior":"release","TTL":"","#), "{text}");
}

#[tokio::test]
async fn session_needs_a_known_node_and_checks_that_pass() {
    let agent = StoreAgent::with_nodes();
    let create = "PUT /v1/session/create";
    scenario(
        &agent,
        &[
            (create, r#"{"Node": "host-b"}"#, 200, r#"{"ID":"…"#),
            (create, r#"{"Node": "host-b", "Checks": []}"#, 200, r#"{"ID":"…"#),
            (create, r#"{"Node": "host-z"}"#, 400, "Missing node registration…"),
            (create, r#"{"Checks": ["none"]}"#, 400, "Missing check 'none' registration\n"),
            (
                create,
                r#"{"Node": "host-b", "Checks": ["service:web-1"]}"#,
                400,
                "Check 'service:web-1' is in critical state\n",
            ),
            (create, r#"{"ServiceChecks": [{"ID": "none"}]}"#, 400, "Missing check 'none' registration\n"),
            (create, r#"{"TTL": "5s"}"#, 500, "Invalid Session TTL '5s', must be between [10s=24h0m0s]\n"),
            (create, r#"{"Behavior": "keep"}"#, 400, "Invalid Behavior setting 'keep'\n"),
            (create, r#"{"Checks": 1}"#, 400, "Request decode failed: …"),
            (create, r#"{"LockDelay": "x"}"#, 400, "Request decode failed: …"),
            (create, "[]", 400, "Request decode failed: …"),
            (create, "{", 400, "Request decode failed: …"),
        ],
    )
    .await;
}
