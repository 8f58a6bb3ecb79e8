//! HTTP client of the tests. It sends requests exactly as a test wrote them.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use super::{agent::Agent, wait::DEADLINE};

/// Response.
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// Body, decoded if chunked.
    pub body: String,
}

impl Answer {
    /// Parses a complete response.
    #[track_caller]
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
        let mut answer = Self { status: status(head), head: head.to_owned(), body: body.to_owned() };
        if answer.header("Transfer-Encoding") == Some("chunked") {
            answer.body = unchunked(body);
        }
        answer
    }

    /// Parses the body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.head, self.body))
    }

    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns the value of `X-Consul-Index`.
    #[track_caller]
    pub fn index(&self) -> u64 {
        self.header("X-Consul-Index").unwrap().parse().unwrap()
    }
}

/// Returns the text of a request with the headers that every client sends; each of `headers` ends with CRLF.
pub fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

/// Sends a request on a new connection and returns the response. `path` is absolute.
#[track_caller]
pub fn ask(server: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    ask_with(server, method, path, "", body)
}

/// Sends a request with headers, each of which ends with CRLF.
#[track_caller]
pub fn ask_with(server: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    begin(server, method, path, headers, body).answer()
}

/// Sends a request; `None` if the server does not listen yet.
#[track_caller]
pub fn try_ask(server: SocketAddr, method: &str, path: &str, body: &str) -> Option<Answer> {
    let stream = TcpStream::connect(server).ok()?;
    Some(Pending::send(stream, &request(method, path, "", body)).answer())
}

/// Sends a request without waiting for the response.
#[track_caller]
pub fn begin(server: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Pending {
    let stream = TcpStream::connect(server).unwrap_or_else(|error| panic!("cannot connect to {server}: {error}"));
    Pending::send(stream, &request(method, path, headers, body))
}

/// A request whose response has not been read.
pub struct Pending(TcpStream);

impl Pending {
    fn send(mut stream: TcpStream, request: &str) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        Self(stream)
    }

    /// Reads the response.
    #[track_caller]
    pub fn answer(mut self) -> Answer {
        let (mut octets, mut piece) = (Vec::new(), [0; 65_536]);
        // Some servers keep the connection open.
        while !is_whole(&octets) {
            match self.0.read(&mut piece).unwrap() {
                0 => break,
                len => octets.extend_from_slice(&piece[..len]),
            }
        }
        Answer::parse(&String::from_utf8(octets).unwrap())
    }
}

/// Sends a GET request for a path below `/v1/`.
#[track_caller]
pub fn get(agent: &Agent, path: &str) -> Answer {
    ask(agent.http(), "GET", &format!("/v1/{path}"), "")
}

/// Sends a PUT request for a path below `/v1/`, which must succeed. `Value::Null` is an empty body.
#[track_caller]
pub fn put(agent: &Agent, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = ask(agent.http(), "PUT", &format!("/v1/{path}"), &body);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer
}

/// Sends octets and returns all that arrives until the server closes or resets the connection.
#[track_caller]
pub fn exchange(server: SocketAddr, octets: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    // A server may reject a request and close before it has read all of it.
    let _ = stream.write_all(octets.as_ref());
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Returns the status code of a response.
#[track_caller]
pub fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

/// Reports whether a response with a `Content-Length` is complete.
fn is_whole(octets: &[u8]) -> bool {
    let text = String::from_utf8_lossy(octets);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let length = lines
        .filter(|(key, _)| key.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.trim().parse())
        .next();
    length.is_some_and(|length| length == Ok(body.len()))
}

/// Decodes a chunked body (RFC 9112 §7.1), without extensions.
fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, chunk)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&chunk[..size]);
        rest = chunk[size..].strip_prefix("\r\n").unwrap();
    }
    body
}
