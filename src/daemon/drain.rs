//! The drain of an agent that stops.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::model::announcement::Announcements;

/// Maximum wait of a draining agent until TTLs expire. Instances with longer TTLs are rarely stopped with their host, and a
/// shutdown of the host must not take minutes.
pub const MAX_DRAIN: Duration = Duration::from_secs(30);
/// Maximum wait of a draining agent until its own answers omit its instances.
const WITHDRAW: Duration = Duration::from_secs(2);
/// A node whose instances are being withdrawn.
pub(super) struct Drain {
    /// Time for which caches may still have answers with this node's instances; set when all are withdrawn.
    pub(super) withdrawn: watch::Receiver<Option<Duration>>,
    /// This node's announcements.
    pub(super) announcements: watch::Receiver<Announcements>,
}

/// Waits until no cache holds an answer with this node's instances.
pub(super) async fn drained(Drain { mut withdrawn, mut announcements }: Drain) {
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
