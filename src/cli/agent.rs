//! `muster agent`: reads the configuration, sets up the process, runs the daemon.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing::{Level, info, warn};
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::{Exit, host_defaults::environment, inputs};
use crate::{
    config::{self, Config, DEFAULT_PATH, Format},
    daemon::{self, MAX_DRAIN, Signals},
};

/// What systemd is told that a drain may take: the wait, and the end after it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(MAX_DRAIN.as_secs() + 15);
/// How long SIGUSR1 counts: whoever restarts does so next.
const RESTART: Duration = Duration::from_secs(60);

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// A file, or a folder of *.yaml merged in the order of their names
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH, conflicts_with = "dev")]
    config: PathBuf,
    /// Without a file: loopback only, DNS on 127.0.0.1:8600, HTTP on 127.0.0.1:8500, everything in a temporary folder
    #[arg(long)]
    dev: bool,
    /// On SIGTERM: take the node's instances out of answers, and end when no cache has them any more (30 s at most); not
    /// within a minute after SIGUSR1, which says that it is started again at once
    #[arg(long)]
    drain: bool,
}

/// What SIGTERM does first. A second one, or SIGINT, ends the agent at once.
#[derive(Clone, Copy)]
enum Stop {
    AtOnce,
    Drained,
}

pub(super) fn run(args: &Args) -> Exit {
    let folder = match args.dev.then(dev_folder).transpose() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("muster: {error:#}");
            return Exit::CouldNotRun;
        }
    };
    let config = match &folder {
        Some(folder) => Config::dev(folder.path(), &environment()),
        None => match inputs::configuration(&args.config) {
            Ok(texts) => {
                Config::parse(texts.iter().map(|text| (text.path.as_path(), text.bytes.as_slice())), &environment())
            }
            Err(error) => {
                eprintln!("muster: cannot read the configuration {}: {error}", args.config.display());
                eprintln!("Name another one by --config, or try muster without any by --dev.");
                return Exit::CouldNotRun;
            }
        },
    };
    let config = match config {
        Ok(config) => config,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return Exit::Problems;
        }
    };
    log(&config.log);
    if let Some(folder) = &folder {
        info!(folder = %folder.path().display(), "a node to try things out: drop service files into services.d there, zone files into zones");
    }
    match start(config, if args.drain { Stop::Drained } else { Stop::AtOnce }) {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("muster: {error:#}");
            Exit::CouldNotRun
        }
    }
}

/// What `--dev` keeps on disk; it goes when the agent ends.
fn dev_folder() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("muster-dev-").tempdir().context("cannot make a temporary folder")?;
    for name in ["services.d", "zones"] {
        fs::create_dir(folder.path().join(name)).context("cannot make a temporary folder")?;
    }
    Ok(folder)
}

fn start(config: Config, stop: Stop) -> anyhow::Result<()> {
    raise_open_files();
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let rescan = watch::Sender::new(());
        let signals = Signals { shutdown: shutdown.clone(), rescan, drain: CancellationToken::new() };
        obey(signals.clone(), stop).context("cannot listen for signals")?;
        daemon::run(config, signals, move || ready(shutdown)).await.map_err(anyhow::Error::from)
    });
    // A probe that is stuck in the kernel must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

/// Every check and every TCP client has a descriptor: take as many as the system grants.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        warn!(%error, soft, hard, "cannot raise the limit of open files");
    }
}

/// SIGTERM and SIGINT end the agent, the former after a drain where `stop` says so; SIGHUP makes it read all files again,
/// SIGUSR1 announces a restart.
fn obey(signals: Signals, stop: Stop) -> std::io::Result<()> {
    let Signals { shutdown, rescan, drain } = signals;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut restart = signal(SignalKind::user_defined1())?;
    let mut restarts_until = Instant::now();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => match stop {
                    Stop::Drained if !drain.is_cancelled() && Instant::now() >= restarts_until => {
                        info!("SIGTERM: draining, then stopping; another one stops at once");
                        tell_systemd(&[
                            NotifyState::Stopping,
                            NotifyState::Status("draining: out of answers, until no cache has them any more"),
                            NotifyState::ExtendTimeoutUsec(DRAIN_TIMEOUT.as_micros() as u32),
                        ]);
                        drain.cancel();
                    }
                    Stop::Drained | Stop::AtOnce => break info!("SIGTERM: stopping"),
                },
                _ = interrupt.recv() => break info!("SIGINT: stopping"),
                // Told to stop in another way.
                () = shutdown.cancelled() => break,
                _ = restart.recv() => {
                    info!("SIGUSR1: a SIGTERM within {RESTART:?} is a restart, before which nothing is drained");
                    restarts_until = Instant::now() + RESTART;
                }
                _ = hangup.recv() => {
                    info!("SIGHUP: reading all service files and zone files again; the configuration is read at start");
                    rescan.send_replace(());
                }
            }
        }
        tell_systemd(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
        shutdown.cancel();
    });
    Ok(())
}

/// Tells systemd that the agent answers, and from then on that it lives.
fn ready(shutdown: CancellationToken) {
    tell_systemd(&[NotifyState::Ready]);
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    tokio::spawn(async move {
        // Twice as often as is needed, as sd_watchdog_enabled(3) advises.
        let mut ticks = tokio::time::interval(patience / 2);
        while !shutdown.is_cancelled() {
            ticks.tick().await;
            tell_systemd(&[NotifyState::Watchdog]);
        }
    });
}

/// Does nothing where systemd does not listen.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd did not take a notification");
    }
}

/// Sends the log to stderr. Of the libraries only warnings are shown: their own news concern their authors.
fn log(settings: &config::Log) {
    let level = match settings.level {
        config::Level::Error => Level::ERROR,
        config::Level::Warn => Level::WARN,
        config::Level::Info => Level::INFO,
        config::Level::Debug => Level::DEBUG,
        config::Level::Trace => Level::TRACE,
    };
    // What these warn of is what peers and clients did, or what `gossip::cluster` mends and tells itself.
    let quiet = if level >= Level::DEBUG { LevelFilter::WARN } else { LevelFilter::OFF };
    let others = ["chitchat", "hickory_server", "hickory_net", "quinn"].map(|target| (target, quiet));
    let levels = Targets::new().with_target("muster", level).with_targets(others).with_default(Level::WARN);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.format {
        Format::Text => lines.with_target(false).with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(levels)).init();
}
