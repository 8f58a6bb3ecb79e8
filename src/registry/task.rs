//! Task that owns the registrations and holds of this node. A change is applied only once it is on disk.

use std::{io, sync::Arc, time::Duration};

use imbl::ordmap::DiffItem;
use tokio::{
    sync::{mpsc, watch},
    task::block_in_place,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    error::RegistryError,
    external::Announced,
    registration::Host,
    request::{Queue, Request},
    state::{Change, CriticalChecks, MAX_STORED_LEN, MovedCheck, Outcome, State},
};
use crate::{
    clock::{SteadyClock, unix_seconds},
    model::{
        announcement::Announcements,
        maintenance::{HostKind, Maintenance, TtlReport},
        served_ttls::TtlLedger,
        service::{Check, Definitions, InstanceKey},
    },
};

/// Interval of checks for services that are critical for too long, for expired TTLs and for held outputs of external nodes.
/// `DeregisterCriticalServiceAfter` is in minutes.
const REAP_INTERVAL: Duration = Duration::from_secs(10);
/// Reason of the hold on the instances of an agent that drains before it stops.
const STOPPING_REASON: &str = "its agent is about to stop";

/// Inputs of the task.
pub struct Inputs {
    /// Definitions of the service files.
    pub files: watch::Receiver<Definitions>,
    /// Announcements of this node.
    pub announced: watch::Receiver<Announcements>,
    /// Greatest default TTL of any node, in seconds.
    pub default_ttl: watch::Receiver<u32>,
    /// Changes by clients.
    pub requests: Queue,
    /// Cancelled when the agent drains before it stops: the whole node is withdrawn, which is not stored.
    pub withdraw: CancellationToken,
}

/// Outputs of the task.
pub struct Outputs {
    /// Definitions to check and to announce.
    pub definitions: watch::Sender<Definitions>,
    /// External nodes with their instances, to announce.
    pub external: watch::Sender<Announced>,
    /// Checks of the node as a whole.
    pub node_checks: watch::Sender<Arc<[Check]>>,
    /// Maintenance and drains.
    pub maintenance: watch::Sender<Maintenance>,
    /// TTL reports of applications.
    pub ttl_reports: mpsc::Sender<TtlReport>,
    /// Time for which caches may still have answers with the withdrawn instances; set at the withdrawal.
    pub withdrawn: watch::Sender<Option<Duration>>,
}

/// Stores the serialized state atomically: after a crash the old or the new state is on disk. Reports failures to operators.
pub type Store = Box<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// Restores the stored state for this host, and reports whether it is complete. Unreadable parts are logged.
pub fn restore(text: Option<&str>, host: &Host) -> (State, bool) {
    let (mut state, problems) = text.map(|text| State::parse(text, host)).unwrap_or_default();
    let is_complete = problems.is_empty();
    for problem in problems {
        warn!(%problem, "discarding an unreadable registration or hold");
    }
    state.expire(unix_seconds());
    (state, is_complete)
}

/// Applies changes until `shutdown`.
pub async fn run(
    state: State,
    host: Host,
    store: Store,
    inputs: Inputs,
    outputs: Outputs,
    shutdown: CancellationToken,
) {
    let clock = SteadyClock::start();
    let ttl_ledger = TtlLedger::resume(state.greatest_ttl(), clock.now());
    let critical = CriticalChecks::default();
    let task = Task { state, host, store, outputs, clock, ttl_ledger, critical, stopping: None, unsaved: false };
    task.run(inputs, shutdown).await;
}

struct Task {
    state: State,
    host: Host,
    store: Store,
    outputs: Outputs,
    clock: SteadyClock,
    ttl_ledger: TtlLedger,
    critical: CriticalChecks,
    /// Unix time at which the agent began to stop.
    stopping: Option<u64>,
    /// True if the last write failed: the state on disk may be older, or unwritable.
    unsaved: bool,
}

