//! Sessions that clients renew: none ends before its time to live.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use crate::connection::Connection;

/// Time to live, the shortest that Consul has.
const TTL: Duration = Duration::from_secs(10);
/// Pause between two renewals.
const PAUSE: Duration = Duration::from_millis(700);

/// Client that keeps a session.
#[derive(Default)]
pub(crate) struct Keeper {
    renewed: AtomicU64,
    early: AtomicU64,
    ends: AtomicBool,
}

impl Keeper {
    /// Ends the client.
    pub(crate) fn end(&self) {
        self.ends.store(true, Relaxed);
    }

    /// Keeps a session in the network of this thread until the end.
    pub(crate) fn run(&self) {
        let mut connection = Connection::default();
        while !self.ends.load(Relaxed) {
            self.keep_one(&mut connection);
            thread::sleep(PAUSE);
        }
    }

    /// Creates a session and renews it until it has ended.
    fn keep_one(&self, connection: &mut Connection) {
        let mut called = Instant::now();
        let body = format!("{{\"TTL\": \"{}s\", \"Checks\": [], \"Behavior\": \"release\"}}", TTL.as_secs());
        let Ok(created) = connection.ask("PUT", "/v1/session/create", &body) else { return };
        if created.status != 200 {
            return;
        }
        let created: Json = serde_json::from_str(&created.body).unwrap();
        let path = format!("/v1/session/renew/{}", created["ID"].as_str().unwrap());
        while !self.ends.load(Relaxed) {
            thread::sleep(PAUSE);
            let now = Instant::now();
            match connection.ask("PUT", &path, "").map(|reply| reply.status) {
                Ok(200) => {
                    called = now;
                    self.renewed.fetch_add(1, Relaxed);
                }
                Ok(404) => {
                    let is_early = called.elapsed() < TTL;
                    self.early.fetch_add(u64::from(is_early), Relaxed);
                    return;
                }
                _ => {}
            }
        }
    }

    /// Asserts that no session ended early. Returns the number of renewals.
    pub(crate) fn finish(&self, context: &str) -> u64 {
        assert_eq!(self.early.load(Relaxed), 0, "{context}: a session ended before its time to live");
        self.renewed.load(Relaxed)
    }
}
