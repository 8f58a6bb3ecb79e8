//! What arrived and was not let in: counted by reason, and told now and then.
//!
//! Anybody can send packets to a port. Each costs a counter; a line in the log is written at most once a minute, at a
//! level that says what it is: something that the operator may want to look at, never an error of ours.

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

/// From one line in the log to the next.
const QUIET: Duration = Duration::from_secs(60);

/// RejectReason something was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// Not a frame of muster.
    Foreign,
    /// Not sealed, while we seal.
    Plain,
    /// Sealed, while we do not.
    Sealed,
    /// Sealed with a key that we do not have.
    UnknownKey,
    /// Not sealed by who has the key, or changed on the way.
    Forged,
    /// Meant for another run or another node.
    Elsewhere,
    /// Received before.
    Replayed,
    /// Sent by ourselves.
    Own,
    /// Sealed rightly, and no message of ours.
    Malformed,
    /// A record of a node's state that breaks a bound.
    Record,
    /// More than we could take.
    Overload,
}

/// All reasons, with the word that counters and logs have for it.
const REASONS: [(RejectReason, &str); 11] = [
    (RejectReason::Foreign, "foreign"),
    (RejectReason::Plain, "not sealed"),
    (RejectReason::Sealed, "sealed"),
    (RejectReason::UnknownKey, "unknown key"),
    (RejectReason::Forged, "forged"),
    (RejectReason::Elsewhere, "for another run"),
    (RejectReason::Replayed, "replayed"),
    (RejectReason::Own, "own"),
    (RejectReason::Malformed, "malformed"),
    (RejectReason::Record, "bad record"),
    (RejectReason::Overload, "overload"),
];

impl RejectReason {
    /// The reason of a frame that could not be opened.
    pub fn of(refused: &OpenError) -> Self {
        match refused {
            OpenError::TooShort | OpenError::TooLong | OpenError::NotOurs => Self::Foreign,
            OpenError::Plain => Self::Plain,
            OpenError::Sealed => Self::Sealed,
            OpenError::UnknownKey(_) => Self::UnknownKey,
            OpenError::Forged => Self::Forged,
            OpenError::Elsewhere { .. } => Self::Elsewhere,
            OpenError::Replayed => Self::Replayed,
            OpenError::Own => Self::Own,
        }
    }

    /// What the operator can do about it; `None` where it happens in every cluster.
    fn advice(self) -> Option<&'static str> {
        match self {
            Self::Plain => Some("a node there has no gossip.key_file, or somebody probes the port"),
            Self::Sealed => Some("other nodes seal their gossip: set gossip.key_file"),
            Self::UnknownKey => Some("a node there has another gossip key: `muster keyring list` shows ours"),
            Self::Foreign | Self::Forged | Self::Replayed => Some("somebody sends what no node of this cluster sends"),
            Self::Malformed | Self::Record => Some("a node there may run another version"),
            Self::Overload => Some("more gossip arrives than this host can take"),
            Self::Elsewhere | Self::Own => None,
        }
    }
}

/// The counters.
#[derive(Debug, Default)]
pub struct Rejected {
    counts: [AtomicU64; REASONS.len()],
    last: Mutex<Report>,
}

#[derive(Debug, Default)]
struct Report {
    at: Option<Instant>,
    told: [u64; REASONS.len()],
    source: Option<(RejectReason, String)>,
}

impl Rejected {
    /// Counts one.
    pub fn count(&self, why: RejectReason, source: SocketAddr) {
        self.counts[why as usize].fetch_add(1, Ordering::Relaxed);
        if why.advice().is_some()
            && let Ok(mut last) = self.last.lock()
        {
            last.source = Some((why, source.to_string()));
        }
    }

    /// Counts a record of a node's state.
    pub fn record(&self, node: &str, what: &str) {
        self.counts[RejectReason::Record as usize].fetch_add(1, Ordering::Relaxed);
        if let Ok(mut last) = self.last.lock() {
            last.source = Some((RejectReason::Record, format!("{node} ({what})")));
        }
    }

    /// The counts that are not zero.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.all().filter(|(_, count)| *count > 0).collect()
    }

    /// The counts of all reasons.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.iter().zip(&self.counts).map(|((_, word), count)| (*word, count.load(Ordering::Relaxed)))
    }

    /// Writes to the log what came since the last line, if that was long enough ago.
    pub fn report(&self) {
        let Ok(mut last) = self.last.lock() else { return };
        if last.at.is_some_and(|at| at.elapsed() < QUIET) {
            return;
        }
        let Some((why, source)) = last.source.take() else { return };
        let mut new = Vec::new();
        for (at, (reason, word)) in REASONS.iter().enumerate() {
            let count = self.counts[at].load(Ordering::Relaxed);
            if count > last.told[at] && reason.advice().is_some() {
                new.push(format!("{} {word}", count - last.told[at]));
            }
            last.told[at] = count;
        }
        last.at = Some(Instant::now());
        warn!(rejected = new.join(", "), last = %source, "gossip that was not let in: {}", why.advice().unwrap_or_default());
    }
}
