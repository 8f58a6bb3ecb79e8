//! A gRPC client over HTTP/2, the same for both servers.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest};
use hyper::http::Request;
use prost::Message;
use tokio::net::TcpStream;

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Client {
    sender: SendRequest<Bytes>,
    authority: String,
}

/// Messages of a call that streams.
pub(crate) struct Messages {
    /// Stream for requests, which ends the call when it is dropped.
    _requests: SendStream<Bytes>,
    body: RecvStream,
    buffer: BytesMut,
}

impl Client {
    /// Connects to a server.
    pub(crate) async fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(4 << 20).initial_connection_window_size(16 << 20);
        let (sender, connection) = builder.handshake(stream).await.ok()?;
        tokio::spawn(connection);
        Some(Self { sender, authority: address.to_string() })
    }

    /// Calls a method with one request and one response; `None` if the call fails.
    pub(crate) async fn call<T: Message + Default>(&self, path: &str, request: &impl Message) -> Option<T> {
        let mut messages = self.stream(path, request).await?;
        let response = messages.next().await;
        // A stream that is dropped before its end is reset, and servers end connections with many of them.
        messages.end().await;
        response
    }

    /// Calls a method whose responses stream.
    pub(crate) async fn stream(&self, path: &str, request: &impl Message) -> Option<Messages> {
        let mut sender = self.sender.clone().ready().await.ok()?;
        let head = Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut body) = sender.send_request(head, false).ok()?;
        let mut octets = vec![0];
        octets.extend((request.encoded_len() as u32).to_be_bytes());
        request.encode(&mut octets).unwrap();
        // A watch stays open for requests: the end of the stream ends it.
        let is_watch = path.ends_with("/Watch");
        body.send_data(octets.into(), !is_watch).ok()?;
        let responses = response.await.ok()?.into_body();
        Some(Messages { _requests: body, body: responses, buffer: BytesMut::new() })
    }
}

impl Messages {
    /// Waits for the end of the call.
    async fn end(&mut self) {
        while let Some(Ok(data)) = self.body.data().await {
            let _ = self.body.flow_control().release_capacity(data.len());
        }
        let _ = self.body.trailers().await;
    }

    /// The next response; `None` at the end.
    pub(crate) async fn next<T: Message + Default>(&mut self) -> Option<T> {
        loop {
            if self.buffer.len() >= 5 {
                let len = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + len {
                    self.buffer.advance(5);
                    return T::decode(self.buffer.split_to(len)).ok();
                }
            }
            let data = self.body.data().await?.ok()?;
            self.body.flow_control().release_capacity(data.len()).ok()?;
            self.buffer.extend_from_slice(&data);
        }
    }
}
