//! Nearest first: which instances of a name a node answers, by the zone and the datacenter of their nodes.
//!
//! A [`Policy`] says where to look first and how many healthy instances are enough. [`Tiers`] counts the instances of one name
//! by tier, as seen from one node, and chooses the tier that is answered. The DNS tables and `explain` use the same choice.

use std::{fmt, num::NonZero, str::FromStr};

use thiserror::Error;

use super::name::Label;

/// Maximum of `min_healthy` as a number: a larger one is a mistake, since no tier has that many instances of a service.
pub const MAX_MIN_HEALTHY: NonZero<u16> = NonZero::new(10_000).unwrap();
/// Key of `Meta` by which a client of the HTTP API states [`Nearest`]: registrations have no field for it.
pub const NEAREST_META: &str = "muster-nearest";
/// Key of `Meta` by which a client of the HTTP API states [`MinHealthy`].
pub const MIN_HEALTHY_META: &str = "muster-min-healthy";

/// First tier that is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Nearest {
    /// All healthy instances are answered, wherever they are.
    #[default]
    None,
    /// The zone, then the datacenter, then all.
    Zone,
    /// The datacenter, then all.
    Datacenter,
}

impl Nearest {
    /// Syntax of a value.
    pub const EXPECTED: &str = "`none`, `zone` or `datacenter`";
    /// All values with their words.
    pub const WORDS: [(&str, Self); 3] = [("none", Self::None), ("zone", Self::Zone), ("datacenter", Self::Datacenter)];

    /// Returns the value in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zone => "zone",
            Self::Datacenter => "datacenter",
        }
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is none of [`Nearest::WORDS`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {expected}, found `{0}`", expected = Nearest::EXPECTED)]
pub struct NearestError(String);

impl FromStr for Nearest {
    type Err = NearestError;

    fn from_str(text: &str) -> Result<Self, NearestError> {
        let known = Self::WORDS.iter().find(|(word, _)| *word == text);
        known.map(|(_, value)| *value).ok_or_else(|| NearestError(text.to_owned()))
    }
}

/// Number of healthy instances from which a tier is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MinHealthy {
    /// This number, at most [`MAX_MIN_HEALTHY`].
    Number(NonZero<u16>),
    /// A share of the instances that the tier declares.
    Share(Percent),
}

/// A share from 1 % to 100 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Percent(NonZero<u8>);

impl Percent {
    fn new(percent: NonZero<u8>) -> Option<Self> {
        (percent.get() <= 100).then_some(Self(percent))
    }
}

impl Default for MinHealthy {
    /// One healthy instance is enough.
    fn default() -> Self {
        Self::Number(NonZero::<u16>::MIN)
    }
}

impl MinHealthy {
    /// Syntax of a value.
    pub const EXPECTED: &str = "a number from 1 to 10000 or a share from 1% to 100%";

    /// Returns the number of healthy instances that a tier of `declared` instances needs, at least 1. A share rounds up.
    pub fn required(self, declared: usize) -> usize {
        match self {
            Self::Number(number) => number.get().into(),
            Self::Share(Percent(percent)) => (declared * usize::from(percent.get())).div_ceil(100).max(1),
        }
    }
}

/// A text that is neither a number nor a share.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {expected}, found `{0}`", expected = MinHealthy::EXPECTED)]
pub struct MinHealthyError(String);

impl FromStr for MinHealthy {
    type Err = MinHealthyError;

    fn from_str(text: &str) -> Result<Self, MinHealthyError> {
        let digits = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
        let found = match text.strip_suffix('%') {
            Some(share) if digits(share) => share.parse().ok().and_then(Percent::new).map(Self::Share),
            None if digits(text) => text.parse().ok().filter(|number| *number <= MAX_MIN_HEALTHY).map(Self::Number),
            _ => None,
        };
        found.ok_or_else(|| MinHealthyError(text.to_owned()))
    }
}

