//! Choice of near instances among those of a name.

use super::Explainer;
use crate::{
    api::explain::{Nearest as Explained, Tier as ExplainedTier},
    dns::answer::provenance::Match,
    model::{
        catalog::CatalogEntry,
        nearest::{Nearest, Place, Tier, Tiers},
        service::InstanceKey,
        stated_policy::StatedPolicy,
    },
};

/// Policy of a service, and the tiers of the instances that a name selects.
pub(super) struct Nearness<'a> {
    stated: StatedPolicy<'a>,
    here: Place<'a>,
    tiers: Tiers,
    /// Tier that is answered; `None`: no instance is healthy.
    pub(super) answered: Option<Tier>,
}

impl Explainer<'_> {
    /// Returns the choice among `members`, the instances of a name. `None`: the service does not prefer near instances, or the
    /// name is that of a single one.
    pub(super) fn nearness<'s>(
        &'s self,
        stated: StatedPolicy<'s>,
        found: &Match<'_>,
        members: &[&CatalogEntry],
    ) -> Option<Nearness<'s>> {
        let is_of_several = matches!(found, Match::Set { .. } | Match::Port { .. } | Match::Bindings { .. });
        if !is_of_several || stated.policy.nearest == Nearest::None {
            return None;
        }
        let here = self.tables.place();
        let tiers = self.catalog.tiers(here, members.iter().copied());
        Some(Nearness { stated, here, tiers, answered: tiers.answered(stated.policy) })
    }

    /// Reports whether a healthy instance is left out of the answers of a name.
    pub(super) fn is_too_far(&self, nearness: Option<&Nearness<'_>>, entry: &CatalogEntry) -> bool {
        nearness.is_some_and(|near| near.answered.is_some_and(|tier| self.catalog.tier(near.here, entry) > tier))
    }
}

impl Nearness<'_> {
    /// Returns the answered tier for people, such as `zone eu-1a`; `None` for all instances.
    pub(super) fn words(&self) -> Option<String> {
        let tier = self.answered.filter(|tier| *tier != Tier::All)?;
        Some(format!("{} {}", tier.as_str(), self.name(tier)))
    }

    /// Returns the name of a tier; empty if it has none.
    fn name(&self, tier: Tier) -> String {
        let name = match tier {
            Tier::Zone => self.here.zone,
            Tier::Datacenter => Some(self.here.datacenter),
            Tier::All => None,
        };
        name.map(ToString::to_string).unwrap_or_default()
    }

    /// Returns a note for each tier that declares instances, but fewer than it needs.
    pub(super) fn never_enough(&self) -> impl Iterator<Item = String> {
        let policy = self.stated.policy;
        Tiers::looked_at(policy).iter().filter(move |tier| !self.tiers.can_be_enough(**tier, policy)).filter_map(move |tier| {
            let declared = self.tiers.count(*tier).declared;
            let required = policy.min_healthy.required(declared);
            let (tier, name, plural) = (tier.as_str(), self.name(*tier), if declared == 1 { "" } else { "s" });
            (declared > 0).then(|| {
                format!("The {tier} {name} declares {declared} instance{plural}, fewer than the {required} that `min_healthy` requires: it is never answered.")
            })
        })
    }

    /// Returns the choice as the API shows it.
    pub(super) fn explained(&self) -> Explained {
        let policy = self.stated.policy;
        let from = |key: &str, by: Option<&InstanceKey>| match by {
            Some(by) => format!("the {key} of {by}"),
            None => format!("dns.{key} of this node's configuration"),
        };
        let tier = |tier: &Tier| {
            let count = self.tiers.count(*tier);
            ExplainedTier {
                tier: tier.as_str().to_owned(),
                name: self.name(*tier),
                declared: count.declared,
                healthy: count.healthy,
                warming: count.warming,
                required: if *tier == Tier::All { 1 } else { policy.min_healthy.required(count.declared) },
                answered: self.answered == Some(*tier),
            }
        };
        Explained {
            nearest: policy.nearest.to_string(),
            nearest_from: from("nearest", self.stated.nearest_by),
            min_healthy: policy.min_healthy.to_string(),
            min_healthy_from: from("min_healthy", self.stated.min_healthy_by),
            answered: self.answered.map(Tier::as_str).unwrap_or_default().to_owned(),
            tiers: Tiers::looked_at(policy).iter().map(tier).collect(),
        }
    }
}

/// Returns a note if instances of a service state different policies.
pub(super) fn disagreement(stated: &StatedPolicy<'_>) -> Option<String> {
    let (first, other) = (stated.nearest_by.or(stated.min_healthy_by)?, stated.other?);
    Some(format!(
        "Instance {other} states another nearest or min_healthy than {first}: the first instance by id that states a value \
         counts."
    ))
}
