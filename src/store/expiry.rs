//! Deadlines of leases, sessions and lock delays, as the leader keeps them.
//!
//! Only the leader measures time. It proposes [`Command::Expire`] at a deadline, never before. A new leader does not know when
//! its predecessor last renewed a lease: it starts each time to live from the beginning, or from the time left that is
//! recorded in the state. The time left is recorded once half of a time to live has passed without a renewal, and again at
//! each further quarter: a change of the leader lengthens a life by less than half of the time to live. Clients renew earlier,
//! so that a renewal writes nothing to the log.
//!
//! Points in time are durations since any fixed moment, on a clock that does not step.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use imbl::{OrdMap, ordmap::DiffItem};

use super::{
    command::Command,
    key::Key,
    lease::LifetimeId,
    state::{Lifetime, LockDelay, State},
};

/// Pause before a command is due again whose proposal failed: longer than a proposal takes.
const RETRY: Duration = Duration::from_secs(1);
/// Number of commands that are due at once. More follow immediately: a proposal of all would delay every other one.
const MAX_DUE: usize = 1000;

/// Deadlines on the leader.
#[derive(Clone, Debug, Default)]
pub struct Expiry {
    /// Lifetimes of the state that was last followed.
    lifetimes: OrdMap<LifetimeId, Lifetime>,
    /// Lock delays of that state.
    lock_delays: OrdMap<Key, LockDelay>,
    timers: BTreeMap<LifetimeId, Timer>,
    /// Times at which lock delays are due.
    delays: BTreeMap<Key, Duration>,
    /// All timers and delays by the times at which they are due.
    queue: BTreeSet<(Duration, Subject)>,
}

/// A renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Time to live.
    pub ttl: Duration,
    /// True if a shorter time is recorded: [`Command::RecordRemaining`] with the whole time to live must be applied before the
    /// client is told of the renewal.
    pub record: bool,
}

/// Timer of a lease or a session.
#[derive(Clone, Copy, Debug)]
struct Timer {
    /// End of the time to live.
    deadline: Duration,
    /// Time at which the timer is in the queue.
    due: Duration,
    /// Time after which the time left is recorded again.
    step: Duration,
    /// True if a time left was proposed for the state since the last renewal.
    recorded: bool,
    /// True if the end was proposed: the lease can no longer be renewed.
    expires: bool,
}

/// What has a deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Lifetime(LifetimeId),
    LockDelay(Key),
}

impl Expiry {
    /// Returns the deadlines of a new leader. Call it once the leader has applied all commands of earlier terms: among them may
    /// be records of times left.
    pub fn start(now: Duration, state: &State) -> Self {
        let mut expiry = Self { lifetimes: state.lifetime_map().clone(), ..Self::default() };
        // Without the quarter that a session has in addition: the election has given it some time already, and twice its time
        // to live must not pass.
        for (id, lifetime) in state.lifetime_map() {
            expiry.begin_for(now, *id, *lifetime, lifetime.ttl);
        }
        expiry.follow(now, state);
        expiry
    }

    /// Takes over what has begun and ended since the last call.
    pub fn follow(&mut self, now: Duration, state: &State) {
        let followed = std::mem::replace(&mut self.lifetimes, state.lifetime_map().clone());
        for change in followed.diff(state.lifetime_map()) {
            match change {
                DiffItem::Add(id, lifetime) => self.begin(now, *id, *lifetime),
                DiffItem::Update { old: (_, old), new: (id, new) } if old.grant != new.grant => {
                    self.begin(now, *id, *new);
                }
                DiffItem::Update { .. } => {}
                DiffItem::Remove(id, _) => self.end(*id),
            }
        }
        let followed = std::mem::replace(&mut self.lock_delays, state.lock_delay_map().clone());
        for change in followed.diff(state.lock_delay_map()) {
            match change {
                DiffItem::Add(key, delay) | DiffItem::Update { new: (key, delay), .. } => {
                    self.delay(key.clone(), Some(now.saturating_add(delay.delay)));
                }
                DiffItem::Remove(key, _) => self.delay(key.clone(), None),
            }
        }
    }

