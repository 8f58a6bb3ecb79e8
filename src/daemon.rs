//! The composition root: binds, loads, starts, serves, stops. Only this module imports more than one adapter.
//!
//! ```text
//! services_dir ─► files ─► checks ─► announcements ─► cluster ─► view ─┐
//! zones_dir ────► files ───────────────────────────────────────────────┴─► publisher ─► tables ─► DNS servers
//! members, commands ◄─► HTTP
//! ```
//!
//! The stages start more than once: a changed configuration, a changed address and an upgrade start them from a
//! [`Handover`], which keeps the sockets and the state. Every error of the first start is reported before the first answer,
//! with its remedy. After that, only a request or a defect ends the agent.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::block_in_place,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::{
    drain::MAX_DRAIN,
    error::{DaemonError, Purpose},
    handover::{Handover, HandoverError},
    reload::{Source, check_start},
    upgrade::{HANDLED_SIGNALS, Program, REHEARSED, UpgradeError},
};
use self::{
    reload::{Active, Reread},
    sockets::SocketPool,
    stages::{Servers, Stages, Started},
    store::RunningStore,
    tasks::Tasks,
};
use crate::{
    config::{self, Config},
    control::{Control, Reloaded, Stop},
    data_dir::DataDir,
    diagnostic::{Diagnostic, FolderReport, Reports},
    gossip::node::End,
    metrics::Metrics,
    model::host_addresses::HostAddresses,
    saved_state::SavedState,
    service_manager::{self, NotifyState},
};

mod addresses;
mod answers;
mod bind;
mod cluster;
mod data_dir_report;
mod dns;
mod dnssec;
mod dnstap;
mod drain;
mod dynamic_zones;
mod encrypted;
mod error;
mod etcd_api;
mod fixed;
mod folders;
mod handover;
mod http_api;
mod local_services;
mod own_announcements;
mod record_counts;
mod reload;
mod resolver;
mod scrape;
mod sockets;
mod stages;
mod state_store;
mod store;
mod tasks;
mod transfers;
mod trust_anchors;
mod upgrade;
mod zone_problems;
mod zone_sources;

/// Wait for the reason of the node's end after another task has ended: that task may have ended with the node.
const NODE_END: Duration = Duration::from_millis(500);
/// The program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An agent: its configuration, where that comes from, and its program.
pub struct Agent {
    /// The configuration of the next start.
    pub config: Config,
    /// Reads the configuration again.
    pub source: Source,
    /// The running program.
    pub program: Program,
    /// Takes requests to the agent.
    pub control: mpsc::Sender<Control>,
    /// The requests.
    pub requests: mpsc::Receiver<Control>,
    /// Applies the settings of the log.
    pub set_log: Box<dyn Fn(&config::Log) + Send + Sync>,
    /// Error of the last upgrade.
    pub failed_upgrade: Option<UpgradeError>,
}

/// The way in which an agent ended.
pub enum Ending {
    /// By a request, or because the node has left the cluster.
    Stopped,
    /// For an upgrade: the caller is to execute the program. If that fails, [`Agent::run`] goes on with the handover.
    Upgrade(Box<Handover>),
}

/// Inputs of every stage of the start.
struct Context<'a> {
    config: &'a Config,
    data_dir: DataDir,
    metrics: Metrics,
    shutdown: CancellationToken,
    tasks: Tasks,
}

/// State that outlives the stages within a process.
struct Lasting {
    data_dir: DataDir,
    metrics: Metrics,
    /// State and problems of folders, of the configuration, and of upgrades.
    reports: watch::Sender<Arc<Reports>>,
    /// The store, if the configuration has one.
    store: Option<RunningStore>,
}

/// The end of a start of the stages.
enum Next {
    /// The agent ends.
    Stop(Stop),
    /// The agent ends by itself.
    Ended(Result<(), DaemonError>),
    /// The stages start again.
    Restart(Box<Restart>),
    /// Another binary takes over.
    Upgrade,
}

/// A new start of the stages in this process.
struct Restart {
    run: NextRun,
    /// A new configuration, and its sockets.
    changed: Option<(Config, SocketPool)>,
    /// Takes the outcome of a reload.
    done: Option<oneshot::Sender<Reloaded>>,
}

