//! Note about the keys of a signed zone.

use crate::dns::zone::static_names::Zone;

/// Returns the note for names of a zone; `None` if it is not signed.
pub(super) fn note(zone: &Zone) -> Option<String> {
    let tags: Vec<String> = zone.keys.as_ref()?.tags().iter().map(ToString::to_string).collect();
    let noun = if tags.len() == 1 { "key" } else { "keys" };
    Some(format!("The zone {} is signed (DNSSEC) with the {noun} {}.", zone.origin, tags.join(", ")))
}
