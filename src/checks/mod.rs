//! Health checks: definitions in, announcements out.
//!
//! ```text
//! definitions ──► owner ── starts, keeps, cancels ──► task (one a check) ── ticks ──► prober ──► http, tcp, grpc, …
//!                  │  ▲                                 │
//!                  │  └──── standings that changed ─────┘
//!                  ▼
//!             announcements
//! ```
//!
//! Two more things decide: what operators hold back (`maintenance`), and what applications report of themselves (`beats`).
//!
//! [`run`] is the way in. `owner` holds what is loaded and publishes whole states; `task` is one check's life: it
//! waits for its next tick (`schedule`), asks (`probe`) and remembers (`model::health`). `probe` keeps the time-outs
//! and the bounds on sockets and processes, and hands each kind of check to the file of its name; `connect`, `tls` and
//! `process` are what those share. `alias` is no probe: the owner computes it from the standings it has. `failure`
//! has the words in which all of them say why something is not well.
//!
//! Steady checks cost the owner nothing: a task reports only a standing that changed, over a bounded channel, so the
//! owner's backlog never exceeds one report a check.

mod alias;
mod connect;
mod error;
mod exec;
#[cfg(test)]
mod fixtures;
mod grpc;
mod http;
mod probe;
mod process;
mod runner;
mod scheduler;
mod systemd;
mod tcp;
mod ticks;
mod tls;

pub use self::tls::system_roots;

use std::{path::PathBuf, sync::Arc};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    model::{
        announcement::Announcements,
        maintenance::{Maintenance, TtlReport},
        service::Definitions,
    },
};

/// Exec and systemd probes that run at once. If every one of them hangs for a time-out of 2 s, 64 a second still come
/// to their turn; commands of 50 ms come to 2,500 a second. More would press the host that the checks should protect.
pub const MAX_PROCESSES: usize = 128;
/// Network probes that run at once, however many files the process may open. If every one of them hangs for a time-out
/// of 2 s, 2,000 a second still come to their turn, which is 20,000 checks of 10 s; each takes some 20 KB.
pub const MAX_SOCKETS: usize = 4096;
/// The program asked for the state of units, found where programs usually are.
pub const SYSTEMCTL: &str = "systemctl";
/// Open files where the system does not tell the limit: what Linux gives a process by default.
const USUAL_OPEN_FILES: u64 = 1024;

/// What the operator and the host decide for all checks.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether exec checks may run; where not, they are critical and say so. Service files with such checks are
    /// refused earlier: this is the second lock.
    pub allow_exec: bool,
    /// The systemctl program: a path, or a name to be found.
    pub systemctl: PathBuf,
    /// Network probes that are under way at once, each with a socket of its own; at least 1. A probe that finds none
    /// free starts late rather than failing.
    pub sockets: usize,
    /// Exec and systemd probes that are under way at once; at least 1.
    pub processes: usize,
    /// Decides how the checks are spread over time.
    pub seed: u64,
    /// Where probes and their results are counted.
    pub metrics: metrics::Checks,
}

impl Options {
    /// For this process as it is now: half of the files that it may open are for probes, the other half for those
    /// who ask. Raise the limit first. What is counted nobody sees.
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

/// What decides how instances stand, besides probes.
pub struct Inputs {
    /// What there is to check and to announce.
    pub definitions: watch::Receiver<Definitions>,
    /// What is held back whatever its checks find.
    pub maintenance: watch::Receiver<Maintenance>,
    /// What applications report about themselves. One for a check that is not there is passed over: whoever passes it
    /// on knows which there are.
    pub beats: mpsc::Receiver<TtlReport>,
}

/// Probes what `definitions` holds until `shutdown`, and keeps `announcements` up to date.
///
/// Every definition is announced as soon as it is seen, with its checks' initial standing. When this returns, or is
/// dropped, all probes have been cancelled: connections are closed and process groups killed.
pub async fn run(
    inputs: Inputs,
    announcements: watch::Sender<Announcements>,
    options: Options,
    shutdown: CancellationToken,
) {
    let (seed, metrics) = (options.seed, options.metrics.clone());
    let prober = Arc::new(probe::Prober::new(options));
    let ask: runner::Ask = Arc::new(move |check| {
        let prober = Arc::clone(&prober);
        Box::pin(async move { prober.probe(&check).await })
    });
    scheduler::run(inputs, announcements, ask, seed, metrics, shutdown).await;
}
