//! Instances and checks as the scheduler tracks them: statuses, and the state of the instance that follows from them.

use std::{sync::Arc, time::Duration};

use smol_str::SmolStr;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use super::{Clock, NO_RESULT, TICK};
use crate::{
    checks::alias,
    clock::unix_seconds,
    metrics::{Checks, Kind},
    model::{
        announcement::{CheckReport, HealthReport, HoldReason, InstanceState, bounded},
        check_results::{CheckResult, Fingerprint, InstanceResults, unconfirmed},
        flap_damping::{Penalty, warming},
        health::{Status, add_up},
        maintenance::Maintenance,
        registered_name::RegisteredName,
        service::{Check, Definition, InstanceKey, Pace},
    },
};

/// Instance with the statuses of its checks.
pub(super) struct TrackedInstance {
    pub(super) definition: Arc<Definition>,
    /// State of each check of the definition, in its order; empty while the instance is disabled.
    pub(super) checks: Vec<TrackedCheck>,
    /// State as published last, also before a restart of the agent; `None` for a new instance.
    pub(super) state: Option<InstanceState>,
    /// Unix time in seconds of the last change of state.
    pub(super) since: u64,
    pub(super) penalty: Penalty,
    /// Uptime at which the instance became healthy without a hold; `None` while it is not.
    pub(super) up: Option<Duration>,
}

pub(super) struct TrackedCheck {
    pub(super) status: Status,
    /// Empty when passing.
    pub(super) reason: Arc<str>,
    /// Unix time in seconds of the last change of status.
    pub(super) since: u64,
    /// True if the status is from before a restart of the agent and no probe has ended since.
    pub(super) unconfirmed: bool,
    pub(super) work: Work,
}

/// Source of a check's status.
pub(super) enum Work {
    /// Task that probes.
    Task(Task),
    /// The service that the alias names.
    Alias,
    /// Reports of the application; the last one expires at this time.
    Reports(Instant),
}

pub(super) struct Task {
    pub(super) number: u64,
    /// Cancels the check's work on drop.
    pub(super) _handle: AbortOnDropHandle<()>,
}

impl TrackedInstance {
    pub(super) fn worst_status(&self) -> (Status, &str) {
        add_up(self.checks.iter().map(|check| (check.status, &*check.reason)))
    }

    /// Returns the state at uptime `now`, and the uptime at which it changes by itself.
    pub(super) fn evaluate(&mut self, maintenance: &Maintenance, now: Duration) -> (InstanceState, Option<Duration>) {
        let definition = Arc::clone(&self.definition);
        let held = maintenance.of(&definition.instance.key);
        let (status, reason) = self.worst_status();
        let checked = InstanceState::new(status, reason);
        let up = definition.enabled && held.is_none() && status.is_healthy();
        let fell = self.up.is_some() && definition.enabled && held.is_none() && !up;
        self.up = up.then(|| self.up.unwrap_or(now));
        if let (true, Some(damping)) = (fell, &definition.pace.damping) {
            self.penalty.fall(damping, now);
        }
        if !definition.enabled {
            return (InstanceState::Disabled, None);
        }
        if let Some((_, reason, hold)) = held {
            return (InstanceState::withheld(reason, &hold.reason), None);
        }
        if definition.instance.addresses.is_empty() {
            return (unresolved(&definition), None);
        }
        let Some(since) = self.up else { return (checked, None) };
        if let Some(damping) = &definition.pace.damping
            && self.penalty.is_held(damping, now)
        {
            // The slow start begins when the hold ends.
            self.up = Some(now);
            let reason = format!("failed {} times or more in a short time", damping.hold_at);
            return (
                InstanceState::withheld(HoldReason::Flapping, &reason),
                Some(now + self.penalty.held_for(damping, now) + TICK),
            );
        }
        match warming(definition.instance.weight, definition.pace.slow_start, now.saturating_sub(since)) {
            Some((weight, next)) if checked == InstanceState::Passing => {
                (InstanceState::Warming(weight), Some(since + next))
            }
            _ => (checked, None),
        }
    }

