//! Streams that wait without hyper: shared states, and their connection afterwards.

use tokio::time::sleep;

use super::{streams::TestAgent, *};
use crate::model::{
    health::Status,
    token::{Scope, Token, Tokens},
};

const PATH: &str = "/v1/watch/health/service/web";

#[tokio::test(start_paused = true)]
async fn streams_of_one_endpoint_share_each_state() {
    const CLIENTS: u64 = 200;
    const ROUNDS: u64 = 3;
    let agent = TestAgent::new(None);
    agent.announce(Status::Passing, "");
    sleep(Duration::from_secs(1)).await;
    let mut streams = vec![];
    for _ in 0..CLIENTS {
        streams.push(agent.stream(PATH, "").await);
    }
    for stream in &mut streams {
        stream.state().await;
    }
    for round in 1..=ROUNDS {
        sleep(Duration::from_secs(1)).await;
        agent.announce(Status::Warning, &format!("round {round}"));
        let first = streams[0].state().await;
        for stream in &mut streams[1..] {
            assert_eq!(stream.state().await, first, "{round}");
        }
        // The first client of each round encodes the state.
        assert_eq!(agent.metrics.shared_responses(), round * (CLIENTS - 1));
    }
}

#[tokio::test(start_paused = true)]
async fn streams_over_http_1_0_and_1_1_send_the_same_states() {
    let agent = TestAgent::new(None);
    agent.announce(Status::Passing, "");
    sleep(Duration::from_secs(1)).await;
    let mut parked = agent.stream(PATH, "").await;
    let mut plain = agent.stream_over("1.0", PATH, "").await;
    for round in 0..3 {
        assert_eq!(parked.state().await, plain.state().await, "{round}");
        sleep(Duration::from_secs(1)).await;
        agent.announce(Status::Warning, &format!("round {round}"));
    }
}

#[tokio::test(start_paused = true)]
async fn connection_of_a_stream_ends_with_its_client() {
    let agent = TestAgent::new(None);
    let mut stream = agent.stream(PATH, "").await;
    stream.state().await;
    let served = stream.close();
    served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn connection_serves_requests_after_its_stream() {
    let token = Token::new("reader", Scope::Read, "0123456789abcdef0123456789abcdef");
    let (tokens, guard) = channel(Tokens::new(vec![token]));
    let agent = TestAgent::new(Some(guard));
    let mut stream = agent.stream(PATH, "x-consul-token: 0123456789abcdef0123456789abcdef\r\n").await;
    stream.state().await;
    tokens.send_replace(Tokens::default());
    assert_eq!(stream.next().await, None, "the token is revoked");
    let mut served = stream.request("GET /healthz HTTP/1.1\r\nhost: [::1]\r\nconnection: close\r\n\r\n").await;
    served = served.trim_start().to_owned();
    assert!(served.starts_with("HTTP/1.1 200 OK\r\n") && served.ends_with("ok\n"), "{served}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_a_parked_stream_and_its_connection() {
    let agent = TestAgent::new(None);
    let mut stream = agent.stream(PATH, "").await;
    stream.state().await;
    agent.shutdown.cancel();
    assert_eq!(stream.next().await, None);
    stream.served.await.unwrap();
}
