//! External nodes as records: JSON without the name, which is in the key.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use super::{
    RecordError, followed_host,
    health::{CheckText, read_check, write_check},
    json, parse,
};
use crate::model::{external_node::ExternalNode, registered_name::RegisteredName};

#[derive(Serialize, Deserialize)]
struct ExternalText<'a> {
    #[serde(rename = "addr")]
    addresses: Cow<'a, [IpAddr]>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    host: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", rename = "host_problem")]
    problem: Option<Cow<'a, str>>,
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
    /// Definitions by check id.
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty", rename = "defs")]
    definitions: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

pub(super) fn value(node: &ExternalNode) -> String {
    json(&ExternalText {
        addresses: Cow::Borrowed(&node.addresses),
        host: node.host.as_ref().map(|host| Cow::Borrowed(host.name.as_str())),
        problem: node.host.as_ref().and_then(|host| host.problem.as_deref()).map(Cow::Borrowed),
        letter_case: node.letter_case.as_deref().map(Cow::Borrowed),
        id: node.id.map(|id| id.to_string().into()),
        tagged: Cow::Borrowed(&node.tagged),
        meta: Cow::Borrowed(&node.meta),
        checks: node.checks.iter().map(write_check).collect(),
        definitions: node.definitions.iter().map(|(id, text)| (id.as_str().into(), text.into())).collect(),
    })
}

pub(super) fn read(name: RegisteredName, value: &str) -> Result<ExternalNode, RecordError> {
    let text: ExternalText<'_> = parse(value)?;
    let id = text.id.as_deref().map(Uuid::parse_str).transpose();
    let host = followed_host(text.host.as_deref(), text.problem.as_deref())?;
    let node = ExternalNode {
        name,
        letter_case: text.letter_case.map(SmolStr::new),
        id: id.map_err(|_| RecordError::Json("id: not a UUID".to_owned()))?,
        addresses: text.addresses.into_owned().into(),
        host,
        tagged: text.tagged.into_owned(),
        meta: text.meta.into_owned(),
        checks: text.checks.iter().map(read_check).collect::<Result<_, _>>()?,
        definitions: text.definitions.into_iter().map(|(id, text)| (SmolStr::new(id), text.into_owned())).collect(),
    };
    node.check().map_err(RecordError::External)?;
    Ok(node)
}
