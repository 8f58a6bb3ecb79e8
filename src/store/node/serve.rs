//! Requests of other nodes.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    answer::answer,
    exchange::{is_answered_in_parts, send_in_parts},
    member::Node,
};
use crate::store::{
    message::{PeerRefusal, PeerRequest, WriteReply, encode},
    peers::{Incoming, Responder},
    watch::WatchMessage,
};

/// Messages of a watch that wait for the connection.
const WATCH_QUEUE: usize = 16;

/// Carries out a request of another node.
pub(super) async fn serve(node: Node, incoming: Incoming) {
    let Incoming { body, responder, .. } = incoming;
    let Some(request) = PeerRequest::decode(&body) else { return };
    let request = match request {
        PeerRequest::Describe => return responder.reply(encode(&node.description())),
        PeerRequest::Prepare => {
            node.prepare().await;
            return responder.reply(encode(&node.description()));
        }
        request => request,
    };
    let Some(local) = node.member() else {
        if !matches!(request, PeerRequest::Raft { .. } | PeerRequest::Watch(_)) {
            let refused = encode(&WriteReply::Err(PeerRefusal::NotLeader(None)));
            reply(responder, is_answered_in_parts(&request), std::future::ready(Some(refused))).await;
        }
        return;
    };
    match request {
        PeerRequest::Watch(watch) => {
            let (messages, mut sent) = mpsc::channel::<WatchMessage>(WATCH_QUEUE);
            let stream = responder.stream();
            // Each part ends the other one by dropping its end of the channel. The last messages of a watch are still sent.
            let forward = async move {
                loop {
                    let message = tokio::select! {
                        message = sent.recv() => message,
                        () = stream.closed() => None,
                    };
                    let Some(message) = message else { return };
                    if send_in_parts(&stream, encode(&message)).await.is_err() {
                        return;
                    }
                }
            };
            let watch = async move { local.watch(watch, &messages).await };
            tokio::join!(watch, forward);
        }
        request => {
            let in_parts = is_answered_in_parts(&request);
            reply(responder, in_parts, answer(&local, &node.peers, &node.own, request)).await;
        }
    }
}

/// Sends the reply, unless the other node no longer waits for it.
async fn reply(responder: Responder, in_parts: bool, answer: impl Future<Output = Option<Bytes>>) {
    if in_parts {
        let parts = responder.stream();
        tokio::select! {
            // The other node no longer waits if this fails.
            reply = answer => if let Some(reply) = reply { drop(send_in_parts(&parts, reply).await) },
            () = parts.closed() => {}
        }
    } else {
        let reply = tokio::select! {
            reply = answer => reply,
            () = responder.cancelled() => None,
        };
        if let Some(reply) = reply {
            responder.reply(reply);
        }
    }
}
