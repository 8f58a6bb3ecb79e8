//! Ten thousand clients that wait for one service on one node all receive a change.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use support::{agent::Agent, http::ask, skip, wait::DEADLINE, watchers::Watchers};
use tokio::{
    runtime::Builder,
    task::spawn_blocking,
    time::{sleep, timeout},
};

const A: u16 = 1;
/// Clients with blocking queries, and clients with streams.
const QUERIES: usize = 9_000;
const STREAMS: usize = 1_000;

#[test]
fn ten_thousand_waiting_clients_all_receive_a_change() {
    let clients = QUERIES + STREAMS;
    // Of 20,000 files, the agent uses at most 10,392 for HTTP connections.
    if !skip::open_files("ten thousand waiting clients", 20_000) {
        return;
    }
    let agent = Agent::start();
    agent.write_service("web.yaml", "service: web\nport: 80\n");
    agent.wait_for_answers("web.service.local.", A, &["A 10.0.0.7"]);
    let open = || fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut waiting = Watchers::begin(agent.http(), QUERIES, STREAMS).await;
        let deadline = Instant::now() + DEADLINE;
        while open() < clients {
            assert!(Instant::now() < deadline, "{} of {clients} connected", open());
            sleep(Duration::from_millis(20)).await;
        }
        let mut seen = waiting.seen;
        for enable in [true, false] {
            assert_eq!(waiting.unread(), 0, "no response without a change");
            let (http, path) = (agent.http(), format!("/v1/agent/maintenance?enable={enable}"));
            let change = spawn_blocking(move || ask(http, "PUT", &path, "").status);
            let received = timeout(DEADLINE, waiting.all()).await.expect("all clients receive the change");
            let index = received[0].index;
            assert!(
                index > seen && received.iter().all(|received| received.index == index),
                "all clients receive the same index"
            );
            seen = index;
            assert_eq!(change.await.unwrap(), 200);
        }
    });
}
