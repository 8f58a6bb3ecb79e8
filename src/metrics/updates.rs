//! Metrics of updates of dynamic zones.

use std::sync::Arc;

use super::{Family, zone_counts::ZoneCounts};
use crate::model::name::Name;

/// Outcome of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// The zone has changed.
    Changed,
    /// The zone had the requested records already.
    Unchanged,
    /// A prerequisite does not hold.
    Prerequisite,
    /// The message is malformed.
    Malformed,
    /// The client or its key may not make the change, or the zone is not dynamic.
    Refused,
    /// The store did not carry out the change.
    Failed,
}

const OUTCOMES: [&str; 6] = ["changed", "unchanged", "prerequisite", "malformed", "refused", "failed"];

/// Handle of the metrics of updates.
#[derive(Clone, Debug)]
pub struct Updates(Arc<ZoneCounts<{ OUTCOMES.len() }>>);

impl Default for Updates {
    fn default() -> Self {
        Self(Arc::new(ZoneCounts::with_unknown()))
    }
}

impl Updates {
    /// Counts an update of a zone; `None`: not one of this node's zones.
    pub fn count(&self, zone: Option<&Name>, outcome: UpdateOutcome) {
        self.0.add(zone, outcome as usize);
    }

    pub(super) fn family(&self) -> Family {
        self.0.family("muster_zone_updates", "Updates of dynamic zones, by zone and outcome", &OUTCOMES)
    }
}
