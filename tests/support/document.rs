//! Fenced blocks of documents, each with its kind: the comment above it.

use std::{fs, path::Path};

/// Fenced block.
pub struct Block {
    /// Heading of the second level above it; empty without one.
    pub section: String,
    /// Text of the comment above it; empty without one.
    pub kind: String,
    /// Language after the opening fence.
    pub language: String,
    /// Text, without the fence's indentation.
    pub text: String,
}

/// Returns all blocks of a document of the repository.
pub fn blocks(document: &str) -> Vec<Block> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let (mut blocks, mut kind, mut open): (Vec<Block>, String, Option<Block>) = (vec![], String::new(), None);
    let (mut section, mut indent) = (String::new(), 0);
    for line in text.lines() {
        let inner = line.trim_start();
        match (&mut open, inner.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text.extend([line.get(indent..).unwrap_or_default(), "\n"]),
            (None, Some(language)) => {
                indent = line.len() - inner.len();
                let (section, kind) = (section.clone(), std::mem::take(&mut kind));
                open = Some(Block { section, kind, language: language.into(), text: String::new() });
            }
            (None, None) => {
                if let Some(comment) = inner.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
                    kind = comment.to_owned();
                }
                if let Some(heading) = line.strip_prefix("## ") {
                    section = heading.to_owned();
                }
            }
        }
    }
    blocks
}

/// Returns the text of the only block of this kind.
#[track_caller]
pub fn block(document: &str, kind: &str) -> String {
    let mut found = blocks(document).into_iter().filter(|block| block.kind == kind);
    let block = found.next().unwrap_or_else(|| panic!("{document} has no block {kind:?}"));
    assert!(found.next().is_none(), "{document} has several blocks {kind:?}");
    block.text
}

/// Returns the commands after `$ `, each with the output that is shown below it.
pub fn commands(text: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = vec![];
    for line in text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => output.extend([line, "\n"]),
            (None, None) => panic!("output before any command: {line}"),
        }
    }
    commands
}

/// Returns output with single spaces, and `…` instead of durations, generations, indexes and digests.
pub fn without_times(output: &str) -> String {
    let is_time = |word: &str| {
        let units = word.trim_start_matches(|c: char| c.is_ascii_digit() || "smhd".contains(c));
        let is_digest = word.len() == 8 && word.chars().all(|c| c.is_ascii_hexdigit());
        is_digest || units.is_empty() && (word.ends_with(['s', 'm', 'h']) || word.len() == 19 || word.len() == 13)
    };
    let words = |line: &str| {
        line.split_whitespace().map(|word| if is_time(word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
    };
    output.lines().map(|line| words(line) + "\n").collect()
}
