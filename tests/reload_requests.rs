//! Requests to the APIs while the agent applies new configurations: none fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use support::{
    agent::Agent,
    http,
    process::{self, Finish},
    program::free,
    wait::{DEADLINE, until},
};

/// Number of reloads, each of which starts all servers again.
const RELOADS: usize = 12;
/// Pause of a client between its connection and its request.
const PAUSE: Duration = Duration::from_millis(5);

/// A kind of request, which its client repeats.
struct Kind {
    server: SocketAddr,
    method: &'static str,
    path: String,
    body: &'static str,
    pause: Duration,
}

impl Kind {
    /// Sends the request on a new connection and returns the status line of the response.
    fn send(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.server)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        thread::sleep(self.pause);
        stream.write_all(http::request(self.method, &self.path, "", self.body).as_bytes())?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response.lines().next().unwrap_or("no response").to_owned())
    }

    /// Repeats the request until `done`. Returns the number of requests, and those that failed.
    fn repeat(&self, done: &AtomicBool) -> (usize, Vec<String>) {
        let (mut sent, mut failed) = (0, Vec::new());
        while !done.load(Ordering::Relaxed) {
            sent += 1;
            let outcome = self.send().unwrap_or_else(|error| error.to_string());
            if outcome != "HTTP/1.1 200 OK" {
                failed.push(format!("{} {}: {outcome}", self.method, self.path));
            }
        }
        (sent, failed)
    }
}

#[test]
fn reload_fails_no_request() {
    let etcd = free();
    let store = format!("store: {{voters: [host-a], etcd: {{listen: [\"{etcd}\"]}}}}\n");
    let agent = Agent::start_with(&store, &[], |_| {});
    let server = agent.http();
    for key in ["a", "unchanged"] {
        until("the store answers", || http::ask(server, "PUT", &format!("/v1/kv/{key}"), "1").status == 200);
    }
    let waiting = |path: &str| {
        let index = http::ask(server, "GET", path, "").index();
        format!("{path}?index={index}&wait=2s")
    };
    let path = agent.path("muster.yaml");
    let config = fs::read_to_string(&path).unwrap();
    let kind = |method, path: &str, body| Kind { server, method, path: path.to_owned(), body, pause: Duration::ZERO };
    let kinds = [
        kind("PUT", "/v1/agent/service/register", r#"{"Name": "app", "Port": 80}"#),
        kind("PUT", "/v1/kv/a", "2"),
        kind("GET", &waiting("/v1/kv/unchanged"), ""),
        kind("GET", &waiting("/v1/catalog/nodes"), ""),
        kind("GET", "/v1/agent/services", ""),
        kind("GET", "/readyz", ""),
        Kind { pause: PAUSE, ..kind("GET", "/v1/agent/self", "") },
        Kind { server: etcd, pause: PAUSE, ..kind("POST", "/v3/kv/range", r#"{"key": "YQ=="}"#) },
    ];
    let done = AtomicBool::new(false);
    let (sent, failed) = thread::scope(|scope| {
        let clients: Vec<_> = kinds.iter().map(|kind| scope.spawn(|| kind.repeat(&done))).collect();
        for ttl in 1..=RELOADS {
            let ttl = format!("dns: {{ttl: {ttl}s, listen");
            fs::write(&path, config.replace("dns: {listen", &ttl)).unwrap();
            let reloaded = process::muster().args(["reload", "--http-addr", &server.to_string()]).finish();
            assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
        }
        done.store(true, Ordering::Relaxed);
        let results = clients.into_iter().map(|client| client.join().unwrap());
        results.fold((0, Vec::new()), |(sent, failed), (more, others)| (sent + more, [failed, others].concat()))
    });
    assert!(failed.is_empty(), "{} of {sent} requests failed: {failed:#?}", failed.len());
}
