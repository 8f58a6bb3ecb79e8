//! `muster agent`: reads the configuration, sets up logging, limits and signals, and runs the daemon.

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

use super::{Exit, host_defaults::environment, input_files};
use crate::{
    config::{self, Config, DEFAULT_PATH, Format},
    daemon::{self, MAX_DRAIN, Signals},
};

/// Stop timeout requested from systemd during a drain: the longest drain, and 15 s to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(MAX_DRAIN.as_secs() + 15);
/// Time after SIGUSR1 in which SIGTERM does not drain.
const RESTART_WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Configuration file, or folder of *.yaml files merged in name order
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH, conflicts_with = "dev")]
    config: PathBuf,
    /// Run without a configuration: DNS on 127.0.0.1:8600, HTTP on 127.0.0.1:8500, files in a temporary folder
    #[arg(long)]
    dev: bool,
    /// On SIGTERM, drain the node before stopping, at most 30 s; not within one minute after SIGUSR1
    #[arg(long)]
    drain: bool,
}

/// Effect of the first SIGTERM. A second SIGTERM, or SIGINT, stops the agent at once.
#[derive(Clone, Copy)]
enum Stop {
    Immediate,
    AfterDrain,
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
        None => match input_files::configuration(&args.config) {
            Ok(texts) => {
                Config::parse(texts.iter().map(|text| (text.path.as_path(), text.bytes.as_slice())), &environment())
            }
            Err(error) => {
                eprintln!("muster: cannot read the configuration {}: {error}", args.config.display());
                eprintln!("Name another configuration with --config, or run without one with --dev.");
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
    start_logging(&config.log);
    if let Some(folder) = &folder {
        info!(folder = %folder.path().display(), "development mode: put service files into services.d and zone files into zones");
    }
    match start(config, if args.drain { Stop::AfterDrain } else { Stop::Immediate }) {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("muster: {error:#}");
            Exit::CouldNotRun
        }
    }
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

fn start(config: Config, stop: Stop) -> anyhow::Result<()> {
    raise_open_files();
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let rescan = watch::Sender::new(());
        let signals = Signals { shutdown: shutdown.clone(), rescan, drain: CancellationToken::new() };
        handle_signals(signals.clone(), stop).context("cannot install signal handlers")?;
        daemon::run(config, signals, move || ready(shutdown)).await.map_err(anyhow::Error::from)
    });
    // A probe that is blocked in the kernel must not delay the exit.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
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

/// Handles SIGTERM and SIGINT (stop, with a drain first if `stop` requires it), SIGHUP (reload) and SIGUSR1 (restart ahead).
fn handle_signals(signals: Signals, stop: Stop) -> std::io::Result<()> {
    let Signals { shutdown, rescan, drain } = signals;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut restart = signal(SignalKind::user_defined1())?;
    let mut restart_until = Instant::now();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => match stop {
                    Stop::AfterDrain if !drain.is_cancelled() && Instant::now() >= restart_until => {
                        info!("SIGTERM: draining before stop; a second SIGTERM stops at once");
                        notify_systemd(&[
                            NotifyState::Stopping,
                            NotifyState::Status("draining: instances withdrawn, waiting for cached answers to expire"),
                            NotifyState::ExtendTimeoutUsec(DRAIN_TIMEOUT.as_micros() as u32),
                        ]);
                        drain.cancel();
                    }
                    Stop::AfterDrain | Stop::Immediate => break info!("SIGTERM: stopping"),
                },
                _ = interrupt.recv() => break info!("SIGINT: stopping"),
                // Another part of the agent stops it.
                () = shutdown.cancelled() => break,
                _ = restart.recv() => {
                    info!("SIGUSR1: restart announced; SIGTERM within {RESTART_WINDOW:?} does not drain");
                    restart_until = Instant::now() + RESTART_WINDOW;
                }
                _ = hangup.recv() => {
                    info!("SIGHUP: reloading service and zone files; configuration changes take effect after a restart");
                    rescan.send_replace(());
                }
            }
        }
        notify_systemd(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
        shutdown.cancel();
    });
    Ok(())
}

/// Reports readiness to systemd, then pings its watchdog if one is enabled.
fn ready(shutdown: CancellationToken) {
    notify_systemd(&[NotifyState::Ready]);
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    tokio::spawn(async move {
        // Half the timeout, as sd_watchdog_enabled(3) advises.
        let mut ticks = tokio::time::interval(timeout / 2);
        while !shutdown.is_cancelled() {
            ticks.tick().await;
            notify_systemd(&[NotifyState::Watchdog]);
        }
    });
}

/// Sends a notification to systemd; without a notification socket, does nothing.
fn notify_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot notify systemd");
    }
}

/// Sends the log to stderr. Libraries log warnings and errors only.
fn start_logging(settings: &config::Log) {
    let level = match settings.level {
        config::Level::Error => Level::ERROR,
        config::Level::Warn => Level::WARN,
        config::Level::Info => Level::INFO,
        config::Level::Debug => Level::DEBUG,
        config::Level::Trace => Level::TRACE,
    };
    // These libraries warn of the behaviour of peers and clients, which the agent handles and logs itself.
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
