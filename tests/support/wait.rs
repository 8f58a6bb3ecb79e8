//! Bounded waits: each ends after [`DEADLINE`], and the failure contains the last value.

use std::{
    fmt::{Debug, Display},
    thread,
    time::{Duration, Instant},
};

/// Limit of one wait, long enough for a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two checks.
const PAUSE: Duration = Duration::from_millis(5);

/// Calls `probe` until it succeeds and returns its value. After [`DEADLINE`] the test fails with the last error.
#[track_caller]
pub fn poll<T, E: Display>(mut probe: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(error) if Instant::now() >= deadline => panic!("not within {DEADLINE:?}: {error}"),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Waits for a condition; returns `false` if it does not hold within [`DEADLINE`].
pub fn holds_in_time(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until a condition holds and returns how long that took.
#[track_caller]
pub fn until(what: &str, holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    assert!(holds_in_time(holds), "not within {DEADLINE:?}: {what}");
    start.elapsed()
}

/// Waits until `shown` returns the expected value; the failure contains the last value.
#[track_caller]
pub fn until_equal<T: PartialEq<E> + Debug, E: Debug + ?Sized>(what: &str, expected: &E, mut shown: impl FnMut() -> T) {
    poll(|| {
        let shown = shown();
        if shown == *expected { Ok(()) } else { Err(format!("{what}: {shown:?} instead of {expected:?}")) }
    });
}
