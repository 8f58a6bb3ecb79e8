//! End of a scheduler: the exact state of its checks, and how the next scheduler of the process continues from it.

use std::{iter, sync::Arc};

use tokio::sync::mpsc;

use super::{
    Scheduler,
    clock::Clock,
    tracked::{TrackedCheck, Work},
};
use crate::{
    checks::{
        runner::{CheckUpdate, Memory},
        ticks::Ticks,
    },
    model::{check_results::Progress, maintenance::Scope, service::Check},
};

impl Scheduler {
    /// Waits for the end of all probes, which the shutdown cancels, and publishes the final results.
    pub(super) async fn end(mut self, mut inbox: mpsc::Receiver<CheckUpdate>) {
        let clock = self.clock;
        for check in self.all_checks() {
            if let Work::Task(task) = &mut check.work {
                // A task that panicked has no state: its check continues as after a restart.
                task.progress = (&mut task.handle).await.ok().map(|(memory, ticks)| progress(&memory, &ticks, &clock));
            }
            // A text that waits for its publication would be lost.
            if let Some(text) = check.held_text() {
                check.reason = text;
            }
        }
        self.apply_updates(iter::from_fn(|| inbox.try_recv().ok()));
        let mut all = self.all_instances();
        all.insert(Scope::Node);
        for scope in &all {
            self.set_results(scope);
        }
        self.outputs.results.send_replace(self.results);
    }

    fn all_checks(&mut self) -> impl Iterator<Item = &mut TrackedCheck> {
        self.instances.values_mut().chain([&mut self.node.tracked]).flat_map(|tracked| &mut tracked.checks)
    }
}

fn progress(memory: &Memory, ticks: &Ticks, clock: &Clock) -> Progress {
    let (next, second) = ticks.left();
    Progress {
        health: memory.health.clone(),
        reason_since: memory.since.map(|since| clock.uptime(since)),
        unconfirmed: memory.unconfirmed,
        next: clock.uptime(next),
        second: second.map(|second| clock.uptime(second)),
    }
}

/// Returns the state in which a check with a former state continues.
pub(super) fn resume(check: &Check, progress: Progress, reason: Arc<str>, clock: &Clock) -> (Memory, Ticks) {
    let Progress { health, reason_since, unconfirmed, next, second } = progress;
    let since = reason_since.map(|since| clock.instant(since));
    let left = (clock.instant(next), second.map(|second| clock.instant(second)));
    (Memory { health, reason, since, unconfirmed }, Ticks::resumed(check.interval, left))
}
