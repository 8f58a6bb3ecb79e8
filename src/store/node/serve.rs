//! Requests of other nodes.

use std::{future::ready, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
    time::timeout,
};

use super::{answer::answer, exchange::send_in_parts, member::Node};
use crate::store::{
    message::{PeerRefusal, PeerRequest, ReadReply, WriteReply, encode},
    peers::{Incoming, Responder},
    watch::WatchMessage,
};

/// Messages of a watch that wait for the connection.
const WATCH_QUEUE: usize = 16;

/// Octets from which an answer is large.
const LARGE: usize = 1 << 20;
/// Large answers that are sent at the same time: they take memory once more than the state.
pub(super) const LARGE_ANSWERS: usize = 2;
/// Time limit for sending an answer, so that a node that stalls does not keep the turn of others.
const TURN: Duration = Duration::from_secs(30);

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
        let refusal = PeerRefusal::NotLeader(None);
        return match request {
            PeerRequest::Raft { .. } | PeerRequest::Watch(_) => {}
            PeerRequest::Read { .. } => send_answer(ready(Err(refusal)), &node.large_answers, responder).await,
            _ => responder.reply(encode(&WriteReply::Err(refusal))),
        };
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
        PeerRequest::Read { query, consistency, wait } => {
            send_answer(local.read(&query, consistency, wait), &node.large_answers, responder).await;
        }
        request => reply(responder, answer(&local, &node.peers, &node.own, request)).await,
    }
}

/// Sends the answer to a query in parts, unless the other node no longer waits for it.
async fn send_answer(answer: impl Future<Output = ReadReply>, large_answers: &Semaphore, responder: Responder) {
    let parts = responder.stream();
    tokio::select! {
        () = send_encoded(answer, large_answers, &parts) => {}
        () = parts.closed() => {}
    }
}

/// Sends an answer. A large one waits for its turn as long as it refers to the state, which costs no memory, and is encoded beside
/// the tasks that keep the leader's term.
async fn send_encoded(answer: impl Future<Output = ReadReply>, large_answers: &Semaphore, parts: &mpsc::Sender<Bytes>) {
    let answer = answer.await;
    let is_large = answer.as_ref().is_ok_and(|answer| answer.content.octets() > LARGE);
    // Neither fails: the semaphore is never closed, and encoding does not panic.
    let _turn = if is_large { large_answers.acquire().await.ok() } else { None };
    let reply = if is_large { spawn_blocking(move || encode(&answer)).await.ok() } else { Some(encode(&answer)) };
    if let Some(reply) = reply {
        // The other node no longer waits if this fails.
        let _ = timeout(TURN, send_in_parts(parts, reply)).await;
    }
}

/// Sends the reply, unless the other node no longer waits for it.
async fn reply(responder: Responder, answer: impl Future<Output = Option<Bytes>>) {
    let reply = tokio::select! {
        reply = answer => reply,
        () = responder.cancelled() => None,
    };
    if let Some(reply) = reply {
        responder.reply(reply);
    }
}
