//! Metrics of checks: probes by result, their duration, and status changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Family, counter::Writers, latency::Latency};
use crate::model::{health::Status, service::Probe};

/// Kind of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// HTTP request.
    Http,
    /// TCP connection.
    Tcp,
    /// UDP datagram.
    Udp,
    /// gRPC health checking protocol.
    Grpc,
    /// HTTP/2 ping.
    H2Ping,
    /// Command.
    Exec,
    /// systemd unit.
    Systemd,
    /// Status of another service.
    Alias,
    /// Reports of the application.
    Ttl,
}

impl Kind {
    /// All kinds, with their words in service files.
    pub(super) const ALL: [(Self, &'static str); 9] = [
        (Self::Http, "http"),
        (Self::Tcp, "tcp"),
        (Self::Udp, "udp"),
        (Self::Grpc, "grpc"),
        (Self::H2Ping, "h2ping"),
        (Self::Exec, "exec"),
        (Self::Systemd, "systemd"),
        (Self::Alias, "alias"),
        (Self::Ttl, "ttl"),
    ];
    /// Number of leading kinds that execute probes.
    const PROBED: usize = 7;

    /// Returns the kind of a probe.
    pub fn of(probe: &Probe) -> Self {
        match probe {
            Probe::Http(_) => Self::Http,
            Probe::Tcp(_) => Self::Tcp,
            Probe::Udp(_) => Self::Udp,
            Probe::Grpc { .. } => Self::Grpc,
            Probe::H2Ping { .. } => Self::H2Ping,
            Probe::Exec { .. } => Self::Exec,
            Probe::Systemd { .. } => Self::Systemd,
            Probe::Alias(_) => Self::Alias,
            Probe::Ttl { .. } => Self::Ttl,
        }
    }
}

/// All statuses.
pub(super) const STATUSES: [Status; 3] = [Status::Passing, Status::Warning, Status::Critical];

/// Result of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// Status found.
    Found(Status),
    /// The probe could not run for lack of resources, such as file descriptors.
    NotRun,
}

const RESULTS: [(ProbeResult, &str); 4] = [
    (ProbeResult::Found(Status::Passing), "passing"),
    (ProbeResult::Found(Status::Warning), "warning"),
    (ProbeResult::Found(Status::Critical), "critical"),
    (ProbeResult::NotRun, "not-run"),
];

/// Counters of one kind.
#[derive(Debug, Default)]
struct Counts {
    found: [AtomicU64; RESULTS.len()],
    latency: Latency,
    status_changes: [AtomicU64; STATUSES.len()],
}

/// Metrics of all checks of an agent.
#[derive(Clone, Debug, Default)]
pub struct Checks(Arc<[Counts; Kind::ALL.len()]>);

impl Checks {
    /// Counts a finished probe and its duration.
    pub fn probed(&self, kind: Kind, result: ProbeResult, duration: Duration) {
        let of_kind = &self.0[kind as usize];
        let at = match result {
            ProbeResult::Found(status) => status as usize,
            ProbeResult::NotRun => RESULTS.len() - 1,
        };
        Writers::Many.add(&of_kind.found[at], 1);
        if result != ProbeResult::NotRun {
            of_kind.latency.add(Writers::Many, duration, 1);
        }
    }

    /// Counts a status change of a check.
    pub fn status_changed(&self, kind: Kind, to: Status) {
        Writers::Many.add(&self.0[kind as usize].status_changes[to as usize], 1);
    }

    pub(super) fn families(&self) -> [Family; 3] {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let kinds = || Kind::ALL.iter().zip(self.0.iter());
        let found = kinds().take(Kind::PROBED).flat_map(|((_, kind), counts)| {
            let each = RESULTS.iter().zip(&counts.found);
            each.map(move |((_, word), number)| ([("kind", *kind), ("result", *word)], load(number)))
        });
        let latency =
            kinds().take(Kind::PROBED).map(|((_, kind), counts)| ([("kind", *kind)], counts.latency.observed()));
        let status_changes = kinds().flat_map(|((_, kind), counts)| {
            let each = STATUSES.iter().zip(&counts.status_changes);
            each.map(move |(status, number)| ([("kind", *kind), ("status", status.as_str())], load(number)))
        });
        [
            Family::counters("muster_probes", "Number of probes, by kind and result", found),
            Family::histograms(
                "muster_probe_duration_seconds",
                "Duration of probes; an unanswered probe lasts until its timeout",
                latency,
            ),
            Family::counters(
                "muster_check_turns",
                "Number of status changes of checks, by kind and new status",
                status_changes,
            ),
        ]
    }
}