impl fmt::Display for MinHealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Share(Percent(percent)) => write!(f, "{percent}%"),
        }
    }
}

/// Policy of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// First tier.
    pub nearest: Nearest,
    /// Healthy instances that are enough.
    pub min_healthy: MinHealthy,
}

/// Place of a node. A zone is part of its datacenter: zones of one name in two datacenters are two zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Datacenter.
    pub datacenter: &'a Label,
    /// Zone, if the node has one.
    pub zone: Option<&'a Label>,
}

/// Distance of instances. Each tier contains the nearer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Instances of the zone.
    Zone,
    /// Instances of the datacenter.
    Datacenter,
    /// All instances.
    All,
}

impl Tier {
    /// All tiers, nearest first.
    pub const ALL: [Self; 3] = [Self::Zone, Self::Datacenter, Self::All];

    /// Returns the tier in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zone => "zone",
            Self::Datacenter => "datacenter",
            Self::All => "all",
        }
    }

    /// Returns the nearest tier, as seen from `here`, that contains `there`.
    pub fn of(here: Place<'_>, there: Place<'_>) -> Self {
        if here.datacenter != there.datacenter {
            Self::All
        } else if here.zone.is_some() && here.zone == there.zone {
            Self::Zone
        } else {
            Self::Datacenter
        }
    }
}

/// Number of instances of a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Declared, whatever their state.
    pub declared: usize,
    /// Answered by their state: passing, warning, in a slow start, or last known.
    pub healthy: usize,
    /// Healthy instances in a slow start. Each of them is answered with its tier, and does not count for `min_healthy`: a tier
    /// of which nothing else is healthy would send them all the load that the slow start keeps from them.
    pub warming: usize,
}

impl Count {
    /// Returns the number of instances that count for `min_healthy`.
    pub fn counting(&self) -> usize {
        self.healthy - self.warming
    }
}

/// Instances of one name by tier, as seen from one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tiers([Count; Tier::ALL.len()]);

impl Tiers {
    /// Adds instances whose nearest tier is `tier`.
    pub fn add(&mut self, tier: Tier, added: Count) {
        for count in &mut self.0[tier as usize..] {
            count.declared += added.declared;
            count.healthy += added.healthy;
            count.warming += added.warming;
        }
    }

    /// Returns the number of instances of a tier, those of nearer tiers included.
    pub fn count(&self, tier: Tier) -> Count {
        self.0[tier as usize]
    }

    /// Returns the tiers that are looked at, in order.
    pub fn looked_at(policy: Policy) -> &'static [Tier] {
        match policy.nearest {
            Nearest::Zone => &Tier::ALL,
            Nearest::Datacenter => &Tier::ALL[1..],
            Nearest::None => &Tier::ALL[2..],
        }
    }

    /// Returns the tier that is answered: the nearest one with enough healthy instances, else all. `None`: no instance is
    /// healthy.
    pub fn answered(&self, policy: Policy) -> Option<Tier> {
        let is_enough = |tier: Tier| {
            let count = self.count(tier);
            match tier {
                Tier::All => count.healthy > 0,
                _ => count.counting() >= policy.min_healthy.required(count.declared),
            }
        };
        Self::looked_at(policy).iter().copied().find(|tier| is_enough(*tier))
    }

    /// Reports whether a tier declares enough instances for its requirement. The last tier has none.
    pub fn can_be_enough(&self, tier: Tier, policy: Policy) -> bool {
        let declared = self.count(tier).declared;
        tier == Tier::All || declared >= policy.min_healthy.required(declared)
    }

    /// Reports whether a tier is answered although a nearer one would be if all its instances were healthy.
    pub fn has_failed_over(&self, policy: Policy) -> bool {
        let nearest = Self::looked_at(policy).iter().find(|tier| self.can_be_enough(**tier, policy));
        self.answered(policy).as_ref() > nearest
    }
}

#[cfg(test)]
mod tests;
