//! Keys of records: `i/SERVICE/ID`, `x/NODE` and their kind.
//!
//! A registered name may contain any character but controls, `/` separates the parts of a key, and a space ends a key in
//! saved states. `%20`, `%25` and `%2F` replace space, `%` and `/` in names. Every other spelling is refused, so that one
//! instance has one key.

use std::{borrow::Cow, fmt};

use super::RecordError;
use crate::model::{
    name::{Label, MAX_LABEL},
    registered_name::{MAX_REGISTERED_NAME, RegisteredName},
    service::InstanceKey,
    user_event::SLOTS,
};

/// Longest key in octets. Keys of instances have at most 831: a prefix, a name whose octets are all escaped, and a label.
/// The rest is reserved for newer versions.
pub const MAX_KEY: usize = 1024;
const _: () = assert!(INSTANCE.len() + 3 * MAX_REGISTERED_NAME + 1 + MAX_LABEL <= MAX_KEY);

/// A parsed key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Key of an instance.
    Instance(InstanceKey),
    /// Key of an instance's state.
    State(InstanceKey),
    /// Key of an instance's check results.
    Report(InstanceKey),
    /// Key of an external node.
    External(RegisteredName),
    /// Key of the node itself.
    Node,
    /// Key of the results of the node's checks.
    NodeChecks,
    /// Key of a user event's slot.
    Event(u8),
    /// Key of the view's digest.
    View,
    /// Key of the bound of serials.
    Serial,
    /// Key of the serial of the generated zones.
    ZoneSerial,
    /// Key of the leave.
    Left,
    /// Key of the restart.
    Restart,
    /// Key of a newer version.
    Unknown,
}

const INSTANCE: &str = "i/";
const STATE: &str = "h/";
const REPORT: &str = "r/";
const EXTERNAL: &str = "x/";
const EVENT: &str = "e/";
const NODE_KEY: &str = "n/node";
const CHECKS_KEY: &str = "n/checks";
const VIEW_KEY: &str = "n/view";
const SERIAL_KEY: &str = "n/serial";
const ZONE_SERIAL_KEY: &str = "n/zone-serial";
pub(super) const LEFT_KEY: &str = "n/left";
pub(super) const RESTART_KEY: &str = "n/restart";

impl Key {
    /// Parses a key.
    ///
    /// # Errors
    /// Returns an error for a key that is too long or names an invalid instance.
    pub fn parse(key: &str) -> Result<Self, RecordError> {
        if key.len() > MAX_KEY {
            return Err(RecordError::KeyLength(key.len()));
        }
        if let Some(rest) = key.strip_prefix(INSTANCE) {
            return Ok(Self::Instance(read_instance_key(rest)?));
        }
        if let Some(rest) = key.strip_prefix(STATE) {
            return Ok(Self::State(read_instance_key(rest)?));
        }
        if let Some(rest) = key.strip_prefix(REPORT) {
            return Ok(Self::Report(read_instance_key(rest)?));
        }
        if let Some(rest) = key.strip_prefix(EXTERNAL) {
            return Ok(Self::External(read_name(rest)?));
        }
        if let Some(rest) = key.strip_prefix(EVENT) {
            // A newer version may have more slots.
            let slot = (0..SLOTS).find(|slot| slot.to_string() == rest);
            return Ok(slot.map_or(Self::Unknown, Self::Event));
        }
        Ok(match key {
            NODE_KEY => Self::Node,
            CHECKS_KEY => Self::NodeChecks,
            VIEW_KEY => Self::View,
            SERIAL_KEY => Self::Serial,
            ZONE_SERIAL_KEY => Self::ZoneSerial,
            LEFT_KEY => Self::Left,
            RESTART_KEY => Self::Restart,
            _ => Self::Unknown,
        })
    }
}

/// Returns `SERVICE/ID` as in keys.
pub(crate) fn instance_key(key: &InstanceKey) -> String {
    format!("{}/{}", escaped(&key.service), key.id)
}

/// Reads `SERVICE/ID` as in keys.
///
/// # Errors
/// A missing part, an invalid name, or a spelling that [`instance_key`] does not write.
pub(crate) fn read_instance_key(text: &str) -> Result<InstanceKey, RecordError> {
    let (service, id) = text.split_once('/').ok_or(RecordError::KeyParts)?;
    let service = read_name(service)?;
    let label = Label::parse(id).map_err(RecordError::KeyLabel)?;
    if label.as_str() != id {
        return Err(RecordError::KeyCase);
    }
    Ok(InstanceKey { service, id: label })
}

/// Reads a registered name as in keys.
///
/// # Errors
/// An invalid name, or a spelling that [`escaped`] does not write.
pub(super) fn read_name(text: &str) -> Result<RegisteredName, RecordError> {
    let name = RegisteredName::parse(&unescaped(text)?).map_err(RecordError::KeyName)?;
    // Upper case, and an escape for a character that needs none, would give one name two keys.
    if escaped(&name) == text { Ok(name) } else { Err(RecordError::KeyCase) }
}

