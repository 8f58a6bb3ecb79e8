//! The task's own time: work that no message causes.
//!
//! At rest the task wakes for the failure detector only, and for its other work along with that.

use std::time::Duration;

use tokio::time::Instant;

use super::Task;
use crate::gossip::anti_entropy::HOUSEKEEPING;

/// Longest pause between two ticks: rejected messages are shown, and changed views published, within this time.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Part of the gossip interval between two ticks while work is pending.
const STEP: u32 = 4;
/// Shortest interval between counts of the replicated keys. A count takes some milliseconds with 100,000 instances.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Times of the work that is done at intervals.
pub(super) struct Ticks {
    last: Instant,
    housekeeping: Instant,
    count: Instant,
    /// True if the number of replicated keys may have changed since the last count.
    pub(super) recount: bool,
}

impl Ticks {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, housekeeping: now, count: now, recount: true }
    }
}

impl Task {
    /// Time of the next tick, which every event may change.
    pub(super) fn next_tick(&self) -> Instant {
        let last = self.ticks.last;
        if self.is_pending() {
            return last + self.settings.interval / STEP;
        }
        let due = self.liveness.due().map(|due| self.started + due);
        due.map_or(last + LONGEST_PAUSE, |due| due.min(last + LONGEST_PAUSE))
    }

    /// Reports whether work is pending that is done step by step.
    fn is_pending(&self) -> bool {
        self.delivering
            || self.agreement.is_pending()
            || self.repeats.is_pending()
            || self.rotations.is_pending()
            || self.bulk.is_under_way()
            || !self.joins.is_empty()
            || !*self.outputs.synced.borrow()
    }

    /// Does the work that is due. Sets the time of the next read to an earlier one if necessary.
    pub(super) async fn tick(&mut self, read_at: &mut Option<Instant>) {
        let now = Instant::now();
        self.ticks.last = now;
        self.liveness.tick(self.now());
        if now >= self.ticks.housekeeping {
            self.ticks.housekeeping = now + HOUSEKEEPING;
            self.cluster.keep_alive().await;
            read_at.get_or_insert(now);
        }
        // The end of a whole delivery shows by the lack of further changes.
        if self.delivering {
            read_at.get_or_insert(now + self.settings.interval / 2);
        }
        if self.ticks.recount && now >= self.ticks.count {
            self.ticks.count = now + COUNT_INTERVAL;
            let keys = self.cluster.keys().await;
            // Deleted keys disappear without a notification.
            self.ticks.recount = keys.deleted > 0;
            self.inputs.metrics.set_keys(keys);
        }
        self.exchange();
        self.request_bulk().await;
        self.repeat_pushes();
        self.expire_joins();
        self.rotate_keys();
        self.expire_bulk();
        self.compare_views().await;
        self.publish_membership();
    }
}
