//! The task that owns all checks: it starts, keeps and cancels them as definitions change, and publishes announcements
//! as standings change. Whole state in, whole state out.
//!
//! What a reload does to checks:
//! - a check that is the same as before keeps its task, its place in the interval and what it remembers, whatever else
//!   of its instance or file changed;
//! - a check that went is cancelled, with all its work;
//! - a check that is new to an instance that was there before (its URL was edited, say) begins with the standing that
//!   the instance had, until its own results change it. A reload alone takes nothing out of the DNS and brings
//!   nothing in; `initial` is for instances that are new, or were disabled.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use smol_str::SmolStr;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::{debug, info, warn};

use super::{
    Inputs, alias,
    runner::{self, Ask, CheckUpdate, Memory},
    ticks::Ticks,
};
use crate::{
    metrics::{Checks, Kind},
    model::{
        announcement::{
            Announcement, Announcements, CheckReport, HealthReport as WholeReport, HoldReason, InstanceState, bounded,
        },
        health::{Status, add_up},
        maintenance::{Maintenance, TtlReport},
        name::Label,
        pacing::{Penalty, warming},
        service::{Check, Definition, Definitions, InstanceKey, Probe},
    },
};

/// Reports that wait for the owner; a task whose report finds no place waits with it, and probes later.
const REPORTS: usize = 1024;
/// Added to the time at which something is to be looked at again, so that it is then due.
const TICK: Duration = Duration::from_millis(1);
/// The reason of a check that has no result yet and is not passing.
const NO_RESULT: &str = "no result yet";

/// Runs until `shutdown`, then cancels all checks and waits until their work has ended.
pub(super) async fn run(
    inputs: Inputs,
    announcements: watch::Sender<Announcements>,
    ask: Ask,
    seed: u64,
    metrics: Checks,
    shutdown: CancellationToken,
) {
    let Inputs { mut definitions, mut maintenance, mut beats } = inputs;
    let (reports, mut inbox) = mpsc::channel(REPORTS);
    let tasks = TaskTracker::new();
    let mut owner = Owner {
        ask,
        reports,
        tasks: tasks.clone(),
        started: 0,
        random: fastrand::Rng::with_seed(seed),
        definitions: Definitions::new(),
        maintenance: maintenance.borrow_and_update().clone(),
        instances: BTreeMap::new(),
        expiries: BTreeSet::new(),
        began: Instant::now(),
        wakes: BTreeSet::new(),
        alias_targets: HashSet::new(),
        announcements,
        published: Announcements::new(),
        metrics,
    };
    let loaded = definitions.borrow_and_update().clone();
    owner.load(loaded);
    let mut batch = Vec::with_capacity(REPORTS);
    let (mut more_definitions, mut more_upkeep) = (true, true);
    loop {
        let expiry = owner.expiries.first().map(|(at, ..)| *at);
        let wake = owner.wakes.first().map(|(at, _)| owner.began + *at);
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = definitions.changed(), if more_definitions => {
                more_definitions = changed.is_ok();
                let loaded = definitions.borrow_and_update().clone();
                owner.load(loaded);
            }
            changed = maintenance.changed(), if more_upkeep => {
                more_upkeep = changed.is_ok();
                let now = maintenance.borrow_and_update().clone();
                owner.hold(now);
            }
            Some(beat) = beats.recv() => owner.hear(beat),
            () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => owner.expire(),
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => owner.wake(),
            _ = inbox.recv_many(&mut batch, REPORTS) => owner.take(batch.drain(..)),
        }
    }
    drop(owner);
    tasks.close();
    tasks.wait().await;
}

