//! Metrics of zone transfers and NOTIFY.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Family, counter::Writers};

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
}

const TRANSFERS: [&str; 5] = ["whole", "incremental", "current", "refused", "aborted"];

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

#[derive(Debug, Default)]
struct Counts {
    transfers: [AtomicU64; TRANSFERS.len()],
    notifies: [AtomicU64; NOTIFIES.len()],
    bad_signatures: AtomicU64,
}

/// Handle of the metrics of transfers.
#[derive(Clone, Debug, Default)]
pub struct Transfers(Arc<Counts>);

impl Transfers {
    /// Counts a request for a transfer.
    pub fn transfer(&self, outcome: TransferOutcome) {
        Writers::Many.add(&self.0.transfers[outcome as usize], 1);
    }

    /// Counts a NOTIFY message.
    pub fn notify(&self, outcome: NotifyOutcome) {
        Writers::Many.add(&self.0.notifies[outcome as usize], 1);
    }

    /// Counts a message whose signature was refused.
    pub fn bad_signature(&self) {
        Writers::Many.add(&self.0.bad_signatures, 1);
    }

    pub(super) fn families(&self) -> [Family; 3] {
        let each = |words: &'static [&'static str], numbers: &[AtomicU64]| -> Vec<_> {
            words
                .iter()
                .zip(numbers)
                .map(|(word, number)| ([("outcome", *word)], number.load(Ordering::Relaxed)))
                .collect()
        };
        [
            Family::counters(
                "muster_zone_transfers",
                "Requests for zone transfers over TCP, by outcome",
                each(&TRANSFERS, &self.0.transfers),
            ),
            Family::counters(
                "muster_notify_messages",
                "NOTIFY messages to secondaries, by outcome",
                each(&NOTIFIES, &self.0.notifies),
            ),
            Family::counters(
                "muster_refused_signatures",
                "Messages whose TSIG signature was refused",
                [([], self.0.bad_signatures.load(Ordering::Relaxed))],
            ),
        ]
    }
}
