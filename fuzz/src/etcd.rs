//! Fuzz target for what etcd's API reads of a client's octets before a service sees it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use muster::etcd::untrusted::{connection, gateway_request, transaction};
use tokio::{
    io::{AsyncRead, ReadBuf},
    runtime::{Builder, Runtime},
};

/// Uses the octets as a connection, as a message over gRPC, and as a request to the gateway: a path, a line end and the body.
pub fn run(octets: &[u8]) {
    read(octets);
    if let Some(Ok(transaction)) = transaction(octets) {
        assert!(transaction.success.len() <= 128 && transaction.failure.len() <= 128);
    }
    let (path, body) = octets.split_at(octets.iter().position(|octet| *octet == b'\n').unwrap_or(octets.len()));
    let path = String::from_utf8_lossy(path);
    if let Some(Ok(messages)) = gateway_request(&path, body) {
        // What the gateway writes, it reads as the same.
        let body: String = messages.iter().map(ToString::to_string).collect();
        let again = gateway_request(&path, body.as_bytes()).unwrap().unwrap();
        assert_eq!(again, messages);
    }
}

/// The HTTP library reads the same in one part and octet by octet, and the same again of what it has read.
fn read(octets: &[u8]) {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().build().unwrap();
    }
    RUNTIME.with(|runtime| {
        let whole = runtime.block_on(connection(octets)).unwrap();
        assert_eq!(runtime.block_on(connection(Octets(octets))).unwrap(), whole);
        assert_eq!(runtime.block_on(connection(&whole[..])).unwrap(), whole);
    });
}

/// A stream that yields one octet at a time.
struct Octets<'a>(&'a [u8]);

impl AsyncRead for Octets<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some((first, rest)) = self.0.split_first() {
            to.put_slice(&[*first]);
            self.0 = rest;
        }
        Poll::Ready(Ok(()))
    }
}