struct Owner {
    ask: Ask,
    reports: mpsc::Sender<CheckUpdate>,
    tasks: TaskTracker,
    /// Tasks so far: their numbers.
    started: u64,
    random: fastrand::Rng,
    definitions: Definitions,
    maintenance: Maintenance,
    instances: BTreeMap<InstanceKey, Watched>,
    /// When which ttl check's last report runs out.
    expiries: BTreeSet<(Instant, InstanceKey, SmolStr)>,
    began: Instant,
    /// When, since the beginning, an instance stands otherwise without anything happening: it is given back after flapping,
    /// or its weight grows.
    wakes: BTreeSet<(Duration, InstanceKey)>,
    /// The services that some alias names: only what happens to these can turn an alias.
    alias_targets: HashSet<Label>,
    announcements: watch::Sender<Announcements>,
    published: Announcements,
    /// Where it is counted how often checks turn.
    metrics: Checks,
}

/// An instance and its checks' standings.
struct Watched {
    definition: Arc<Definition>,
    /// One for each check of the definition, in its order; none while it is disabled.
    checks: Vec<Watching>,
    /// Since when it stands as it does: seconds since 1970.
    since: u64,
    penalty: Penalty,
    /// Since when it has been well without anything holding it back, since the owner's beginning.
    up: Option<Duration>,
}

struct Watching {
    status: Status,
    /// Empty when passing.
    reason: Arc<str>,
    /// Since when it has this status: seconds since 1970.
    since: u64,
    work: Work,
}

/// Who finds out how a check stands.
enum Work {
    /// A task that probes.
    Task(Task),
    /// Nobody: an alias stands as the service that it names.
    Alias,
    /// The application, until then.
    Reports(Instant),
}

struct Task {
    number: u64,
    /// Ends the check's work when it is dropped.
    _handle: AbortOnDropHandle<()>,
}

impl Owner {
    /// Takes new definitions over.
    fn load(&mut self, definitions: Definitions) {
        let before = std::mem::replace(&mut self.definitions, definitions);
        let definitions = self.definitions.clone();
        let mut touched = BTreeSet::new();
        for change in before.diff(&definitions) {
            use imbl::ordmap::DiffItem;
            let (key, definition) = match change {
                DiffItem::Add(key, new) | DiffItem::Update { new: (key, new), .. } => (key, Some(new)),
                DiffItem::Remove(key, _) => (key, None),
            };
            touched.insert(key.clone());
            match definition {
                Some(definition) => self.define(key, definition),
                None => drop(self.instances.remove(key)),
            }
            self.expect(key);
        }
        debug!(changed = touched.len(), instances = definitions.len(), "definitions loaded");
        let aliases = self.instances.values().flat_map(Watched::aliases);
        self.alias_targets = aliases.cloned().collect();
        // A new alias needs its first standing, and the service of an old one may have come or gone.
        self.settle_aliases(&mut touched);
        self.publish(&touched);
    }

    /// Takes results over.
    fn take(&mut self, reports: impl Iterator<Item = CheckUpdate>) {
        let mut touched = BTreeSet::new();
        for report in reports {
            let Some(watched) = self.instances.get_mut(&report.instance) else { continue };
            let of_report =
                |watching: &Watching| matches!(&watching.work, Work::Task(task) if task.number == report.task);
            let Some(index) = watched.checks.iter().position(of_report) else { continue };
            let check = &watched.definition.checks[index];
            watched.checks[index].turn(&report.instance, check, report.status, report.reason, &self.metrics);
            touched.insert(report.instance);
        }
        if touched.iter().any(|key| self.alias_targets.contains(&key.service)) {
            self.settle_aliases(&mut touched);
        }
        self.publish(&touched);
    }

    /// Keeps the checks that are the same, starts those that are new, cancels the rest.
    fn define(&mut self, key: &InstanceKey, definition: &Arc<Definition>) {
        let former = self.instances.remove(key);
        let inherited = former.as_ref().filter(|former| former.definition.enabled).map(|former| {
            let (status, reason) = former.adds_up_to();
            (status, Arc::from(reason))
        });
        let since = former.as_ref().map_or_else(today, |former| former.since);
        let (penalty, up) = former.as_ref().map_or_else(Default::default, |former| (former.penalty, former.up));
        let (former, checks) = former.map(|former| (former.definition, former.checks)).unzip();
        let former: &[Check] = former.as_ref().map_or(&[], |definition: &Arc<Definition>| &definition.checks);
        let mut kept: Vec<(&Check, Watching)> = former.iter().zip(checks.unwrap_or_default()).collect();
        let wanted = if definition.enabled { definition.checks.as_slice() } else { &[] };
        let checks = wanted
            .iter()
            .map(|check| match kept.iter().position(|(former, _)| *former == check) {
                Some(same) => kept.swap_remove(same).1,
                None => {
                    let (status, reason) = inherited.clone().unwrap_or_else(|| initial(check));
                    self.start(key, check, status, reason)
                }
            })
            .collect();
        self.instances.insert(key.clone(), Watched { definition: Arc::clone(definition), checks, since, penalty, up });
    }

