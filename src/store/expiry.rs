//! Deadlines of leases, sessions and lock delays, as each voter keeps them.
//!
//! The leader proposes [`Command::Expire`] at a deadline, never before. All voters measure time, so that a new leader goes on
//! with its own deadlines. They follow from the log alone, which lacks most renewals: clients renew often, and a renewal must
//! not cost a write. Hence two rules:
//!
//! - The leader records the time left once half of a time to live has passed without a renewal, and again at each further
//!   quarter. The next renewal is recorded, too, before the client is told of it.
//! - The first renewal of a lease in a term is recorded likewise, unless the lease was granted in the term.
//!
//! A lease may thus have been renewed without a record only if it was granted or renewed in the current term, and no time left
//! was recorded since. When a voter sees the next term begin, it starts the time to live of such a lease from the beginning. It
//! keeps all other deadlines, so that further terms do not lengthen a life. A new leader leaves each lease at least a
//! quarter of its time to live: its client could not renew it without a leader.
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
/// Share of its time to live that each lease has left when a leader begins: one part in this number.
const GRACE: u32 = 4;
/// Number of commands that are due at once. More follow immediately: a proposal of all would delay every other one.
const MAX_DUE: usize = 1000;

/// The beginning of the current term, as a voter has seen it in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TermStart {
    /// Index of the entry with which the term began, or the last one of a snapshot that may have replaced it.
    pub index: u64,
    /// [`State::grants`] at that time; 0 if it is not known.
    pub grants: u64,
}

/// Deadlines on a voter.
#[derive(Clone, Debug, Default)]
pub struct Expiry {
    /// Lifetimes of the state that was last followed.
    lifetimes: OrdMap<LifetimeId, Lifetime>,
    /// The term of that state.
    term: TermStart,
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
    /// True if the renewal must be recorded: [`Command::RecordRemaining`] with the whole time to live must be applied before
    /// the client is told of it.
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
    /// The last record that was proposed and not yet seen in the state.
    proposed: Proposed,
    /// True if the end was proposed: the lease can no longer be renewed.
    expires: bool,
}

/// A record of the leader that is not yet seen in the state, and may never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proposed {
    Nothing,
    TimeLeft,
    Renewal,
}

/// What has a deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Lifetime(LifetimeId),
    LockDelay(Key),
}

impl Expiry {
    /// Takes over what has begun and ended since the last call.
    pub fn follow(&mut self, now: Duration, state: &State, term: TermStart) {
        let ended = std::mem::replace(&mut self.term, term);
        if ended != term {
            self.begin_term(now, ended);
        }
        let followed = std::mem::replace(&mut self.lifetimes, state.lifetime_map().clone());
        for change in followed.diff(state.lifetime_map()) {
            match change {
                DiffItem::Add(id, lifetime) => self.begin(now, *id, *lifetime),
                DiffItem::Update { old: (_, old), new: (id, new) } if old.grant != new.grant => {
                    self.take_record(now, *id, *new);
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

    /// Begins the next term: a lease starts from the beginning if the ended one may have renewed it without a record.
    fn begin_term(&mut self, now: Duration, ended: TermStart) {
        for (id, lifetime) in self.lifetimes.clone() {
            if is_open(lifetime, ended) {
                // Without the quarter that a session has in addition: the election has given it some time already. The next
                // renewal is recorded in any case, so the time left is recorded early.
                self.begin_for(now, id, lifetime, lifetime.ttl, lifetime.ttl / 4);
            } else if let Some(mut timer) = self.remove_timer(id) {
                // Commands of the ended term that were not applied before the new one never will be.
                (timer.proposed, timer.expires) = (Proposed::Nothing, false);
                self.insert_timer(id, timer);
            }
        }
    }

    /// Takes over a record, or another grant of the same id.
    fn take_record(&mut self, now: Duration, id: LifetimeId, lifetime: Lifetime) {
        let Some(former) = self.timers.get(&id).copied() else { return };
        // The leader that proposed a time left knows better, and may have renewed the lease since.
        if lifetime.remaining.is_some() && former.proposed != Proposed::Nothing {
            return;
        }
        self.begin(now, id, lifetime);
        if former.proposed == Proposed::TimeLeft
            && let Some(timer) = self.timers.get_mut(&id)
        {
            // It was proposed behind the renewal that is seen now.
            timer.proposed = Proposed::TimeLeft;
        }
    }

    /// Prepares the deadlines for a member that becomes the leader, or is confirmed as the leader again. It must have followed the
    /// state with all commands of earlier terms.
    pub fn lead(&mut self, now: Duration) {
        for (id, lifetime) in self.lifetimes.clone() {
            let Some(timer) = self.timers.get(&id).copied().filter(|timer| !timer.expires) else { continue };
            let least = if is_open(lifetime, self.term) { lifetime.ttl } else { lifetime.ttl / GRACE };
            let deadline = now.saturating_add(least);
            if timer.deadline < deadline {
                self.remove_timer(id);
                self.insert_timer(id, Timer { deadline, due: now.saturating_add(least / 2), ..timer });
            }
        }
    }

    /// Starts the time to live of a lease or a session from the beginning, on the leader, which has followed the newest state.
    /// Returns `None` if there is none, or if its end was proposed.
    pub fn renew(&mut self, now: Duration, id: LifetimeId) -> Option<Renewed> {
        let lifetime = self.lifetimes.get(&id).copied()?;
        let former = self.timers.get(&id).filter(|timer| !timer.expires)?.proposed;
        let record = former != Proposed::Nothing || !is_open(lifetime, self.term);
        self.begin(now, id, Lifetime { remaining: None, ..lifetime });
        if record && let Some(timer) = self.timers.get_mut(&id) {
            timer.proposed = Proposed::Renewal;
        }
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
            timer.proposed = Proposed::TimeLeft;
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
        let whole = time_to_deadline(id, lifetime.ttl);
        let until_record = if lifetime.remaining.is_some() { whole / 4 } else { whole / 2 };
        self.begin_for(now, id, lifetime, whole, until_record);
    }

    /// Starts a timer for this time, or for the time that is recorded.
    fn begin_for(
        &mut self,
        now: Duration,
        id: LifetimeId,
        lifetime: Lifetime,
        whole: Duration,
        until_record: Duration,
    ) {
        let left = lifetime.remaining.map_or(whole, |remaining| remaining.min(whole));
        let deadline = now.saturating_add(left);
        let due = now.saturating_add(until_record).min(deadline);
        self.end(id);
        let timer = Timer { deadline, due, step: whole / 4, proposed: Proposed::Nothing, expires: false };
        self.insert_timer(id, timer);
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

/// Reports whether a leader of this term may have renewed a lease without a record.
fn is_open(lifetime: Lifetime, term: TermStart) -> bool {
    lifetime.grant > term.grants && lifetime.remaining.is_none()
}

/// Returns the time from a renewal to the deadline. A session has a quarter more than its time to live: as in Consul, it ends
/// between once and twice the time to live, and a client that renews late keeps it.
fn time_to_deadline(id: LifetimeId, ttl: Duration) -> Duration {
    match id {
        LifetimeId::Lease(_) => ttl,
        LifetimeId::Session(_) => ttl.saturating_add(ttl / 4),
    }
}
