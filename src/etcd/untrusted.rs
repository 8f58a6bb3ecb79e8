//! What the API reads of a client's octets before a service sees it: heads of HTTP/2 requests, JSON of the gateway, and
//! transactions. The fuzz target `etcd` begins here.

use std::io;

use bytes::BytesMut;
use prost::Message;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tonic::Status;

use super::{
    authority::Authority,
    convert,
    gateway::{decode_messages, encode_message, routes, take_message},
    proto::{descriptors, etcdserverpb::TxnRequest},
};
use crate::store::command::Transaction;

/// Returns what the HTTP library reads of a connection.
///
/// # Errors
/// Fails as the stream does.
pub async fn connection(stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    Authority::begin(stream).await?.read_to_end(&mut read).await?;
    Ok(read)
}

/// Returns the messages in the body of a request to a path of the gateway, in JSON as the gateway writes it; `None` for a path
/// that does not exist.
///
/// # Errors
/// Fails if the body is no request.
pub fn gateway_request(path: &str, body: &[u8]) -> Option<Result<Vec<Value>, Status>> {
    let (service, name) = routes::method(path)?.strip_prefix('/')?.split_once('/')?;
    let method = descriptors().get_service_by_name(service)?.methods().find(|method| method.name() == name)?;
    let decoded = decode_messages(&method.input(), method.is_client_streaming(), body);
    Some(decoded.and_then(|frames| {
        let (mut frames, mut messages) = (BytesMut::from(frames), Vec::new());
        while let Some(message) = take_message(&mut frames) {
            messages.push(encode_message(&method.input(), message)?);
        }
        Ok(messages)
    }))
}

/// Returns the transaction that a message over gRPC asks for; `None` if it is no message.
///
/// # Errors
/// Fails with etcd's text if the transaction is refused.
pub fn transaction(message: &[u8]) -> Option<Result<Transaction, Status>> {
    TxnRequest::decode(message).ok().map(convert::transaction::transaction)
}