    fn start(&mut self, key: &InstanceKey, check: &Check, status: Status, reason: Arc<str>) -> Watching {
        let since = today();
        let work = match &check.probe {
            Probe::Alias { .. } => Some(Work::Alias),
            Probe::Ttl { ttl } => Some(Work::Reports(Instant::now() + *ttl)),
            _ => None,
        };
        if let Some(work) = work {
            return Watching { status, reason, since, work };
        }
        self.started += 1;
        let work = runner::watch(
            key.clone(),
            self.started,
            Arc::new(check.clone()),
            Memory::new(check, status, Arc::clone(&reason)),
            Ticks::new(Instant::now(), check.interval, self.random.f64()),
            Arc::clone(&self.ask),
            self.reports.clone(),
        );
        let handle = AbortOnDropHandle::new(self.tasks.spawn(work));
        Watching { status, reason, since, work: Work::Task(Task { number: self.started, _handle: handle }) }
    }

    /// Notes when the reports of an instance's ttl checks run out.
    fn expect(&mut self, key: &InstanceKey) {
        self.expiries.retain(|(_, expected, _)| expected != key);
        let Some(watched) = self.instances.get(key) else { return };
        for (at, watching) in watched.checks.iter().enumerate() {
            if let Work::Reports(until) = watching.work {
                self.expiries.insert((until, key.clone(), watched.check_id(at)));
            }
        }
    }

    /// Takes over what operators hold back.
    fn hold(&mut self, maintenance: Maintenance) {
        self.maintenance = maintenance;
        let all = self.instances.keys().cloned().collect();
        self.publish(&all);
    }

    /// Takes over what an application reports of itself.
    fn hear(&mut self, beat: TtlReport) {
        let now = Instant::now();
        let Some(watched) = self.instances.get_mut(&beat.instance) else { return };
        let Some(at) = (0..watched.checks.len()).find(|at| watched.check_id(*at) == beat.check) else { return };
        let check = &watched.definition.checks[at];
        let Probe::Ttl { ttl } = check.probe else { return };
        let watching = &mut watched.checks[at];
        let Work::Reports(before) = std::mem::replace(&mut watching.work, Work::Reports(now + ttl)) else { return };
        watching.turn(&beat.instance, check, beat.status, bounded(&beat.output).into(), &self.metrics);
        self.expiries.remove(&(before, beat.instance.clone(), beat.check.clone()));
        self.expiries.insert((now + ttl, beat.instance.clone(), beat.check));
        self.turned(beat.instance);
    }

