//! User events as records. The slots `e/0` to `e/15` hold the last events fired on a node; each event overwrites the one 16
//! before it.

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{RecordError, json, parse};
use crate::model::{
    name::Label,
    user_event::{Audience, UserEvent},
};

#[derive(Serialize, Deserialize)]
struct EventText<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    /// Payload in base64.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty", rename = "data")]
    payload: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", rename = "dc")]
    datacenter: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    node: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    service: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    tag: Cow<'a, str>,
    time: u64,
}

pub(super) fn value(event: &UserEvent) -> String {
    json(&EventText {
        id: event.id.to_string().into(),
        name: event.name.as_str().into(),
        payload: BASE64.encode(&event.payload).into(),
        datacenter: event.to.datacenter.as_ref().map(|datacenter| datacenter.as_str().into()),
        node: event.to.node.as_str().into(),
        service: event.to.service.as_str().into(),
        tag: event.to.tag.as_str().into(),
        time: event.time,
    })
}

pub(super) fn read(value: &str) -> Result<UserEvent, RecordError> {
    let text: EventText<'_> = parse(value)?;
    let datacenter = text.datacenter.as_deref().map(Label::parse).transpose();
    let datacenter = datacenter.map_err(|error| RecordError::Json(format!("dc: {error}")))?;
    let event = UserEvent {
        id: Uuid::parse_str(&text.id).map_err(|_| RecordError::Json("id: not a UUID".to_owned()))?,
        name: text.name.into_owned(),
        payload: BASE64.decode(text.payload.as_bytes()).map_err(|error| RecordError::Json(format!("data: {error}")))?,
        to: Audience {
            datacenter,
            node: text.node.into_owned(),
            service: text.service.into_owned(),
            tag: text.tag.into_owned(),
        },
        time: text.time,
    };
    event.check().map_err(RecordError::Event)?;
    Ok(event)
}
