//! Health checks: definitions in, announcements out.
//!
//! ```text
//! definitions ──► scheduler ── starts, keeps, cancels ──► runner (one a check) ── ticks ──► prober ──► http, tcp, …
//!                  │  ▲                                    │
//!                  │  └───────── status changes ───────────┘
//!                  ▼
//!             announcements
//! ```
//!
//! Two more inputs decide the state of an instance: holds (`maintenance`) and the reports of TTL checks (`ttl_reports`).
//!
//! [`run`] is the entry point. `scheduler` owns the loaded checks and publishes whole snapshots. `runner` runs one check:
//! it waits for the next tick (`ticks`), probes (`probe`) and applies `rise` and `fall` (`model::health`). `probe` enforces
//! timeouts and the limits on sockets and processes, and calls the module of each kind of check. These share `connect`,
//! `tls`, `process` and `error`. Alias checks are not probed: the scheduler computes them from the statuses it has.
//!
//! Steady checks cost the scheduler nothing: a runner reports only changes, over a bounded channel, so the backlog never
//! exceeds one report per check.

mod alias;
mod connect;
mod error;
mod exec;
#[cfg(test)]
mod fixtures;
mod http;
mod http2;
mod probe;
mod process;
mod runner;
mod scheduler;
mod systemd;
mod tcp;
mod ticks;
mod tls;
mod udp;

use std::{path::PathBuf, sync::Arc};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    model::{
        announcement::{Announcements, HealthReport},
        check_results::{CheckResults, Former},
        maintenance::{Maintenance, TtlReport},
        name::Label,
        report_texts::ReportTexts,
        service::{Check, Definitions},
    },
};

/// Maximum number of concurrent exec and systemd probes. If each hangs until its timeout of 2 s, 64 still start per second;
/// commands of 50 ms reach 2,500 per second. More would overload the host that the checks protect.
pub const MAX_PROCESSES: usize = 128;
/// Maximum number of concurrent network probes, independent of the limit of open files. If each hangs until its timeout of
/// 2 s, 2,000 still start per second, which is 20,000 checks of 10 s. Each probe takes some 20 KB.
pub const MAX_SOCKETS: usize = 4096;
/// Program that shows the state of systemd units, searched for in the probes' PATH.
pub const SYSTEMCTL: &str = "systemctl";
/// Assumed limit of open files if the system does not report one: the default of Linux.
const USUAL_OPEN_FILES: u64 = 1024;

/// Settings of all checks.
#[derive(Clone, Debug)]
pub struct Options {
    /// Permits exec checks; otherwise they are critical. Service files with such checks are rejected earlier: this is the
    /// second safeguard.
    pub allow_exec: bool,
    /// Path or name of the systemctl program.
    pub systemctl: PathBuf,
    /// Maximum number of concurrent network probes, each with its own socket; at least 1. A probe above the limit starts
    /// late rather than failing.
    pub sockets: usize,
    /// Maximum number of concurrent exec and systemd probes; at least 1.
    pub processes: usize,
    /// Seed of the random spread of checks over their interval.
    pub seed: u64,
    /// Counters of probes and their results.
    pub metrics: metrics::Checks,
}

impl Options {
    /// Returns options for the current limits of this process: probes get half of the open files, the servers the other
    /// half. Raise the limit first. The counters are not exported.
    pub fn for_this_process(allow_exec: bool, seed: u64) -> Self {
        let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(USUAL_OPEN_FILES, |(soft, _)| soft);
        Self {
            allow_exec,
            systemctl: SYSTEMCTL.into(),
            sockets: usize::try_from(open_files / 2).unwrap_or(usize::MAX).clamp(1, MAX_SOCKETS),
            processes: MAX_PROCESSES,
            seed,
            metrics: metrics::Checks::default(),
        }
    }
}

/// Inputs of the scheduler.
pub struct Inputs {
    /// Instances to check and announce.
    pub definitions: watch::Receiver<Definitions>,
    /// Name of the node.
    pub node: Label,
    /// Checks of the node as a whole. Their ids are set and unique.
    pub node_checks: watch::Receiver<Arc<[Check]>>,
    /// Holds, which withhold instances regardless of their checks.
    pub maintenance: watch::Receiver<Maintenance>,
    /// Reports of TTL checks. A report for an unknown check is ignored: the sender has verified that the check exists.
    pub ttl_reports: mpsc::Receiver<TtlReport>,
    /// Results from before a restart of the agent, for the first definitions.
    pub former: Former,
}

/// Statuses of one moment: a critical node and its withheld instances are one change.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Instances with their state.
    pub announcements: Announcements,
    /// Results of the node's checks, and its maintenance; `None` without any.
    pub node_report: Option<Arc<HealthReport>>,
}

/// Outputs of the scheduler.
pub struct Outputs {
    /// Instances with their state, and the results for the node.
    pub checked: watch::Sender<Checked>,
    /// Results of all checks, to be stored for the next start.
    pub results: watch::Sender<CheckResults>,
    /// Newest texts of TTL reports, which may be announced later.
    pub texts: watch::Sender<ReportTexts>,
}

/// Runs the checks of the definitions until `shutdown` and keeps the outputs up to date.
///
/// Every definition is announced at once: with the former results of its checks, or with their initial status. When this
/// returns, or is dropped, all probes are cancelled: connections are closed and process groups killed.
pub async fn run(inputs: Inputs, outputs: Outputs, options: Options, shutdown: CancellationToken) {
    let (seed, metrics) = (options.seed, options.metrics.clone());
    let prober = Arc::new(probe::Prober::new(options));
    let probe: runner::ProbeFn = Arc::new(move |check| {
        let prober = Arc::clone(&prober);
        Box::pin(async move { prober.probe(&check).await })
    });
    scheduler::run(inputs, outputs, probe, seed, metrics, shutdown).await;
}
