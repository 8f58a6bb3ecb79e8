//! `muster agent`: reads the configuration, sets up logging, limits and signals, and runs the daemon.

use std::{
    env, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigSet, Signal},
};
use tokio::{
    runtime::{self, Runtime},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::timeout,
};
use tracing::{info, warn};

use super::{
    Exit,
    host_defaults::environment,
    input_files::{self, Text},
    log::start_logging,
    output::{print, print_error},
};
use crate::{
    config::{Config, DEFAULT_PATH, Environment},
    control::{Control, Stop},
    daemon::{Agent, Ending, HANDLED_SIGNALS, Handover, MAX_DRAIN, Program, REHEARSED, Source, check_start},
    diagnostic::Diagnostic,
    service_manager::{self, NotifyState},
};

/// Stop timeout requested from systemd during a drain: the longest drain, and 15 s to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(MAX_DRAIN.as_secs() + 15);
/// Time after SIGUSR1 in which SIGTERM restarts.
const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// Wait after SIGTERM for a SIGUSR1: signals that are sent back to back may be received in either order.
const RESTART_ORDER: Duration = Duration::from_millis(100);
/// Capacity of the queue of requests: operators send one after the other.
const REQUESTS: usize = 16;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Configuration file, or folder of *.yaml files merged in name order
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH, conflicts_with = "dev")]
    config: PathBuf,
    /// Run without a configuration: DNS on 127.0.0.1:8600, HTTP on 127.0.0.1:8500, files in a temporary folder
    #[arg(long)]
    dev: bool,
    /// On SIGTERM, drain the node before stopping, at most 30 s. A SIGTERM within one minute after SIGUSR1 restarts without a
    /// drain
    #[arg(long)]
    drain: bool,
}

pub(super) fn run(args: &Args) -> Exit {
    match check_start_or_run(args) {
        Ok(exit) => exit,
        Err(error) => {
            print_error!("muster: {error:#}");
            Exit::CouldNotRun
        }
    }
}

fn check_start_or_run(args: &Args) -> anyhow::Result<Exit> {
    // First of all: the descriptors must be adopted before others are opened.
    let rehearsed = Handover::rehearsed()?;
    let is_rehearsal = rehearsed.is_some();
    let received = rehearsed.map_or_else(Handover::receive, Ok);
    let address = received.as_ref().ok().and_then(Handover::address);
    let folder = args.dev.then(dev_folder).transpose()?;
    let source = source(args, folder.as_ref().map(|folder| folder.path().to_owned()));
    let config = if args.dev {
        (source.read)(address)
    } else {
        match input_files::configuration(&args.config) {
            Ok(texts) => parse(&texts, address),
            Err(error) => {
                print_error!("muster: cannot read the configuration {}: {error}", args.config.display());
                print_error!("Name another configuration with --config, or run without one with --dev.");
                return Ok(Exit::CouldNotRun);
            }
        }
    };
    let config = match config {
        Ok(config) => config,
        Err(problems) => {
            problems.iter().for_each(|problem| print_error!("{problem}"));
            return Ok(Exit::Problems);
        }
    };
    if is_rehearsal {
        let problems = check_start(&config, &source.path, &received?);
        problems.iter().for_each(|problem| print_error!("{problem}"));
        if !problems.is_empty() {
            return Ok(Exit::Problems);
        }
        print(&format!("{REHEARSED}\n"));
        return Ok(Exit::Done);
    }
    let set_log = Box::new(start_logging(&config.log));
    if let Some(folder) = &folder {
        info!(folder = %folder.path().display(), "development mode: put service files into services.d and zone files into zones");
    }
    let handover = received.unwrap_or_else(|error| {
        warn!(%error, "cannot take over from the previous process; starting without its sockets and state");
        Handover::default()
    });
    let (control, requests) = mpsc::channel(REQUESTS);
    let program = Program::current(env::args_os(), args.dev);
    let agent = Agent { config, source, program, control, requests, set_log, failed_upgrade: None };
    start(agent, handover, args.drain)?;
    Ok(Exit::Done)
}

/// The source of the configuration: the path, or `--dev` with files in `folder`.
fn source(args: &Args, folder: Option<PathBuf>) -> Source {
    let path = args.config.clone();
    match folder {
        Some(folder) => {
            let path = folder.clone();
            let read = move |in_use| Config::dev(&folder, &Environment { in_use, ..environment() });
            Source { path, read: Box::new(read) }
        }
        None => Source { path: path.clone(), read: Box::new(move |in_use| read_configuration(&path, in_use)) },
    }
}

fn read_configuration(path: &Path, in_use: Option<IpAddr>) -> Result<Config, Vec<Diagnostic>> {
    let texts = input_files::configuration(path)
        .map_err(|error| vec![Diagnostic::whole(path, format!("cannot read the configuration: {error}"))])?;
    parse(&texts, in_use)
}

fn parse(texts: &[Text], in_use: Option<IpAddr>) -> Result<Config, Vec<Diagnostic>> {
    let files = texts.iter().map(|text| (text.path.as_path(), text.bytes.as_slice()));
    Config::parse(files, &Environment { in_use, ..environment() })
}

/// Creates the folder for the files of `--dev`, which is removed when the agent ends.
fn dev_folder() -> anyhow::Result<tempfile::TempDir> {
    let folder =
        tempfile::Builder::new().prefix("muster-dev-").tempdir().context("cannot create a temporary folder")?;
    for name in ["services.d", "zones"] {
        fs::create_dir(folder.path().join(name)).context("cannot create a temporary folder")?;
    }
    Ok(folder)
}

