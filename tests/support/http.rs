//! Requests to an HTTP API, as octets on a connection: nothing between the test and the wire.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use super::agent::{Agent, DEADLINE};

/// What came back.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.head, self.body))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Asks, on a connection of its own. `path` is whole; without a body it is empty.
#[track_caller]
pub fn ask(server: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    try_ask(server, method, path, body).unwrap_or_else(|| panic!("nobody listens at {server}"))
}

/// The same of a server that may not listen yet.
#[track_caller]
pub fn try_ask(server: SocketAddr, method: &str, path: &str, body: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let (mut octets, mut piece) = (Vec::new(), [0; 65_536]);
    // Some servers wait for the client to close.
    while !is_whole(&octets) {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            len => octets.extend_from_slice(&piece[..len]),
        }
    }
    let text = String::from_utf8(octets).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {method} {path}: {text:?}"));
    let mut answer = Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() };
    if answer.header("Transfer-Encoding") == Some("chunked") {
        answer.body = unchunked(body);
    }
    Some(answer)
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

/// Whether an answer that says its length is there as a whole.
fn is_whole(octets: &[u8]) -> bool {
    let text = String::from_utf8_lossy(octets);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let length =
        lines.filter(|(key, _)| key.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.parse()).next();
    length.is_some_and(|length| length == Ok(body.len()))
}

/// RFC 9112 §7.1, without extensions.
fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, chunk)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&chunk[..size]);
        rest = chunk[size..].strip_prefix("\r\n").unwrap();
    }
    body
}
