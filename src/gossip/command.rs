//! Commands of operators and clients to the node's task, each with a channel for its outcome.
//!
//! The sender of a command may be gone before the outcome arrives; the command is carried out regardless.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use thiserror::Error;
use tokio::sync::oneshot;

use super::{known_peer::KnownPeer, message::Identity};
use crate::model::{
    keyring::{Key, KeyId},
    member::Reach,
    name::Label,
    service::Endpoint,
    user_event::{Audience, UserEvent},
};

/// A command to the node.
#[derive(Debug)]
pub enum Command {
    /// Join the cluster of another node.
    Join {
        /// The address of that node, or a host name with one or more addresses.
        target: Endpoint,
        /// The node that answered first, or the reason that none did.
        done: oneshot::Sender<Result<Joined, String>>,
    },
    /// Leave the cluster and end the node.
    Leave {
        /// Sent once the leave is announced.
        done: oneshot::Sender<()>,
    },
    /// Announce that this node restarts: peers keep its instances as last known until its new run starts. The node does not
    /// end.
    AnnounceRestart {
        /// Sent once the restart is announced.
        done: oneshot::Sender<()>,
    },
    /// Return what this node knows of its peers, for the next start.
    Snapshot {
        /// The peers whose record is known.
        done: oneshot::Sender<Vec<KnownPeer>>,
    },
    /// End the node without a leave. Another start goes on with what it knows.
    Suspend {
        /// The peers whose record is known.
        done: oneshot::Sender<Vec<KnownPeer>>,
    },
    /// Have all nodes forget a node that is gone.
    Forget {
        /// The name of that node.
        name: Label,
        /// Sent once the peers are notified, or with the reason of the refusal.
        done: oneshot::Sender<Result<(), ForgetError>>,
    },
    /// Send a user event to all nodes.
    Fire {
        /// The event's name, within bounds.
        name: String,
        /// The event's payload, within bounds.
        payload: Vec<u8>,
        /// The nodes it is for.
        to: Audience,
        /// The event as sent. Dropped if the event is out of bounds.
        done: oneshot::Sender<Arc<UserEvent>>,
    },
    /// List or change the keys of all nodes.
    Keyring {
        /// The change.
        change: KeyringCommand,
        /// Whether the change is applied although members cannot be asked, or would refuse it.
        force: bool,
        /// The outcome on all nodes.
        done: oneshot::Sender<Result<KeyringReport, String>>,
    },
}

/// The outcome of a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The addresses of the target.
    pub asked: Vec<SocketAddr>,
    /// The node that answered first.
    pub by: Identity,
}

/// Reason that a node is not forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ForgetError {
    /// The node that received the command.
    #[error("a node does not forget itself")]
    Itself,
    /// No node of this name is known.
    #[error("no node of this name is known")]
    Unknown,
    /// The node is not gone.
    #[error("the node is {}", .0.as_str())]
    Lives(Reach),
}

/// A change of the keys of all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyringCommand {
    /// List the keys.
    List,
    /// Install a key.
    Install(Key),
    /// Make a key the primary one.
    Use(KeyId),
    /// Remove a key.
    Remove(KeyId),
}

/// The outcome of a keyring command on all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyringReport {
    /// Number of known members that have not left, this one included.
    pub nodes: usize,
    /// Number of nodes that answered, with success or refusal.
    pub answered: usize,
    /// The keys of the nodes that answered.
    pub keys: BTreeMap<KeyId, KeyUse>,
    /// The nodes that refused or would refuse, with their reasons.
    pub refusals: BTreeMap<String, String>,
    /// The members that were not asked or did not answer, with the reason: by name, or by address if the name is not known.
    pub absent: BTreeMap<String, String>,
    /// False if the command was refused before any node changed its keys.
    pub applied: bool,
    /// The key to be removed, if no node that answered has it.
    pub unknown_key: Option<KeyId>,
}

/// Numbers of nodes that use a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyUse {
    /// Number of nodes that hold the key.
    pub nodes: usize,
    /// Number of nodes that encrypt with the key.
    pub primary_on: usize,
}
