//! What can be read of a configuration with errors: the addresses at which the commands find an agent that refused it.

use std::path::Path;

use super::{Config, Environment, Http, parse};
use crate::yaml::{Document, reader::Reader, tree::overlay};

impl Config {
    /// Returns the table `http` of a configuration with errors, as far as it can be read: of a file that is not valid YAML, the
    /// lines of this table count. `None`: no file has it.
    pub fn http_despite_errors<'a>(
        files: impl IntoIterator<Item = (&'a Path, &'a [u8])>,
        environment: &Environment,
    ) -> Option<Http> {
        let read = |(source, (path, bytes)): (u16, (&'a Path, &'a [u8]))| {
            let document = Document::read(path, bytes, source);
            document.or_else(|_| Document::read(path, lines_of_table(bytes, "http"), source)).ok()
        };
        let documents: Vec<Document<'_>> = (0..=u16::MAX).zip(files).filter_map(read).collect();
        let reader = Reader::new(&documents);
        let root = documents.iter().map(|document| document.root().clone()).reduce(overlay)?;
        parse::http_despite_errors(&reader, &root, environment)
    }
}

/// Returns the lines of a table at the top level of a YAML text in block style; empty without one.
fn lines_of_table<'t>(text: &'t [u8], key: &str) -> &'t [u8] {
    let mut start = None;
    let mut at = 0;
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        let is_nested = matches!(line.first(), None | Some(b' ' | b'#' | b'\n' | b'\r'));
        match start {
            None if line.strip_prefix(key.as_bytes()).is_some_and(|rest| rest.starts_with(b":")) => start = Some(at),
            Some(start) if !is_nested => return &text[start..at],
            _ => {}
        }
        at += line.len();
    }
    start.map_or(&[], |start| &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_table_end_at_the_next_key() {
        let cases = [
            ("http:\n  a: 1\n\n# b\n  c: 2\ndns: x\n", "http:\n  a: 1\n\n# b\n  c: 2\n"),
            ("x: [\nhttp: {a: 1}", "http: {a: 1}"),
            ("x:\n  http: {a: 1}\nhttps: 1\n", ""),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(lines_of_table(text.as_bytes(), "http"), expected.as_bytes(), "{text}");
        }
    }
}
