//! The copy of the dynamic zones on the disk of a node: text, in the form of the keys and values of the store.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use thiserror::Error;

use super::{
    content::{Content, Definition},
    stored::{self, ValueError},
};
use crate::model::name::Name;

/// First line of a copy.
const HEAD: &str = "muster dynamic zones 1";
/// Last line of a copy, without which it is cut.
const END: &str = "end";
/// Beginning of the line with the revision of a zone.
const ZONE: &str = "zone ";
/// Beginning of the line with the key of a name. Its records follow.
const KEY: &str = "key ";

/// Content of each dynamic zone of a node.
pub type Contents = BTreeMap<Name, Arc<Content>>;

/// Reasons why a copy cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SavedError {
    /// The text is no copy, or is cut.
    #[error("it is not a complete copy of dynamic zones")]
    Form,
    /// A line has another form.
    #[error("unexpected line `{0}`")]
    Line(String),
    /// A record is invalid.
    #[error("records of {0}: {1}")]
    Records(String, ValueError),
}

/// Encodes a copy.
pub fn encode(contents: &Contents) -> String {
    let mut text = format!("{HEAD}\n");
    for (origin, content) in contents {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{ZONE}{origin} {}", content.revision);
        for (owner, sets) in content.iter() {
            let _ = write!(text, "{KEY}{}\n{}", stored::key(origin, owner), stored::value(sets));
        }
    }
    text + END + "\n"
}

/// Returns the content of the zones that are defined, from a copy. A zone that the copy does not have was never updated.
///
/// # Errors
/// The first fault of the copy.
pub fn decode(text: &str, definitions: &[Definition]) -> Result<Contents, SavedError> {
    let body = text.strip_prefix(HEAD).and_then(|rest| rest.strip_prefix('\n'));
    let body = body.and_then(|rest| rest.trim_end().strip_suffix(END)).ok_or(SavedError::Form)?;
    let mut contents: BTreeMap<Name, Content> = first(definitions);
    let mut lines = body.lines().peekable();
    while let Some(line) = lines.next() {
        let other = || SavedError::Line(line.chars().take(80).collect());
        if let Some(zone) = line.strip_prefix(ZONE) {
            let (origin, revision) = zone.split_once(' ').ok_or_else(other)?;
            let (origin, revision) = Name::parse(origin).ok().zip(revision.parse().ok()).ok_or_else(other)?;
            if let Some(content) = contents.get_mut(&origin) {
                content.revision = revision;
            }
            continue;
        }
        let key = line.strip_prefix(KEY).ok_or_else(other)?;
        let (origin, owner) = stored::parse_key(key).ok_or_else(other)?;
        let mut value = String::new();
        while let Some(record) = lines.next_if(|line| !line.starts_with(KEY) && !line.starts_with(ZONE)) {
            value = value + record + "\n";
        }
        let sets = stored::parse_value(&value).map_err(|error| SavedError::Records(key.to_owned(), error))?;
        if let Some(content) = contents.get_mut(&origin) {
            content.set(owner, sets);
        }
    }
    Ok(contents.into_iter().map(|(origin, content)| (origin, Arc::new(content))).collect())
}

/// Returns the content of zones that were never updated.
pub fn first(definitions: &[Definition]) -> BTreeMap<Name, Content> {
    definitions.iter().map(|definition| (definition.origin.clone(), Content::first(definition))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::update::content::RecordSet;

    #[test]
    fn copies_are_read_as_they_were_written() {
        let definition = |origin: &str| Definition {
            origin: Name::parse(origin).unwrap(),
            name_servers: vec![Name::parse("ns.example").unwrap()],
            grants: Vec::new(),
        };
        let definitions = [definition("a.test"), definition("b.test")];
        let mut contents = first(&definitions);
        let changed = contents.get_mut(&definitions[0].origin).unwrap();
        let set = RecordSet { rtype: 1, ttl: 5, records: vec![[192, 0, 2, 1].into()] };
        changed.set((*b"\x03www").into(), vec![set].into());
        changed.revision = 17;
        let contents: Contents = contents.into_iter().map(|(origin, content)| (origin, Arc::new(content))).collect();
        let text = encode(&contents);
        assert_eq!(decode(&text, &definitions).unwrap(), contents, "{text}");
        // A zone that is no longer defined is left out.
        assert_eq!(decode(&text, &definitions[1..]).unwrap().len(), 1);
        let broken = [
            ("", "it is not a complete copy of dynamic zones"),
            (&text[..text.len() - 4], "it is not a complete copy of dynamic zones"),
            (&text.replace("zone a", "what a"), "unexpected line `what a.test. 17`"),
            (
                &text.replace("c0000201", "zz"),
                "records of muster/zones/a.test/www: line 1: the data is not hexadecimal",
            ),
        ];
        for (text, expected) in broken {
            assert_eq!(decode(text, &definitions).unwrap_err().to_string(), expected);
        }
    }
}
