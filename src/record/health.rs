//! Health as records: the state of an instance as a letter with a reason, and the results of its checks as JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{MAX_VALUE, RecordError, json, parse};
use crate::model::{
    announcement::{CheckReport, HealthReport, HoldReason, InstanceState, MAX_CHECK_TEXT, bounded, cut},
    health::Status,
    service::MAX_CHECKS,
};

pub(crate) fn state_value(state: &InstanceState) -> String {
    match state {
        InstanceState::Passing => "p".to_owned(),
        InstanceState::Warming(weight) => format!("u {weight}"),
        InstanceState::Warning(reason) => format!("w {reason}"),
        InstanceState::Critical(reason) => format!("c {reason}"),
        InstanceState::Disabled => "d".to_owned(),
        InstanceState::Withheld(hold, reason) => format!("x {} {reason}", hold.as_str()),
    }
}

pub(crate) fn read_state(value: &str) -> Result<InstanceState, RecordError> {
    match value.split_once(' ') {
        None if value == "p" => Ok(InstanceState::Passing),
        None if value == "d" => Ok(InstanceState::Disabled),
        Some(("w", reason)) => Ok(InstanceState::new(Status::Warning, reason)),
        Some(("c", reason)) => Ok(InstanceState::new(Status::Critical, reason)),
        Some(("u", weight)) => weight.parse().map(InstanceState::Warming).map_err(|_| RecordError::State),
        Some(("x", rest)) => {
            let (word, reason) = rest.split_once(' ').ok_or(RecordError::State)?;
            let hold = HoldReason::ALL.into_iter().find(|hold| hold.as_str() == word).ok_or(RecordError::State)?;
            Ok(InstanceState::withheld(hold, reason))
        }
        _ => Err(RecordError::State),
    }
}

#[derive(Serialize, Deserialize)]
struct ReportText<'a> {
    since: u64,
    #[serde(borrow)]
    checks: Vec<CheckText<'a>>,
}

#[derive(Serialize, Deserialize)]
struct CheckText<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    name: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    notes: Cow<'a, str>,
    #[serde(rename = "is", with = "StatusText")]
    status: Status,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty", rename = "out")]
    output: Cow<'a, str>,
    since: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Status")]
enum StatusText {
    #[serde(rename = "p")]
    Passing,
    #[serde(rename = "w")]
    Warning,
    #[serde(rename = "c")]
    Critical,
}

pub(super) fn report_value(report: &HealthReport) -> String {
    let check = |check: &CheckReport| CheckText {
        id: check.id.to_string().into(),
        name: check.name.to_string().into(),
        notes: check.notes.to_string().into(),
        status: check.status,
        output: check.output.to_string().into(),
        since: check.since,
    };
    // A report that exceeds a value loses its last checks; earlier checks are decisive more often.
    let mut checks: Vec<CheckText<'_>> = report.checks.iter().map(check).collect();
    loop {
        let value = json(&ReportText { since: report.since, checks });
        if value.len() <= MAX_VALUE {
            return value;
        }
        let kept = value.len().min(report.checks.len() * MAX_VALUE / value.len());
        checks = report.checks[..kept].iter().map(check).collect();
    }
}

pub(super) fn read_report(value: &str) -> Result<HealthReport, RecordError> {
    let text: ReportText<'_> = parse(value)?;
    let long = |text: &str| text.len() > MAX_CHECK_TEXT;
    let is_bad = |check: &CheckText<'_>| {
        check.id.is_empty() || [&check.id, &check.name, &check.notes].into_iter().any(|text| long(text))
    };
    if text.checks.len() > MAX_CHECKS || text.checks.iter().any(is_bad) {
        return Err(RecordError::Report);
    }
    let checks = text.checks.into_iter().map(|check| CheckReport {
        id: cut(&check.id, MAX_CHECK_TEXT).into(),
        name: bounded(&check.name).into(),
        notes: bounded(&check.notes).into(),
        status: check.status,
        output: bounded(&check.output).into(),
        since: check.since,
    });
    Ok(HealthReport { since: text.since, checks: checks.collect() })
}
