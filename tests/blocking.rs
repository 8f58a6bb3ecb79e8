//! Ten thousand programs that wait for the same service on one node all hear of a change.

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
/// Programs that ask again and again, and those that read a stream.
const QUERIES: usize = 9_000;
const STREAMS: usize = 1_000;

#[test]
fn ten_thousand_who_wait_all_hear_of_a_change() {
    let clients = QUERIES + STREAMS;
    // Of 20,000 files the agent leaves 10,392 to clients of the API.
    if !skip::open_files("ten thousand who wait", 20_000) {
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
            assert!(Instant::now() < deadline, "{} of {clients} are let in", open());
            sleep(Duration::from_millis(20)).await;
        }
        let mut seen = waiting.seen;
        for enable in [true, false] {
            assert_eq!(waiting.unread(), 0, "nothing has changed since");
            let (http, path) = (agent.http(), format!("/v1/agent/maintenance?enable={enable}"));
            let change = spawn_blocking(move || ask(http, "PUT", &path, "").status);
            let heard = timeout(DEADLINE, waiting.all()).await.expect("all hear of it");
            let index = heard[0].index;
            assert!(index > seen && heard.iter().all(|heard| heard.index == index), "all hear the same");
            seen = index;
            assert_eq!(change.await.unwrap(), 200);
        }
    });
}
