//! External nodes as records: JSON without the name, which is in the key.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use super::{
    RecordError,
    health::{CheckText, read_check, write_check},
    json, parse,
};
use crate::model::{
    external_node::{CheckDetails, ExternalNode},
    registered_name::RegisteredName,
};

#[derive(Serialize, Deserialize)]
struct ExternalText<'a> {
    #[serde(rename = "addr")]
    addresses: Cow<'a, [IpAddr]>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", rename = "case")]
    letter_case: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tagged: Cow<'a, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    meta: Cow<'a, BTreeMap<String, String>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    checks: Vec<CheckText<'a>>,
    /// Notes and definition by check id.
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<Cow<'a, str>, DetailsText<'a>>,
}

#[derive(Serialize, Deserialize)]
struct DetailsText<'a> {
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    notes: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty", rename = "def")]
    definition: Cow<'a, str>,
}

pub(super) fn value(node: &ExternalNode) -> String {
    let details = |(id, details): (&SmolStr, &CheckDetails)| {
        let text = DetailsText { notes: details.notes.clone().into(), definition: details.definition.clone().into() };
        (Cow::Owned(id.to_string()), text)
    };
    json(&ExternalText {
        addresses: Cow::Borrowed(&node.addresses),
        letter_case: node.letter_case.as_deref().map(Cow::Borrowed),
        id: node.id.map(|id| id.to_string().into()),
        tagged: Cow::Borrowed(&node.tagged),
        meta: Cow::Borrowed(&node.meta),
        checks: node.checks.iter().map(write_check).collect(),
        details: node.details.iter().map(details).collect(),
    })
}

pub(super) fn read(name: RegisteredName, value: &str) -> Result<ExternalNode, RecordError> {
    let text: ExternalText<'_> = parse(value)?;
    let id = text.id.as_deref().map(Uuid::parse_str).transpose();
    let details = |(id, text): (Cow<'_, str>, DetailsText<'_>)| {
        let details = CheckDetails { notes: text.notes.into_owned(), definition: text.definition.into_owned() };
        (SmolStr::new(id), details)
    };
    let node = ExternalNode {
        name,
        letter_case: text.letter_case.map(SmolStr::new),
        id: id.map_err(|_| RecordError::Json("id: not a UUID".to_owned()))?,
        addresses: text.addresses.into_owned(),
        tagged: text.tagged.into_owned(),
        meta: text.meta.into_owned(),
        checks: text.checks.iter().map(read_check).collect::<Result<_, _>>()?,
        details: text.details.into_iter().map(details).collect(),
    };
    node.check().map_err(RecordError::External)?;
    Ok(node)
}
