//! Many programs that wait for news of one service on one node, each on a connection of its own: some with blocking queries,
//! again and again, some with a stream.

use std::{net::SocketAddr, time::Instant};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// What they wait for.
const PATH: &str = "health/service/web";
/// Octets that a client reads at once.
const BUFFER: usize = 1024;

/// A client has heard of a change.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// When.
    pub at: Instant,
    /// The index that it was told.
    pub index: u64,
}

/// All of them.
pub struct Waiting {
    clients: usize,
    heard: UnboundedReceiver<Heard>,
    /// What they had seen when they began.
    pub seen: u64,
}

impl Waiting {
    /// So many begin to wait.
    pub async fn begin(http: SocketAddr, queries: usize, streams: usize) -> Self {
        let mut first = BufReader::new(connect(http).await);
        let seen = query(&mut first, 0).await.unwrap();
        let (sender, heard) = unbounded_channel();
        for number in 0..queries + streams {
            // One after the other: more than the kernel keeps for the agent would be lost.
            let stream = BufReader::with_capacity(BUFFER, connect(http).await);
            if number < queries {
                tokio::spawn(ask_again(stream, seen, sender.clone()));
            } else {
                tokio::spawn(listen(stream, seen, sender.clone()));
            }
        }
        Self { clients: queries + streams, heard, seen }
    }

    /// How many have heard of something that nobody has looked at.
    pub fn unread(&self) -> usize {
        self.heard.len()
    }

    /// Waits until each has heard of one change.
    pub async fn all(&mut self) -> Vec<Heard> {
        let mut all = Vec::with_capacity(self.clients);
        while all.len() < self.clients {
            all.push(self.heard.recv().await.expect("a client that goes on"));
        }
        all
    }
}

async fn connect(http: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(http).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Asks for what comes after an index; the index of the answer. `None`: the agent has ended.
async fn query(stream: &mut BufReader<TcpStream>, seen: u64) -> Option<u64> {
    let request = format!("GET /v1/{PATH}?index={seen}&wait=10m HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let (mut index, mut length, mut line) = (None, 0, String::new());
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(": ") {
            Some(("x-consul-index", value)) => index = value.parse().ok(),
            Some(("content-length", value)) => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    index
}

async fn ask_again(mut stream: BufReader<TcpStream>, mut seen: u64, heard: UnboundedSender<Heard>) {
    while let Some(index) = query(&mut stream, seen).await {
        seen = index;
        let _ = heard.send(Heard { at: Instant::now(), index });
    }
}

async fn listen(mut stream: BufReader<TcpStream>, seen: u64, heard: UnboundedSender<Heard>) {
    let request = format!("GET /v1/watch/{PATH} HTTP/1.0\r\nLast-Event-ID: {seen}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut line, mut index) = (String::new(), None);
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        match line.trim_end().split_once(": ") {
            Some(("id", value)) => index = value.parse().ok(),
            Some(("data", _)) => {
                let index = index.take().expect("an id before the data");
                let _ = heard.send(Heard { at: Instant::now(), index });
            }
            _ => {}
        }
        line.clear();
    }
}
