//! For how long answers of before may still be in caches: what a drain waits for.
//!
//! An answer lives for the TTL that it was given with. That may be another than today's: the file said more before, a node
//! with a greater `dns.ttl` has answered, the agent has been started anew. So every TTL that was served is remembered until
//! it has run out. Times are since 1970, by a clock that does not step.

use std::{collections::BTreeMap, time::Duration};

use imbl::ordmap::DiffItem;

use super::{
    announcement::{Announcement, Announcements},
    service::InstanceKey,
};

/// After the TTL: a change is on every node within this time, and caches count whole seconds.
pub const SPREAD: Duration = Duration::from_secs(2);

/// What of this node's instances is, and was, in answers.
#[derive(Clone, Debug, Default)]
pub struct TtlLedger {
    own: Announcements,
    /// Seconds: the TTL of instances that name none, on the node where it is the greatest.
    default_ttl: u32,
    /// When the last answer runs out that was given otherwise than now; what has run out may be in it.
    until: BTreeMap<InstanceKey, Duration>,
    /// Seconds: no answer of before has a greater TTL. It is kept over restarts.
    greatest: u32,
    /// When this run began, and what `greatest` was at the end of the run before.
    resumed: Option<(Duration, u32)>,
}

impl TtlLedger {
    /// What is known at the start of an agent, of the run before no more than the greatest TTL.
    pub fn resume(greatest: Option<u32>, now: Duration) -> Self {
        Self { greatest: greatest.unwrap_or(0), resumed: greatest.map(|greatest| (now, greatest)), ..Self::default() }
    }

    /// Seconds: the greatest TTL of any answer that a cache may have.
    pub fn greatest(&self) -> u32 {
        self.greatest
    }

    /// Takes over what is served now; whether the greatest TTL has risen.
    pub fn update(&mut self, own: &Announcements, default_ttl: u32, now: Duration) -> bool {
        let mut ended: Vec<(InstanceKey, u32)> = Vec::new();
        let mut greatest = self.greatest;
        for item in self.own.diff(own) {
            let (key, old, new) = match item {
                DiffItem::Add(key, new) => (key, None, Some(new)),
                DiffItem::Remove(key, old) => (key, Some(old), None),
                DiffItem::Update { old: (key, old), new: (_, new) } => (key, Some(old), Some(new)),
            };
            greatest = greatest.max(new.map_or(0, |new| ttl(new, default_ttl)));
            let was = old.filter(|old| old.standing.is_answered()).map(|old| ttl(old, self.default_ttl));
            let is = new.filter(|new| new.standing.is_answered()).map(|new| ttl(new, default_ttl));
            ended.extend(was.filter(|_| was > is).map(|was| (key.clone(), was)));
        }
        if default_ttl != self.default_ttl {
            for (key, known) in own.iter().filter(|(_, known)| known.instance.ttl.is_none()) {
                greatest = greatest.max(default_ttl);
                if default_ttl < self.default_ttl && known.standing.is_answered() {
                    ended.push((key.clone(), self.default_ttl));
                }
            }
        }
        for (key, ttl) in ended {
            let until = self.until.entry(key).or_default();
            *until = (*until).max(now + seconds(ttl) + SPREAD);
        }
        self.own = own.clone();
        self.default_ttl = default_ttl;
        std::mem::replace(&mut self.greatest, greatest) < greatest
    }

    /// Forgets what has run out; whether the greatest TTL has fallen.
    pub fn forget(&mut self, now: Duration) -> bool {
        self.until.retain(|_, until| *until > now);
        self.resumed = self.resumed.filter(|(start, greatest)| *start + seconds(*greatest) + SPREAD > now);
        if !self.until.is_empty() || self.resumed.is_some() {
            return false;
        }
        let now = self.own.values().map(|known| ttl(known, self.default_ttl)).max().unwrap_or(0);
        std::mem::replace(&mut self.greatest, now) > now
    }

