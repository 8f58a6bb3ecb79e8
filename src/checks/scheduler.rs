//! Scheduler of all checks, of instances and of the node: starts, keeps and cancels them as definitions change, and publishes announcements as statuses
//! change. Inputs and outputs are whole snapshots.
//!
//! Effects of a reload on checks:
//! - An unchanged check keeps its task, its phase in the interval and its counted results, whatever else of its instance
//!   or file changed.
//! - A removed check is cancelled, with all its work.
//! - A check that is new to an existing instance (for example, after an edit of its URL) starts with the status of the
//!   instance, until its own results change it. A reload alone neither removes an instance from DNS nor adds one; `initial` applies to
//!   instances that are new or were disabled.
//!
//! At the start of the agent, `restore` continues from the results of the former agent. A reload of the configuration ends
//! the scheduler and starts another one: `end` hands over the exact state of each check.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use smol_str::SmolStr;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::{debug, info, warn};

mod aliases;
mod clock;
mod end;
mod node_health;
mod restore;
mod tracked;
mod ttl;

use self::{
    clock::Clock,
    node_health::NodeHealth,
    restore::Start,
    tracked::{Task, TrackedCheck, TrackedInstance, Work},
};
use super::{
    Checked, Inputs, Outputs,
    runner::{CheckUpdate, Memory, ProbeFn, Runner},
    ticks::Ticks,
};
use crate::{
    clock::unix_seconds,
    metrics::Checks,
    model::{
        announcement::{Announcement, Announcements, HoldReason, InstanceState},
        check_results::{CheckResults, Former},
        maintenance::{Maintenance, Scope},
        report_texts::ReportTexts,
        service::{AliasTarget, Check, Definition, Definitions, InstanceKey, Probe, instance_ref::InstanceRef},
    },
};

/// Capacity of the update channel; a runner whose update finds no room waits, and probes later.
const REPORTS: usize = 1024;
/// Added to the time of a re-evaluation, so that the state has changed by then.
const TICK: Duration = Duration::from_millis(1);
/// Reason of a check without results that is not passing.
const NO_RESULT: &str = "no result yet";

/// Runs until `shutdown`, then cancels all checks and waits for their work to end.
pub(super) async fn run(
    inputs: Inputs,
    outputs: Outputs,
    probe: ProbeFn,
    seed: u64,
    metrics: Checks,
    shutdown: CancellationToken,
) {
    let Inputs { mut definitions, node, mut node_checks, mut maintenance, mut ttl_reports, former } = inputs;
    let (reports, mut inbox) = mpsc::channel(REPORTS);
    let tasks = TaskTracker::new();
    let mut scheduler = Scheduler {
        probe,
        reports,
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
        started: 0,
        random: fastrand::Rng::with_seed(seed),
        definitions: Definitions::new(),
        maintenance: maintenance.borrow_and_update().clone(),
        instances: BTreeMap::new(),
        node: NodeHealth::new(node),
        held_texts: BTreeSet::new(),
        expiries: BTreeSet::new(),
        clock: Clock::start(),
        former,
        wakes: BTreeSet::new(),
        alias_targets: HashSet::new(),
        outputs,
        published: Announcements::new(),
        results: CheckResults::new(),
        texts: ReportTexts::new(),
        metrics,
    };
    let loaded = node_checks.borrow_and_update().clone();
    scheduler.load_node_checks(&loaded);
    let loaded = definitions.borrow_and_update().clone();
    scheduler.load(loaded);
    // Instances that are defined later are new.
    scheduler.former = Former::default();
    let all = scheduler.instances.values().chain([&scheduler.node.tracked]);
    let checks = all.flat_map(|tracked| &tracked.checks);
    let restored = checks.filter(|check| check.unconfirmed).count();
    if restored > 0 {
        info!(checks = restored, "checks continue from their results before the restart");
    }
    let mut batch = Vec::with_capacity(REPORTS);
    let (mut definitions_open, mut node_checks_open, mut maintenance_open) = (true, true, true);
    loop {
        let expiry = scheduler.expiries.first().map(|(at, ..)| *at);
        let wake = scheduler.wakes.first().map(|(at, _)| scheduler.clock.instant(*at));
        let text = scheduler.held_texts.first().map(|(at, ..)| *at);
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = definitions.changed(), if definitions_open => {
                definitions_open = changed.is_ok();
                let loaded = definitions.borrow_and_update().clone();
                scheduler.load(loaded);
            }
            changed = node_checks.changed(), if node_checks_open => {
                node_checks_open = changed.is_ok();
                let loaded = node_checks.borrow_and_update().clone();
                scheduler.load_node_checks(&loaded);
            }
            changed = maintenance.changed(), if maintenance_open => {
                maintenance_open = changed.is_ok();
                let now = maintenance.borrow_and_update().clone();
                scheduler.set_maintenance(now);
            }
            Some(report) = ttl_reports.recv() => scheduler.apply_ttl_report(report),
            () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => scheduler.expire(),
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => scheduler.reevaluate(),
            () = sleep_until(text.unwrap_or_else(Instant::now)), if text.is_some() => scheduler.release_texts(),
            _ = inbox.recv_many(&mut batch, REPORTS) => scheduler.apply_updates(batch.drain(..)),
        }
    }
    scheduler.end(inbox).await;
    tasks.close();
    tasks.wait().await;
}

