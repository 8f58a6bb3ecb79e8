//! Settings that neither a reload nor an upgrade changes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{config::Config, diagnostic::Diagnostic};

/// Settings that a running agent cannot change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fixed {
    node: String,
    domain: String,
    data_dir: PathBuf,
    /// Voters and size limit of the store; empty: no store. Absent in the handover of a version without a store.
    #[serde(default)]
    store: String,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        let store = config.store.as_ref().map(|store| {
            let voters: Vec<_> = store.voters.iter().map(ToString::to_string).collect();
            format!("voters: [{}], max_size: {}", voters.join(", "), store.max_octets)
        });
        Self {
            node: config.node.to_string(),
            domain: config.domain.to_string(),
            data_dir: config.data_dir.clone(),
            store: store.unwrap_or_default(),
        }
    }

    /// Returns the changes from these settings to others, as problems of the configuration at `path`.
    pub(super) fn changes(&self, now: &Self, path: &Path) -> Vec<Diagnostic> {
        let changes = [
            ("node", self.node.clone(), now.node.clone()),
            ("domain", self.domain.clone(), now.domain.clone()),
            ("data_dir", self.data_dir.display().to_string(), now.data_dir.display().to_string()),
            ("store", self.store.clone(), now.store.clone()),
        ];
        let changed = changes.into_iter().filter(|(_, before, now)| before != now);
        changed
            .map(|(key, before, now)| {
                let [before, now] = [before, now].map(|value| match value.as_str() {
                    "" => "not set".to_owned(),
                    value => format!("`{value}`"),
                });
                let message = format!("`{key}` changed from {before} to {now}, which needs a restart of the agent");
                Diagnostic::whole(path, message).with_hint("restart the agent, or undo the change")
            })
            .collect()
    }
}
