//! Newest texts of TTL checks: the agent that owns a check shows them before they are announced, as in Consul.

use std::time::Duration;

use smol_str::SmolStr;
use tokio::time::timeout;

use crate::{
    api::catalog::Check,
    http::Api,
    model::{
        announcement::bounded,
        health::Status,
        maintenance::Scope,
        report_texts::{ReportText, ReportTexts},
    },
};

/// Replaces the outputs of checks by those of their newest reports. A report with another status is about to be announced.
pub(super) fn show_newest(mut checks: Vec<Check>, scope: &Scope, texts: &ReportTexts) -> Vec<Check> {
    if texts.is_empty() {
        return checks;
    }
    for check in &mut checks {
        let newest = texts.get(&(scope.clone(), SmolStr::new(&check.check_id)));
        if let Some(newest) = newest.filter(|newest| newest.status.as_str() == check.status) {
            check.output = newest.text.to_string();
        }
    }
    checks
}

/// Waits until the newest text of a TTL check is that of a report, so that the next query shows it, at most for `wait`.
pub(super) async fn wait_for_text(api: &Api, check: &(Scope, SmolStr), status: Status, output: &str, wait: Duration) {
    let (mut texts, wanted) = (api.report_texts.clone(), bounded(output));
    // The check may have a lower limit of its own.
    let is_start = |text: &str| wanted.starts_with(text) && text.is_empty() == wanted.is_empty();
    let is_shown = |known: &ReportText| known.status == status && is_start(&known.text);
    let shown = texts.wait_for(|texts| texts.get(check).is_some_and(is_shown));
    let _ = timeout(wait, shown).await;
}
