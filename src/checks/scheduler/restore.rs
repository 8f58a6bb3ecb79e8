//! Start of an instance: its checks continue from the results before a restart of the agent, or start at `initial`.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{NO_RESULT, Scheduler, tracked::TrackedInstance, ttl::no_report};
use crate::{
    clock::unix_seconds,
    model::{
        announcement::InstanceState,
        check_results::{CheckResult, Progress},
        health::Status,
        maintenance::Scope,
        service::{Check, Definition, Origin, Probe},
    },
};

/// Status with which a check starts.
pub(super) struct Start {
    pub(super) status: Status,
    pub(super) reason: Arc<str>,
    /// Unix time in seconds since which it has this status.
    pub(super) since: u64,
    /// True if the status is from before a restart of the agent and needs a probe to confirm it.
    pub(super) unconfirmed: bool,
    /// Expiry of the last report; `None`: the validity of a report from now on.
    pub(super) expires: Option<Instant>,
    /// State in which the former scheduler of the process left the check.
    pub(super) progress: Option<Progress>,
}

impl Start {
    /// Returns a start at another check's status.
    pub(super) fn new(status: Status, reason: Arc<str>) -> Self {
        Self { status, reason, since: unix_seconds(), unconfirmed: false, expires: None, progress: None }
    }

    /// Returns the start of a new check.
    pub(super) fn initial(check: &Check) -> Self {
        let reason = if check.initial == Status::Passing { "" } else { NO_RESULT };
        Self::new(check.initial, reason.into())
    }

    /// Returns the start of a check that is new to a node in this state; `None`: a node without checks.
    fn of_node(state: Option<&InstanceState>) -> Self {
        match state {
            Some(InstanceState::Critical(reason)) => Self::new(Status::Critical, Arc::clone(reason)),
            Some(InstanceState::Warning(reason)) => Self::new(Status::Warning, Arc::clone(reason)),
            _ => Self::new(Status::Passing, "".into()),
        }
    }

    /// Returns the start of a check with a former result, at uptime `now`.
    fn former(check: &Check, former: CheckResult, now: Duration) -> Self {
        let CheckResult { status, reason, since, expires, progress, .. } = former;
        let Probe::Ttl { ttl } = check.probe else {
            let unconfirmed = match &progress {
                Some(progress) => progress.unconfirmed,
                None => check.probe.alias().is_none(),
            };
            return Self { status, reason, since, unconfirmed, expires: None, progress };
        };
        let left = expires.map_or(ttl, |expires| expires.saturating_sub(now)).min(ttl);
        let expires = Some(Instant::now() + left);
        if !left.is_zero() {
            return Self { status, reason, since, unconfirmed: false, expires, progress: None };
        }
        let since = if status == Status::Critical { since } else { unix_seconds() };
        Self { status: Status::Critical, reason: no_report(ttl), since, unconfirmed: false, expires, progress: None }
    }
}

impl Scheduler {
    /// Starts the checks of an instance, or of the node, that this agent did not know. Without former results, as those of a new instance.
    pub(super) fn restore(&mut self, scope: &Scope, definition: &Arc<Definition>) -> TrackedInstance {
        let wanted = if definition.enabled { definition.checks.as_slice() } else { &[] };
        let former = self.former.of(scope, wanted);
        let now = self.clock.now();
        let (state, since) = former.state.unzip();
        // A change of the configuration alone does not take all instances of the node out of answers.
        let inherits =
            |check: &Check| *scope == Scope::Node && check.origin == Origin::File && self.former.is_recent(check);
        let start = |(check, former): (&Check, Option<CheckResult>)| match former.filter(has_result) {
            Some(former) => Start::former(check, former, now),
            None if inherits(check) => Start::of_node(state.as_ref()),
            None => Start::initial(check),
        };
        let starts: Vec<Start> = wanted.iter().zip(former.checks).map(start).collect();
        let checks = wanted.iter().zip(starts).map(|(check, start)| self.start(scope, check, start)).collect();
        TrackedInstance {
            definition: Arc::clone(definition),
            checks,
            state,
            since: since.unwrap_or_else(unix_seconds),
            penalty: former.penalty,
            up: former.up,
        }
    }
}

/// Reports whether a check continues. Without a result, only another scheduler of the process has something to continue from:
/// counted results and a schedule, or the deadline of a report.
fn has_result(former: &CheckResult) -> bool {
    former.progress.is_some() || former.expires.is_some() || *former.reason != *NO_RESULT
}