struct Scheduler {
    probe: ProbeFn,
    reports: mpsc::Sender<CheckUpdate>,
    tasks: TaskTracker,
    /// Ends the tasks.
    shutdown: CancellationToken,
    /// Number of tasks started so far, which numbers them.
    started: u64,
    random: fastrand::Rng,
    definitions: Definitions,
    maintenance: Maintenance,
    instances: BTreeMap<InstanceRef, TrackedInstance>,
    node: NodeHealth,
    /// Expiry of the last report of each TTL check.
    expiries: BTreeSet<(Instant, Scope, SmolStr)>,
    /// TTL checks whose new text is published later, with that time.
    held_texts: BTreeSet<(Instant, Scope, SmolStr)>,
    clock: Clock,
    /// Results from before a restart of the agent, for the first definitions.
    former: Former,
    /// Uptimes at which the state of an instance changes by itself: a hold for flapping ends, or a weight
    /// ramps up.
    wakes: BTreeSet<(Duration, InstanceKey)>,
    /// Targets of aliases: only their changes can change an alias.
    alias_targets: HashSet<AliasTarget>,
    outputs: Outputs,
    published: Announcements,
    results: CheckResults,
    texts: ReportTexts,
    /// Counters of status changes.
    metrics: Checks,
}

impl Scheduler {
    /// Applies new definitions.
    fn load(&mut self, definitions: Definitions) {
        let before = std::mem::replace(&mut self.definitions, definitions);
        let definitions = self.definitions.clone();
        let (mut touched, mut added) = (Vec::new(), Vec::new());
        for change in before.diff(&definitions) {
            use imbl::ordmap::DiffItem;
            let (key, definition) = match change {
                DiffItem::Add(key, new) | DiffItem::Update { new: (key, new), .. } => (key, Some(new)),
                DiffItem::Remove(key, _) => (key, None),
            };
            let scope = Scope::Instance(InstanceKey::clone(key));
            let former = self.instances.remove(key);
            former.iter().for_each(|former| self.forget_reports(&scope, former));
            if let Some(definition) = definition {
                let tracked = match former {
                    Some(former) => self.redefine(&scope, definition, former),
                    None => self.restore(&scope, definition),
                };
                self.remember_reports(&scope, &tracked);
                added.push((key.clone(), tracked));
            }
            touched.push(scope);
        }
        if self.instances.is_empty() {
            // Much faster than one by one, for the first definitions, and with full nodes of the map.
            self.instances = added.into_iter().collect();
        } else {
            self.instances.extend(added);
        }
        let mut touched: BTreeSet<_> = touched.into_iter().collect();
        debug!(changed = touched.len(), instances = definitions.len(), "definitions loaded");
        self.collect_alias_targets();
        // A new alias needs its first status, and the service of an existing one may have been added or removed.
        self.update_aliases(&mut touched);
        self.publish(&touched);
    }

