//! HTTP connection that is kept for the next request, as clients of a store do.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Time after which a client gives up: longer than the store tries, and than a node is stopped.
const LIMIT: Duration = Duration::from_secs(20);
/// Time limit for a connection to the own host.
const CONNECT: Duration = Duration::from_secs(5);

/// Response.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// `X-Consul-Index`.
    pub(crate) index: Option<u64>,
    pub(crate) body: String,
}

/// Reasons for the lack of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There was no connection, so the request has no effect.
    NotSent,
    /// The request may have an effect.
    Unknown,
}

/// Connection to Consul's API of the own host.
#[derive(Default)]
pub(crate) struct Connection {
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    /// Sends a request and reads the response.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Reply, Failure> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(connect(8500).map_err(|_| Failure::NotSent)?),
        };
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        let written = stream.get_mut().write_all(request.as_bytes());
        let reply = written.and_then(|()| read(&mut stream)).map_err(|_| Failure::Unknown)?;
        self.stream = Some(stream);
        Ok(reply)
    }
}

/// Connects to a port of the own host.
pub(crate) fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), CONNECT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Reply> {
    let invalid = |line: &str| io::Error::new(io::ErrorKind::InvalidData, line.to_owned());
    let (mut status, mut index, mut length) = (None, None, 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value)) {
            None => status = line.get(9..12).and_then(|digits| digits.parse().ok()),
            Some((name, value)) if name == "content-length" => length = value.parse().map_err(|_| invalid(value))?,
            Some((name, value)) if name == "x-consul-index" => index = value.parse().ok(),
            Some((name, value)) if name == "transfer-encoding" => panic!("{value} is not expected"),
            Some(_) => {}
        }
    }
    let status = status.ok_or_else(|| invalid("no status"))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8(body).map_err(|_| invalid("the body is not UTF-8"))?;
    Ok(Reply { status, index, body })
}
