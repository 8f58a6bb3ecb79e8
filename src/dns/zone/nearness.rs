//! Selection of the instances of a name by the tier that this node answers.

use super::Settings;
use crate::model::{
    catalog::{self, Catalog, CatalogEntry},
    nearest::{Nearest, Policy, Tier, Tiers},
};

/// Policy of a service that prefers near instances, and the nearest tier of each instance.
pub(super) struct Nearness {
    policy: Policy,
    tiers: Vec<Tier>,
}

impl Nearness {
    /// Returns the selection among some instances of a service; `None`: it does not prefer near instances.
    pub(super) fn new(
        service: &catalog::Service,
        instances: &[&CatalogEntry],
        catalog: &Catalog,
        settings: &Settings,
    ) -> Option<Self> {
        let policy = service.policy(settings.nearest).policy;
        if policy.nearest == Nearest::None {
            return None;
        }
        let tiers = instances.iter().map(|entry| catalog.tier(settings.place(), entry)).collect();
        Some(Self { policy, tiers })
    }

    /// Returns the tier that is answered among the members of a name, with its instances, healthy or not. `None`: no member is
    /// healthy. Members are indices of `instances`.
    pub(super) fn answered(&self, instances: &[&CatalogEntry], members: &[u32]) -> Option<(Tier, Vec<u32>)> {
        let mut tiers = Tiers::default();
        for at in members.iter().map(|at| *at as usize) {
            tiers.add(self.tiers[at], instances[at].count());
        }
        let answered = tiers.answered(self.policy)?;
        let near = members.iter().copied().filter(|at| self.tiers[*at as usize] <= answered).collect();
        Some((answered, near))
    }
}
