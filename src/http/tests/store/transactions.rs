//! Transactions: all operations or none.

use super::{keys::scenario, *};

#[tokio::test]
async fn transaction_applies_all_operations_or_none() {
    let agent = StoreAgent::new(None);
    let txn = "PUT /v1/txn";
    let written = r#"{"Results":[{"KV":{"LockIndex":0,"Key":"a","Flags":7,"Value":null,"CreateIndex":2,"ModifyIndex":2}}],"Errors":null}"#;
    let read = r#"{"Results":[{"KV":{"LockIndex":0,"Key":"a","Flags":7,"Value":"b25l","CreateIndex":2,"ModifyIndex":2}}],"Errors":null}"#;
    let empty = r#"{"Results":[{"KV":{"LockIndex":0,"Key":"none","Flags":0,"Value":null,"CreateIndex":0,"ModifyIndex":0}}],"Errors":null}"#;
    scenario(
        &agent,
        &[
            (txn, r#"[{"KV": {"Verb": "set", "Key": "a", "Value": "b25l", "Flags": 7}}]"#, 200, written),
            (txn, r#"[{"kv": {"verb": "get", "key": "a"}}]"#, 200, read),
            (txn, r#"[{"KV": {"Verb": "get-or-empty", "Key": "a"}}]"#, 200, read),
            (txn, r#"[{"KV": {"Verb": "get-or-empty", "Key": "none"}}]"#, 200, empty),
            (txn, r#"[{"KV": {"Verb": "get-tree", "Key": ""}}]"#, 200, read),
            (txn, r#"[{"KV": {"Verb": "get-tree", "Key": "none"}}]"#, 200, r#"{"Results":[],"Errors":null}"#),
            (txn, "[]", 200, r#"{"Results":[],"Errors":null}"#),
            (
                txn,
                r#"[{"KV": {"Verb": "set", "Key": "b", "Value": ""}}, {"KV": {"Verb": "cas", "Key": "a", "Value": "", "Index": 9}}]"#,
                409,
                r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"failed to set key \"a\", index is stale"}]}"#,
            ),
            ("GET /v1/kv/b", "", 404, ""),
            (txn, r#"[{"KV": {"Verb": "delete", "Key": "a"}}]"#, 200, r#"{"Results":[],"Errors":null}"#),
            ("GET /v1/kv/a", "", 404, ""),
        ],
    )
    .await;
}

#[tokio::test]
async fn failed_operation_is_named_with_its_reason() {
    let agent = StoreAgent::new(None);
    let id = agent.session(r#"{"LockDelay": "0s"}"#).await;
    let other = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
    agent.ask(&format!("PUT /v1/kv/held?acquire={id}"), "x").await;
    let cases = [
        (json!({"KV": {"Verb": "get", "Key": "none"}}), "key \"none\" doesn't exist"),
        (json!({"KV": {"Verb": "check-not-exists", "Key": "held"}}), "key \"held\" exists"),
        (
            json!({"KV": {"Verb": "check-index", "Key": "held", "Index": 9}}),
            "failed index check for key \"held\", current modify index 3 != 9",
        ),
        (json!({"KV": {"Verb": "check-session", "Key": "held", "Session": other}}), "failed session check for key"),
        (json!({"KV": {"Verb": "delete-cas", "Key": "held", "Index": 9}}), "failed to delete key \"held\", index is"),
        (json!({"KV": {"Verb": "lock", "Key": "held", "Session": other}}), "invalid session \"adf4238a-"),
        (json!({"KV": {"Verb": "lock", "Key": "held", "Session": "x"}}), "invalid session \"x\""),
        (json!({"KV": {"Verb": "unlock", "Key": "held", "Session": other}}), "failed to unlock key \"held\""),
        (json!({"KV": {"Verb": "set", "Key": ""}}), "the key is empty"),
        (json!({"KV": {"Verb": "put", "Key": "a"}}), "unknown KV verb \"put\""),
        (json!({"Session": {"Verb": "renew"}}), "unknown session verb"),
        (json!({"Session": {"Verb": "delete", "Session": {"ID": "x"}}}), "invalid session \"x\""),
    ];
    for (operation, expected) in cases {
        let (status, text) = agent.ask("PUT /v1/txn", &json!([operation]).to_string()).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &answer["Results"]), (409, &Value::Null), "{operation}");
        assert_eq!(answer["Errors"][0]["OpIndex"], 0, "{operation}");
        assert!(answer["Errors"][0]["What"].as_str().unwrap().starts_with(expected), "{operation}: {text}");
    }
    let body = json!([{"Session": {"Verb": "delete", "Session": {"ID": id}}}]).to_string();
    assert_eq!(agent.ask("PUT /v1/txn", &body).await.0, 200);
    assert_eq!(json_of(&agent.server, "/v1/session/list").await, json!([]));
}

#[tokio::test]
async fn invalid_transaction_is_refused() {
    let agent = StoreAgent::new(None);
    let get = r#"{"KV": {"Verb": "get", "Key": "a"}}"#;
    let many = format!("[{}]", vec![get; 129].join(","));
    let large = json!([{"KV": {"Verb": "set", "Key": "a", "Value": "A".repeat(700_000)}}]).to_string();
    let txn = "PUT /v1/txn";
    scenario(
        &agent,
        &[
            (txn, &many, 413, "Transaction contains too many operations (129 > 128)\n"),
            (txn, &large, 413, "Value for key \"a\" is too large…"),
            (txn, "", 400, "Failed to parse body: …"),
            (txn, "{}", 400, "Failed to parse body: …"),
            (txn, "[{}]", 400, "Operation 0: expected KV or Session…"),
            (txn, r#"[{"Service": {"Verb": "set"}}]"#, 400, "Operation 0: expected KV or Session…"),
            (txn, r#"[{"KV": {"Verb": "set", "Key": "a", "Value": "?"}}]"#, 400, "Operation 0: Value must be base64…"),
            (txn, r#"[{"KV": {"Verb": "set", "Key": 1}}]"#, 400, "Operation 0: Key must be a string…"),
        ],
    )
    .await;
}
