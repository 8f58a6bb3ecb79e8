//! Metrics of zone transfers and NOTIFY.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Family, counter::Writers, zone_counts::ZoneCounts};
use crate::model::name::Name;

/// Outcome of a request for a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferOutcome {
    /// The whole zone was sent.
    Whole,
    /// The differences since the client's version were sent.
    Incremental,
    /// The client has the newest version.
    Current,
    /// The client may not copy the zone, or this node does not send it.
    Refused,
    /// The client ended the transfer.
    Aborted,
    /// A record of the zone does not fit any message.
    Failed,
}

const TRANSFERS: [&str; 6] = ["whole", "incremental", "current", "refused", "aborted", "failed"];

/// Outcome of a NOTIFY message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyOutcome {
    /// A message was sent.
    Sent,
    /// The secondary accepted a message.
    Accepted,
    /// The secondary refused a message.
    Refused,
    /// The secondary did not respond to any of the messages about a change.
    Unanswered,
}

const NOTIFIES: [&str; 4] = ["sent", "accepted", "refused", "unanswered"];

/// Outcome of a question to a primary of a secondary zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// The whole zone was received.
    Whole,
    /// Changes were received.
    Incremental,
    /// The primary has no later version.
    Current,
    /// The primary cannot be reached, or its reply was refused.
    Failed,
    /// No primary confirmed the copy in time.
    Expired,
}

const COPIES: [&str; 5] = ["whole", "incremental", "current", "failed", "expired"];

#[derive(Debug)]
struct Counts {
    transfers: ZoneCounts<{ TRANSFERS.len() }>,
    notifies: ZoneCounts<{ NOTIFIES.len() }>,
    bad_signatures: AtomicU64,
    copies: ZoneCounts<{ COPIES.len() }>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            transfers: ZoneCounts::with_unknown(),
            notifies: ZoneCounts::default(),
            bad_signatures: AtomicU64::default(),
            copies: ZoneCounts::default(),
        }
    }
}

/// Handle of the metrics of transfers.
#[derive(Clone, Debug, Default)]
pub struct Transfers(Arc<Counts>);

impl Transfers {
    /// Counts a request for a transfer of a zone; `None`: not one of this node's zones.
    pub fn transfer(&self, zone: Option<&Name>, outcome: TransferOutcome) {
        self.0.transfers.add(zone, outcome as usize);
    }

    /// Counts a NOTIFY message about a zone.
    pub fn notify(&self, zone: &Name, outcome: NotifyOutcome) {
        self.0.notifies.add(Some(zone), outcome as usize);
    }

    /// Counts a message whose signature was refused.
    pub fn bad_signature(&self) {
        Writers::Many.add(&self.0.bad_signatures, 1);
    }

    /// Counts a question to a primary of a secondary zone.
    pub fn copied(&self, zone: &Name, outcome: CopyOutcome) {
        self.0.copies.add(Some(zone), outcome as usize);
    }

    pub(super) fn families(&self) -> [Family; 4] {
        [
            self.0.transfers.family(
                "muster_zone_transfers",
                "Requests for zone transfers over TCP, by zone and outcome",
                &TRANSFERS,
            ),
            self.0.notifies.family(
                "muster_notify_messages",
                "NOTIFY messages to secondaries, by zone and outcome",
                &NOTIFIES,
            ),
            self.0.copies.family(
                "muster_secondary_refreshes",
                "Questions to primaries of secondary zones, by zone and outcome",
                &COPIES,
            ),
            Family::counters(
                "muster_refused_signatures",
                "Messages whose TSIG signature was refused",
                [([], self.0.bad_signatures.load(Ordering::Relaxed))],
            ),
        ]
    }
}
