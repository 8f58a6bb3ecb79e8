//! Counters of rejected gossip, by reason, with a rate-limited log line.
//!
//! Any host can send packets to the port. Each rejected packet costs one counter increment; a warning is logged at most once
//! a minute and names what the operator can check.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::warn;

use super::crypto::OpenError;
use crate::log_limit::LogLimiter;

/// Reasons for rejecting a frame or a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// The packet is not a muster frame.
    Foreign,
    /// The frame is not sealed; this node has keys.
    Plain,
    /// The frame is sealed; this node has no keys.
    Sealed,
    /// The frame is sealed with a key that is not in the ring.
    UnknownKey,
    /// Authentication failed.
    Forged,
    /// The frame is bound to another run or another node.
    OtherSession,
    /// The frame was received before.
    Replayed,
    /// The frame was sent by this node.
    Own,
    /// The frame is authentic but its content is invalid.
    Malformed,
    /// A record breaks a bound.
    Record,
    /// The inbound queue is full.
    Overload,
    /// A peer lists more runs of nodes than this node can gossip.
    TooManyRuns,
    /// The message has changes of this node's own run: the peer received a change before an older digest.
    OwnRun,
}

/// All reasons with their names in counters and logs.
const REASONS: [(RejectReason, &str); 13] = [
    (RejectReason::Foreign, "foreign"),
    (RejectReason::Plain, "not sealed"),
    (RejectReason::Sealed, "sealed"),
    (RejectReason::UnknownKey, "unknown key"),
    (RejectReason::Forged, "forged"),
    (RejectReason::OtherSession, "for another run"),
    (RejectReason::Replayed, "replayed"),
    (RejectReason::Own, "own"),
    (RejectReason::Malformed, "malformed"),
    (RejectReason::Record, "bad record"),
    (RejectReason::Overload, "overload"),
    (RejectReason::TooManyRuns, "too many runs"),
    (RejectReason::OwnRun, "own run"),
];

impl RejectReason {
    /// Maps the error of a frame that could not be opened.
    pub fn of(refused: &OpenError) -> Self {
        match refused {
            OpenError::TooShort | OpenError::TooLong | OpenError::NotOurs => Self::Foreign,
            OpenError::Plain => Self::Plain,
            OpenError::Sealed => Self::Sealed,
            OpenError::UnknownKey(_) => Self::UnknownKey,
            OpenError::Forged => Self::Forged,
            OpenError::OtherSession { .. } => Self::OtherSession,
            OpenError::Replayed => Self::Replayed,
            OpenError::Own => Self::Own,
        }
    }

    /// Advice for the operator; `None` for reasons that occur in every cluster, such as frames for a former run.
    fn advice(self) -> Option<&'static str> {
        match self {
            Self::Plain => Some("a sender has no gossip.key_file, or the port is being scanned"),
            Self::Sealed => Some("other nodes seal their gossip: set gossip.key_file"),
            Self::UnknownKey => Some(
                "frames sealed with an unknown key: a node missed a rotation, or has another gossip key; compare `muster \
                 keyring list`, put the current key into gossip.key_file of the node that lacks it, and run `muster reload` there",
            ),
            Self::Foreign | Self::Forged | Self::Replayed => Some("the sender is not a node of this cluster"),
            Self::Malformed | Self::Record => Some("a sender may run another version"),
            Self::Overload => Some("more gossip arrives than this host can process"),
            Self::TooManyRuns => {
                Some("the cluster has more nodes, or more restarts within minutes, than gossip can list")
            }
            Self::OtherSession | Self::Own | Self::OwnRun => None,
        }
    }
}

/// Time for which frames with an unknown key arrive before they are logged: a node that missed a rotation takes over the
/// keyring of a peer meanwhile.
const TAKEOVER: Duration = Duration::from_secs(4);

/// Counters of rejected gossip.
#[derive(Debug, Default)]
pub struct Rejected {
    counts: [AtomicU64; REASONS.len()],
    last: Mutex<Report>,
    log_limit: LogLimiter,
}

