//! `GET /v1/muster/events`: what happens, one event at a time.

use serde::{Deserialize, Serialize};

/// One event. What it is not about is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Event {
    /// Grows with each event, and with every start of the agent; the node's own. `None`: what this event is about has
    /// numbers itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// When (RFC 3339), by the clock of the node that was asked.
    pub time: String,
    /// `instance-down`, `node-gone`, `file-problem`, …: a group, and what of it.
    pub kind: String,
    /// The node that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The service that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The instance's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How the instance stood before: one of the states of `explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// How it stands now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The file or the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// How many: packets that were not let in, events that were missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// One sentence.
    pub text: String,
}
