//! Fixtures shared by the tests of checks: definitions, and servers on the loopback address.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::task::AbortOnDropHandle;

use super::Options;
use crate::model::{
    health::Status,
    name::label,
    service::{
        Check, Definition, Definitions, Endpoint, Instance, InstanceKey, Pace, Probe, instance_ref::InstanceRef,
    },
};

pub(super) fn check(probe: Probe) -> Check {
    Check {
        probe,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(2),
        rise: 1,
        fall: 2,
        initial: Status::Critical,
        title: None,
        link_local: true,
    }
}

pub(super) fn tcp(host: &str) -> Check {
    check(Probe::Tcp(Endpoint { host: host.into(), port: 1 }))
}

pub(super) fn alias(service: &str) -> Check {
    check(Probe::Alias { service: label(service).into() })
}

/// Builds the definition of instance `SERVICE/ID` with these checks.
pub(super) fn definition(key: &str, checks: impl Into<Vec<Check>>) -> Definition {
    let (service, id) = key.split_once('/').unwrap();
    let instance = Instance {
        port: Some(80),
        ..Instance::new(InstanceKey { service: label(service).into(), id: label(id) }, vec![[127, 0, 0, 1].into()])
    };
    Definition { instance: Arc::new(instance), enabled: true, checks: checks.into(), pace: Pace::default() }
}

pub(super) fn definitions(all: impl IntoIterator<Item = Definition>) -> Definitions {
    all.into_iter().map(|definition| (InstanceRef::from(&definition.instance), Arc::new(definition))).collect()
}

pub(super) fn options() -> Options {
    Options {
        allow_exec: true,
        systemctl: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/systemctl").into(),
        sockets: 64,
        processes: 64,
        seed: 1,
        metrics: Default::default(),
    }
}

/// Server that passes every connection to `serve`, until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    pub(super) async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        };
        Self { address, _task: AbortOnDropHandle::new(tokio::spawn(accept)) }
    }

    /// Starts a server that reads a request, sends it to the channel, writes `answer` and closes.
    pub(super) async fn answering(answer: impl Into<Vec<u8>>) -> (Self, mpsc::UnboundedReceiver<String>) {
        let (requests, seen) = mpsc::unbounded_channel();
        let answer: Arc<[u8]> = answer.into().into();
        let server = Self::start(move |mut stream| {
            let (requests, answer) = (requests.clone(), Arc::clone(&answer));
            async move {
                let request = read_head(&mut stream).await;
                let _ = requests.send(request);
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
                // Closing a socket with unread data sends a reset, which may overtake the response.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        });
        (server.await, seen)
    }

    /// Starts a server that never responds, and signals each connection that the client has closed.
    pub(super) async fn hanging() -> (Self, mpsc::UnboundedReceiver<()>) {
        let (gone, seen) = mpsc::unbounded_channel();
        let server = Self::start(move |mut stream| {
            let gone = gone.clone();
            async move {
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                let _ = gone.send(());
            }
        });
        (server.await, seen)
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint { host: self.address.ip().to_string(), port: self.address.port() }
    }
}

/// Reads a request: its head and the body of the length in `content-length`.
pub(super) async fn read_head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(octet) => head.push(octet),
            Err(_) => break,
        }
    }
    let mut text = String::from_utf8(head).unwrap();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.unwrap();
    text.push_str(&String::from_utf8(body).unwrap());
    text
}

/// Returns a port of the loopback address without a listener.
pub(super) fn closed_port() -> Endpoint {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() }
}
