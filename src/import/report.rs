//! Findings of a conversion: every key that was not converted or needed a fact from elsewhere, with its place and the reason.

use serde::Serialize;

/// A key of Consul that is not in the output, or not by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Effect of the difference.
    #[serde(rename = "Kind")]
    pub kind: FindingKind,
    /// Reason, and the action to take. Findings with one reason are shown together.
    #[serde(rename = "Reason")]
    pub reason: String,
    /// File or address that the key was read from.
    #[serde(rename = "File")]
    pub file: String,
    /// Line, counted from 1; 0: a response of the HTTP API.
    #[serde(rename = "Line")]
    pub line: usize,
    /// Path of the key: `service.checks[0].docker_container_id`.
    #[serde(rename = "Key")]
    pub key: String,
}

/// Effect of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum FindingKind {
    /// muster behaves differently.
    NotConverted,
    /// The files depend on a fact that no key states.
    Assumed,
    /// muster has no use for the key, and needs none.
    NotNeeded,
}

impl Finding {
    /// The finding of a node without an agent, whose service files belong to another host.
    pub fn external_node(address: &str, node: &str) -> Self {
        Self {
            kind: FindingKind::NotConverted,
            reason: "A node without an agent: put its service files on a host with one, or register it with catalog/register"
                .to_owned(),
            file: address.to_owned(),
            line: 0,
            key: node.to_owned(),
        }
    }

    /// A response that lacks what the token may not read.
    pub fn hidden(address: &str, access: &str) -> Self {
        Self {
            kind: FindingKind::NotConverted,
            reason: format!("Consul hid a part of the response: set a token with {access}"),
            file: address.to_owned(),
            line: 0,
            key: "(response)".to_owned(),
        }
    }
}

/// Findings of one conversion.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// All findings, by kind, reason, file and line.
    pub(super) fn sorted(mut self) -> Vec<Finding> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}

/// The report for people, grouped by kind and reason.
pub fn to_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let titles = [
        (FindingKind::NotConverted, "Not converted"),
        (FindingKind::Assumed, "Assumed"),
        (FindingKind::NotNeeded, "Not needed"),
    ];
    for (kind, title) in titles {
        let of_kind: Vec<&Finding> = findings.iter().filter(|finding| finding.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        text.push_str(&format!("{title}:\n"));
        for group in of_kind.chunk_by(|a, b| a.reason == b.reason) {
            text.push_str(&format!("  {}\n", group[0].reason));
            for finding in group {
                let line = if finding.line == 0 { String::new() } else { format!(":{}", finding.line) };
                text.push_str(&format!("    {}{line}  {}\n", finding.file, finding.key));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_grouped_by_kind_and_reason() {
        let finding = |kind, reason: &str, line, key: &str| Finding {
            kind,
            reason: reason.to_owned(),
            file: "a.json".to_owned(),
            line,
            key: key.to_owned(),
        };
        let mut findings = Findings::default();
        findings.push(finding(FindingKind::NotNeeded, "no servers", 9, "server"));
        findings.push(finding(FindingKind::NotConverted, "no proxies", 7, "service.proxy"));
        findings.push(finding(FindingKind::NotConverted, "no proxies", 3, "service.connect"));
        findings.push(finding(FindingKind::NotConverted, "no proxies", 3, "service.connect"));
        assert_eq!(
            to_text(&findings.sorted()),
            "Not converted:\n  no proxies\n    a.json:3  service.connect\n    a.json:7  service.proxy\nNot needed:\n  no \
             servers\n    a.json:9  server\n"
        );
    }
}