/// Outcome of a rehearsal.
enum Rehearsed {
    /// The rehearsal has ended.
    Ended(Result<(), UpgradeError>),
    /// A request to stop came first.
    Stopped(Stop),
}

/// The run of the node after a restart of the stages.
enum NextRun {
    /// The same.
    Same,
    /// A new one, above this generation.
    Above(u64),
}

impl Agent {
    /// Runs the agent until a request ends it. Calls `ready` whenever it answers after a start of its stages. Needs a runtime
    /// with several threads.
    ///
    /// # Errors
    /// The reason why the agent could not start, or why it ended by itself.
    pub async fn run(&mut self, handover: Handover, ready: impl FnMut()) -> Result<Ending, DaemonError> {
        let metrics = Metrics::default();
        let lasting = Lasting {
            data_dir: DataDir::new(self.config.data_dir.clone()),
            store: store::start(&self.config, metrics.store.clone()),
            metrics,
            reports: watch::Sender::default(),
        };
        let ending = self.run_stages(&lasting, handover, ready).await;
        if let Some(store) = lasting.store {
            store.end().await;
        }
        ending
    }

    async fn run_stages(
        &mut self,
        lasting: &Lasting,
        mut handover: Handover,
        mut ready: impl FnMut(),
    ) -> Result<Ending, DaemonError> {
        let (mut former, mut servers, mut done) = (None::<Config>, None::<Servers>, None);
        // Problems of a configuration that passed all checks and could not be started.
        let mut refused = Vec::new();
        loop {
            lasting.forget_folders(&self.source.path, self.program.path());
            let started = Stages::start(lasting, &self.config, &handover, &self.control).await;
            let mut stages = match started {
                Ok(Started::Running(stages)) => *stages,
                Ok(Started::Superseded(above)) => {
                    info!(above, "the cluster knows a later run of this node: starting a run above it");
                    handover.above = above;
                    continue;
                }
                Err(error) => {
                    let Some(before) = former.take() else { return Err(error) };
                    warn!(%error, "cannot start with the new configuration; going back to the former one");
                    refused = vec![Diagnostic::whole(&self.source.path, format!("cannot start: {error}"))];
                    self.config = before;
                    continue;
                }
            };
            // Only now: the former servers have answered during the start.
            if let Some(servers) = servers.take() {
                servers.retire();
            }
            store_sockets(&stages.sockets, &handover.sockets);
            match (handover.is_upgrade(), former.is_some()) {
                (true, _) => info!(version = VERSION, "upgraded in place"),
                (false, true) => info!("the changed configuration is active"),
                (false, false) => {}
            }
            // Closes the sockets that are no longer in use.
            drop(handover);
            former = None;
            (self.set_log)(&self.config.log);
            let active = Active::new(&self.config);
            self.report_start(lasting, &active, refused.clone());
            ready();
            reply(done.take(), std::mem::take(&mut refused), stages.file_problems());
            match self.serve(&mut stages, &active, lasting).await {
                Next::Ended(outcome) => {
                    stages.end().await;
                    return outcome.map(|()| Ending::Stopped);
                }
                Next::Stop(Stop::Restart) => {
                    stages.stopping();
                    let (left, servers) = stages.hand_over(None).await;
                    // Another process reads the valid files again: their texts, which may be secrets, are not stored.
                    left.state.into_iter().for_each(|state| store(lasting, &state.without_valid_files()));
                    // No task takes the requests that are left.
                    drop(left.requests);
                    servers.end_process().await;
                    info!("stopped for a restart");
                    return Ok(Ending::Stopped);
                }
                Next::Stop(Stop::Leave | Stop::Drain) => {
                    store(lasting, &stages.state().await);
                    stages.end().await;
                    info!("stopped");
                    return Ok(Ending::Stopped);
                }
                Next::Upgrade => {
                    // Connections end before gossip does, so that peers miss the node for a moment only.
                    stages.end_connections().await;
                    let run = stages.next_run();
                    let (left, servers) = stages.hand_over(run).await;
                    servers.end_for_upgrade().await;
                    return Ok(Ending::Upgrade(Box::new(left.of(&self.config))));
                }
                Next::Restart(restart) => {
                    let Restart { run, changed, done: outcome } = *restart;
                    let (same, above) = match run {
                        NextRun::Same => (stages.next_run(), 0),
                        NextRun::Above(generation) => (None, generation),
                    };
                    let (left, answering) = stages.hand_over(same).await;
                    handover = Handover { above, ..left };
                    servers = Some(answering);
                    done = outcome;
                    if let Some((config, sockets)) = changed {
                        former = Some(std::mem::replace(&mut self.config, config));
                        // The former sockets stay open until the new servers answer.
                        handover.sockets.extend(sockets);
                    }
                }
            }
        }
    }

