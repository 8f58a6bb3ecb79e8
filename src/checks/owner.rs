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
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::{debug, info};

use super::{
    alias,
    schedule::Ticks,
    task::{self, Ask, Memory, Report},
};
use crate::model::{
    announcement::{Announcement, Announcements, Standing},
    health::{Status, add_up},
    name::Label,
    service::{Check, Definition, Definitions, InstanceKey, Probe},
};

/// Reports that wait for the owner; a task whose report finds no place waits with it, and probes later.
const REPORTS: usize = 1024;
/// The reason of a check that has no result yet and is not passing.
const NO_RESULT: &str = "no result yet";

/// Runs until `shutdown`, then cancels all checks and waits until their work has ended.
pub(super) async fn run(
    mut definitions: watch::Receiver<Definitions>,
    announcements: watch::Sender<Announcements>,
    ask: Ask,
    seed: u64,
    shutdown: CancellationToken,
) {
    let (reports, mut inbox) = mpsc::channel(REPORTS);
    let tasks = TaskTracker::new();
    let mut owner = Owner {
        ask,
        reports,
        tasks: tasks.clone(),
        started: 0,
        random: fastrand::Rng::with_seed(seed),
        definitions: Definitions::new(),
        instances: BTreeMap::new(),
        alias_targets: HashSet::new(),
        announcements,
        published: Announcements::new(),
    };
    let loaded = definitions.borrow_and_update().clone();
    owner.load(loaded);
    let mut batch = Vec::with_capacity(REPORTS);
    let mut more_definitions = true;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = definitions.changed(), if more_definitions => {
                more_definitions = changed.is_ok();
                let loaded = definitions.borrow_and_update().clone();
                owner.load(loaded);
            }
            _ = inbox.recv_many(&mut batch, REPORTS) => owner.take(batch.drain(..)),
        }
    }
    drop(owner);
    tasks.close();
    tasks.wait().await;
}

struct Owner {
    ask: Ask,
    reports: mpsc::Sender<Report>,
    tasks: TaskTracker,
    /// Tasks so far: their numbers.
    started: u64,
    random: fastrand::Rng,
    definitions: Definitions,
    instances: BTreeMap<InstanceKey, Watched>,
    /// The services that some alias names: only what happens to these can turn an alias.
    alias_targets: HashSet<Label>,
    announcements: watch::Sender<Announcements>,
    published: Announcements,
}

/// An instance and its checks' standings.
struct Watched {
    definition: Arc<Definition>,
    /// One for each check of the definition, in its order; none while it is disabled.
    checks: Vec<Watching>,
}

struct Watching {
    status: Status,
    /// Empty when passing.
    reason: Arc<str>,
    /// `None` for an alias, which nobody probes.
    task: Option<Task>,
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
        }
        debug!(changed = touched.len(), instances = definitions.len(), "definitions loaded");
        let aliases = self.instances.values().flat_map(Watched::aliases);
        self.alias_targets = aliases.cloned().collect();
        // A new alias needs its first standing, and the service of an old one may have come or gone.
        self.settle_aliases(&mut touched);
        self.publish(&touched);
    }

    /// Takes results over.
    fn take(&mut self, reports: impl Iterator<Item = Report>) {
        let mut touched = BTreeSet::new();
        for report in reports {
            let Some(watched) = self.instances.get_mut(&report.instance) else { continue };
            let of_report = |watching: &Watching| watching.task.as_ref().is_some_and(|task| task.number == report.task);
            let Some(index) = watched.checks.iter().position(of_report) else { continue };
            let check = &watched.definition.checks[index];
            watched.checks[index].turn(&report.instance, check, report.status, report.reason);
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
        self.instances.insert(key.clone(), Watched { definition: Arc::clone(definition), checks });
    }

    fn start(&mut self, key: &InstanceKey, check: &Check, status: Status, reason: Arc<str>) -> Watching {
        if matches!(check.probe, Probe::Alias { .. }) {
            return Watching { status, reason, task: None };
        }
        self.started += 1;
        let work = task::watch(
            key.clone(),
            self.started,
            Arc::new(check.clone()),
            Memory::new(check, status, Arc::clone(&reason)),
            Ticks::new(Instant::now(), check.interval, self.random.f64()),
            Arc::clone(&self.ask),
            self.reports.clone(),
        );
        let handle = AbortOnDropHandle::new(self.tasks.spawn(work));
        Watching { status, reason, task: Some(Task { number: self.started, _handle: handle }) }
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
                    watching.turn(key, check, *status, reason.as_str().into());
                    touched.insert(key.clone());
                }
            }
        }
    }

    /// Announces what is new of the instances `touched`, all in one.
    fn publish(&mut self, touched: &BTreeSet<InstanceKey>) {
        let mut changed = false;
        for key in touched {
            let Some(watched) = self.instances.get(key) else {
                changed |= self.published.remove(key).is_some();
                continue;
            };
            let announcement =
                Announcement { instance: Arc::clone(&watched.definition.instance), standing: watched.standing() };
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

fn initial(check: &Check) -> (Status, Arc<str>) {
    (check.initial, if check.initial == Status::Passing { "" } else { NO_RESULT }.into())
}

impl Watched {
    fn adds_up_to(&self) -> (Status, &str) {
        add_up(self.checks.iter().map(|check| (check.status, &*check.reason)))
    }

    fn standing(&self) -> Standing {
        if !self.definition.enabled {
            return Standing::Disabled;
        }
        let (status, reason) = self.adds_up_to();
        Standing::new(status, reason)
    }

    /// The services that its alias checks name; none while it is disabled.
    fn aliases(&self) -> impl Iterator<Item = &Label> {
        self.definition.checks.iter().zip(&self.checks).filter_map(|(check, _)| match &check.probe {
            Probe::Alias { service } => Some(service),
            Probe::Http(_) | Probe::Tcp(_) | Probe::Grpc { .. } | Probe::Exec { .. } | Probe::Systemd { .. } => None,
        })
    }

    fn as_member(&self) -> alias::Member<'_> {
        let probed = self.checks.iter().filter(|check| check.task.is_some());
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
    fn turn(&mut self, key: &InstanceKey, check: &Check, status: Status, reason: Arc<str>) {
        let (service, id, probe, word) = (&key.service, &key.id, &check.probe, status.as_str());
        if status != self.status || *self.reason == *NO_RESULT {
            info!(%service, %id, check = %probe, status = word, %reason, "check {word}");
        } else {
            debug!(%service, %id, check = %probe, status = word, %reason, "check still {word}");
        }
        (self.status, self.reason) = (status, reason);
    }
}

#[cfg(test)]
mod tests;
