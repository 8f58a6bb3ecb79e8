//! Keys: reads, writes, conditions and locks.

use super::*;

/// Sends requests one after the other and compares status and body. A body that ends with `…` is a beginning.
pub(super) async fn scenario(agent: &StoreAgent, steps: &[(&str, &str, u16, &str)]) {
    for (request, body, status, expected) in steps {
        let (found, text) = agent.ask(request, body).await;
        assert_eq!(found, *status, "{request} {body}: {text}");
        match expected.strip_suffix('…') {
            Some(start) => assert!(text.starts_with(start), "{request} {body}: {text}"),
            None => assert_eq!(text, *expected, "{request} {body}"),
        }
    }
}

#[tokio::test]
async fn keys_are_set_read_and_deleted_as_in_consul() {
    let agent = StoreAgent::new(None);
    let a = r#"[{"LockIndex":0,"Key":"app/a","Flags":42,"Value":"b25l","CreateIndex":2,"ModifyIndex":2}]"#;
    let empty = r#"[{"LockIndex":0,"Key":"app/b c","Flags":0,"Value":null,"CreateIndex":3,"ModifyIndex":3}]"#;
    scenario(
        &agent,
        &[
            ("GET /v1/kv/app/a", "", 404, ""),
            ("PUT /v1/kv/app/a?flags=42", "one", 200, "true"),
            ("GET /v1/kv/app/a", "", 200, a),
            ("GET /v1/kv/app%2Fa", "", 200, a),
            ("GET /v1/kv/app/a?raw", "", 200, "one"),
            ("GET /v1/kv/app/a?stale=", "", 200, a),
            ("GET /v1/kv/app/a?consistent=1", "", 200, a),
            ("PUT /v1/kv/app/b%20c", "", 200, "true"),
            ("GET /v1/kv/app/b%20c", "", 200, empty),
            ("PUT /v1/kv/app/sub/d", "x", 200, "true"),
            ("GET /v1/kv/app?keys", "", 200, r#"["app/a","app/b c","app/sub/d"]"#),
            ("GET /v1/kv/app/?keys&separator=/", "", 200, r#"["app/a","app/b c","app/sub/"]"#),
            ("GET /v1/kv/?keys&seperator=/", "", 200, r#"["app/"]"#),
            ("GET /v1/kv/none?keys", "", 404, ""),
            ("GET /v1/kv/app/a?recurse", "", 200, a),
            ("GET /v1/kv/?recurse=", "", 200, r#"[{"LockIndex":0,"Key":"app/a",…"#),
            ("GET /v1/kv/none?recurse", "", 404, ""),
            ("GET /v1/kv/?recurse&raw", "", 200, "[{…"),
            ("DELETE /v1/kv/app/sub?recurse", "", 200, "true"),
            ("DELETE /v1/kv/app/sub/d", "", 200, "true"),
            ("DELETE /v1/kv/?recurse", "", 200, "true"),
            ("GET /v1/kv/?keys", "", 200, "[]"),
            ("GET /v1/kv/?recurse", "", 404, ""),
        ],
    )
    .await;
}

#[tokio::test]
async fn conditions_are_checked_against_the_modify_index() {
    let agent = StoreAgent::new(None);
    scenario(
        &agent,
        &[
            ("PUT /v1/kv/a?cas=0", "one", 200, "true"),
            ("PUT /v1/kv/a?cas=0", "two", 200, "false"),
            ("PUT /v1/kv/a?cas=7", "two", 200, "false"),
            ("PUT /v1/kv/a?cas=2", "two", 200, "true"),
            ("GET /v1/kv/a?raw", "", 200, "two"),
            ("DELETE /v1/kv/a?cas=2", "", 200, "false"),
            ("DELETE /v1/kv/a?cas=3", "", 200, "true"),
            ("DELETE /v1/kv/a?cas=3", "", 200, "true"),
        ],
    )
    .await;
}

#[tokio::test]
async fn locks_are_held_by_sessions() {
    let agent = StoreAgent::new(None);
    let one = agent.session(r#"{"LockDelay": "0s"}"#).await;
    let two = agent.session(r#"{"LockDelay": 0, "Behavior": "delete"}"#).await;
    let put = |parameters: String| format!("PUT /v1/kv/lock?{parameters}");
    let held = format!(r#"[{{"LockIndex":1,"Key":"lock","Flags":0,"Value":"eA==","Session":"{one}","CreateIndex":4,"#);
    let steps = [
        (put(format!("acquire={one}")), 200, "true".to_owned()),
        ("GET /v1/kv/lock".to_owned(), 200, format!("{held}…")),
        (put(format!("acquire={one}")), 200, "true".to_owned()),
        (put(format!("acquire={two}")), 200, "false".to_owned()),
        (put(format!("release={two}")), 200, "false".to_owned()),
        (put(format!("release={one}")), 200, "true".to_owned()),
        (put(format!("release={one}")), 200, "false".to_owned()),
        (put("release=none".to_owned()), 200, "false".to_owned()),
        (put(format!("acquire={two}")), 200, "true".to_owned()),
        (format!("PUT /v1/session/destroy/{two}"), 200, "true".to_owned()),
        ("GET /v1/kv/lock".to_owned(), 404, String::new()),
        (put(format!("acquire={two}")), 500, format!("invalid session \"{two}\"\n")),
        (put("acquire=none".to_owned()), 400, "invalid session \"none\"\n".to_owned()),
        (put("acquire=".to_owned()), 400, "missing session\n".to_owned()),
    ];
    for (request, status, expected) in &steps {
        scenario(&agent, &[(request, "x", *status, expected)]).await;
    }
}

#[tokio::test]
async fn invalid_requests_are_refused_with_consuls_text() {
    let agent = StoreAgent::new(None);
    let long = format!("PUT /v1/kv/{}", "k".repeat(4097));
    scenario(
        &agent,
        &[
            ("GET /v1/kv/", "", 400, "Missing key name\n"),
            ("DELETE /v1/kv/", "", 400, "Missing key name\n"),
            ("PUT /v1/kv/a?cas=1&acquire=x", "", 400, "Conflicting flags: …"),
            ("PUT /v1/kv/a?release=x&acquire=x", "", 400, "Conflicting flags: …"),
            ("DELETE /v1/kv/a?cas=1&recurse", "", 400, "Conflicting flags: …"),
            ("GET /v1/kv/a?stale&consistent", "", 400, "Cannot specify ?stale with ?consistent…"),
            ("PUT /v1/kv/a?flags=-1", "", 400, "flags must be an integer…"),
            ("PUT /v1/kv/a?cas=", "", 400, "cas must be an integer…"),
            ("PUT /v1/kv//a", "", 400, "Invalid key: a key must not begin with '/'…"),
            ("PUT /v1/kv/%ff", "", 400, "Invalid key: a key is UTF-8…"),
            ("GET /v1/kv/a?ns=team", "", 400, "ns: muster has no namespaces…"),
            ("GET /v1/kv/a?dc=dc9", "", 400, "No path to datacenter…"),
            ("GET /v1/kv/a?index=x", "", 400, "index must be an integer…"),
            (&long, "", 400, "Invalid key: the key has 4097 octets…"),
        ],
    )
    .await;
}

#[tokio::test]
async fn responses_have_consuls_headers() {
    let agent = StoreAgent::new(None);
    agent.ask("PUT /v1/kv/a", "x").await;
    let cases = [
        ("GET /v1/kv/a", 200, "2", "leader", "application/json"),
        ("GET /v1/kv/a?stale", 200, "2", "stale", "application/json"),
        ("GET /v1/kv/a?consistent", 200, "2", "consistent", "application/json"),
        ("GET /v1/kv/a?raw", 200, "2", "leader", "text/plain"),
        ("GET /v1/kv/b", 404, "1", "leader", ""),
    ];
    for (request, status, index, consistency, media) in cases {
        let (found, head, _) = agent.exchange(request, "", "").await;
        assert_eq!(found, status, "{request}");
        let lines = [
            format!("x-consul-index: {index}"),
            "x-consul-knownleader: true".to_owned(),
            "x-consul-lastcontact: 0".to_owned(),
            format!("x-consul-effective-consistency: {consistency}"),
        ];
        for line in lines {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{request}: {line} in {head}");
        }
        let content: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("content-type: ")).collect();
        assert_eq!(content, if media.is_empty() { vec![] } else { vec![media] }, "{request}");
        assert_eq!(head.contains("content-security-policy: sandbox"), media == "text/plain", "{request}");
    }
}

#[tokio::test]
async fn value_has_its_own_size_limit() {
    let agent = StoreAgent::new(None);
    let largest = "x".repeat(512 * 1024);
    assert_eq!(agent.ask("PUT /v1/kv/a", &largest).await, (200, "true".to_owned()));
    let (status, body) = agent.ask("GET /v1/kv/a?raw", "").await;
    assert!(status == 200 && body == largest, "{} octets", body.len());
    let (status, text) = agent.ask("PUT /v1/kv/a", &format!("{largest}x")).await;
    assert_eq!((status, text.as_str()), (413, "Request body(524289 bytes) too large, max size: 524288 bytes.\n"));
    // Without a Content-Length.
    let (mut client, _) = connect(&agent.server);
    let head = "PUT /v1/kv/a HTTP/1.1\r\nhost: [::1]\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("80001\r\n{largest}x\r\n0\r\n\r\n");
    client.write_all(format!("{head}{chunk}").as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
}
