//! Requests to notify secondaries now, and what they have acknowledged.

use std::{collections::BTreeMap, net::SocketAddr};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::model::name::Name;

/// Serials that secondaries have acknowledged, by zone and address.
pub type Acknowledged = BTreeMap<(Name, SocketAddr), u32>;

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
