//! TTL ledger: how long caches may still hold answers with an instance. A drain waits for that time.
//!
//! An answer lives for the TTL it was served with, which may be greater than the current one: the file was changed, a node
//! with a greater `dns.ttl` has answered, or the agent was restarted. The ledger therefore keeps every served TTL until it
//! has expired. Times are since 1970, by a clock that does not step.

use std::{collections::BTreeMap, time::Duration};

use imbl::ordmap::DiffItem;

use super::{
    announcement::{Announcement, Announcements},
    service::InstanceKey,
};

/// Margin added to each TTL: a change reaches every node within this time, and caches count whole seconds.
pub const SPREAD: Duration = Duration::from_secs(2);

/// Served TTLs of the instances of this node.
#[derive(Clone, Debug, Default)]
pub struct TtlLedger {
    own: Announcements,
    /// Default TTL in seconds: the greatest `dns.ttl` of all nodes.
    default_ttl: u32,
    /// Expiry of the last answer that differs from the current one. May contain expired entries.
    until: BTreeMap<InstanceKey, Duration>,
    /// Upper bound in seconds for the TTL of all earlier answers. Kept across restarts.
    greatest: u32,
    /// Start of this run, and `greatest` at the end of the previous run.
    resumed: Option<(Duration, u32)>,
}

impl TtlLedger {
    /// Returns the ledger at the start of an agent, given the greatest TTL of the previous run.
    pub fn resume(greatest: Option<u32>, now: Duration) -> Self {
        Self { greatest: greatest.unwrap_or(0), resumed: greatest.map(|greatest| (now, greatest)), ..Self::default() }
    }

    /// Returns the greatest TTL, in seconds, of any answer that a cache may hold.
    pub fn greatest(&self) -> u32 {
        self.greatest
    }

    /// Returns the instance as it is served now.
    pub fn served(&self, key: &InstanceKey) -> Option<&Announcement> {
        self.own.get(key).map(|known| &**known)
    }

    /// Applies what is served now; returns whether the greatest TTL has risen.
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
            let was = old.filter(|old| old.state.is_answered()).map(|old| ttl(old, self.default_ttl));
            let is = new.filter(|new| new.state.is_answered()).map(|new| ttl(new, default_ttl));
            ended.extend(was.filter(|_| was > is).map(|was| (InstanceKey::clone(key), was)));
        }
        if default_ttl != self.default_ttl {
            for (key, known) in own.iter().filter(|(_, known)| known.instance.ttl.is_none()) {
                greatest = greatest.max(default_ttl);
                if default_ttl < self.default_ttl && known.state.is_answered() {
                    ended.push((InstanceKey::clone(key), self.default_ttl));
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

    /// Removes expired entries; returns whether the greatest TTL has fallen.
    pub fn expire(&mut self, now: Duration) -> bool {
        self.until.retain(|_, until| *until > now);
        self.resumed = self.resumed.filter(|(start, greatest)| *start + seconds(*greatest) + SPREAD > now);
        if !self.until.is_empty() || self.resumed.is_some() {
            return false;
        }
        let now = self.own.values().map(|known| ttl(known, self.default_ttl)).max().unwrap_or(0);
        std::mem::replace(&mut self.greatest, now) > now
    }

    /// Returns how long caches may hold answers with the instance if it is withdrawn now, or was withdrawn at `held`; zero:
    /// no cache holds one.
    pub fn left(&self, key: &InstanceKey, held: Option<Duration>, now: Duration) -> Duration {
        let answered = self.own.get(key).filter(|known| known.state.is_answered());
        let current = answered.map(|known| now + seconds(ttl(known, self.default_ttl)) + SPREAD);
        // An instance held before the start was not answered by the previous run after that time.
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
        InstanceKey { service: Label::parse("web").unwrap().into(), id: Label::parse("web-1").unwrap() }
    }

    /// Parses an instance: `p5` is passing with a TTL of 5 s, `c` is critical with the default TTL, empty is absent.
    fn own(text: &str) -> Announcements {
        let Some(letter) = text.chars().next() else { return Announcements::new() };
        let instance =
            Instance { ttl: text[1..].parse().ok(), ..Instance::new(key(), vec!["10.0.0.7".parse().unwrap()]) };
        let state = if letter == 'p' { InstanceState::Passing } else { InstanceState::Critical("".into()) };
        Announcements::from_iter([Announcement::new(Arc::new(instance), state).into_entry()])
    }

    #[test]
    fn every_served_ttl_has_to_expire() {
        // Second, instance served, default TTL.
        type Step = (u64, &'static str, u32);
        // Case, steps, second asked about, seconds left.
        let cases: &[(&str, &[Step], u64, u64)] = &[
            ("never announced", &[(0, "", 5)], 0, 0),
            ("answered", &[(0, "p", 5)], 100, 7),
            ("answered with its own TTL", &[(0, "p30", 5)], 100, 32),
            ("withdrawn", &[(0, "p", 5), (10, "c", 5)], 12, 5),
            ("withdrawn long ago", &[(0, "p", 5), (10, "c", 5)], 17, 0),
            ("never answered", &[(0, "c", 5)], 1, 0),
            ("removed", &[(0, "p60", 5), (10, "", 5)], 12, 60),
            ("lowered just now", &[(0, "p300", 5), (100, "p5", 5)], 110, 292),
            ("lowered, then withdrawn", &[(0, "p300", 5), (100, "p5", 5), (110, "c5", 5)], 110, 292),
            ("lowered long ago", &[(0, "p300", 5), (100, "p5", 5)], 1000, 7),
            ("raised", &[(0, "p5", 5), (100, "p300", 5)], 101, 302),
            ("the default lowered", &[(0, "p", 300), (100, "p", 5)], 110, 292),
            ("default raised, then withdrawn", &[(0, "p", 5), (100, "p", 300), (200, "c", 5)], 200, 302),
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
    fn served_ttls_survive_a_restart() {
        let at = Duration::from_secs;
        let mut served = TtlLedger::resume(Some(300), at(1000));
        served.update(&own("c5"), 5, at(1000));
        assert_eq!(served.left(&key(), None, at(1010)), at(292), "possibly answered until the restart");
        assert_eq!(served.left(&key(), Some(at(800)), at(1010)), at(92), "held before the restart");
        assert_eq!(served.left(&key(), Some(at(100)), at(1010)), at(0), "held long ago");
        assert!(!served.expire(at(1010)), "a third run needs the greatest TTL");
        assert_eq!(served.greatest(), 300);
        assert!(served.expire(at(1303)));
        assert_eq!((served.greatest(), served.left(&key(), None, at(1303))), (5, at(0)));
        let mut first = TtlLedger::resume(None, at(1000));
        assert!(first.update(&own("c5"), 5, at(1000)), "risen");
        assert_eq!((first.greatest(), first.left(&key(), None, at(1000))), (5, at(0)));
    }
}
