//! Scheduler of all checks: starts, keeps and cancels them as definitions change, and publishes announcements as statuses
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
//! At the start of the agent, `restore` continues from the results of the former agent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
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

mod restore;
mod tracked;

use self::{
    restore::Start,
    tracked::{Task, TrackedCheck, TrackedInstance, Work},
};
use super::{
    Inputs, Outputs, alias,
    runner::{self, CheckUpdate, Memory, ProbeFn},
    ticks::Ticks,
};
use crate::{
    clock::{unix_seconds, uptime},
    metrics::Checks,
    model::{
        announcement::{Announcement, Announcements, HoldReason, InstanceState, bounded},
        check_results::{CheckResults, Former},
        health::Status,
        maintenance::{Maintenance, TtlReport},
        registered_name::RegisteredName,
        service::{Check, Definition, Definitions, InstanceKey, Probe, instance_ref::InstanceRef},
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
    let Inputs { mut definitions, mut maintenance, mut ttl_reports, former } = inputs;
    let (reports, mut inbox) = mpsc::channel(REPORTS);
    let tasks = TaskTracker::new();
    let mut scheduler = Scheduler {
        probe,
        reports,
        tasks: tasks.clone(),
        started: 0,
        random: fastrand::Rng::with_seed(seed),
        definitions: Definitions::new(),
        maintenance: maintenance.borrow_and_update().clone(),
        instances: BTreeMap::new(),
        expiries: BTreeSet::new(),
        clock: Clock::start(),
        former,
        wakes: BTreeSet::new(),
        alias_targets: HashSet::new(),
        outputs,
        published: Announcements::new(),
        results: CheckResults::new(),
        metrics,
    };
    let loaded = definitions.borrow_and_update().clone();
    scheduler.load(loaded);
    // Instances that are defined later are new.
    scheduler.former = Former::default();
    let checks = scheduler.instances.values().flat_map(|tracked| &tracked.checks);
    let restored = checks.filter(|check| check.unconfirmed).count();
    if restored > 0 {
        info!(checks = restored, "checks continue from their results before the restart");
    }
    let mut batch = Vec::with_capacity(REPORTS);
    let (mut definitions_open, mut maintenance_open) = (true, true);
    loop {
        let expiry = scheduler.expiries.first().map(|(at, ..)| *at);
        let wake = scheduler.wakes.first().map(|(at, _)| scheduler.clock.instant(*at));
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = definitions.changed(), if definitions_open => {
                definitions_open = changed.is_ok();
                let loaded = definitions.borrow_and_update().clone();
                scheduler.load(loaded);
            }
            changed = maintenance.changed(), if maintenance_open => {
                maintenance_open = changed.is_ok();
                let now = maintenance.borrow_and_update().clone();
                scheduler.set_maintenance(now);
            }
            Some(report) = ttl_reports.recv() => scheduler.apply_ttl_report(report),
            () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => scheduler.expire(),
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => scheduler.reevaluate(),
            _ = inbox.recv_many(&mut batch, REPORTS) => scheduler.apply_updates(batch.drain(..)),
        }
    }
    drop(scheduler);
    tasks.close();
    tasks.wait().await;
}

struct Scheduler {
    probe: ProbeFn,
    reports: mpsc::Sender<CheckUpdate>,
    tasks: TaskTracker,
    /// Number of tasks started so far, which numbers them.
    started: u64,
    random: fastrand::Rng,
    definitions: Definitions,
    maintenance: Maintenance,
    instances: BTreeMap<InstanceRef, TrackedInstance>,
    /// Expiry of the last report of each TTL check.
    expiries: BTreeSet<(Instant, InstanceKey, SmolStr)>,
    clock: Clock,
    /// Results from before a restart of the agent, for the first definitions.
    former: Former,
    /// Uptimes at which the state of an instance changes by itself: a hold for flapping ends, or a weight
    /// ramps up.
    wakes: BTreeSet<(Duration, InstanceKey)>,
    /// Services that an alias names: only their changes can change an alias.
    alias_targets: HashSet<RegisteredName>,
    outputs: Outputs,
    published: Announcements,
    results: CheckResults,
    /// Counters of status changes.
    metrics: Checks,
}

/// Clock of timers, as the uptime of the host: comparable across restarts of the agent.
#[derive(Clone, Copy)]
struct Clock {
    began: Instant,
    /// Uptime at `began`.
    uptime: Duration,
}

impl Clock {
    fn start() -> Self {
        Self { began: Instant::now(), uptime: uptime() }
    }

    fn now(&self) -> Duration {
        self.uptime + self.began.elapsed()
    }

    /// Returns an uptime, not before the start, as an instant.
    fn instant(&self, at: Duration) -> Instant {
        self.began + at.saturating_sub(self.uptime)
    }

