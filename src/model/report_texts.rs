//! Newest texts of TTL reports, for the agent that owns the checks.
//!
//! The announcement of a text waits while texts change often. The API of the agent shows the newest one at once.

use std::sync::Arc;

use smol_str::SmolStr;

use super::{health::Status, maintenance::Scope};

/// Last report of each TTL check of a node, by instance or node and by check id. Checks without a valid report are left
/// out. Clones share structure.
pub type ReportTexts = imbl::OrdMap<(Scope, SmolStr), ReportText>;

/// Status and text of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportText {
    /// Reported status.
    pub status: Status,
    /// Text on one line, within the limit of the check.
    pub text: Arc<str>,
}
