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
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self { node: config.node.to_string(), domain: config.domain.to_string(), data_dir: config.data_dir.clone() }
    }

    /// Returns the changes from these settings to others, as problems of the configuration at `path`.
    pub(super) fn changes(&self, now: &Self, path: &Path) -> Vec<Diagnostic> {
        let changes = [
            ("node", self.node.clone(), now.node.clone()),
            ("domain", self.domain.clone(), now.domain.clone()),
            ("data_dir", self.data_dir.display().to_string(), now.data_dir.display().to_string()),
        ];
        let changed = changes.into_iter().filter(|(_, before, now)| before != now);
        changed
            .map(|(key, before, now)| {
                let message = format!("`{key}` changed from `{before}` to `{now}`, which needs a restart of the agent");
                Diagnostic::whole(path, message).with_hint("restart the agent, or undo the change")
            })
            .collect()
    }
}