    /// Returns the checks of an instance or of the node.
    fn tracked(&mut self, scope: &Scope) -> Option<&mut TrackedInstance> {
        match scope {
            Scope::Node => Some(&mut self.node.tracked),
            Scope::Instance(key) => self.instances.get_mut(key),
        }
    }

    /// Applies updates of runners.
    fn apply_updates(&mut self, reports: impl Iterator<Item = CheckUpdate>) {
        let metrics = self.metrics.clone();
        let mut touched = BTreeSet::new();
        for report in reports {
            let Some(tracked) = self.tracked(&report.scope) else { continue };
            let of_report = |check_state: &TrackedCheck| matches!(&check_state.work, Work::Task(task) if task.number == report.task);
            let Some(index) = tracked.checks.iter().position(of_report) else { continue };
            let check = &tracked.definition.checks[index];
            tracked.checks[index].set_status(&report.scope, check, report.status, report.reason, &metrics);
            touched.insert(report.scope);
        }
        if touched.iter().any(|scope| self.is_alias_target(scope)) {
            self.update_aliases(&mut touched);
        }
        self.publish(&touched);
    }

    /// Keeps unchanged checks of an instance, starts new ones and cancels the others.
    fn redefine(&mut self, scope: &Scope, definition: &Arc<Definition>, former: TrackedInstance) -> TrackedInstance {
        // A check that is new to the node starts at its initial status: it has nothing to do with the others.
        let inherits = former.definition.enabled && *scope != Scope::Node;
        let inherited = inherits.then(|| {
            let (status, reason) = former.worst_status();
            (status, Arc::from(reason))
        });
        let mut kept: Vec<(&Check, TrackedCheck)> = former.definition.checks.iter().zip(former.checks).collect();
        let wanted = if definition.enabled { definition.checks.as_slice() } else { &[] };
        let checks = wanted
            .iter()
            .map(|check| match kept.iter().position(|(former, _)| *former == check) {
                Some(same) => kept.swap_remove(same).1,
                None => {
                    let start = inherited.clone().map(|(status, reason)| Start::new(status, reason));
                    self.start(scope, check, start.unwrap_or_else(|| Start::initial(check)))
                }
            })
            .collect();
        drop(kept);
        TrackedInstance { definition: Arc::clone(definition), checks, ..former }
    }

    fn start(&mut self, scope: &Scope, check: &Check, start: Start) -> TrackedCheck {
        let Start { status, reason, since, unconfirmed, expires, progress } = start;
        let work = match &check.probe {
            Probe::Alias(_) => Some(Work::Alias),
            Probe::Ttl { ttl } => Some(Work::Reports(expires.unwrap_or_else(|| Instant::now() + *ttl))),
            _ => None,
        };
        if let Some(work) = work {
            return TrackedCheck { status, reason, since, unconfirmed, work, text: None };
        }
        let known = Arc::clone(&reason);
        let (memory, ticks) = match progress {
            Some(progress) => end::resume(check, progress, known, &self.clock),
            None => {
                let ticks = Ticks::new(Instant::now(), check.interval, self.random.f64());
                (Memory::new(check, status, known, unconfirmed), ticks)
            }
        };
        self.started += 1;
        let runner = Runner {
            scope: scope.clone(),
            task: self.started,
            check: Arc::new(check.clone()),
            memory,
            ticks,
            probe: Arc::clone(&self.probe),
            reports: self.reports.clone(),
        };
        let handle = AbortOnDropHandle::new(self.tasks.spawn(runner.run(self.shutdown.clone())));
        let work = Work::Task(Task { number: self.started, handle, progress: None });
        TrackedCheck { status, reason, since, unconfirmed, work, text: None }
    }

