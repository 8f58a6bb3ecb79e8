//! Clients of one agent that wait for changes of one service, each on its own connection.
//!
//! One thread serves all of them by epoll, so that they cost little beside the agent. A client sends its next query when
//! no client has a response to read: on hosts of their own, clients do not delay each other.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Size of the read buffer that all clients share, in octets.
const BUFFER: usize = 64 * 1024;
/// Most events taken at once.
const EVENTS: usize = 256;

/// What a client sends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Blocking queries, one after another.
    Query,
    /// One request for a stream.
    Stream,
}

/// Waiting clients.
pub(crate) struct Clients {
    kind: Kind,
    /// Path, and headers of each request.
    request: (String, String),
    clients: Vec<Client>,
    epoll: Epoll,
    buffer: Box<[u8; BUFFER]>,
}

struct Client {
    socket: TcpStream,
    /// Octets of an incomplete response.
    partial: Vec<u8>,
}

impl Clients {
    /// Connects clients that wait for `path`, whose current state they have seen.
    pub(crate) fn connect(http: SocketAddr, kind: Kind, count: usize, path: &str, headers: &str) -> Self {
        let request = (path.to_owned(), headers.to_owned());
        let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
        let mut all = Self { kind, request, clients: Vec::new(), epoll, buffer: Box::new([0; BUFFER]) };
        let seen = all.index(http);
        for number in 0..count {
            let socket = TcpStream::connect(http).unwrap();
            socket.set_nodelay(true).unwrap();
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, number as u64);
            all.epoll.add(&socket, event).unwrap();
            all.clients.push(Client { socket, partial: Vec::new() });
            all.send(number, seen);
            all.clients[number].socket.set_nonblocking(true).unwrap();
        }
        all
    }

    /// Returns the current index.
    fn index(&self, http: SocketAddr) -> u64 {
        let (path, headers) = &self.request;
        let mut socket = TcpStream::connect(http).unwrap();
        let request = format!("GET /v1/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
        // At once: the loop that only writes answers the first part that it receives.
        socket.write_all(request.as_bytes()).unwrap();
        let mut response = Vec::new();
        socket.read_to_end(&mut response).unwrap();
        number_after(&response, b"x-consul-index: ").unwrap()
    }

    fn send(&mut self, client: usize, seen: u64) {
        let (path, headers) = &self.request;
        let separator = if path.contains('?') { '&' } else { '?' };
        let target = match self.kind {
            Kind::Query => format!("{path}{separator}index={seen}&wait=10m"),
            Kind::Stream => format!("watch/{path}{separator}index={seen}"),
        };
        let request = format!("GET /v1/{target} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        self.clients[client].socket.write_all(request.as_bytes()).unwrap();
    }

    /// Returns the time from `begin` to each client's receipt of one change.
    pub(crate) fn receipts(&mut self, begin: Instant) -> Vec<Duration> {
        let mut times = Vec::with_capacity(self.clients.len());
        let mut due = Vec::new();
        let mut events = [EpollEvent::empty(); EVENTS];
        while times.len() < self.clients.len() || !due.is_empty() {
            let patience = if due.is_empty() { EpollTimeout::NONE } else { EpollTimeout::ZERO };
            let ready = self.epoll.wait(&mut events, patience).unwrap();
            for event in &events[..ready] {
                let client = event.data() as usize;
                if let Some(index) = self.receive(client) {
                    times.push(begin.elapsed());
                    due.push((client, index));
                }
            }
            if ready == 0
                && let Some((client, index)) = due.pop()
                && matches!(self.kind, Kind::Query)
            {
                self.send(client, index);
            }
        }
        times
    }

    /// Reads; returns the index of a complete response or state.
    fn receive(&mut self, number: usize) -> Option<u64> {
        let client = &mut self.clients[number];
        let mut received = None;
        loop {
            let read = match client.socket.read(&mut *self.buffer) {
                Ok(0) => panic!("the agent has closed a connection: {}", String::from_utf8_lossy(&client.partial)),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return received,
                Err(error) => panic!("{error}"),
            };
            let octets = match client.partial.is_empty() {
                true => &self.buffer[..read],
                false => {
                    client.partial.extend_from_slice(&self.buffer[..read]);
                    &client.partial
                }
            };
            let index = match self.kind {
                Kind::Query => response(octets),
                Kind::Stream => state(octets),
            };
            match index {
                Some(_) => client.partial.clear(),
                None if client.partial.is_empty() => client.partial.extend_from_slice(&self.buffer[..read]),
                None => {}
            }
            received = index.or(received);
            if read < BUFFER {
                return received;
            }
        }
    }
}

/// Returns the index of a complete response.
fn response(octets: &[u8]) -> Option<u64> {
    let head = position(octets, b"\r\n\r\n")? + 4;
    assert!(octets.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(octets));
    let length = number_after(&octets[..head], b"content-length: ")?;
    (octets.len() as u64 >= head as u64 + length).then(|| number_after(octets, b"x-consul-index: "))?
}

/// Returns the index of a complete state in a stream.
fn state(octets: &[u8]) -> Option<u64> {
    let data = position(octets, b"event: state\ndata: ")?;
    position(&octets[data..], b"\n\n")?;
    number_after(octets, b"id: ")
}

fn number_after(octets: &[u8], name: &[u8]) -> Option<u64> {
    let start = position(octets, name)? + name.len();
    let digits = octets[start..].iter().take_while(|octet| octet.is_ascii_digit()).count();
    std::str::from_utf8(&octets[start..start + digits]).ok()?.parse().ok()
}

fn position(octets: &[u8], wanted: &[u8]) -> Option<usize> {
    octets.windows(wanted.len()).position(|window| window == wanted)
}
