//! `muster lock`: runs a command while this host holds a lock, and ends the command when the lock is lost.
//!
//! The lock is that of `consul lock`: the key `NAME/.lock`, held by a session with a time to live. Both tools exclude each other.
//! The session is renewed at a third of its time to live. If no renewal succeeds before it is over, the lock counts as lost.
//! The store ends the session no earlier, and keeps the lock free for the lock delay, which is longer than the grace period of
//! the command by default.

use std::{pin::pin, process::ExitStatus, time::Duration};

use hyper::StatusCode;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use self::{
    program::Program,
    session::{Failure, Held},
    signals::Signals,
};
use super::{
    Exit,
    client::{self, Client, ClientError, with_exit},
    table::printable,
};

mod program;
mod session;
mod signals;

/// Time after which a command that does not end at SIGTERM is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Pause between two attempts while no session holds the lock (its lock delay), and after a failed request.
const RETRY: Duration = Duration::from_secs(1);
/// Exit code of a command that cannot be started, as in the shell and env(1).
const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended a command, as in the shell.
const SIGNALLED: i32 = 128;

/// Exit codes, below the help of the command.
const EXIT_STATUS: &str = "\
Exit status:
  That of the command; 128 + N if signal N ended it; 127 if it cannot be started
  1  The lock was lost, or was not acquired within --wait
  2  The agent cannot be reached";

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
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    lock_delay: Duration,
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
    use crate::store::session::{MAX_TTL, MIN_TTL};
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (MIN_TTL..=MAX_TTL).contains(&ttl) { Ok(ttl) } else { Err("expected 10s to 24h".to_owned()) }
}

pub(super) fn run(args: &Args) -> Exit {
    with_exit(&args.client, |client| client.block_on(lock(client, args)))
}

/// Creates a session, runs the command with the lock, and ends the session in any case.
async fn lock(client: &Client, args: &Args) -> Result<Exit, ClientError> {
    let mut signals =
        Signals::listen().map_err(|error| ClientError::Failed(format!("cannot listen for signals: {error}")))?;
    let held = Held::create(client, &args.name, args.ttl, args.lock_delay).await?;
    let outcome = with_session(&held, args, &mut signals).await;
    held.end().await;
    outcome
}

async fn with_session(held: &Held<'_>, args: &Args, signals: &mut Signals) -> Result<Exit, ClientError> {
    let name = printable(&args.name);
    let mut kept = pin!(held.keep());
    let given_up = async {
        match args.wait {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        acquired = acquire(held, &name) => acquired?,
        reason = &mut kept => return Err(ClientError::Failed(format!("cannot wait for lock {name}: {reason}"))),
        signal = signals.next() => return Ok(signalled(signal)),
        () = given_up => {
            eprintln!("muster: lock {name} was not acquired within {:?}", args.wait.unwrap_or_default());
            return Ok(Exit::Problems);
        }
    }
    let mut program = match Program::start(&args.command) {
        Ok(program) => program,
        Err(error) => {
            eprintln!("muster: cannot start {}: {error}", printable(&args.command[0].to_string_lossy()));
            return Ok(Exit::Program(NOT_FOUND));
        }
    };
    let mut lost = pin!(async {
        tokio::select! {
            reason = &mut kept => reason,
            reason = held.until_lost() => reason,
        }
    });
    loop {
        tokio::select! {
            status = program.wait() => return Ok(exit(&status)),
            signal = signals.next() => program.pass_on(signal),
            reason = &mut lost => {
                eprintln!("muster: lock {name} was lost: {reason}; ending the command");
                program.end(GRACE).await;
                return Ok(Exit::Problems);
            }
        }
    }
}

/// Waits until the session holds the lock.
async fn acquire(held: &Held<'_>, name: &str) -> Result<(), ClientError> {
    let mut is_reported = false;
    loop {
        match attempt(held).await {
            Ok(Attempt::Acquired) => return Ok(()),
            Ok(Attempt::Held { by, index }) => {
                if !is_reported {
                    eprintln!("muster: waiting for lock {name}, held by session {}", printable(&by));
                    is_reported = true;
                }
                // A failed wait is repeated with the next attempt.
                let _ = held.holder(Some(index)).await;
            }
            Ok(Attempt::Delayed) => {
                if !is_reported {
                    eprintln!(
                        "muster: waiting for lock {name}: its former holder was lost, and its lock delay is not over"
                    );
                    is_reported = true;
                }
                sleep(RETRY).await;
            }
            Err(Failure { status: Some(status), error }) if status.is_client_error() => return Err(error),
            Err(Failure { status: Some(StatusCode::INSUFFICIENT_STORAGE), error }) => return Err(error),
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

async fn attempt(held: &Held<'_>) -> Result<Attempt, Failure> {
    if held.try_acquire().await? {
        return Ok(Attempt::Acquired);
    }
    let holder = held.holder(None).await?;
    Ok(holder.session.map_or(Attempt::Delayed, |by| Attempt::Held { by, index: holder.index }))
}

/// Exit code of an ended command.
fn exit(status: &std::io::Result<ExitStatus>) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    let Ok(status) = status else { return Exit::CouldNotRun };
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(Exit::Problems, Exit::Program)
}

/// Exit code after a signal before the command started.
fn signalled(signal: Signal) -> Exit {
    u8::try_from(SIGNALLED + signal as i32).map_or(Exit::Problems, Exit::Program)
}