    /// Returns an instant, not before the start, as an uptime.
    fn uptime(&self, at: Instant) -> Duration {
        self.uptime + at.saturating_duration_since(self.began)
    }
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
            touched.push(InstanceKey::clone(key));
            let former = self.instances.remove(key);
            former.iter().for_each(|former| self.forget_expiries(key, former));
            let Some(definition) = definition else { continue };
            let tracked = match former {
                Some(former) => self.redefine(key, definition, former),
                None => self.restore(key, definition),
            };
            self.schedule_expiries(key, &tracked);
            added.push((key.clone(), tracked));
        }
        if self.instances.is_empty() {
            // Much faster than one by one, for the first definitions, and with full nodes of the map.
            self.instances = added.into_iter().collect();
        } else {
            self.instances.extend(added);
        }
        let mut touched: BTreeSet<_> = touched.into_iter().collect();
        debug!(changed = touched.len(), instances = definitions.len(), "definitions loaded");
        let aliases = self.instances.values().flat_map(TrackedInstance::aliases);
        self.alias_targets = aliases.cloned().collect();
        // A new alias needs its first status, and the service of an existing one may have been added or removed.
        self.update_aliases(&mut touched);
        self.publish(&touched);
    }

    /// Applies updates of runners.
    fn apply_updates(&mut self, reports: impl Iterator<Item = CheckUpdate>) {
        let mut touched = BTreeSet::new();
        for report in reports {
            let Some(tracked) = self.instances.get_mut(&report.instance) else { continue };
            let of_report = |check_state: &TrackedCheck| matches!(&check_state.work, Work::Task(task) if task.number == report.task);
            let Some(index) = tracked.checks.iter().position(of_report) else { continue };
            let check = &tracked.definition.checks[index];
            tracked.checks[index].set_status(&report.instance, check, report.status, report.reason, &self.metrics);
            touched.insert(report.instance);
        }
        if touched.iter().any(|key| self.alias_targets.contains(&key.service)) {
            self.update_aliases(&mut touched);
        }
        self.publish(&touched);
    }

    /// Keeps unchanged checks of an instance, starts new ones and cancels the others.
    fn redefine(
        &mut self,
        key: &InstanceKey,
        definition: &Arc<Definition>,
        former: TrackedInstance,
    ) -> TrackedInstance {
        let inherited = former.definition.enabled.then(|| {
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
                    self.start(key, check, start.unwrap_or_else(|| Start::initial(check)))
                }
            })
            .collect();
        drop(kept);
        TrackedInstance { definition: Arc::clone(definition), checks, ..former }
    }

    fn start(&mut self, key: &InstanceKey, check: &Check, start: Start) -> TrackedCheck {
        let Start { status, reason, since, unconfirmed, expires } = start;
        let work = match &check.probe {
            Probe::Alias { .. } => Some(Work::Alias),
            Probe::Ttl { ttl } => Some(Work::Reports(expires.unwrap_or_else(|| Instant::now() + *ttl))),
            _ => None,
        };
        if let Some(work) = work {
            return TrackedCheck { status, reason, since, unconfirmed, work };
        }
        self.started += 1;
        let work = runner::watch(
            key.clone(),
            self.started,
            Arc::new(check.clone()),
            Memory::new(check, status, Arc::clone(&reason), unconfirmed),
            Ticks::new(Instant::now(), check.interval, self.random.f64()),
            Arc::clone(&self.probe),
            self.reports.clone(),
        );
        let handle = AbortOnDropHandle::new(self.tasks.spawn(work));
        let work = Work::Task(Task { number: self.started, _handle: handle });
        TrackedCheck { status, reason, since, unconfirmed, work }
    }

    /// Records the expiries of an instance's TTL reports.
    fn schedule_expiries(&mut self, key: &InstanceKey, tracked: &TrackedInstance) {
        self.expiries.extend(expiries(key, tracked));
    }

    /// Forgets the expiries of an instance's TTL reports.
    fn forget_expiries(&mut self, key: &InstanceKey, tracked: &TrackedInstance) {
        for expiry in expiries(key, tracked) {
            self.expiries.remove(&expiry);
        }
    }

    /// Applies new holds.
    fn set_maintenance(&mut self, maintenance: Maintenance) {
        self.maintenance = maintenance;
        let all = self.instances.keys().map(|key| InstanceKey::clone(key)).collect();
        self.publish(&all);
    }

    /// Applies the report of a TTL check.
    fn apply_ttl_report(&mut self, report: TtlReport) {
        let now = Instant::now();
        let Some(tracked) = self.instances.get_mut(&report.instance) else { return };
        let Some(at) = (0..tracked.checks.len()).find(|at| tracked.check_id(*at) == report.check) else { return };
        let check = &tracked.definition.checks[at];
        let Probe::Ttl { ttl } = check.probe else { return };
        let check_state = &mut tracked.checks[at];
        let Work::Reports(before) = std::mem::replace(&mut check_state.work, Work::Reports(now + ttl)) else { return };
        check_state.set_status(&report.instance, check, report.status, bounded(&report.output).into(), &self.metrics);
        self.expiries.remove(&(before, report.instance.clone(), report.check.clone()));
        self.expiries.insert((now + ttl, report.instance.clone(), report.check));
        self.publish_with_aliases(report.instance);
    }

    /// Makes TTL checks critical whose last report has expired.
    fn expire(&mut self) {
        let now = Instant::now();
        while self.expiries.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, key, id)) = self.expiries.pop_first() else { return };
            let Some(tracked) = self.instances.get_mut(&key) else { continue };
            let Some(at) = (0..tracked.checks.len()).find(|at| tracked.check_id(*at) == id) else { continue };
            let check = &tracked.definition.checks[at];
            let Probe::Ttl { ttl } = check.probe else { continue };
            tracked.checks[at].set_status(&key, check, Status::Critical, no_report(ttl), &self.metrics);
            self.publish_with_aliases(key);
        }
    }

    /// Re-evaluates instances whose state changes by itself.
    fn reevaluate(&mut self) {
        let now = self.clock.now();
        let mut due = BTreeSet::new();
        while self.wakes.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(self.wakes.pop_first().map(|(_, key)| key));
        }
        self.publish(&due);
    }

    /// Publishes an instance with a changed check, and those with aliases of its service.
    fn publish_with_aliases(&mut self, key: InstanceKey) {
        let is_target = self.alias_targets.contains(&key.service);
        let mut touched = BTreeSet::from([key]);
        if is_target {
            self.update_aliases(&mut touched);
        }
        self.publish(&touched);
    }

    /// Updates all alias checks and adds the changed instances to `touched`.
    fn update_aliases(&mut self, touched: &mut BTreeSet<InstanceKey>) {
        if self.alias_targets.is_empty() {
            return;
        }
        let evaluated: HashMap<_, _> = {
            let members: Vec<_> = self.instances.values().map(TrackedInstance::as_member).collect();
            alias::evaluate(&members).into_iter().map(|(service, status)| (service.clone(), status)).collect()
        };
        for (key, tracked) in &mut self.instances {
            for (check, check_state) in tracked.definition.checks.iter().zip(&mut tracked.checks) {
                let Some(service) = check.probe.alias() else { continue };
                let Some((status, reason)) = evaluated.get(service) else { continue };
                if check_state.status != *status || *check_state.reason != **reason {
                    check_state.set_status(key, check, *status, reason.as_str().into(), &self.metrics);
                    touched.insert(InstanceKey::clone(key));
                }
            }
        }
    }

    /// Publishes the changes of the instances `touched` in one update.
    fn publish(&mut self, touched: &BTreeSet<InstanceKey>) {
        let (mut changed, mut results_changed) = (false, false);
        let now = self.clock.now();
        for key in touched {
            let Some(tracked) = self.instances.get_mut(key) else {
                changed |= self.published.remove(key).is_some();
                results_changed |= self.results.remove(key).is_some();
                continue;
            };
            let (state, next) = tracked.evaluate(&self.maintenance, now);
            if let Some(next) = next {
                self.wakes.insert((next, key.clone()));
            }
            let before = tracked.state.replace(state.clone());
            log_hold(key, before.as_ref(), &state);
            if before.is_some_and(|before| std::mem::discriminant(&before) != std::mem::discriminant(&state)) {
                tracked.since = unix_seconds();
            }
            let report = tracked.report(&state);
            let results = tracked.results(&state, &self.clock);
            if self.results.get(key).map(|before| &**before) != results.as_ref() {
                match results {
                    Some(results) => drop(self.results.insert(key.clone(), Arc::new(results))),
                    None => drop(self.results.remove(key)),
                }
                results_changed = true;
            }
            let announcement = Announcement { instance: Arc::clone(&tracked.definition.instance), state, report };
            if self.published.get(key).is_none_or(|before| **before != announcement) {
                self.published.insert(InstanceRef::from(&announcement.instance), Arc::new(announcement));
                changed = true;
            }
        }
        if changed {
            self.outputs.announcements.send_replace(self.published.clone());
        }
        if results_changed {
            self.outputs.results.send_replace(self.results.clone());
        }
    }
}

/// Expiry of the last report of each TTL check of an instance.
fn expiries(key: &InstanceKey, tracked: &TrackedInstance) -> impl Iterator<Item = (Instant, InstanceKey, SmolStr)> {
    tracked.checks.iter().enumerate().filter_map(|(at, check_state)| match check_state.work {
        Work::Reports(until) => Some((until, key.clone(), tracked.check_id(at))),
        Work::Alias | Work::Task(_) => None,
    })
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

/// Returns the reason of a TTL check whose last report has expired.
fn no_report(ttl: Duration) -> Arc<str> {
    format!("no report within {ttl:?}").into()
}

#[cfg(test)]
mod tests;
