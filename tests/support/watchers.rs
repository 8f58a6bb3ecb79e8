//! Clients that watch one service of one agent, each over a separate connection, with blocking queries or a stream.

use std::{net::SocketAddr, time::Instant};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// Path of the watched service.
const PATH: &str = "health/service/web";
/// Size of a read buffer, in octets.
const BUFFER: usize = 1024;

/// Receipt of a change by one client.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    /// Time of the receipt.
    pub at: Instant,
    /// Index of the change.
    pub index: u64,
}

/// Watching clients.
pub struct Watchers {
    clients: usize,
    receipts: UnboundedReceiver<Receipt>,
    /// Index at the start.
    pub seen: u64,
}

impl Watchers {
    /// Starts clients with blocking queries and clients with streams.
    pub async fn begin(http: SocketAddr, queries: usize, streams: usize) -> Self {
        let mut first = BufReader::new(connect(http).await);
        let seen = query(&mut first, 0).await.unwrap();
        let (sender, receipts) = unbounded_channel();
        for number in 0..queries + streams {
            // Connections are opened one at a time, since the listen backlog is limited.
            let stream = BufReader::with_capacity(BUFFER, connect(http).await);
            if number < queries {
                tokio::spawn(query_repeatedly(stream, seen, sender.clone()));
            } else {
                tokio::spawn(read_stream(stream, seen, sender.clone()));
            }
        }
        Self { clients: queries + streams, receipts, seen }
    }

    /// Returns the number of unread receipts.
    pub fn unread(&self) -> usize {
        self.receipts.len()
    }

    /// Waits until each client has received one change.
    pub async fn all(&mut self) -> Vec<Receipt> {
        let mut all = Vec::with_capacity(self.clients);
        while all.len() < self.clients {
            all.push(self.receipts.recv().await.expect("a running client"));
        }
        all
    }
}

async fn connect(http: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(http).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends a blocking query and returns the index of the response; `None` if the agent has ended.
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

async fn query_repeatedly(mut stream: BufReader<TcpStream>, mut seen: u64, receipts: UnboundedSender<Receipt>) {
    while let Some(index) = query(&mut stream, seen).await {
        seen = index;
        let _ = receipts.send(Receipt { at: Instant::now(), index });
    }
}

async fn read_stream(mut stream: BufReader<TcpStream>, seen: u64, receipts: UnboundedSender<Receipt>) {
    let request = format!("GET /v1/watch/{PATH} HTTP/1.0\r\nLast-Event-ID: {seen}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut line, mut index) = (String::new(), None);
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        match line.trim_end().split_once(": ") {
            Some(("id", value)) => index = value.parse().ok(),
            Some(("data", _)) => {
                let index = index.take().expect("an id line before the data");
                let _ = receipts.send(Receipt { at: Instant::now(), index });
            }
            _ => {}
        }
        line.clear();
    }
}
