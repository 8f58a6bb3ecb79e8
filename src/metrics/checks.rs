//! Probes: how many, what they found, how long they took; and how often checks turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Family, latency::Latency, writers::Writers};
use crate::model::{health::Status, service::Probe};

/// The kinds of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A request.
    Http,
    /// A connection.
    Tcp,
    /// The health protocol of gRPC.
    Grpc,
    /// A command.
    Exec,
    /// A unit of systemd.
    Systemd,
    /// Another service.
    Alias,
    /// What the application reports.
    Ttl,
}

impl Kind {
    /// All of them, with the words that service files have.
    pub(super) const ALL: [(Self, &'static str); 7] = [
        (Self::Http, "http"),
        (Self::Tcp, "tcp"),
        (Self::Grpc, "grpc"),
        (Self::Exec, "exec"),
        (Self::Systemd, "systemd"),
        (Self::Alias, "alias"),
        (Self::Ttl, "ttl"),
    ];
    /// How many of them, the first ones, are probed.
    const PROBED: usize = 5;

    /// The kind of a check.
    pub fn of(probe: &Probe) -> Self {
        match probe {
            Probe::Http(_) => Self::Http,
            Probe::Tcp(_) => Self::Tcp,
            Probe::Grpc { .. } => Self::Grpc,
            Probe::Exec { .. } => Self::Exec,
            Probe::Systemd { .. } => Self::Systemd,
            Probe::Alias { .. } => Self::Alias,
            Probe::Ttl { .. } => Self::Ttl,
        }
    }
}

/// All statuses, with their words.
pub(super) const STATUSES: [Status; 3] = [Status::Passing, Status::Warning, Status::Critical];

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// This.
    Found(Status),
    /// Nothing: it could not run, for want of what a probe takes.
    NotRun,
}

const PROBED: [(ProbeResult, &str); 4] = [
    (ProbeResult::Found(Status::Passing), "passing"),
    (ProbeResult::Found(Status::Warning), "warning"),
    (ProbeResult::Found(Status::Critical), "critical"),
    (ProbeResult::NotRun, "not-run"),
];

/// Of one kind.
#[derive(Debug, Default)]
struct Counts {
    found: [AtomicU64; PROBED.len()],
    latency: Latency,
    turned: [AtomicU64; STATUSES.len()],
}

/// All probes of an agent.
#[derive(Clone, Debug, Default)]
pub struct Checks(Arc<[Counts; Kind::ALL.len()]>);

impl Checks {
    /// A probe of that kind has ended.
    pub fn probed(&self, kind: Kind, probed: ProbeResult, took: Duration) {
        let of_kind = &self.0[kind as usize];
        let at = match probed {
            ProbeResult::Found(status) => status as usize,
            ProbeResult::NotRun => PROBED.len() - 1,
        };
        Writers::Many.add(&of_kind.found[at], 1);
        if probed != ProbeResult::NotRun {
            of_kind.latency.add(Writers::Many, took, 1);
        }
    }

    /// A check has turned to a status.
    pub fn turned(&self, kind: Kind, to: Status) {
        Writers::Many.add(&self.0[kind as usize].turned[to as usize], 1);
    }

    pub(super) fn families(&self) -> [Family; 3] {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let kinds = || Kind::ALL.iter().zip(self.0.iter());
        let found = kinds().take(Kind::PROBED).flat_map(|((_, kind), counts)| {
            let each = PROBED.iter().zip(&counts.found);
            each.map(move |((_, word), number)| ([("kind", *kind), ("result", *word)], load(number)))
        });
        let latency =
            kinds().take(Kind::PROBED).map(|((_, kind), counts)| ([("kind", *kind)], counts.latency.observed()));
        let turned = kinds().flat_map(|((_, kind), counts)| {
            let each = STATUSES.iter().zip(&counts.turned);
            each.map(move |(status, number)| ([("kind", *kind), ("status", status.as_str())], load(number)))
        });
        [
            Family::counters("muster_probes", "Probes, by kind and what they found", found),
            Family::histograms(
                "muster_probe_duration_seconds",
                "How long probes took; one that has no answer takes its check's time-out",
                latency,
            ),
            Family::counters(
                "muster_check_turns",
                "How often checks turned from one status to another, by kind and the new status",
                turned,
            ),
        ]
    }
}
