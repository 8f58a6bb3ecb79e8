//! Blocking queries that wait without hyper: responses, repetitions, and other requests on the same connection.

use tokio::time::{Instant, sleep};

use super::{streams::TestAgent, *};
use crate::model::{
    health::Status,
    token::{Scope, Token, Tokens},
};

/// Client with one connection.
struct Client {
    stream: DuplexStream,
    read: String,
    served: JoinHandle<()>,
}

impl Client {
    fn new(agent: &TestAgent) -> Self {
        let (stream, served) = connect(&agent.server);
        Self { stream, read: String::new(), served }
    }

    async fn send(&mut self, target: &str) {
        self.send_with(target, "").await;
    }

    async fn send_with(&mut self, target: &str, headers: &str) {
        let request = format!("GET {target} HTTP/1.1\r\nHost: [::1]\r\n{headers}\r\n");
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// Reads one response: status, sorted header lines, index and body.
    async fn response(&mut self) -> (u16, Vec<String>, u64, String) {
        loop {
            if let Some((head, rest)) = self.read.split_once("\r\n\r\n") {
                let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
                let status = lines.remove(0)[9..12].parse().unwrap();
                let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
                let len: usize = value("content-length: ").unwrap().parse().unwrap();
                let index = value("x-consul-index: ").map_or(0, |index| index.parse().unwrap());
                if rest.len() >= len {
                    let body = rest[..len].to_owned();
                    self.read = rest[len..].to_owned();
                    lines.sort();
                    return (status, lines, index, body);
                }
            }
            let mut octets = vec![0; 4096];
            let read = self.stream.read(&mut octets).await.unwrap();
            assert_ne!(read, 0, "{}", self.read);
            self.read.push_str(std::str::from_utf8(&octets[..read]).unwrap());
        }
    }
}

/// Path of a query that the tests repeat.
const PATH: &str = "/v1/health/service/web";

/// Lets all tasks run until they wait: the paused clock advances only then.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// An agent with a passing instance, a client of it, and the index that the client has seen.
async fn client_of_agent() -> (TestAgent, Client, u64) {
    let agent = TestAgent::new(None);
    agent.announce(Status::Passing, "");
    settle().await;
    let mut client = Client::new(&agent);
    client.send(PATH).await;
    let seen = client.response().await.2;
    (agent, client, seen)
}

#[tokio::test(start_paused = true)]
async fn parked_query_and_its_repetitions_get_the_same_responses_as_plain_requests() {
    let agent = TestAgent::new(None);
    agent.announce(Status::Passing, "");
    settle().await;
    let (mut waiting, mut other, mut plain) = (Client::new(&agent), Client::new(&agent), Client::new(&agent));
    waiting.send(PATH).await;
    let mut seen = waiting.response().await.2;
    for round in 0..4 {
        for client in [&mut waiting, &mut other] {
            client.send(&format!("{PATH}?index={seen}&wait=1m")).await;
        }
        settle().await;
        agent.announce(Status::Warning, &format!("round {round}"));
        let (first, second) = (waiting.response().await, other.response().await);
        plain.send(PATH).await;
        let expected = plain.response().await;
        let without_date = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| !line.starts_with("date: ")).cloned().collect()
        };
        for found in [first, second] {
            assert_eq!((found.0, found.2, &found.3), (200, expected.2, &expected.3), "{round}");
            assert_eq!(without_date(&found.1), without_date(&expected.1), "{round}");
            assert_eq!(found.1.len(), expected.1.len(), "{round}: one date");
        }
        assert!(expected.2 > seen);
        seen = expected.2;
    }
}

