//! Checks of external nodes, as clients report them.

use serde_json::{Value, json};
use smol_str::SmolStr;

use crate::{
    model::announcement::{CheckReport, REASON_HOLD},
    registry::registration::ReportedCheck,
};

/// A check with its last report.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Check {
    pub(super) reported: ReportedCheck,
    /// Time of the last change of status: seconds since 1970.
    pub(super) since: u64,
    announced: Output,
}

/// Announced output of a check.
#[derive(Clone, Debug, PartialEq)]
struct Output {
    text: SmolStr,
    /// Time of its announcement: seconds since 1970.
    since: u64,
}

impl Output {
    /// Reports whether it is too early at `now` for another output. A clock that went back delays nothing.
    fn is_held(&self, now: u64) -> bool {
        (self.since..self.since.saturating_add(REASON_HOLD.as_secs())).contains(&now)
    }
}

impl Check {
    /// Applies a report at `now` (seconds since 1970) to the check as it was. A report that changes only the output is not
    /// announced within [`REASON_HOLD`] of the last one.
    pub(super) fn new(reported: ReportedCheck, known: Option<&Self>, now: u64) -> Self {
        let known = known.filter(|known| known.reported.status == reported.status);
        let announced = known.map(|known| &known.announced);
        let announced = announced.filter(|announced| announced.text == reported.output || announced.is_held(now));
        Self {
            since: known.map_or(now, |known| known.since),
            announced: announced
                .cloned()
                .unwrap_or_else(|| Output { text: reported.output.as_str().into(), since: now }),
            reported,
        }
    }

    /// Announces the reported output if that is due at `now` (seconds since 1970); reports whether it was.
    pub(super) fn release_output(&mut self, now: u64) -> bool {
        let is_due = self.announced.text != self.reported.output && !self.announced.is_held(now);
        if is_due {
            self.announced = Output { text: self.reported.output.as_str().into(), since: now };
        }
        is_due
    }

    /// Returns the output that is announced.
    pub(super) fn output(&self) -> &str {
        &self.announced.text
    }

    /// Returns the name for people.
    pub(super) fn shown_name(&self) -> &str {
        if self.reported.name.is_empty() { &self.reported.id } else { &self.reported.name }
    }

    /// Returns the check as it is announced.
    pub(super) fn report(&self) -> CheckReport {
        CheckReport {
            id: self.reported.id.clone(),
            name: self.reported.name.clone(),
            notes: self.reported.notes.clone(),
            status: self.reported.status,
            output: self.output().into(),
            since: self.since,
        }
    }

    /// Returns the last report as JSON, for the stored state.
    pub(super) fn to_value(&self) -> Value {
        let ReportedCheck { id, name, status, output, service, notes, definition } = &self.reported;
        let mut value = json!({
            "CheckID": id.as_str(), "Name": name.as_str(), "Status": status.as_str(), "Output": output,
            "ServiceID": service.as_deref(), "Notes": notes.as_str(),
        });
        if let Ok(definition) = serde_json::from_str(definition) {
            value["Definition"] = definition;
        }
        value
    }
}