/// Returns a name as in keys.
pub(super) fn escaped(name: &RegisteredName) -> Cow<'_, str> {
    let text = name.as_str();
    if !text.contains([' ', '%', '/']) {
        return text.into();
    }
    // `%` first: the others write it.
    text.replace('%', "%25").replace(' ', "%20").replace('/', "%2F").into()
}

fn unescaped(text: &str) -> Result<Cow<'_, str>, RecordError> {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default();
    if first.len() == text.len() {
        return Ok(text.into());
    }
    let mut name = first.to_owned();
    for part in parts {
        let (escape, rest) = part.split_at_checked(2).ok_or(RecordError::KeyEscape)?;
        name.push(match escape {
            "20" => ' ',
            "25" => '%',
            "2F" => '/',
            _ => return Err(RecordError::KeyEscape),
        });
        name.push_str(rest);
    }
    Ok(name.into())
}

impl fmt::Display for Key {
    /// Writes the key's text; nothing for an unknown key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, key) = match self {
            Self::Instance(key) => (INSTANCE, key),
            Self::State(key) => (STATE, key),
            Self::Report(key) => (REPORT, key),
            Self::External(name) => return write!(f, "{EXTERNAL}{}", escaped(name)),
            Self::Node => return f.write_str(NODE_KEY),
            Self::NodeChecks => return f.write_str(CHECKS_KEY),
            Self::Event(slot) => return write!(f, "{EVENT}{slot}"),
            Self::View => return f.write_str(VIEW_KEY),
            Self::Serial => return f.write_str(SERIAL_KEY),
            Self::ZoneSerial => return f.write_str(ZONE_SERIAL_KEY),
            Self::Left => return f.write_str(LEFT_KEY),
            Self::Restart => return f.write_str(RESTART_KEY),
            Self::Unknown => return Ok(()),
        };
        write!(f, "{prefix}{}", instance_key(key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        name::label,
        registered_name::{RegisteredNameError, name},
    };

    fn key(service: &str) -> Key {
        Key::Instance(InstanceKey { service: name(service), id: label("a") })
    }

    #[test]
    fn names_in_keys_are_escaped() {
        let cases = [
            ("web", "i/web/a"),
            ("my_svc", "i/my_svc/a"),
            ("a.b c#d:e", "i/a.b%20c#d:e/a"),
            ("a/b", "i/a%2Fb/a"),
            ("/", "i/%2F/a"),
            ("a%2Fb", "i/a%252fb/a"),
            ("%%", "i/%25%25/a"),
            ("größe", "i/größe/a"),
        ];
        for (service, text) in cases {
            assert_eq!(key(service).to_string(), text, "{service}");
            assert_eq!(Key::parse(text), Ok(key(service)), "{text}");
        }
        let longest = key(&"/".repeat(MAX_REGISTERED_NAME)).to_string();
        assert_eq!(longest.len(), 3 * MAX_REGISTERED_NAME + 4);
        assert!(Key::parse(&longest).is_ok());
    }

    #[test]
    fn one_instance_has_one_key() {
        let cases = [
            ("i/a%2fb/a", RecordError::KeyEscape),
            ("i/%61/a", RecordError::KeyEscape),
            ("i/a b/a", RecordError::KeyCase),
            ("i/a%/a", RecordError::KeyEscape),
            ("i/a%2/a", RecordError::KeyEscape),
            ("i/a%é/a", RecordError::KeyEscape),
            ("i/a%252Fb/a", RecordError::KeyCase),
            ("i/Web/a", RecordError::KeyCase),
            ("h/web/A", RecordError::KeyCase),
            ("r/a/b/c", RecordError::KeyLabel(crate::model::name::LabelError::Character('/'))),
            ("i/a\u{7f}/a", RecordError::KeyName(RegisteredNameError::Control('\u{7f}'))),
            ("i//a", RecordError::KeyName(RegisteredNameError::Empty)),
        ];
        for (text, expected) in cases {
            assert_eq!(Key::parse(text), Err(expected), "{text}");
        }
        let long = format!("i/{}/a", "b".repeat(MAX_REGISTERED_NAME + 1));
        assert_eq!(Key::parse(&long), Err(RecordError::KeyName(RegisteredNameError::TooLong(256))));
    }

    proptest! {
        #[test]
        fn keys_round_trip(service in "\\PC{1,60}") {
            let key = key(&service);
            prop_assert_eq!(Key::parse(&key.to_string()), Ok(key));
        }

        #[test]
        fn accepted_keys_are_written_as_they_were_read(text in "[ihr]/[a-b%2F5A/é]{1,8}/[ab]") {
            if let Ok(key) = Key::parse(&text) {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }
}