fn start(mut agent: Agent, mut handover: Handover, drain: bool) -> anyhow::Result<()> {
    raise_open_files();
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let received = Arc::new(ReceivedSignals::default());
    let ended = loop {
        match runtime.block_on(run_agent(&mut agent, handover, drain, &received)) {
            Ok(Ending::Stopped) => break Ok(()),
            Ok(Ending::Upgrade(next)) => {
                // Returns only on failure.
                let error = agent.program.execute(&next, &received.pending());
                warn!(%error, "upgrade failed; going on with this version");
                agent.failed_upgrade = Some(error);
                handover = *next;
            }
            Err(error) => break Err(error),
        }
    };
    end(runtime);
    ended
}

/// Signals that an upgrade passes on: the daemon does not act on them while it ends its stages.
#[derive(Debug, Default)]
struct ReceivedSignals {
    terminate: AtomicBool,
    /// End of the time in which SIGTERM restarts.
    restart_until: Mutex<Option<Instant>>,
}

impl ReceivedSignals {
    fn restarts(&self) -> bool {
        let until = *self.restart_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn announce_restart(&self) {
        *self.restart_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + RESTART_WINDOW);
    }

    fn pending(&self) -> Vec<Signal> {
        let restart = self.restarts().then_some(Signal::SIGUSR1);
        let terminate = self.terminate.load(Ordering::Relaxed).then_some(Signal::SIGTERM);
        restart.into_iter().chain(terminate).collect()
    }
}

async fn run_agent(
    agent: &mut Agent,
    handover: Handover,
    drain: bool,
    received: &Arc<ReceivedSignals>,
) -> anyhow::Result<Ending> {
    if agent.failed_upgrade.is_none() {
        handle_signals(agent.control.clone(), drain, received.clone()).context("cannot install signal handlers")?;
    }
    let mut is_ready = false;
    agent
        .run(handover, || {
            if !std::mem::replace(&mut is_ready, true) {
                ready();
            }
        })
        .await
        .map_err(anyhow::Error::from)
}

fn end(runtime: Runtime) {
    // A probe that is blocked in the kernel must not delay the exit.
    runtime.shutdown_timeout(Duration::from_millis(200));
}

/// Raises the limit of open files to the hard limit: each check and each TCP client needs a descriptor.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        warn!(%error, soft, hard, "cannot raise the limit of open files");
    }
}

/// Turns signals into requests: SIGTERM and SIGINT stop, SIGHUP reloads, SIGUSR1 makes the next SIGTERM restart, SIGUSR2
/// upgrades. A second SIGTERM, and SIGINT, stop the agent at once.
fn handle_signals(control: mpsc::Sender<Control>, drain: bool, received: Arc<ReceivedSignals>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut restart = signal(SignalKind::user_defined1())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    // The previous image of this process blocked them.
    let handled: SigSet = HANDLED_SIGNALS.into_iter().collect();
    handled.thread_unblock()?;
    tokio::spawn(async move {
        let mut is_draining = false;
        loop {
            let request = tokio::select! {
                _ = terminate.recv() => {
                    received.terminate.store(true, Ordering::Relaxed);
                    if received.restarts() || timeout(RESTART_ORDER, restart.recv()).await.is_ok() {
                        received.announce_restart();
                        info!("SIGTERM after SIGUSR1: restarting");
                        Control::Stop(Stop::Restart)
                    } else if drain && !std::mem::replace(&mut is_draining, true) {
                        info!("SIGTERM: draining before stop; a second SIGTERM stops at once");
                        Control::Stop(Stop::Drain)
                    } else {
                        info!("SIGTERM: stopping");
                        Control::Stop(Stop::Leave)
                    }
                }
                _ = interrupt.recv() => {
                    info!("SIGINT: stopping");
                    Control::Stop(Stop::Leave)
                }
                _ = restart.recv() => {
                    info!("SIGUSR1: SIGTERM within {RESTART_WINDOW:?} restarts without a drain");
                    received.announce_restart();
                    continue;
                }
                _ = hangup.recv() => {
                    info!("SIGHUP: reloading the configuration and all files");
                    Control::Reload { done: None }
                }
                _ = upgrade.recv() => {
                    info!("SIGUSR2: checking the program for an upgrade");
                    Control::Upgrade
                }
            };
            if let Control::Stop(stop) = request {
                announce_stop(stop);
            }
            if control.send(request).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn announce_stop(stop: Stop) {
    match stop {
        Stop::Drain => service_manager::notify(&[
            NotifyState::Stopping,
            NotifyState::Status("draining: instances withdrawn, waiting for cached answers to expire"),
            NotifyState::ExtendTimeoutUsec(DRAIN_TIMEOUT.as_micros() as u32),
        ]),
        Stop::Leave => service_manager::notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]),
        Stop::Restart => service_manager::notify(&[NotifyState::Stopping, NotifyState::Status("restarting")]),
    }
}

/// Reports readiness to systemd, then pings its watchdog if one is enabled.
fn ready() {
    service_manager::notify(&[NotifyState::Ready, NotifyState::Status("answering")]);
    let Some(timeout) = service_manager::watchdog() else { return };
    tokio::spawn(async move {
        // Half the timeout, as sd_watchdog_enabled(3) advises.
        let mut ticks = tokio::time::interval(timeout / 2);
        loop {
            ticks.tick().await;
            service_manager::notify(&[NotifyState::Watchdog]);
        }
    });
}