    /// Applies new holds.
    fn set_maintenance(&mut self, maintenance: Maintenance) {
        self.maintenance = maintenance;
        let mut all = self.all_instances();
        all.insert(Scope::Node);
        self.publish(&all);
    }

    fn all_instances(&self) -> BTreeSet<Scope> {
        self.instances.keys().map(|key| Scope::Instance(InstanceKey::clone(key))).collect()
    }

    /// Re-evaluates instances whose state changes by itself.
    fn reevaluate(&mut self) {
        let now = self.clock.now();
        let mut due = BTreeSet::new();
        while self.wakes.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(self.wakes.pop_first().map(|(_, key)| Scope::Instance(key)));
        }
        self.publish(&due);
    }

    /// Publishes the changes of the instances and the node `touched` in one update. If the node becomes critical, or no longer
    /// is, all instances change.
    fn publish(&mut self, touched: &BTreeSet<Scope>) {
        let (mut changed, mut results_changed) = (false, false);
        let now = self.clock.now();
        let mut all = None;
        if touched.contains(&Scope::Node) {
            if self.node.evaluate(&self.maintenance) {
                all = Some(self.all_instances());
            }
            results_changed |= self.set_results(&Scope::Node);
            changed |= self.outputs.checked.borrow().node_report != self.node.report;
        }
        for scope in all.as_ref().unwrap_or(touched) {
            let Scope::Instance(key) = scope else { continue };
            let Some(tracked) = self.instances.get_mut(key) else {
                changed |= self.published.remove(key).is_some();
                results_changed |= self.results.remove(scope).is_some();
                continue;
            };
            let (state, next) = tracked.evaluate(&self.maintenance, &self.node.status, now);
            if let Some(next) = next {
                self.wakes.insert((next, key.clone()));
            }
            let before = tracked.state.replace(state.clone());
            log_hold(key, before.as_ref(), &state);
            if before.is_some_and(|before| std::mem::discriminant(&before) != std::mem::discriminant(&state)) {
                tracked.since = unix_seconds();
            }
            let report = tracked.report(&state);
            let instance = Arc::clone(&tracked.definition.instance);
            results_changed |= self.set_results(scope);
            let announcement = Announcement { instance, state, report };
            if self.published.get(key).is_none_or(|before| **before != announcement) {
                self.published.insert(InstanceRef::from(&announcement.instance), Arc::new(announcement));
                changed = true;
            }
        }
        if changed {
            let (announcements, node_report) = (self.published.clone(), self.node.report.clone());
            self.outputs.checked.send_replace(Checked { announcements, node_report });
        }
        if results_changed {
            self.outputs.results.send_replace(self.results.clone());
        }
        self.publish_texts();
    }

    /// Sets the results to store of an instance or the node; reports whether they changed.
    fn set_results(&mut self, scope: &Scope) -> bool {
        let clock = self.clock;
        let results = self.tracked(scope).and_then(|tracked| tracked.results(&clock));
        if self.results.get(scope).map(|before| &**before) == results.as_ref() {
            return false;
        }
        match results {
            Some(results) => drop(self.results.insert(scope.clone(), Arc::new(results))),
            None => drop(self.results.remove(scope)),
        }
        true
    }
}

/// Logs the start and end of a hold. Results of checks are logged by check.
fn log_hold(key: &InstanceKey, before: Option<&InstanceState>, now: &InstanceState) {
    let (service, id) = (&key.service, &key.id);
    let held = |state: &InstanceState| match state {
        InstanceState::Withheld(hold, _) => Some(*hold),
        _ => None,
    };
    let was = before.and_then(held);
    match now {
        InstanceState::Withheld(hold, _) if was == Some(*hold) => {}
        InstanceState::Withheld(HoldReason::Flapping, reason) => {
            warn!(%service, %id, hold = HoldReason::Flapping.as_str(), %reason, "instance withheld: flapping");
        }
        InstanceState::Withheld(hold, reason) => {
            info!(%service, %id, hold = hold.as_str(), %reason, "instance withheld: {}", hold.words());
        }
        _ if was.is_some() => info!(%service, %id, "instance no longer withheld"),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