    /// Carries out requests until the stages have to end.
    async fn serve(&mut self, stages: &mut Stages, active: &Active, lasting: &Lasting) -> Next {
        loop {
            let mut host = stages.host.clone();
            let request = tokio::select! {
                name = stages.ended() => return self.ended(name, stages).await,
                config = changed_addresses(&self.config, &mut host) => {
                    info!(addresses = ?config.advertise.addresses(), "the address of this host has changed: applying it");
                    let run = stages.run_under(&self.config, &config);
                    return restart(run, Some((config, SocketPool::default())), None);
                }
                // The sender is a field of this agent.
                Some(request) = self.requests.recv() => request,
            };
            match request {
                Control::Stop(Stop::Drain) => {
                    let drained = drain::drained(stages.drain());
                    tokio::select! {
                        () = drained => return Next::Stop(Stop::Drain),
                        name = stages.ended() => return self.ended(name, stages).await,
                        stop = next_stop(&mut self.requests) => return Next::Stop(stop),
                    }
                }
                Control::Stop(stop) => return Next::Stop(stop),
                Control::Reload { done } => match block_in_place(|| self.source.reread(active, &stages.sockets)) {
                    Reread::Changed(config, sockets) => {
                        info!("the configuration has changed: applying it");
                        let run = stages.run_under(&self.config, &config);
                        return restart(run, Some((*config, sockets)), done);
                    }
                    Reread::Unchanged => {
                        self.report_configuration(lasting, active, Vec::new());
                        reply(done, Vec::new(), stages.reread().await);
                    }
                    Reread::Refused(problems) => {
                        warn!("the configuration was refused; the former one stays active");
                        problems.iter().for_each(|problem| warn!("{problem}"));
                        self.report_configuration(lasting, active, problems.clone());
                        reply(done, problems, stages.reread().await);
                    }
                },
                Control::Upgrade => match self.rehearse_unless_stopped(stages).await {
                    Rehearsed::Stopped(stop) => self.resend(Control::Stop(stop)),
                    Rehearsed::Ended(Ok(())) => return Next::Upgrade,
                    Rehearsed::Ended(Err(error)) => {
                        warn!(%error, "upgrade refused; going on with this version");
                        // The package's upgrade prints it. A status is one line.
                        let status = format!("upgrade refused: {error}").replace('\n', " ");
                        service_manager::notify(&[NotifyState::Status(&status)]);
                        self.report_upgrade(lasting, &error);
                    }
                },
            }
        }
    }

    /// The reaction to the end of a task.
    async fn ended(&self, name: &'static str, stages: &mut Stages) -> Next {
        // Other tasks end with the node, and may be noticed first.
        let end = timeout(NODE_END, &mut stages.cluster.ended).await;
        match end.ok().and_then(Result::ok) {
            Some(End::Superseded { above }) => {
                info!(above, "the cluster knows a later run of this node: starting a run above it");
                restart(NextRun::Above(above), None, None)
            }
            end => {
                let failure = cluster::failure(&self.config.node, Some(name), end);
                Next::Ended(failure.map_or(Ok(()), Err))
            }
        }
    }

