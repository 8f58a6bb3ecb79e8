//! Requests to an agent's HTTP API, as octets on a connection: nothing between the test and the wire.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use super::agent::{Agent, DEADLINE};

/// An answer.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head, less its end.
    pub head: String,
    /// What follows.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends a request and reads its answer.
pub fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = exchange(address, request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
    Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
}

/// Shows what a path below `/v1/` shows.
pub fn get(agent: &Agent, path: &str) -> Answer {
    ask(agent.http(), "GET", &format!("/v1/{path}"), "")
}

/// Gives an order, which has to be done.
pub fn put(agent: &Agent, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = ask(agent.http(), "PUT", &format!("/v1/{path}"), &body);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer
}

/// Sends octets and reads to the end of the connection, which the other side may break off.
pub fn exchange(address: SocketAddr, octets: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // Whoever has heard enough closes before all is sent.
    let _ = stream.write_all(octets);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