impl Task {
    async fn run(mut self, inputs: Inputs, shutdown: CancellationToken) {
        let Inputs { mut files, mut announced, mut default_ttl, requests, withdraw } = inputs;
        let mut reap_timer = interval(REAP_INTERVAL);
        reap_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.update_ttl_ledger(&announced.borrow_and_update().clone(), *default_ttl.borrow_and_update());
        loop {
            let end = self.state.maintenance().next_end();
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = files.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.outputs.definitions.send_replace(self.state.definitions(&files.borrow_and_update()));
                }
                Ok(()) = announced.changed() => {
                    self.update_ttl_ledger(&announced.borrow_and_update().clone(), *default_ttl.borrow());
                }
                Ok(()) = default_ttl.changed() => {
                    self.update_ttl_ledger(&announced.borrow().clone(), *default_ttl.borrow_and_update());
                }
                Request { change, done } = requests.next() => {
                    let known = files.borrow().clone();
                    let outcome = self.apply(change, &known).await;
                    // The client may have disconnected.
                    let _ = done.send(outcome);
                }
                () = withdraw.cancelled(), if self.stopping.is_none() => self.withdraw(&announced.borrow().clone()),
                _ = reap_timer.tick() => {
                    if self.ttl_ledger.expire(self.clock.now()) {
                        self.state.set_greatest_ttl(self.ttl_ledger.greatest());
                        self.save();
                    }
                    if self.state.may_reap() {
                        self.reap(&announced.borrow().clone(), &files.borrow().clone());
                    }
                    if self.unsaved {
                        self.save();
                    }
                    if self.state.release_outputs(unix_seconds()) {
                        self.publish_maintenance();
                    }
                }
                () = sleep(time_until(end)), if end.is_some() => {
                    if self.state.expire(unix_seconds()) {
                        info!("a hold with a time limit has ended");
                        self.save();
                        self.publish_maintenance();
                    }
                }
            }
        }
    }

    /// Updates the TTL ledger. A new greatest TTL is stored at once, because the next run needs it.
    fn update_ttl_ledger(&mut self, own: &Announcements, default_ttl: u32) {
        if self.ttl_ledger.update(own, default_ttl, self.clock.now()) {
            self.state.set_greatest_ttl(self.ttl_ledger.greatest());
            self.save();
        }
    }

    /// Withdraws the whole node until this run ends.
    fn withdraw(&mut self, own: &Announcements) {
        let left = own.keys().map(|key| self.cache_time(key)).max().unwrap_or_default();
        self.stopping = Some(unix_seconds());
        self.publish_maintenance();
        self.outputs.withdrawn.send_replace(Some(left));
    }

    /// Returns the time for which caches may have answers with an instance.
    fn cache_time(&self, key: &InstanceKey) -> Duration {
        let host = self.ttl_ledger.served(key).map_or(HostKind::Own, |known| HostKind::of(&known.instance));
        let held_since = self.state.maintenance().since(key, host).map(Duration::from_secs);
        self.ttl_ledger.left(key, held_since, self.clock.now())
    }

    fn publish_maintenance(&self) {
        let maintenance = self.state.maintenance();
        let maintenance = match self.stopping {
            Some(since) => maintenance.with_node_drained(STOPPING_REASON, since),
            None => maintenance.clone(),
        };
        self.outputs.maintenance.send_if_modified(|value| set_if_changed(value, maintenance.clone()));
        self.publish_external(&maintenance);
    }

    fn publish_external(&self, maintenance: &Maintenance) {
        let before = self.outputs.external.borrow().clone();
        let announced = self.state.external().announced(maintenance, &before);
        log_external(&before, &announced);
        self.outputs.external.send_if_modified(|value| set_if_changed(value, announced));
    }

    fn reap(&mut self, announced: &Announcements, files: &Definitions) {
        let gone = self.state.reap(&mut self.critical, announced, files, self.clock.now());
        if gone.is_empty() {
            return;
        }
        for id in &gone {
            info!(%id, "deregistered: critical for longer than DeregisterCriticalServiceAfter");
        }
        self.save();
        self.outputs.definitions.send_replace(self.state.definitions(files));
    }

    async fn apply(&mut self, change: Change, files: &Definitions) -> Result<Outcome, RegistryError> {
        let log_message = match &change {
            Change::Register { .. } | Change::RegisterInCatalog(_) => Some("registered by HTTP"),
            Change::Deregister(_) => Some("deregistered by HTTP"),
            _ => None,
        };
        let report = match &change {
            Change::Report { status, output, .. } => Some((*status, output.clone())),
            _ => None,
        };
        let is_external = matches!(change, Change::RegisterExternal(_) | Change::DeregisterExternal(_));
        let mut next = self.state.clone();
        let mut outcome = next.apply(change, files, &self.host, unix_seconds())?;
        // Computed before the withdrawal. A repeated hold continues its first wait.
        outcome.cache_time = outcome.instances.iter().map(|key| self.cache_time(key)).max().unwrap_or_default();
        if outcome.changed {
            let text = next.to_text();
            if text.len() > MAX_STORED_LEN && text.len() > self.state.to_text().len() {
                let what = format!(
                    "Registrations on this node are limited to {MAX_STORED_LEN} octets: deregister some services."
                );
                return Err(RegistryError::Refused(what));
            }
            let stored = block_in_place(|| (self.store)(&text));
            self.unsaved = stored.is_err();
            stored.map_err(|error| {
                RegistryError::NotStored(format!("Cannot write the change to data_dir; nothing was changed: {error}"))
            })?;
            self.state = next;
            // A registration identical to the previous one is not logged.
            for (log_message, key) in
                log_message.iter().flat_map(|log_message| outcome.instances.iter().map(move |key| (log_message, key)))
            {
                info!(service = %key.service, id = %key.id, "{log_message}");
            }
            for MovedCheck { id, from } in &outcome.moved {
                warn!(check = %id, %from, "check moved to another service: check ids are unique on a node, and the last registration counts");
            }
            self.publish_maintenance();
            if is_external {
                outcome.external = Some(self.outputs.external.borrow().clone());
            }
            let node_checks = self.state.node_checks();
            self.outputs.node_checks.send_if_modified(|value| set_if_changed(value, node_checks));
            self.outputs.definitions.send_replace(self.state.definitions(files));
        }
        if let (Some((scope, check)), Some((status, output))) = (outcome.ttl_report.clone(), report) {
            // The receiver exists until the agent stops.
            let _ = self.outputs.ttl_reports.send(TtlReport { scope, check, status, output }).await;
        }
        Ok(outcome)
    }

    /// Stores the state, or tries again at the next reap.
    fn save(&mut self) {
        self.unsaved = block_in_place(|| (self.store)(&self.state.to_text())).is_err();
    }
}

