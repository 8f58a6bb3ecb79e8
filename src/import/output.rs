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
    /// Its readers.
    pub privacy: Privacy,
}

/// Readers of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// Every user of the host.
    Public,
    /// Its owner: not every user may read the values of checks in its source.
    Private,
    /// Its owner. The content is never shown.
    Secret,
}

impl Privacy {
    /// Privacy of a file with the values of a source.
    pub(super) fn of_source(is_public: bool) -> Self {
        if is_public { Self::Public } else { Self::Private }
    }
}

/// Begins the comment that names the source of a service.
pub(super) const ORIGIN: &str = "From ";

/// Reports whether a service file was written by an import: its first comment names a source.
pub fn is_imported(text: &str) -> bool {
    let mut head = text.lines().map(str::trim_start).take_while(|line| line.starts_with('#') || *line == "services:");
    head.any(|line| line.strip_prefix("# ").is_some_and(|comment| comment.starts_with(ORIGIN)))
}

impl std::fmt::Debug for OutputFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = if self.privacy == Privacy::Public { &self.text } else { "(secret)" };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imported_files_are_recognized_by_their_first_comment() {
        let cases = [
            ("# From a.json:3\nservice: web\n", true),
            ("# 1 of 1 checks of Consul are not converted\n# From a.json\nservice: web\n", true),
            ("services:\n  # From a.json\n  - service: web\n", true),
            ("service: web\n# From a.json\n", false),
            ("# my file\nservice: web\n", false),
            ("", false),
        ];
        for (text, expected) in cases {
            assert_eq!(is_imported(text), expected, "{text}");
        }
    }
}
