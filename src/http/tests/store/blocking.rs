//! Blocking queries of keys and sessions.

use super::*;

#[tokio::test]
async fn blocking_read_returns_when_its_key_changes() {
    let agent = StoreAgent::new(None);
    let reads =
        ["GET /v1/kv/a?index=2&wait=9.97s", "GET /v1/kv/a?recurse&index=2&wait=10s", "GET /v1/kv/a?keys&index=2"];
    agent.ask("PUT /v1/kv/a", "one").await;
    let changes = async {
        agent.wait_for(reads.len()).await;
        agent.ask("PUT /v1/kv/b", "other").await;
        assert_eq!(agent.waiting.load(Ordering::SeqCst), reads.len(), "a change of another key wakes no read");
        agent.ask("PUT /v1/kv/a", "two").await;
    };
    let [one, recurse, keys] = reads.map(|request| agent.exchange(request, "", ""));
    let (one, recurse, keys, ()) = tokio::join!(one, recurse, keys, changes);
    for (status, head, _) in [one, recurse, keys] {
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("x-consul-index: 4\r\n"), "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn blocking_read_ends_after_its_wait() {
    let agent = StoreAgent::new(None);
    let started = Instant::now();
    let (status, head, _) = agent.exchange("GET /v1/kv/none?index=1&wait=9.97s", "", "").await;
    assert!(status == 404 && head.contains("x-consul-index: 1\r\n"), "{head}");
    let took = started.elapsed().as_secs_f64();
    assert!((9.97..=9.97 * 17.0 / 16.0 + 0.1).contains(&took), "{took}");
}

#[tokio::test]
async fn wait_ends_with_the_client_and_with_the_agent() {
    let agent = StoreAgent::new(None);
    let request = "GET /v1/session/list?index=1&wait=5m";
    let (mut client, _) = connect(&agent.server);
    client.write_all(format!("{request} HTTP/1.1\r\nhost: [::1]\r\n\r\n").as_bytes()).await.unwrap();
    agent.wait_for(1).await;
    drop(client);
    agent.wait_for(0).await;
    let stop = async {
        agent.wait_for(1).await;
        agent.shutdown.cancel();
    };
    let ((status, text), ()) = tokio::join!(agent.ask(request, ""), stop);
    assert_eq!((status, text.trim_end()), (200, "[]"), "as at the end of the wait");
}
