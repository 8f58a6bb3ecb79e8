//! Upkeep of this node's member: starts it, starts it again after a failed write, ends it once it was removed, and cuts the log.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{
    failure::Cause,
    founding::found,
    local::Local,
    log_limit::LogLimit,
    member::Node,
    removal::{end_removed, is_removed, may_be_removed},
};
use crate::metrics::{StoreFigures, StoreMember};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Pause before a member starts again after a failed write: a full disk is not emptied at once.
const RESTART: Duration = Duration::from_secs(5);
/// Time after which a member that has had nothing to write counts as one that can: longer than pauses between writes of a busy store.
const SOUND: Duration = Duration::from_secs(10);
/// Time between two questions whether the member was removed: longer than an election.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(2);

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
        if let End::Removed = look_after(&node, &voters).await {
            end_removed(&node).await;
            continue;
        }
        let (error, has_written) =
            node.member().map(|local| (local.voter.failure(), local.voter.has_written())).unwrap_or_default();
        let error = error.unwrap_or_default();
        if has_written {
            // Not the former failure, which lasts.
            node.failure.forget();
        }
        if let Some(error) = node.failure.note(&node.folder, &error, Cause::of(&error)) {
            warn!(error, "store: the log could not be written; starting again from disk");
        }
        node.end().await;
        node.metrics.set(StoreMember::Failed);
        sleep(RESTART).await;
    }
}

/// Waits until the member cannot write.
async fn failed(node: &Node) {
    while node.member().is_some_and(|local| !local.voter.has_failed()) {
        sleep(PERIOD).await;
    }
}

/// The end of a member.
enum End {
    /// It cannot write.
    Failed,
    /// It no longer belongs to the cluster.
    Removed,
}

/// Bounds the log, until the member ends.
async fn look_after(node: &Node, voters: &[String]) -> End {
    let mut log_limit = LogLimit::default();
    let mut last_question = Instant::now();
    let began = Instant::now();
    while let Some(local) = node.member().filter(|local| !local.voter.has_failed()) {
        log_limit.look(&local.voter).await;
        local.voter.write_committed();
        // Not at the start: on a full disk, a member starts and fails at its next write.
        if local.voter.has_written() || began.elapsed() >= SOUND {
            node.failure.clear();
        }
        // A member that does not belong to the cluster is no voter to those that look at the metrics.
        let is_voter = local.voter.is_voter();
        node.metrics.set(if is_voter { StoreMember::Voter(figures(&local)) } else { StoreMember::None });
        local.space_log.look(&local.voter.state());
        if may_be_removed(&local) && last_question.elapsed() >= BETWEEN_QUESTIONS {
            last_question = Instant::now();
            if is_removed(node, &local, voters).await {
                return End::Removed;
            }
        }
        // A fast writer fills many files within a period.
        tokio::select! {
            () = sleep(PERIOD) => {}
            () = local.voter.log_grows() => {}
        }
    }
    End::Failed
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