#[tokio::test(start_paused = true)]
async fn parked_query_ends_after_its_wait() {
    let (_agent, mut client, seen) = client_of_agent().await;
    for _ in 0..3 {
        let begin = Instant::now();
        client.send(&format!("{PATH}?index={seen}&wait=16s")).await;
        assert_eq!(client.response().await.2, seen);
        assert!((16..18).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn pipelined_request_is_answered_after_the_parked_query() {
    let (agent, mut client, seen) = client_of_agent().await;
    client.send(&format!("{PATH}?index={seen}&wait=1m")).await;
    settle().await;
    client.send("/healthz").await;
    settle().await;
    agent.announce(Status::Warning, "changed");
    assert!(client.response().await.2 > seen);
    assert_eq!(client.response().await.3, "ok\n");
}

#[tokio::test(start_paused = true)]
async fn connection_of_a_parked_query_ends_with_its_client() {
    let (_agent, mut client, seen) = client_of_agent().await;
    client.send(&format!("{PATH}?index={seen}&wait=10m")).await;
    settle().await;
    drop(client.stream);
    client.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_answers_a_parked_query_and_closes_the_connection() {
    let (agent, mut client, seen) = client_of_agent().await;
    client.send(&format!("{PATH}?index={seen}&wait=10m")).await;
    settle().await;
    agent.shutdown.cancel();
    assert_eq!(client.response().await.2, seen);
    client.served.await.unwrap();
}

/// The sources end before the servers when an agent stops.
#[tokio::test(start_paused = true)]
async fn shutdown_answers_a_parked_query_whose_sources_have_ended() {
    let (agent, mut client, seen) = client_of_agent().await;
    client.send(&format!("{PATH}?index={seen}&wait=10m")).await;
    settle().await;
    drop(agent.catalog);
    settle().await;
    let stopped = Instant::now();
    agent.shutdown.cancel();
    assert_eq!(client.response().await.2, seen);
    assert!(stopped.elapsed() < Duration::from_secs(1));
    client.served.await.unwrap();
}

/// Headers without a space after the colon, in a head just below the limit.
#[tokio::test(start_paused = true)]
async fn parked_query_with_a_long_head_is_answered() {
    let (agent, mut client, seen) = client_of_agent().await;
    let long = format!("x-long:{}\r\n", "a".repeat(15_840));
    let headers = (0..60).fold(long, |headers, at| headers + &format!("x{at:02}:a\r\n"));
    client.send_with(&format!("{PATH}?index={seen}&wait=10m"), &headers).await;
    settle().await;
    agent.announce(Status::Critical, "refused");
    assert_eq!(client.response().await.0, 200);
}

/// A value may contain any octet, escaped.
#[tokio::test(start_paused = true)]
async fn responses_of_different_parameters_are_kept_apart() {
    let agent = TestAgent::new(None);
    agent.announce(Status::Critical, "refused");
    settle().await;
    let mut client = Client::new(&agent);
    client.send(&format!("{PATH}?stale=%0Apassing%3D1")).await;
    assert_ne!(client.response().await.3, "[]");
    client.send(&format!("{PATH}?stale=&passing=1")).await;
    assert_eq!(client.response().await.3, "[]");
}

#[tokio::test(start_paused = true)]
async fn revoked_token_refuses_a_parked_query() {
    let token = Token::new("reader", Scope::Read, "0123456789abcdef0123456789abcdef");
    let (tokens, guard) = channel(Tokens::new(vec![token]));
    let agent = TestAgent::new(Some(guard));
    agent.announce(Status::Passing, "");
    settle().await;
    let mut client = Client::new(&agent);
    let header = "X-Consul-Token: 0123456789abcdef0123456789abcdef\r\n";
    client.send_with(PATH, header).await;
    let mut seen = client.response().await.2;
    for (round, status) in [200, 200, 403].into_iter().enumerate() {
        client.send_with(&format!("{PATH}?index={seen}&wait=10m"), header).await;
        settle().await;
        if status == 403 {
            tokens.send_replace(Tokens::default());
        }
        agent.announce(Status::Warning, &format!("round {round}"));
        let response = client.response().await;
        assert_eq!(response.0, status, "{round}");
        seen = response.2;
    }
}

#[tokio::test(start_paused = true)]
async fn clients_of_one_query_share_each_response() {
    const CLIENTS: u64 = 200;
    const ROUNDS: u64 = 3;
    let token = Token::new("reader", Scope::Read, "0123456789abcdef0123456789abcdef");
    let (_tokens, guard) = channel(Tokens::new(vec![token]));
    let header = "X-Consul-Token: 0123456789abcdef0123456789abcdef\r\n";
    let cases =
        [("", None), ("near=_agent&passing&filter=Service.Port+%3D%3D+80&", None), ("dc=dc1&tag=v2&", Some(guard))];
    for (parameters, guard) in cases {
        let headers = if guard.is_some() { header } else { "" };
        let agent = TestAgent::new(guard);
        agent.announce(Status::Passing, "");
        settle().await;
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new(&agent)).collect();
        clients[0].send_with(&format!("{PATH}?{parameters}"), headers).await;
        let mut seen = clients[0].response().await.2;
        for round in 1..=ROUNDS {
            for client in &mut clients {
                client.send_with(&format!("{PATH}?{parameters}index={seen}&wait=1m"), headers).await;
            }
            settle().await;
            agent.announce(Status::Warning, &format!("round {round}"));
            let mut latest = vec![];
            for client in &mut clients {
                latest.push(client.response().await.2);
            }
            seen = latest[0];
            assert!(latest.iter().all(|index| *index == seen), "{parameters}: {latest:?}");
            // The first client of each round encodes the response.
            assert_eq!(agent.metrics.shared_responses(), round * (CLIENTS - 1), "{parameters}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_reads_nothing_does_not_delay_the_others() {
    let agent = TestAgent::new(None);
    agent.announce(Status::Passing, "");
    settle().await;
    let (mut slow, mut other) = (Client::new(&agent), Client::new(&agent));
    other.send(PATH).await;
    let mut seen = other.response().await.2;
    let begin = Instant::now();
    let mut round = 0;
    while !slow.served.is_finished() {
        assert!(begin.elapsed() < Duration::from_secs(600), "the client is still connected");
        round += 1;
        // Closed after its write timeout.
        let query = format!("GET {PATH}?index={seen}&wait=1m HTTP/1.1\r\nHost: [::1]\r\n\r\n");
        let _ = timeout(Duration::from_millis(1), slow.stream.write_all(query.as_bytes())).await;
        other.send(&format!("{PATH}?index={seen}&wait=1m")).await;
        settle().await;
        let changed = Instant::now();
        agent.announce(Status::Warning, &format!("round {round} {}", "x".repeat(4096)));
        seen = other.response().await.2;
        assert!(changed.elapsed() < Duration::from_secs(1), "{:?}", changed.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    assert!(begin.elapsed() >= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn clients_that_leave_while_they_wait_are_not_kept() {
    let (agent, mut staying, seen) = client_of_agent().await;
    staying.send(&format!("{PATH}?index={seen}&wait=10m")).await;
    for _ in 0..100 {
        let mut leaving = Client::new(&agent);
        leaving.send(&format!("{PATH}?index={seen}&wait=10m")).await;
        settle().await;
        drop(leaving.stream);
        leaving.served.await.unwrap();
    }
    agent.announce(Status::Warning, "changed");
    assert!(staying.response().await.2 > seen);
    assert_eq!(agent.metrics.shared_responses(), 0, "one client was answered");
}

/// A waiting client keeps the future of its connection and what it has parked.
#[tokio::test]
async fn future_of_a_connection_is_small() {
    let agent = TestAgent::new(None);
    let served = serve_connection(duplex(1).1, agent.server.clone());
    let len = size_of_val(&served);
    assert!(len <= 2048, "{len} octets");
}
