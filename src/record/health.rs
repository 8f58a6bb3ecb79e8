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

/// JSON form of the latest result of a check.
#[derive(Serialize, Deserialize)]
pub(super) struct CheckText<'a> {
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
    // A report that exceeds a value loses its last checks; earlier checks are decisive more often.
    let mut checks: Vec<CheckText<'_>> = report.checks.iter().map(write_check).collect();
    loop {
        let value = json(&ReportText { since: report.since, checks });
        if value.len() <= MAX_VALUE {
            return value;
        }
        let kept = value.len().min(report.checks.len() * MAX_VALUE / value.len());
        checks = report.checks[..kept].iter().map(write_check).collect();
    }
}

pub(super) fn read_report(value: &str) -> Result<HealthReport, RecordError> {
    let text: ReportText<'_> = parse(value)?;
    if text.checks.len() > MAX_CHECKS {
        return Err(RecordError::Report);
    }
    Ok(HealthReport { since: text.since, checks: text.checks.iter().map(read_check).collect::<Result<_, _>>()? })
}

pub(super) fn write_check(check: &CheckReport) -> CheckText<'_> {
    CheckText {
        id: check.id.as_str().into(),
        name: check.name.as_str().into(),
        notes: check.notes.as_str().into(),
        status: check.status,
        output: (*check.output).into(),
        since: check.since,
    }
}

pub(super) fn read_check(text: &CheckText<'_>) -> Result<CheckReport, RecordError> {
    let is_long = |text: &str| text.len() > MAX_CHECK_TEXT;
    if text.id.is_empty() || is_long(&text.id) || is_long(&text.name) || is_long(&text.notes) {
        return Err(RecordError::Report);
    }
    Ok(CheckReport {
        id: cut(&text.id, MAX_CHECK_TEXT).into(),
        name: cut(&text.name, MAX_CHECK_TEXT).into(),
        notes: cut(&text.notes, MAX_CHECK_TEXT).into(),
        status: text.status,
        output: bounded(&text.output).into(),
        since: text.since,
    })
}
