//! Services that are deregistered because a check is critical for too long (`DeregisterCriticalServiceAfter`).

use std::{collections::BTreeMap, time::Duration};

use smol_str::SmolStr;

use super::State;
use crate::model::{announcement::Announcements, health::Status, service::Definitions};

/// Checks that are critical and deregister their service later.
///
/// As in Consul, the time counts in memory, by a steady clock: a stop of the agent, during which no service can report, does not
/// count, and neither do steps of the wall clock.
#[derive(Clone, Debug, Default)]
pub struct CriticalChecks(BTreeMap<CriticalCheck, Duration>);

/// Id of the service, id of the check, and Unix time of the change of status, which a new failure changes.
type CriticalCheck = (SmolStr, SmolStr, u64);

impl State {
    /// Deregisters services with a check that is critical for longer than it allows, and returns their ids. An instance that a
    /// file also defines is not deregistered: its checks are those of the file. `now` is the time of a steady clock.
    pub fn reap(
        &mut self,
        critical: &mut CriticalChecks,
        announced: &Announcements,
        files: &Definitions,
        now: Duration,
    ) -> Vec<SmolStr> {
        let mut seen = BTreeMap::new();
        let mut gone = Vec::new();
        self.registered.retain(|id, registration| {
            let definition = &registration.definition;
            let key = &definition.instance.key;
            let known = announced.get(key).filter(|_| !files.contains_key(key));
            let reports = known.iter().filter_map(|known| known.report.as_ref()).flat_map(|report| &report.checks);
            let mut is_due = false;
            for report in reports.into_iter().filter(|report| report.status == Status::Critical) {
                let at = (0..definition.checks.len()).find(|at| definition.check_id(*at) == report.id);
                let after = at.and_then(|at| registration.deregister_after.get(at).copied().flatten());
                let Some(after) = after else { continue };
                let check = (id.clone(), report.id.clone(), report.since);
                let since = critical.0.get(&check).copied().unwrap_or(now);
                is_due |= now.saturating_sub(since) >= after;
                seen.insert(check, since);
            }
            if is_due {
                gone.push((id.clone(), key.clone()));
            }
            !is_due
        });
        critical.0 = seen;
        for (_, key) in &gone {
            self.forget_holds(key, files);
        }
        gone.into_iter().map(|(id, _)| id).collect()
    }

    /// Reports whether any registration sets `DeregisterCriticalServiceAfter`.
    pub fn may_reap(&self) -> bool {
        self.registered.values().any(|registration| registration.deregister_after.iter().any(Option::is_some))
    }
}