    /// Starts the time to live of a lease or a session from the beginning. Returns `None` if there is none, or if its end was
    /// proposed.
    pub fn renew(&mut self, now: Duration, id: LifetimeId, state: &State) -> Option<Renewed> {
        self.follow(now, state);
        let lifetime = state.lifetime(id)?;
        let timer = self.timers.get(&id).filter(|timer| !timer.expires)?;
        let record = timer.recorded || lifetime.remaining.is_some();
        self.begin(now, id, Lifetime { remaining: None, ..lifetime });
        Some(Renewed { ttl: lifetime.ttl, record })
    }

    /// Returns commands to propose now. A command whose proposal fails is returned again after a pause.
    pub fn due(&mut self, now: Duration) -> Vec<Command> {
        let mut commands = vec![];
        while commands.len() < MAX_DUE && self.next().is_some_and(|due| due <= now) {
            let Some((_, subject)) = self.queue.pop_first() else { break };
            match subject {
                Subject::Lifetime(id) => commands.extend(self.lifetime_due(now, id)),
                Subject::LockDelay(key) => {
                    let began = self.lock_delays.get(&key).map(|delay| delay.began);
                    self.delay(key.clone(), began.map(|_| now.saturating_add(RETRY)));
                    commands.extend(began.map(|began| Command::EndLockDelay { key, began }));
                }
            }
        }
        commands
    }

    fn lifetime_due(&mut self, now: Duration, id: LifetimeId) -> Option<Command> {
        let mut timer = self.remove_timer(id)?;
        let command = if now < timer.deadline {
            timer.recorded = true;
            timer.due = now.saturating_add(timer.step).min(timer.deadline);
            Command::RecordRemaining { id, remaining: timer.deadline - now }
        } else {
            timer.expires = true;
            timer.due = now.saturating_add(RETRY);
            Command::Expire(id)
        };
        self.insert_timer(id, timer);
        Some(command)
    }

    /// Time at which [`Self::due`] returns a command; `None` if nothing has a deadline.
    pub fn next(&self) -> Option<Duration> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Time left of a lease or a session; zero if its end was proposed, `None` if there is none.
    pub fn remaining(&self, now: Duration, id: LifetimeId) -> Option<Duration> {
        self.timers.get(&id).map(|timer| timer.deadline.saturating_sub(now))
    }

    /// Starts a timer, or starts it from the beginning.
    fn begin(&mut self, now: Duration, id: LifetimeId, lifetime: Lifetime) {
        self.begin_for(now, id, lifetime, time_to_deadline(id, lifetime.ttl));
    }

    /// Starts a timer for this time, or for the time that is recorded.
    fn begin_for(&mut self, now: Duration, id: LifetimeId, lifetime: Lifetime, whole: Duration) {
        let left = lifetime.remaining.map_or(whole, |remaining| remaining.min(whole));
        let deadline = now.saturating_add(left);
        let step = whole / 4;
        let first_step = if lifetime.remaining.is_some() { step } else { whole / 2 };
        let due = now.saturating_add(first_step).min(deadline);
        self.end(id);
        self.insert_timer(id, Timer { deadline, due, step, recorded: false, expires: false });
    }

    fn end(&mut self, id: LifetimeId) {
        self.remove_timer(id);
    }

    fn insert_timer(&mut self, id: LifetimeId, timer: Timer) {
        self.queue.insert((timer.due, Subject::Lifetime(id)));
        self.timers.insert(id, timer);
    }

    fn remove_timer(&mut self, id: LifetimeId) -> Option<Timer> {
        let timer = self.timers.remove(&id)?;
        self.queue.remove(&(timer.due, Subject::Lifetime(id)));
        Some(timer)
    }

    /// Sets or removes the time at which a lock delay is due.
    fn delay(&mut self, key: Key, due: Option<Duration>) {
        if let Some(former) = self.delays.remove(&key) {
            self.queue.remove(&(former, Subject::LockDelay(key.clone())));
        }
        if let Some(due) = due {
            self.queue.insert((due, Subject::LockDelay(key.clone())));
            self.delays.insert(key, due);
        }
    }
}

/// Returns the time from a renewal to the deadline. A session has a quarter more than its time to live: as in Consul, it ends
/// between once and twice the time to live, and a client that renews late keeps it.
fn time_to_deadline(id: LifetimeId, ttl: Duration) -> Duration {
    match id {
        LifetimeId::Lease(_) => ttl,
        LifetimeId::Session(_) => ttl.saturating_add(ttl / 4),
    }
}