    /// Returns the results of the checks; `None` for a passing instance without checks.
    pub(super) fn report(&self, state: &InstanceState) -> Option<Arc<HealthReport>> {
        if self.checks.is_empty() && *state == InstanceState::Passing {
            return None;
        }
        let report = |(at, (check, check_state)): (usize, (&Check, &TrackedCheck))| CheckReport {
            id: self.check_id(at),
            name: bounded(
                &check.title.as_ref().map_or_else(|| check.probe.to_string(), |title| title.name.to_string()),
            )
            .into(),
            status: check_state.status,
            output: check_state.output().into(),
            since: check_state.since,
        };
        let checks = self.definition.checks.iter().zip(&self.checks).enumerate().map(report).collect();
        Some(Arc::new(HealthReport { since: self.since, checks }))
    }

    /// Returns the results for the next start of the agent. TTL checks have one without a report, too: their deadline runs.
    /// `None` for a passing instance without checks and pacing: a new one starts alike.
    pub(super) fn results(&self, state: &InstanceState, clock: &Clock) -> Option<InstanceResults> {
        if self.checks.is_empty() && self.definition.pace == Pace::default() && *state == InstanceState::Passing {
            return None;
        }
        let has_result = |known: &TrackedCheck| *known.reason != *NO_RESULT || matches!(known.work, Work::Reports(_));
        let checks = self.definition.checks.iter().zip(&self.checks).filter(|(_, known)| has_result(known));
        let result = |(check, known): (&Check, &TrackedCheck)| CheckResult {
            check: Fingerprint::of(check),
            status: known.status,
            reason: Arc::clone(&known.reason),
            since: known.since,
            expires: match known.work {
                Work::Reports(until) => Some(clock.uptime(until)),
                Work::Task(_) | Work::Alias => None,
            },
        };
        Some(InstanceResults {
            state: state.clone(),
            since: self.since,
            up: self.up,
            penalty: self.penalty,
            checks: checks.map(result).collect(),
        })
    }

    /// Returns the id of a check: the configured one, or Consul's scheme.
    pub(super) fn check_id(&self, at: usize) -> SmolStr {
        self.definition.check_id(at)
    }

    /// Returns the services that the alias checks name; none while the instance is disabled.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &RegisteredName> {
        self.definition.checks.iter().zip(&self.checks).filter_map(|(check, _)| check.probe.alias())
    }

    pub(super) fn as_member(&self) -> alias::Member<'_> {
        let probed = self.checks.iter().filter(|check| !matches!(check.work, Work::Alias));
        alias::Member {
            service: &self.definition.instance.key.service,
            enabled: self.definition.enabled,
            own: add_up(probed.map(|check| (check.status, &*check.reason))),
            aliases: self.aliases().collect(),
        }
    }
}

/// Returns the state of an instance that waits for the addresses of its host name.
fn unresolved(definition: &Definition) -> InstanceState {
    let reason = definition.instance.host.as_ref().map(|host| {
        let problem = host.problem.as_deref().unwrap_or("not looked up yet");
        format!("{}: {problem}", host.name)
    });
    InstanceState::withheld(HoldReason::Unresolved, &reason.unwrap_or_default())
}

impl TrackedCheck {
    /// Sets and logs the status. The first result is logged at info even if it confirms `initial`.
    pub(super) fn set_status(
        &mut self,
        key: &InstanceKey,
        check: &Check,
        status: Status,
        reason: Arc<str>,
        metrics: &Checks,
    ) {
        let (service, id, probe, word) = (&key.service, &key.id, &check.probe, status.as_str());
        if status != self.status || *self.reason == *NO_RESULT {
            info!(%service, %id, check = %probe, status = word, %reason, "check {word}");
        } else {
            debug!(%service, %id, check = %probe, status = word, %reason, "check remains {word}");
        }
        if status != self.status {
            self.since = unix_seconds();
            metrics.status_changed(Kind::of(&check.probe), status);
        }
        (self.status, self.reason, self.unconfirmed) = (status, reason, false);
    }

    /// Returns the output for people.
    fn output(&self) -> String {
        if self.unconfirmed { unconfirmed(self.status, &self.reason) } else { bounded(&self.reason) }
    }
}
