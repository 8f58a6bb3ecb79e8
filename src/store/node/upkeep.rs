//! Upkeep of this node's member: starts it, starts it again after a failed write, and cuts the log.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{founding::found, local::Local, member::Node};
use crate::metrics::StoreFigures;

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Pause before a member starts again after a failed write: a full disk is not emptied at once.
const RESTART: Duration = Duration::from_secs(5);
/// Octets of the log, beyond those of the state, from which a snapshot is taken.
const MAX_LOG: u64 = 128 << 20;
/// Least time between two snapshots, so that a slow disk is not busy with them alone.
const BETWEEN_SNAPSHOTS: Duration = Duration::from_secs(30);

/// Looks after the member until the task is dropped.
pub(super) async fn run(node: Node, voters: Vec<String>) {
    let is_named = voters.iter().any(|voter| **voter == *node.own);
    loop {
        if is_named || node.has_id() {
            node.prepare().await;
        }
        let Some(local) = node.member() else {
            sleep(RESTART).await;
            continue;
        };
        if is_named {
            tokio::select! {
                () = found(&node, &local, &voters) => {}
                () = failed(&node) => {}
            }
        }
        drop(local);
        cut_log_until_failure(&node).await;
        let error = node.member().and_then(|local| local.voter.failure()).unwrap_or_default();
        warn!(error, "store: the log could not be written; starting again from disk");
        node.end().await;
        sleep(RESTART).await;
    }
}

/// Waits until the member cannot write.
async fn failed(node: &Node) {
    while node.member().is_some_and(|local| !local.voter.has_failed()) {
        sleep(PERIOD).await;
    }
}

/// Takes snapshots while the log is long, until the member cannot write.
async fn cut_log_until_failure(node: &Node) {
    let mut last_snapshot = None::<Instant>;
    while let Some(local) = node.member().filter(|local| !local.voter.has_failed()) {
        let totals = local.voter.state().totals();
        let is_long = local.voter.log_octets() > MAX_LOG + totals.octets + totals.history_octets;
        if is_long && last_snapshot.is_none_or(|last| last.elapsed() >= BETWEEN_SNAPSHOTS) {
            last_snapshot = Some(Instant::now());
            local.voter.take_snapshot().await;
        }
        node.metrics.set(Some(figures(&local)));
        sleep(PERIOD).await;
    }
}

/// The state of the member for the metrics.
fn figures(local: &Local) -> StoreFigures {
    let (role, state, is_leader) = (local.voter.role(), local.voter.state(), local.is_leader());
    let totals = state.totals();
    let lags = role.members.iter().map(|member| role.lag(member.id));
    StoreFigures {
        has_leader: local.leader(&role).is_some(),
        is_leader,
        term: role.term,
        revision: state.revision().0,
        keys: totals.keys,
        lifetimes: totals.sessions + totals.leases,
        octets: totals.octets,
        max_octets: state.max_octets(),
        log_octets: local.voter.log_octets(),
        voters: role.members.iter().filter(|member| member.is_voter).count() as u64,
        lag: if is_leader { lags.max().unwrap_or(0) } else { 0 },
    }
}
