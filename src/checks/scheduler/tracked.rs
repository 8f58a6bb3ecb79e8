//! Instances and checks as the scheduler tracks them: statuses, and the state of the instance that follows from them.

use std::{sync::Arc, time::Duration};

use smol_str::SmolStr;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use super::{Clock, NO_RESULT, TICK};
use crate::{
    checks::{alias, runner::Memory, ticks::Ticks},
    clock::unix_seconds,
    metrics::{Checks, Kind},
    model::{
        announcement::{CheckReport, HealthReport, HoldReason, InstanceState, REASON_HOLD, bounded},
        check_results::{CheckResult, Fingerprint, InstanceResults, Progress, unconfirmed},
        flap_damping::{Penalty, warming},
        health::{Status, add_up},
        maintenance::{HostKind, Maintenance, Scope},
        report_texts::ReportText,
        service::{AliasTarget, Check, Definition, InstanceKey, Pace},
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
    /// Text of the last reports of a TTL check; `None` before the first one.
    pub(super) text: Option<HeldText>,
}

/// Newest text of the reports of a TTL check, and the pace of its publication.
pub(super) struct HeldText {
    /// Newest text, which may not be published yet.
    newest: Arc<str>,
    /// Time of the last publication.
    published: Instant,
    /// True if the publication of a newer text is scheduled.
    is_scheduled: bool,
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
    pub(super) handle: AbortOnDropHandle<(Memory, Ticks)>,
    /// State of the check after the end of the task.
    pub(super) progress: Option<Progress>,
}

impl TrackedInstance {
    /// Returns an instance without checks that has no state yet.
    pub(super) fn without_checks(definition: Arc<Definition>) -> Self {
        let (state, since, penalty, up) = (None, unix_seconds(), Penalty::default(), None);
        Self { definition, checks: Vec::new(), state, since, penalty, up }
    }

    pub(super) fn worst_status(&self) -> (Status, &str) {
        add_up(self.checks.iter().map(|check| (check.status, &*check.reason)))
    }

    /// Returns the state at uptime `now`, and the uptime at which it changes by itself. `node` is the worst status of the
    /// node's checks, with its reason.
    pub(super) fn evaluate(
        &mut self,
        maintenance: &Maintenance,
        node: &(Status, Arc<str>),
        now: Duration,
    ) -> (InstanceState, Option<Duration>) {
        let definition = Arc::clone(&self.definition);
        let held =
            maintenance.of(&definition.instance.key, HostKind::Own).map(|(_, reason, hold)| (reason, &*hold.reason));
        let held = held.or_else(|| (node.0 == Status::Critical).then_some((HoldReason::NodeCritical, &*node.1)));
        let (status, reason) = self.worst_status();
        let checked = match (status, node.0) {
            (Status::Passing, Status::Warning) => InstanceState::new(Status::Warning, &node.1),
            _ => InstanceState::new(status, reason),
        };
        let up = definition.enabled && held.is_none() && status.is_healthy();
        let fell = self.up.is_some() && definition.enabled && held.is_none() && !up;
        self.up = up.then(|| self.up.unwrap_or(now));
        if let (true, Some(damping)) = (fell, &definition.pace.damping) {
            self.penalty.fall(damping, now);
        }
        if !definition.enabled {
            return (InstanceState::Disabled, None);
        }
        if let Some((kind, reason)) = held {
            return (InstanceState::withheld(kind, reason), None);
        }
        if let Some(host) = definition.instance.host.as_ref().filter(|_| definition.instance.addresses.is_empty()) {
            return (InstanceState::unresolved(host), None);
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
            name: bounded(&check.display_name()).into(),
            notes: check.title.as_ref().map(|title| title.notes.clone()).unwrap_or_default(),
            status: check_state.status,
            output: check_state.output().into(),
            since: check_state.since,
        };
        let checks = self.definition.checks.iter().zip(&self.checks).enumerate().map(report).collect();
        Some(Arc::new(HealthReport { since: self.since, checks }))
    }

    /// Returns the results for the next start of the agent, or of the scheduler. TTL checks have one without a report, too: their deadline runs.
    /// `None` for a passing instance without checks and pacing: a new one starts alike.
    pub(super) fn results(&self, clock: &Clock) -> Option<InstanceResults> {
        let state = self.state.as_ref()?;
        if self.checks.is_empty() && self.definition.pace == Pace::default() && *state == InstanceState::Passing {
            return None;
        }
        let has_result = |known: &TrackedCheck| match &known.work {
            Work::Reports(_) => true,
            Work::Task(task) if task.progress.is_some() => true,
            Work::Task(_) | Work::Alias => *known.reason != *NO_RESULT,
        };
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
            progress: match &known.work {
                Work::Task(task) => task.progress.clone(),
                Work::Reports(_) | Work::Alias => None,
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

    /// Returns the targets of the alias checks; none while the instance is disabled.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &AliasTarget> {
        self.definition.checks.iter().zip(&self.checks).filter_map(|(check, _)| check.probe.alias())
    }

    pub(super) fn as_member(&self) -> alias::Member<'_> {
        let probed = self.checks.iter().filter(|check| !matches!(check.work, Work::Alias));
        alias::Member {
            instance: Some((&self.definition.instance.key.service, self.definition.instance.api_id())),
            enabled: self.definition.enabled,
            own: add_up(probed.map(|check| (check.status, &*check.reason))),
            aliases: self.aliases().collect(),
        }
    }
}

impl TrackedCheck {
    /// Sets and logs the status. The first result is logged at info even if it confirms `initial`.
    pub(super) fn set_status(
        &mut self,
        scope: &Scope,
        check: &Check,
        status: Status,
        reason: Arc<str>,
        metrics: &Checks,
    ) {
        let word = status.as_str();
        let is_news = status != self.status || *self.reason == *NO_RESULT;
        match scope {
            Scope::Instance(InstanceKey { service, id }) if is_news => {
                info!(%service, %id, check = %check.display_name(), status = word, %reason, "check {word}");
            }
            Scope::Instance(InstanceKey { service, id }) => {
                debug!(%service, %id, check = %check.display_name(), status = word, %reason, "check remains {word}");
            }
            Scope::Node if is_news => {
                info!(check = %check.display_name(), status = word, %reason, "check of the node {word}");
            }
            Scope::Node => {
                debug!(check = %check.display_name(), status = word, %reason, "check of the node remains {word}");
            }
        }
        if status != self.status {
            self.since = unix_seconds();
            metrics.status_changed(Kind::of(&check.probe), status);
        }
        (self.status, self.reason, self.unconfirmed) = (status, reason, false);
    }

    /// Takes the status and the text of a TTL report. Returns the time until which the text is held, if the report changes
    /// nothing else; the newest text is published then. `None`: the report is published now.
    pub(super) fn take_text(&mut self, status: Status, newest: Arc<str>, now: Instant) -> Option<Instant> {
        let known = self.text.as_mut().filter(|_| status == self.status && *self.reason != *NO_RESULT);
        let Some(known) = known.filter(|known| now < known.published + REASON_HOLD) else {
            self.text = Some(HeldText { newest, published: now, is_scheduled: false });
            return None;
        };
        known.newest = newest;
        known.is_scheduled = true;
        Some(known.published + REASON_HOLD)
    }

    /// Returns the newest text of a TTL check if it is due and differs from the published one.
    pub(super) fn release_text(&mut self, now: Instant) -> Option<Arc<str>> {
        let known = self.text.as_mut().filter(|known| known.is_scheduled && known.published + REASON_HOLD <= now)?;
        known.is_scheduled = false;
        let newest = Arc::clone(&known.newest);
        if newest == self.reason {
            return None;
        }
        known.published = now;
        Some(newest)
    }

    /// Returns the newest report of a TTL check; `None` before the first one, or after it has expired.
    pub(super) fn newest_report(&self) -> Option<ReportText> {
        self.text.as_ref().map(|text| ReportText { status: self.status, text: Arc::clone(&text.newest) })
    }

    /// Newest text of a TTL check that waits for its publication.
    pub(super) fn held_text(&self) -> Option<Arc<str>> {
        self.text.as_ref().filter(|text| text.is_scheduled).map(|text| Arc::clone(&text.newest))
    }

    /// Returns the output for people.
    fn output(&self) -> String {
        if self.unconfirmed { unconfirmed(self.status, &self.reason) } else { bounded(&self.reason) }
    }
}