    /// For how long answers with the instance may be in caches if it is withdrawn now, or was, `held` at that time; zero:
    /// nobody has one.
    pub fn left(&self, key: &InstanceKey, held: Option<Duration>, now: Duration) -> Duration {
        let answered = self.own.get(key).filter(|known| known.standing.is_answered());
        let current = answered.map(|known| now + seconds(ttl(known, self.default_ttl)) + SPREAD);
        // What was held at the start was not answered by the run before, since then.
        let before = self.resumed.map(|(start, greatest)| {
            let end = held.map_or(start, |held| held.min(start));
            end + seconds(greatest) + SPREAD
        });
        let until = [current, before, self.until.get(key).copied()].into_iter().flatten().max();
        until.map_or(Duration::ZERO, |until| until.saturating_sub(now))
    }
}

fn ttl(known: &Announcement, default: u32) -> u32 {
    known.instance.ttl.unwrap_or(default)
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{announcement::InstanceState, name::Label, service::Instance};

    fn key() -> InstanceKey {
        InstanceKey { service: Label::parse("web").unwrap(), id: Label::parse("web-1").unwrap() }
    }

    /// `p5`: passing with a TTL of 5 s, `c`: critical with the default one; nothing: not there.
    fn own(text: &str) -> Announcements {
        let Some(letter) = text.chars().next() else { return Announcements::new() };
        let instance =
            Instance { ttl: text[1..].parse().ok(), ..Instance::new(key(), vec!["10.0.0.7".parse().unwrap()]) };
        let standing = if letter == 'p' { InstanceState::Passing } else { InstanceState::Critical("".into()) };
        Announcements::unit(key(), Arc::new(Announcement::new(Arc::new(instance), standing)))
    }

    #[test]
    fn every_ttl_that_was_served_has_to_run_out() {
        // At which second what is served, with which default.
        type Step = (u64, &'static str, u32);
        // The case, its steps, and at which second how many are left.
        let cases: &[(&str, &[Step], u64, u64)] = &[
            ("never there", &[(0, "", 5)], 0, 0),
            ("answered", &[(0, "p", 5)], 100, 7),
            ("answered with its own", &[(0, "p30", 5)], 100, 32),
            ("withdrawn", &[(0, "p", 5), (10, "c", 5)], 12, 5),
            ("withdrawn long ago", &[(0, "p", 5), (10, "c", 5)], 17, 0),
            ("never answered", &[(0, "c", 5)], 1, 0),
            ("gone", &[(0, "p60", 5), (10, "", 5)], 12, 60),
            ("lowered just now", &[(0, "p300", 5), (100, "p5", 5)], 110, 292),
            ("lowered, then withdrawn", &[(0, "p300", 5), (100, "p5", 5), (110, "c5", 5)], 110, 292),
            ("lowered long ago", &[(0, "p300", 5), (100, "p5", 5)], 1000, 7),
            ("raised", &[(0, "p5", 5), (100, "p300", 5)], 101, 302),
            ("the default lowered", &[(0, "p", 300), (100, "p", 5)], 110, 292),
            ("another's default", &[(0, "p", 5), (100, "p", 300), (200, "c", 5)], 200, 302),
            ("flapping", &[(0, "p", 5), (10, "c", 5), (11, "p", 5), (12, "c", 5)], 12, 7),
        ];
        for (case, steps, at, left) in cases {
            let mut served = TtlLedger::default();
            for (second, text, default) in *steps {
                served.update(&own(text), *default, Duration::from_secs(*second));
            }
            assert_eq!(served.left(&key(), None, Duration::from_secs(*at)).as_secs(), *left, "{case}");
        }
    }

    #[test]
    fn a_restart_forgets_no_ttl() {
        let at = Duration::from_secs;
        let mut served = TtlLedger::resume(Some(300), at(1000));
        served.update(&own("c5"), 5, at(1000));
        assert_eq!(served.left(&key(), None, at(1010)), at(292), "answered until the restart, perhaps");
        assert_eq!(served.left(&key(), Some(at(800)), at(1010)), at(92), "held since before");
        assert_eq!(served.left(&key(), Some(at(100)), at(1010)), at(0), "held for long");
        assert!(!served.forget(at(1010)), "what a third run has to know");
        assert_eq!(served.greatest(), 300);
        assert!(served.forget(at(1303)));
        assert_eq!((served.greatest(), served.left(&key(), None, at(1303))), (5, at(0)));
        let mut first = TtlLedger::resume(None, at(1000));
        assert!(first.update(&own("c5"), 5, at(1000)), "risen");
        assert_eq!((first.greatest(), first.left(&key(), None, at(1000))), (5, at(0)));
    }
}