/// Logs the external nodes and instances that differ.
fn log_external(before: &Announced, now: &Announced) {
    for item in before.nodes.diff(&now.nodes) {
        match item {
            DiffItem::Add(node, _) => info!(%node, "external node registered"),
            DiffItem::Remove(node, _) => info!(%node, "external node deregistered"),
            DiffItem::Update { .. } => {}
        }
    }
    for item in before.instances.diff(&now.instances) {
        match item {
            DiffItem::Add(key, _) => info!(service = %key.service, id = %key.id, "registered on an external node"),
            DiffItem::Remove(key, _) => info!(service = %key.service, id = %key.id, "deregistered on an external node"),
            DiffItem::Update { old: (_, old), new: (key, new) } => {
                let (was, is) = (old.state.is_answered(), new.state.is_answered());
                if was != is {
                    info!(service = %key.service, id = %key.id, answered = is, "reported status of an external instance");
                }
            }
        }
    }
}

fn set_if_changed<T: PartialEq>(value: &mut T, new: T) -> bool {
    let differs = *value != new;
    if differs {
        *value = new;
    }
    differs
}

fn time_until(end: Option<u64>) -> Duration {
    // Ends are whole seconds; wait at least 200 ms.
    end.map_or(Duration::MAX, |end| {
        Duration::from_secs(end.saturating_sub(unix_seconds())).max(Duration::from_millis(200))
    })
}
