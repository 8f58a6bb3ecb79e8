//! Fenced blocks of documents, each with its kind: the comment above it.

use std::{fs, path::Path};

/// Fenced block.
pub struct Block {
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
    let mut indent = 0;
    for line in text.lines() {
        let inner = line.trim_start();
        match (&mut open, inner.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text.extend([line.get(indent..).unwrap_or_default(), "\n"]),
            (None, Some(language)) => {
                indent = line.len() - inner.len();
                open = Some(Block { kind: std::mem::take(&mut kind), language: language.into(), text: String::new() });
            }
            (None, None) => {
                if let Some(comment) = inner.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
                    kind = comment.to_owned();
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
