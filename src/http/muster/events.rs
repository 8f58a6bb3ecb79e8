//! `/v1/muster/events`: events as a stream, or the recent ones as a list.
//!
//! A stream takes events from the journal at the client's pace. A client that is slower than the journal, or that
//! reconnects late, loses the oldest events and receives their number.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::Uri,
    response::Response,
};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use super::sse::{self, Message};
use crate::{
    api,
    clock::unix_now,
    http::{
        Api,
        blocking::BlockingQueries,
        query::{Query, bad, label, service_name},
        response::{ApiError, json},
        server::credentials::Credentials,
    },
    model::{
        date::rfc3339_millis,
        event::{Event, Kind},
        journal::{Batch, Entry, Journal, Missed},
        name::Label,
        registered_name::RegisteredName,
    },
    printable,
};

/// Most events taken from the journal at once.
const BATCH: usize = 64;

pub(crate) async fn events(
    State(api): State<Api>,
    uri: Uri,
    query: Query,
    request: Request,
) -> Result<Response, ApiError> {
    let selection = Selection::new(&query)?;
    let follow = query.all("follow").next().is_none() || query.flag("follow")?;
    let seen = match query.text("since") {
        Some(text) if text.parse::<u64>().is_err() => {
            return Err(bad(&format!("since must be an integer from 0 to {}, got {text:?}", u64::MAX)));
        }
        _ => sse::seen(request.headers(), &query, "since"),
    };
    let journal = api.queries.journal();
    if !follow {
        let batch = journal.borrow().after(seen.unwrap_or(0), usize::MAX);
        return Ok(json(&uri, &selection.of(&batch).map(|(_, event)| event).collect::<Vec<_>>()));
    }
    // Without a position, the stream starts now.
    let seen = seen.unwrap_or_else(|| journal.borrow().last());
    let events = EventStream { queries: api.queries.clone(), journal, seen };
    let batches = stream::unfold(events, |mut events| async move { Some((events.next().await?, events)) });
    let messages = batches.flat_map(move |batch| stream::iter(selection.messages(&batch)));
    let begin = stream::iter([Message::Position(seen)]);
    let credentials = Credentials::new(&api.guard, &request);
    Ok(sse::respond(begin.chain(messages), credentials, query.parkable.clone()).await)
}

/// State of a stream.
struct EventStream {
    queries: Arc<BlockingQueries>,
    journal: watch::Receiver<Journal>,
    seen: u64,
}

impl EventStream {
    async fn next(&mut self) -> Option<Batch> {
        loop {
            // Marks the journal as seen in the same borrow, so that a later event counts as a change.
            let batch = self.journal.borrow_and_update().after(self.seen, BATCH);
            self.seen = batch.last;
            if batch.missed != Missed::Nothing || !batch.entries.is_empty() {
                return Some(batch);
            }
            tokio::select! {
                changed = self.journal.changed() => changed.ok()?,
                () = self.queries.shutting_down() => return None,
            }
        }
    }
}

/// Events that a client selects.
struct Selection {
    services: Vec<RegisteredName>,
    nodes: Vec<Label>,
    kinds: Vec<String>,
}

impl Selection {
    fn new(query: &Query) -> Result<Self, ApiError> {
        let services = query.all("service").map(service_name).collect::<Result<_, _>>()?;
        let nodes = query.all("node").map(label).collect::<Result<_, _>>()?;
        let kinds: Vec<String> = query.all("kind").map(str::to_owned).collect();
        if let Some(unknown) = kinds.iter().find(|word| !Kind::ALL.iter().any(|kind| kind.is(word))) {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
            return Err(bad(&format!(
                "kind={unknown}: expected one of {}, or the part before the `-`",
                known.join(", ")
            )));
        }
        Ok(Self { services, nodes, kinds })
    }

    fn matches(&self, event: &Event) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.iter().any(|word| event.kind.is(word));
        among(&self.services, event.service.as_ref()) && among(&self.nodes, event.node.as_ref()) && kind
    }

    /// Returns the selected events, preceded by a `missed` event if some were missed.
    fn of(&self, batch: &Batch) -> impl Iterator<Item = (Kind, api::events::Event)> {
        let entries = batch.entries.iter().filter(|entry| self.matches(&entry.event));
        missed(batch.missed).into_iter().chain(entries.map(|entry| (entry.event.kind, event_json(entry))))
    }

    /// Returns the messages of the selected events.
    fn messages(&self, batch: &Batch) -> Vec<Message> {
        let events = self.of(batch).filter_map(|(kind, event)| {
            let data = serde_json::to_vec(&event).ok()?.into();
            Some(Message::Event { id: event.sequence, kind: kind.as_str(), data })
        });
        // Also advances the position past events that are not selected.
        events.chain([Message::Position(batch.last)]).collect()
    }
}

/// Reports whether the value is selected: all are if the selection is empty.
fn among<T: PartialEq>(selection: &[T], value: Option<&T>) -> bool {
    selection.is_empty() || value.is_some_and(|value| selection.contains(value))
}

fn missed(missed: Missed) -> Option<(Kind, api::events::Event)> {
    let (count, text) = match missed {
        Missed::Nothing => return None,
        Missed::These(count) => (Some(count), format!("{count} earlier events are no longer stored")),
        Missed::Unknown => (None, "the agent was restarted; earlier events are no longer stored".to_owned()),
    };
    let event = Event { count, ..Event::new(Kind::Missed, text) };
    let shown = event_json(&Entry { sequence: 0, at: unix_now(), event });
    Some((Kind::Missed, api::events::Event { sequence: None, ..shown }))
}

fn event_json(entry: &Entry) -> api::events::Event {
    let Entry { sequence, at, event } = entry;
    let place = event.place.as_ref();
    api::events::Event {
        sequence: Some(*sequence),
        time: rfc3339_millis(*at),
        kind: event.kind.as_str().to_owned(),
        node: event.node.as_ref().map(ToString::to_string),
        service: event.service.as_ref().map(ToString::to_string),
        instance: event.instance.as_ref().map(ToString::to_string),
        was: event.was.map(str::to_owned),
        state: event.state.map(str::to_owned),
        file: place.map(|(path, ..)| printable::path(path).to_string()),
        line: place.map(|(_, line, _)| *line),
        column: place.map(|(.., column)| *column),
        count: event.count,
        text: event.text.clone(),
    }
}