    /// Checks the start of the new program. A request to stop goes first; others wait.
    async fn rehearse_unless_stopped(&mut self, stages: &mut Stages) -> Rehearsed {
        let mut waiting = Vec::new();
        let requests = &mut self.requests;
        let stopped = async {
            loop {
                match requests.recv().await {
                    Some(Control::Stop(stop)) => return stop,
                    Some(other) => waiting.push(other),
                    None => std::future::pending().await,
                }
            }
        };
        let rehearsal = rehearse(&self.program, &self.config, stages);
        let outcome = tokio::select! {
            outcome = rehearsal => Rehearsed::Ended(outcome),
            stop = stopped => Rehearsed::Stopped(stop),
        };
        waiting.into_iter().for_each(|request| self.resend(request));
        outcome
    }

    /// Puts a request back into the queue. A full queue drops it, and its sender is told.
    fn resend(&self, request: Control) {
        let _ = self.control.try_send(request);
    }

    fn report_start(&mut self, lasting: &Lasting, active: &Active, problems: Vec<Diagnostic>) {
        self.report_configuration(lasting, active, problems);
        if let Some(error) = self.failed_upgrade.take() {
            self.report_upgrade(lasting, &error);
        }
    }

    fn report_configuration(&self, lasting: &Lasting, active: &Active, problems: Vec<Diagnostic>) {
        lasting.report(&self.source.path, active.to_string(), problems);
    }

    fn report_upgrade(&self, lasting: &Lasting, error: &UpgradeError) {
        let path = self.program.path();
        let problem = Diagnostic::whole(path, format!("upgrade refused: {error}"));
        lasting.report(path, format!("running version {VERSION}"), vec![problem]);
    }
}

impl Lasting {
    /// Forgets the reports of folders: the stages report those that the configuration names.
    fn forget_folders(&self, configuration: &Path, program: &Path) {
        let lasting = [configuration, program, self.data_dir.path()];
        self.reports.send_modify(|all| Arc::make_mut(all).retain(|path, _| lasting.contains(&path.as_path())));
    }

    fn report(&self, path: &Path, in_service: String, problems: Vec<Diagnostic>) {
        self.reports.send_modify(|all| {
            let report = Arc::make_mut(all).entry(path.to_owned()).or_default();
            *report = FolderReport { in_service, problems, reads: report.reads + 1 };
        });
    }
}

fn restart(run: NextRun, changed: Option<(Config, SocketPool)>, done: Option<oneshot::Sender<Reloaded>>) -> Next {
    Next::Restart(Box::new(Restart { run, changed, done }))
}

/// Waits until the addresses of the host require another configuration.
async fn changed_addresses(active: &Config, host: &mut watch::Receiver<HostAddresses>) -> Config {
    loop {
        if let Some(config) = active.follow(&host.borrow_and_update()) {
            return config;
        }
        if host.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn rehearse(program: &Program, config: &Config, stages: &Stages) -> Result<(), UpgradeError> {
    let (run, state) = (stages.next_run(), Some(stages.state().await));
    let listeners = stages.sockets.iter().map(|(name, _)| name.to_string()).collect();
    let handover = Handover { run, state, listeners, ..Handover::default() }.of(config);
    program.rehearse(&handover.write()?).await
}

/// Waits for a request to stop. Others are of no use to an agent that drains.
async fn next_stop(requests: &mut mpsc::Receiver<Control>) -> Stop {
    loop {
        match requests.recv().await {
            Some(Control::Stop(_)) => return Stop::Leave,
            Some(Control::Reload { .. } | Control::Upgrade) => info!("request ignored: the agent is stopping"),
            None => std::future::pending().await,
        }
    }
}

fn reply(done: Option<oneshot::Sender<Reloaded>>, configuration: Vec<Diagnostic>, files: Vec<Diagnostic>) {
    if let Some(done) = done {
        // The client may be gone.
        let _ = done.send(Reloaded { configuration, files });
    }
}

/// Stores the state for the next process.
fn store(lasting: &Lasting, state: &SavedState) {
    // The data directory logs an error.
    let _ = block_in_place(|| lasting.data_dir.store_state(&state.encode()));
}

/// Stores the open sockets with the service manager, and removes those that are no longer open.
fn store_sockets(open: &SocketPool, before: &SocketPool) {
    for (name, sockets) in open.iter() {
        service_manager::store(&name.to_string(), sockets);
    }
    for (name, _) in before.iter().filter(|(name, _)| !open.contains(name)) {
        service_manager::forget(&name.to_string());
    }
}
