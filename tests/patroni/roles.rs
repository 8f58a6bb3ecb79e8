//! Roles of the PostgreSQL servers, polled for the whole test.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::{
    member::{Member, Programs},
    support::process,
};

/// Limit of a step of patroni: its lock must expire, and a replica is copied from the primary.
const LIMIT: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(100);

/// Roles since the start: for each change, a letter for each server (see roles.py).
pub(crate) struct Roles {
    _program: process::Owned,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Roles {
    /// Starts to poll the servers.
    pub(crate) fn follow(programs: &Programs, members: &[Member]) -> Self {
        let mut command = programs.python();
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/patroni/roles.py"));
        command.args(members.iter().map(|member| member.port().to_string()));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (output, lines) = (BufReader::new(child.stdout.take().unwrap()), Arc::default());
        let collected: Arc<Mutex<Vec<String>>> = Arc::clone(&lines);
        thread::spawn(move || {
            output.lines().map_while(Result::ok).for_each(|line| collected.lock().unwrap().push(line));
        });
        Self { _program: process::Owned(child), lines }
    }

    /// Returns all roles since the start.
    pub(crate) fn changes(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Asserts that two servers were never primary at the same time.
    #[track_caller]
    pub(crate) fn assert_one_primary(&self) {
        let changes = self.changes();
        assert!(!changes.iter().any(|line| line.starts_with("TWO")), "two primaries: {changes:?}");
    }

    /// Waits for a primary and returns it.
    pub(crate) fn primary(&self) -> usize {
        wait_for("a primary", || self.current().ok_or_else(|| format!("{:?}", self.changes())))
    }

    /// Waits until this server is the primary.
    pub(crate) fn wait_for_primary(&self, expected: usize) {
        wait_for("the primary", || {
            if self.current() == Some(expected) { Ok(()) } else { Err(format!("{:?}", self.changes())) }
        });
    }

    /// Waits until a server other than this one is the primary, and returns it.
    pub(crate) fn wait_for_another_primary(&self, lost: usize) -> usize {
        wait_for("another primary", || {
            self.current().filter(|at| *at != lost).ok_or_else(|| format!("{:?}", self.changes()))
        })
    }

    fn current(&self) -> Option<usize> {
        self.lines.lock().unwrap().last()?.find('P')
    }
}

/// Calls `probe` until it succeeds and returns its value. After [`LIMIT`] the test fails with the last error.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}: {error}"),
        }
        thread::sleep(PAUSE);
    }
}
