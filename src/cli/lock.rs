//! `muster lock`: runs a command while this host holds a lock, and ends the command when the lock is lost.
//!
//! The lock is that of `consul lock`: the key `NAME/.lock`, held by a session with a time to live; with `--limit` above 1, a
//! [`Semaphore`]. Both tools exclude each other.
//! The session is renewed at a third of its time to live. If no renewal succeeds before it is over, the lock counts as lost.
//! The store ends the session no earlier, and keeps the lock free for the lock delay, which is longer than the grace period of
//! the command by default.

use std::{
    io,
    pin::{Pin, pin},
    process::ExitStatus,
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::time::sleep;

use self::{
    program::Program,
    semaphore::Semaphore,
    session::{Failure, Held},
};
use super::{
    Exit,
    client::{self, Client, ClientError, with_exit},
    output::print_error,
    signals::Signals,
    table::printable,
};
use crate::{
    api::kv::{DELETE, RELEASE},
    store::session::{MAX_LOCK_DELAY, MAX_TTL, MIN_TTL},
};

mod program;
mod semaphore;
mod session;

/// Time after which a command that does not end at SIGTERM is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Pause between two attempts while no session holds the lock (its lock delay), and after a failed request.
const RETRY: Duration = Duration::from_secs(1);
/// Largest number of holders: the names of all are in one key.
const MAX_LIMIT: u64 = 1000;
/// Exit code if the lock was not acquired in time, as of timeout(1).
const NOT_ACQUIRED: Exit = Exit::Program(124);
/// Exit code if the lock was lost, and the command was ended.
const LOST: Exit = Exit::Program(125);
/// Exit code of a command that exists and cannot be started, as in the shell and env(1).
const NOT_EXECUTABLE: Exit = Exit::Program(126);
/// Exit code of a command that does not exist, as in the shell and env(1).
const NOT_FOUND: Exit = Exit::Program(127);
/// Added to the number of the signal that ended a command, as in the shell.
const SIGNALLED: i32 = 128;

/// Exit codes, below the help of the command.
const EXIT_STATUS: &str = "\
Exit status:
  That of the command; 128 + N if signal N ended it. The others are of `muster lock` itself:
  1    The agent refused the request, such as without a store; the command was not started
  2    Usage error or unreachable agent; the command was not started
  124  The lock was not acquired within --wait; the command was not started
  125  The lock was lost, and the command was ended
  126  The command cannot be executed
  127  The command does not exist";

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Args {
    /// Name of the lock: it is the key NAME/.lock
    #[arg(value_name = "NAME")]
    name: String,
    /// Time after which another host can take the lock of a host that failed: 10s to 24h
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = ttl)]
    ttl: Duration,
    /// Time for which a lost lock stays free, so that the former holder can end: at most 60s
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = lock_delay)]
    lock_delay: Duration,
    /// Number of hosts that may hold the lock at the same time; all of them must state the same number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT))]
    limit: u64,
    /// Give up if the lock is not acquired within this time [default: wait indefinitely]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
    #[command(flatten)]
    client: client::Args,
}

/// Parses a time to live within the bounds of sessions.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (MIN_TTL..=MAX_TTL).contains(&ttl) { Ok(ttl) } else { Err("expected 10s to 24h".to_owned()) }
}

/// Parses a lock delay within the bound of sessions.
fn lock_delay(text: &str) -> Result<Duration, String> {
    let delay = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if delay <= MAX_LOCK_DELAY { Ok(delay) } else { Err("expected at most 60s".to_owned()) }
}

pub(super) fn run(args: &Args) -> Exit {
    with_exit(&args.client, |client| client.block_on(lock(client, args)))
}

/// Creates a session, runs the command with the lock, and ends the session in any case.
async fn lock(client: &Client, args: &Args) -> Result<Exit, ClientError> {
    let mut signals =
        Signals::listen().map_err(|error| ClientError::Failed(format!("cannot listen for signals: {error}")))?;
    let semaphore = (args.limit > 1).then(|| Semaphore::new(&args.name, args.limit));
    // The own key of a holder of a semaphore ends with its session.
    let behavior = if semaphore.is_some() { DELETE } else { RELEASE };
    let mut given_up = pin!(given_up(args.wait));
    let held = tokio::select! {
        created = create(client, args, behavior) => created?,
        signal = signals.next() => return Ok(signalled(signal)),
        () = &mut given_up => return Ok(not_acquired(args)),
    };
    let lock = Lock { held, semaphore };
    let outcome = with_session(&lock, args, &mut signals, given_up).await;
    lock.held.end(lock.release()).await;
    outcome
}