    /// Turns the ttl checks that have not been reported on for too long.
    fn expire(&mut self) {
        let now = Instant::now();
        while self.expiries.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, key, id)) = self.expiries.pop_first() else { return };
            let Some(watched) = self.instances.get_mut(&key) else { continue };
            let Some(at) = (0..watched.checks.len()).find(|at| watched.check_id(*at) == id) else { continue };
            let check = &watched.definition.checks[at];
            let Probe::Ttl { ttl } = check.probe else { continue };
            let reason = format!("nothing was reported for {ttl:?}");
            watched.checks[at].turn(&key, check, Status::Critical, reason.into(), &self.metrics);
            self.turned(key);
        }
    }

    /// Looks again at what stands otherwise by now.
    fn wake(&mut self) {
        let now = self.began.elapsed();
        let mut due = BTreeSet::new();
        while self.wakes.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(self.wakes.pop_first().map(|(_, key)| key));
        }
        self.publish(&due);
    }

    /// Announces an instance of which a check has turned, and those that are aliases of its service.
    fn turned(&mut self, key: InstanceKey) {
        let is_target = self.alias_targets.contains(&key.service);
        let mut touched = BTreeSet::from([key]);
        if is_target {
            self.settle_aliases(&mut touched);
        }
        self.publish(&touched);
    }

    /// Brings all alias checks up to date and adds the instances that this touches.
    fn settle_aliases(&mut self, touched: &mut BTreeSet<InstanceKey>) {
        if self.alias_targets.is_empty() {
            return;
        }
        let settled: HashMap<_, _> = {
            let members: Vec<_> = self.instances.values().map(Watched::as_member).collect();
            alias::settle(&members).into_iter().map(|(service, standing)| (service.clone(), standing)).collect()
        };
        for (key, watched) in &mut self.instances {
            for (check, watching) in watched.definition.checks.iter().zip(&mut watched.checks) {
                let Probe::Alias { service } = &check.probe else { continue };
                let Some((status, reason)) = settled.get(service) else { continue };
                if watching.status != *status || *watching.reason != **reason {
                    watching.turn(key, check, *status, reason.as_str().into(), &self.metrics);
                    touched.insert(key.clone());
                }
            }
        }
    }

    /// Announces what is new of the instances `touched`, all in one.
    fn publish(&mut self, touched: &BTreeSet<InstanceKey>) {
        let mut changed = false;
        let now = self.began.elapsed();
        for key in touched {
            let Some(watched) = self.instances.get_mut(key) else {
                changed |= self.published.remove(key).is_some();
                continue;
            };
            let (standing, next) = watched.standing(&self.maintenance, now);
            if let Some(next) = next {
                self.wakes.insert((next, key.clone()));
            }
            let before = self.published.get(key).map(|before| &before.standing);
            tell(key, before, &standing);
            if before.is_some_and(|before| std::mem::discriminant(before) != std::mem::discriminant(&standing)) {
                watched.since = today();
            }
            let report = watched.report(&standing);
            let announcement = Announcement { instance: Arc::clone(&watched.definition.instance), standing, report };
            if self.published.get(key).is_none_or(|before| **before != announcement) {
                self.published.insert(key.clone(), Arc::new(announcement));
                changed = true;
            }
        }
        if changed {
            self.announcements.send_replace(self.published.clone());
        }
    }
}

/// Says what is held back although its checks may pass, and when that ends. What the checks find is told with each of them.
fn tell(key: &InstanceKey, before: Option<&InstanceState>, now: &InstanceState) {
    let (service, id) = (&key.service, &key.id);
    let held = |standing: &InstanceState| match standing {
        InstanceState::Withheld(gate, _) => Some(*gate),
        _ => None,
    };
    let was = before.and_then(held);
    match now {
        InstanceState::Withheld(gate, _) if was == Some(*gate) => {}
        InstanceState::Withheld(HoldReason::Flapping, reason) => {
            warn!(%service, %id, gate = HoldReason::Flapping.as_str(), %reason, "instance is held back: it is flapping");
        }
        InstanceState::Withheld(gate, reason) => {
            info!(%service, %id, gate = gate.as_str(), %reason, "instance is held back: it is {}", gate.words());
        }
        _ if was.is_some() => info!(%service, %id, "instance is not held back any more"),
        _ => {}
    }
}

/// Seconds since 1970, for people; 0 where the clock is before.
fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

fn initial(check: &Check) -> (Status, Arc<str>) {
    (check.initial, if check.initial == Status::Passing { "" } else { NO_RESULT }.into())
}

impl Watched {
    fn adds_up_to(&self) -> (Status, &str) {
        add_up(self.checks.iter().map(|check| (check.status, &*check.reason)))
    }

