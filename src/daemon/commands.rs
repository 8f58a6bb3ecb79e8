//! Passes what clients of the HTTP API order on to the node, and the outcome back: neither knows the other.

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    gossip::{
        key_rotation,
        node::{self, ForgetError},
    },
    http::command::{Command, JoinOutcome, KeyReport, KeyringReport},
    model::name::Label,
    registry::{error::RegistryError, task::Request},
};

/// Orders that wait for their turn: people and scripts give them, one at a time.
pub(super) const ORDERS: usize = 16;

/// Who carries orders out.
pub(super) struct Takers {
    /// What is about the cluster.
    pub(super) node: mpsc::Sender<node::Command>,
    /// What is about this node's own services.
    pub(super) registry: mpsc::Sender<Request>,
    /// Each new value has all files read again.
    pub(super) rescan: watch::Sender<()>,
}

/// Passes orders on until `shutdown`.
pub(super) async fn pass_on(mut given: mpsc::Receiver<Command>, takers: Takers, shutdown: CancellationToken) {
    loop {
        let order = tokio::select! {
            order = given.recv() => order,
            () = shutdown.cancelled() => return,
        };
        // Without an HTTP API nobody gives orders.
        let Some(order) = order else { return shutdown.cancelled().await };
        // Whoever has ended drops the order, which the client is told.
        match order {
            Command::Join { target, done } => {
                let done = then(done, |joined: Result<node::Joined, String>| {
                    joined.map(|joined| JoinOutcome { asked: joined.asked, answered: vec![joined.by.address] })
                });
                let _ = takers.node.send(node::Command::Join { target, done }).await;
            }
            Command::Leave { done } => {
                let _ = takers.node.send(node::Command::Leave { done: then(done, Ok) }).await;
            }
            Command::Dismiss { node, done } => {
                let name = node.clone();
                let done = then(done, move |told: Result<(), ForgetError>| Ok(told.map_err(|why| denied(&name, why))));
                let _ = takers.node.send(node::Command::Dismiss { name: node, done }).await;
            }
            Command::Fire { name, payload, to, done } => {
                let firing = node::FireEvent { name, payload, to };
                let _ = takers.node.send(node::Command::Fire { firing, done: then(done, Ok) }).await;
            }
            Command::Keyring { change, done } => {
                let done = then(done, |report: Result<key_rotation::KeyringReport, String>| report.map(shown));
                let _ = takers.node.send(node::Command::Keyring { change, done }).await;
            }
            Command::Change { change, done } => {
                let _ = takers.registry.send(Request { change, done: then(done, Ok) }).await;
            }
            Command::Reload { done } => {
                takers.rescan.send_replace(());
                let _ = done.send(Ok(()));
            }
        }
    }
}

/// A place for an outcome that arrives at `done` in other words.
fn then<T: Send + 'static, U: Send + 'static>(
    done: oneshot::Sender<U>,
    words: impl FnOnce(T) -> U + Send + 'static,
) -> oneshot::Sender<T> {
    let (sender, outcome) = oneshot::channel();
    tokio::spawn(async move {
        if let Ok(outcome) = outcome.await {
            // Whoever asked may have gone.
            let _ = done.send(words(outcome));
        }
    });
    sender
}

fn denied(name: &Label, why: ForgetError) -> RegistryError {
    match why {
        ForgetError::Unknown => {
            RegistryError::Unknown(format!("No node {name} is known here: `muster members` shows who is."))
        }
        ForgetError::Itself => {
            RegistryError::Refused(format!("{name} is the node itself: it goes with PUT /v1/agent/leave."))
        }
        ForgetError::Lives(reach) => RegistryError::Refused(format!(
            "The node {name} is {}: only one that is gone or out of reach is forgotten. Have it leave, or end its agent.",
            reach.as_str()
        )),
    }
}

fn shown(report: key_rotation::KeyringReport) -> KeyringReport {
    let key = |(id, (nodes, primary_on))| KeyReport { id, nodes, primary_on };
    KeyringReport {
        nodes: report.nodes,
        answered: report.answered,
        keys: report.keys.into_iter().map(key).collect(),
        refusals: report.refusals.into_iter().map(|(node, why)| (node.to_string(), why)).collect(),
    }
}
