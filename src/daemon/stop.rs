//! The end of an agent: waits for the reason, drains on request, and stops all tasks.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Signals, tasks::Tasks};
use crate::model::announcement::Announcements;

/// Maximum wait of a draining agent until TTLs expire. Instances with longer TTLs are rarely stopped with their host, and a
/// shutdown of the host must not take minutes.
pub const MAX_DRAIN: Duration = Duration::from_secs(30);
/// Maximum wait of a draining agent until its own answers omit its instances.
const WITHDRAW: Duration = Duration::from_secs(2);
/// Time limit for open connections and probes at a stop; systemd sends SIGKILL after 90 s.
const STOP: Duration = Duration::from_secs(5);

/// Inputs of a drain.
pub(super) struct Drain {
    /// Time for which caches may still have answers with this node's instances; set when all are withdrawn.
    pub(super) withdrawn: watch::Receiver<Option<Duration>>,
    /// This node's announcements.
    pub(super) announcements: watch::Receiver<Announcements>,
    /// Set when the agent begins to drain or to stop.
    pub(super) stopping: CancellationToken,
}

/// Runs until shutdown, the end of a drain, or the end of a task, then stops all tasks. Returns the name of a task that ended
/// by itself.
pub(super) async fn run_until_stopped(signals: &Signals, drain: Drain, tasks: &mut Tasks) -> Option<&'static str> {
    let stopping = drain.stopping.clone();
    let first = tokio::select! {
        // At a stop all tasks end, which is no defect.
        biased;
        () = signals.shutdown.cancelled() => None,
        () = drained(&signals.drain, drain) => None,
        ended = tasks.ended() => ended,
    };
    stopping.cancel();
    signals.shutdown.cancel();
    if timeout(STOP, async { while tasks.ended().await.is_some() {} }).await.is_err() {
        warn!("some tasks did not end within {STOP:?}; stopping without them");
    }
    first
}

/// Waits for the signal to drain, then until no cache holds an answer with this node's instances.
async fn drained(drain: &CancellationToken, Drain { mut withdrawn, mut announcements, stopping }: Drain) {
    drain.cancelled().await;
    stopping.cancel();
    let left = async {
        let left = *withdrawn.wait_for(Option::is_some).await.ok()?;
        let answered = |now: &Announcements| now.values().any(|known| known.state.is_answered());
        announcements.wait_for(|now| !answered(now)).await.ok()?;
        left
    };
    let left = timeout(WITHDRAW, left).await.ok().flatten().unwrap_or_default();
    if left > MAX_DRAIN {
        warn!(ttl = ?left, "cached answers may outlive the drain timeout of {MAX_DRAIN:?}");
    }
    let wait = left.min(MAX_DRAIN);
    if !wait.is_zero() {
        info!("drained: waiting {} s until cached answers expire", wait.as_secs());
        sleep(wait).await;
    }
}