#[derive(Debug, Default)]
struct Report {
    logged: [u64; REASONS.len()],
    source: Option<(RejectReason, String)>,
    /// Time of the first frame with an unknown key since the keyring changed or one was logged.
    unknown_key_since: Option<Instant>,
}

impl Rejected {
    /// Counts a rejected frame.
    pub fn count(&self, why: RejectReason, source: SocketAddr) {
        self.counts[why as usize].fetch_add(1, Ordering::Relaxed);
        if why.advice().is_some()
            && let Ok(mut last) = self.last.lock()
            && (why != RejectReason::UnknownKey || last.unknown_key_persists())
        {
            last.source = Some((why, source.to_string()));
        }
    }

    /// Withdraws the report of frames with an unknown key: this node has other keys now, and may have that key.
    pub fn keys_changed(&self) {
        let Ok(mut last) = self.last.lock() else { return };
        last.unknown_key_since = None;
        last.source.take_if(|(why, _)| *why == RejectReason::UnknownKey);
        let unknown = RejectReason::UnknownKey as usize;
        last.logged[unknown] = self.counts[unknown].load(Ordering::Relaxed);
    }

    /// Counts a rejected record of a node's state.
    pub fn record(&self, node: &str, what: &str) {
        self.counts[RejectReason::Record as usize].fetch_add(1, Ordering::Relaxed);
        if let Ok(mut last) = self.last.lock() {
            last.source = Some((RejectReason::Record, format!("{node} ({what})")));
        }
    }

    /// Counters that are not zero.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.all().filter(|(_, count)| *count > 0).collect()
    }

    /// Counters of all reasons.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.iter().zip(&self.counts).map(|((_, word), count)| (*word, count.load(Ordering::Relaxed)))
    }

    /// Logs the rejections since the last report, at most once a minute.
    pub fn report(&self) {
        let Ok(mut last) = self.last.lock() else { return };
        if last.source.is_none() || !self.log_limit.is_due() {
            return;
        }
        let Some((why, source)) = last.source.take() else { return };
        last.unknown_key_since = None;
        let mut new = Vec::new();
        for (at, (reason, word)) in REASONS.iter().enumerate() {
            let count = self.counts[at].load(Ordering::Relaxed);
            if count > last.logged[at] && reason.advice().is_some() {
                new.push(format!("{} {word}", count - last.logged[at]));
            }
            last.logged[at] = count;
        }
        warn!(rejected = new.join(", "), last = %source, "gossip rejected: {}", why.advice().unwrap_or_default());
    }
}

impl Report {
    /// Reports whether frames with an unknown key have arrived for longer than a takeover of keys lasts. Called for each of them.
    fn unknown_key_persists(&mut self) -> bool {
        self.unknown_key_since.get_or_insert_with(Instant::now).elapsed() >= TAKEOVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event;

    #[test]
    fn unknown_key_is_reported_if_it_persists_and_not_around_a_takeover() {
        let rejected = Rejected::default();
        let source = "10.0.0.1:7946".parse().unwrap();
        let pending = || rejected.last.lock().unwrap().source.clone().map(|(why, _)| why);
        rejected.count(RejectReason::UnknownKey, source);
        assert_eq!(pending(), None);
        rejected.last.lock().unwrap().unknown_key_since = Instant::now().checked_sub(TAKEOVER);
        rejected.count(RejectReason::UnknownKey, source);
        assert_eq!(pending(), Some(RejectReason::UnknownKey));
        rejected.keys_changed();
        assert_eq!(pending(), None);
        rejected.count(RejectReason::UnknownKey, source);
        assert_eq!(pending(), None);
        // Other reasons are reported at once.
        rejected.count(RejectReason::Plain, source);
        rejected.keys_changed();
        assert_eq!(pending(), Some(RejectReason::Plain));
        assert_eq!(rejected.counts(), [("not sealed", 1), ("unknown key", 3)]);
    }

    #[test]
    fn expected_rejections_need_no_attention() {
        let expected: Vec<&str> =
            REASONS.iter().filter(|(reason, _)| reason.advice().is_none()).map(|(_, word)| *word).collect();
        assert_eq!(expected, event::EXPECTED_REJECTIONS);
    }
}
