//! Requests to notify secondaries now, and the serials that secondaries have.

use std::{collections::BTreeMap, net::SocketAddr};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::model::name::Name;

/// Known serials of secondaries, by zone and address.
pub type Serials = BTreeMap<(Name, SocketAddr), Known>;

/// Known serials of a zone at a secondary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Serial of the last NOTIFY that the secondary accepted.
    pub acknowledged: Option<u32>,
    /// Serial that the secondary answered when it was last asked; `None`: it was not, or did not answer.
    pub held: Option<u32>,
}

/// A request to notify all secondaries of a zone.
#[derive(Debug)]
pub struct NotifyRequest {
    /// The zone.
    pub zone: Name,
    /// Takes the number of secondaries to which messages are sent.
    pub done: oneshot::Sender<Result<usize, NotSent>>,
}

/// Reasons why no message is sent.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotSent {
    /// The zone is not served.
    #[error("this node does not serve the zone")]
    NoZone,
    /// Another node sends the generated zones.
    #[error("node {0} is the primary of the generated zones: ask it")]
    OtherPrimary(String),
    /// The zone is not transferred.
    #[error("the zone is not transferred")]
    NotTransferred,
    /// The zone is signed online, and copies of it have no signatures.
    #[error("the zone is signed online, and copies of it have no signatures: dns.transfer.unsigned permits them")]
    Signed,
}
