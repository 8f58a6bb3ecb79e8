//! Choices, files and findings of a conversion.

use super::report::Finding;

/// Choices of the user.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Name of the node, instead of `node_name`.
    pub node: Option<String>,
    /// Name of the host: the name of a node without another one.
    pub host_name: Option<String>,
    /// True if only service files are wanted, no configuration.
    pub services_only: bool,
}

/// A file to write.
#[derive(Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Path relative to the output folder.
    pub path: String,
    /// Content.
    pub text: String,
    /// True for a file with a secret: it is written for its owner only and never shown.
    pub is_secret: bool,
}

impl std::fmt::Debug for OutputFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = if self.is_secret { "(secret)" } else { &self.text };
        f.debug_struct("OutputFile").field("path", &self.path).field("text", &text).finish_non_exhaustive()
    }
}

/// Result of a conversion.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// Files to write, the configuration first.
    pub files: Vec<OutputFile>,
    /// Every key that is not in them, sorted.
    pub findings: Vec<Finding>,
    /// Number of services in the files.
    pub services: usize,
}
