//! Events of `GET /v1/muster/events`.

use serde::{Deserialize, Serialize};

/// An event. Fields that do not apply are omitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Event {
    /// Sequence number, local to the node: increases with each event, also across restarts. `None` for `missed`, which
    /// stands for other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Time (RFC 3339), by the clock of the requested node.
    pub time: String,
    /// Kind: a group and a detail, such as `instance-down`, `node-gone` or `file-problem`.
    pub kind: String,
    /// Affected node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Affected service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Id of the affected instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Previous state of the instance, as in `explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// New state of the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Affected file or folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// Number of rejected packets or missed events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Description in one sentence.
    pub text: String,
}