    /// How it stands at that time, and when that changes by itself.
    fn standing(&mut self, maintenance: &Maintenance, now: Duration) -> (InstanceState, Option<Duration>) {
        let definition = Arc::clone(&self.definition);
        let held = maintenance.of(&definition.instance.key);
        let (status, reason) = self.adds_up_to();
        let checked = InstanceState::new(status, reason);
        let up = definition.enabled && held.is_none() && status.is_healthy();
        let fell = self.up.is_some() && definition.enabled && held.is_none() && !up;
        self.up = up.then(|| self.up.unwrap_or(now));
        if let (true, Some(damping)) = (fell, &definition.pace.damping) {
            self.penalty.fall(damping, now);
        }
        if !definition.enabled {
            return (InstanceState::Disabled, None);
        }
        if let Some((_, gate, hold)) = held {
            return (InstanceState::withheld(gate, &hold.reason), None);
        }
        let Some(since) = self.up else { return (checked, None) };
        if let Some(damping) = &definition.pace.damping
            && self.penalty.is_held(damping, now)
        {
            // It is up again when it is given back: from there its weight grows.
            self.up = Some(now);
            let reason = format!("it went down {} times or more in a short time", damping.hold_at);
            return (
                InstanceState::withheld(HoldReason::Flapping, &reason),
                Some(now + self.penalty.held_for(damping, now) + TICK),
            );
        }
        match warming(definition.instance.weight, definition.pace.slow_start, now.saturating_sub(since)) {
            Some((weight, next)) if checked == InstanceState::Passing => {
                (InstanceState::Warming(weight), Some(since + next))
            }
            _ => (checked, None),
        }
    }

    /// Why it stands so; `None` where there is nothing to tell.
    fn report(&self, standing: &InstanceState) -> Option<Arc<WholeReport>> {
        if self.checks.is_empty() && *standing == InstanceState::Passing {
            return None;
        }
        let report = |(at, (check, watching)): (usize, (&Check, &Watching))| CheckReport {
            id: self.check_id(at),
            name: bounded(
                &check.title.as_ref().map_or_else(|| check.probe.to_string(), |title| title.name.to_string()),
            )
            .into(),
            status: watching.status,
            output: bounded(&watching.reason).into(),
            since: watching.since,
        };
        let checks = self.definition.checks.iter().zip(&self.checks).enumerate().map(report).collect();
        Some(Arc::new(WholeReport { since: self.since, checks }))
    }

    /// What the API calls a check: by itself, or as Consul does where its definition gives no id.
    fn check_id(&self, at: usize) -> SmolStr {
        self.definition.check_id(at)
    }

    /// The services that its alias checks name; none while it is disabled.
    fn aliases(&self) -> impl Iterator<Item = &Label> {
        self.definition.checks.iter().zip(&self.checks).filter_map(|(check, _)| match &check.probe {
            Probe::Alias { service } => Some(service),
            Probe::Http(_)
            | Probe::Tcp(_)
            | Probe::Grpc { .. }
            | Probe::Exec { .. }
            | Probe::Systemd { .. }
            | Probe::Ttl { .. } => None,
        })
    }

    fn as_member(&self) -> alias::Member<'_> {
        let probed = self.checks.iter().filter(|check| !matches!(check.work, Work::Alias));
        alias::Member {
            service: &self.definition.instance.key.service,
            enabled: self.definition.enabled,
            own: add_up(probed.map(|check| (check.status, &*check.reason))),
            aliases: self.aliases().collect(),
        }
    }
}

impl Watching {
    /// Takes a standing over and says so. The first result is news even where it confirms `initial`.
    fn turn(&mut self, key: &InstanceKey, check: &Check, status: Status, reason: Arc<str>, metrics: &Checks) {
        let (service, id, probe, word) = (&key.service, &key.id, &check.probe, status.as_str());
        if status != self.status || *self.reason == *NO_RESULT {
            info!(%service, %id, check = %probe, status = word, %reason, "check {word}");
        } else {
            debug!(%service, %id, check = %probe, status = word, %reason, "check still {word}");
        }
        if status != self.status {
            self.since = today();
            metrics.turned(Kind::of(&check.probe), status);
        }
        (self.status, self.reason) = (status, reason);
    }
}

#[cfg(test)]
mod tests;
