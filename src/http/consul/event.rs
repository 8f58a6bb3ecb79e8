//! `/v1/event`: user events, compatible with Consul's.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::Uri,
    response::Response,
};
use data_encoding::BASE64;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::mutations::{Body, octets};
use crate::{
    api::catalog::Event,
    gossip::command::Command,
    http::{
        Api,
        blocking_response::{ensure_known, with_index},
        command::{NOTIFY, send},
        query::{Query, bad, with_jitter},
        response::{ApiError, json, text_of},
    },
    model::user_event::{Audience, EventLog, UserEvent},
};

/// Format version of Consul's user events.
const VERSION: u8 = 1;

/// Fires an event to all nodes. The body is the payload.
pub(crate) async fn fire(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
    body: Body,
) -> Result<Response, ApiError> {
    query.check()?;
    let datacenter = query.datacenter()?;
    if let Some(datacenter) = &datacenter {
        ensure_known(datacenter, &api.queries.snapshot().catalog)?;
    }
    let text = |name| query.text(name).unwrap_or_default().to_owned();
    let to = Audience { datacenter, node: text("node"), service: text("service"), tag: text("tag") };
    let payload = octets(body)?.to_vec();
    let draft = UserEvent { id: Uuid::nil(), name, payload, to, time: 0 };
    draft.check().map_err(|error| bad(&format!("{error}.")))?;
    let UserEvent { name, payload, to, .. } = draft;
    let advice = "The event may have been sent: see /v1/event/list.";
    let fired = send(&api.commands.cluster, |done| Command::Fire { name, payload, to, done }, NOTIFY, advice).await?;
    Ok(json(&uri, &event_json(&fired)))
}

/// Lists the recent events for this node, oldest first.
pub(crate) async fn list(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    query.check()?;
    let (name, seen, wait) = (query.text("name"), query.index()?, with_jitter(query.wait()?));
    let mut events = api.events.clone();
    if let Some(seen) = seen {
        wait_for_event(&mut events, name, seen, wait).await;
    }
    let log = events.borrow().clone();
    let shown: Vec<Event> = named(&log, name).map(event_json).collect();
    let text = Bytes::from(text_of(&uri, &shown)?);
    Ok(with_index(text, index(&log, name)))
}

async fn wait_for_event(
    events: &mut tokio::sync::watch::Receiver<EventLog>,
    name: Option<&str>,
    seen: u64,
    wait: Duration,
) {
    let changed = events.wait_for(|log| index(log, name) != seen);
    let _ = timeout_at(Instant::now() + wait, changed).await;
}

fn named<'a>(log: &'a EventLog, name: Option<&'a str>) -> impl DoubleEndedIterator<Item = &'a UserEvent> {
    log.iter().map(|event| &**event).filter(move |event| name.is_none_or(|name| event.name == name))
}

/// Returns the index of the last event. As in Consul, it is the XOR of the halves of the event's id and is not
/// monotonic.
fn index(log: &EventLog, name: Option<&str>) -> u64 {
    let last = named(log, name).next_back().map(|event| event.id.as_u64_pair());
    last.map_or(1, |(upper, lower)| (upper ^ lower).max(1))
}

fn event_json(event: &UserEvent) -> Event {
    Event {
        id: event.id.to_string(),
        name: event.name.clone(),
        payload: (!event.payload.is_empty()).then(|| BASE64.encode(&event.payload)),
        node_filter: event.to.node.clone(),
        service_filter: event.to.service.clone(),
        tag_filter: event.to.tag.clone(),
        version: VERSION,
        time: event.time,
    }
}