/// Ends after the time of `--wait`; never without it.
async fn given_up(wait: Option<Duration>) {
    match wait {
        Some(limit) => sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Reports that the lock was not acquired in time; returns the exit code.
fn not_acquired(args: &Args) -> Exit {
    let (name, wait) = (printable(&args.name), args.wait.unwrap_or_default());
    print_error!("muster: lock {name} was not acquired within {wait:?}");
    NOT_ACQUIRED
}

/// Creates the session. With `--wait`, it is tried again while the store has no leader, which may come back in time.
async fn create<'c>(client: &'c Client, args: &Args, behavior: &str) -> Result<Held<'c>, ClientError> {
    let mut is_reported = false;
    loop {
        match Held::create(client, &args.name, args.ttl, args.lock_delay, behavior).await {
            Ok(held) => return Ok(held),
            Err(failure) if args.wait.is_none() || failure.status.is_none() || failure.is_last() => {
                return Err(failure.error);
            }
            Err(failure) => {
                if !is_reported {
                    print_error!(
                        "muster: waiting for lock {}: {}",
                        printable(&args.name),
                        printable(failure.error.to_string().lines().next().unwrap_or_default())
                    );
                    is_reported = true;
                }
                sleep(RETRY).await;
            }
        }
    }
}

/// A lock of one holder, or of several.
struct Lock<'c> {
    held: Held<'c>,
    /// `None`: the lock has one holder.
    semaphore: Option<Semaphore>,
}

impl Lock<'_> {
    /// Tries to acquire the lock once.
    async fn attempt(&self) -> Result<Attempt, Failure> {
        match &self.semaphore {
            None => self.held.attempt().await,
            Some(semaphore) => semaphore.attempt(&self.held).await,
        }
    }

    /// Waits for a change of the holders after an index.
    async fn changed(&self, index: u64) -> Result<(), Failure> {
        match &self.semaphore {
            None => self.held.holder(Some(index)).await.map(drop),
            Some(semaphore) => semaphore.changed(&self.held, index).await,
        }
    }

    /// Waits until the session no longer holds the lock. Returns the reason.
    async fn until_lost(&self) -> String {
        match &self.semaphore {
            None => self.held.until_lost().await,
            Some(semaphore) => semaphore.until_lost(&self.held).await,
        }
    }

    async fn release(&self) -> Result<(), Failure> {
        match &self.semaphore {
            None => self.held.release().await,
            Some(semaphore) => semaphore.release(&self.held).await,
        }
    }
}

async fn with_session(
    lock: &Lock<'_>,
    args: &Args,
    signals: &mut Signals,
    given_up: Pin<&mut impl Future<Output = ()>>,
) -> Result<Exit, ClientError> {
    let name = printable(&args.name);
    let mut kept = pin!(lock.held.keep());
    tokio::select! {
        acquired = acquire(lock, &name) => acquired?,
        reason = &mut kept => return Err(ClientError::Failed(format!("cannot wait for lock {name}: {reason}"))),
        signal = signals.next() => return Ok(signalled(signal)),
        () = given_up => return Ok(not_acquired(args)),
    }
    let mut program = match Program::start(&args.command) {
        Ok(program) => program,
        Err(error) => {
            print_error!("muster: cannot start {}: {error}", printable(&args.command[0].to_string_lossy()));
            return Ok(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE });
        }
    };
    let mut lost = pin!(async {
        tokio::select! {
            reason = &mut kept => reason,
            reason = lock.until_lost() => reason,
        }
    });
    loop {
        tokio::select! {
            status = program.wait() => return Ok(exit(&status)),
            signal = signals.next() => program.pass_on(signal),
            reason = &mut lost => {
                print_error!("muster: lock {name} was lost: {reason}; ending the command");
                program.end(GRACE).await;
                return Ok(LOST);
            }
        }
    }
}

/// Waits until the session holds the lock.
async fn acquire(lock: &Lock<'_>, name: &str) -> Result<(), ClientError> {
    let mut is_reported = false;
    loop {
        match lock.attempt().await {
            Ok(Attempt::Acquired) => return Ok(()),
            Ok(Attempt::Held { by, index }) => {
                if !is_reported {
                    print_error!("muster: waiting for lock {name}, held by session {}", printable(&by));
                    is_reported = true;
                }
                // A failed wait is repeated with the next attempt.
                let _ = lock.changed(index).await;
            }
            Ok(Attempt::Delayed) => {
                if !is_reported {
                    print_error!(
                        "muster: waiting for lock {name}: its former holder was lost, and its lock delay is not over"
                    );
                    is_reported = true;
                }
                sleep(RETRY).await;
            }
            Err(failure) if failure.is_last() => return Err(failure.error),
            // There is no leader, or the agent restarts. The renewal decides how long that may take.
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Outcome of an attempt to acquire a lock.
enum Attempt {
    Acquired,
    /// Another session holds the lock.
    Held {
        by: String,
        index: u64,
    },
    /// No session holds the lock, which cannot be acquired yet.
    Delayed,
}

/// Exit code of an ended command.
fn exit(status: &io::Result<ExitStatus>) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    let Ok(status) = status else { return Exit::CouldNotRun };
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(Exit::Problems, Exit::Program)
}

/// Exit code after a signal before the command started.
fn signalled(signal: Signal) -> Exit {
    u8::try_from(SIGNALLED + signal as i32).map_or(Exit::Problems, Exit::Program)
}
