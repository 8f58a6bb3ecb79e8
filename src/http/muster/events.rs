//! `/v1/muster/events`: what happens, as a stream of single events, or what happened last as a list.
//!
//! Events are taken from the journal as their client reads. One that is too slow for what the journal keeps loses the oldest,
//! and is told how many; so is one that comes again late.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{Request, State},
    http::Uri,
    response::Response,
};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use super::sse::{self, Told};
use crate::{
    api,
    http::{
        Api,
        blocking::BlockingQueries,
        consul::catalog::label,
        query::{Query, bad},
        response::{ApiError, json},
        server::credentials::Credentials,
    },
    model::{
        date::rfc3339_millis,
        event::{Event, Kind},
        journal::{Entry, Journal, Missed, News},
        name::Label,
    },
};

/// Events that are taken from the journal at once.
const BATCH: usize = 64;

pub(crate) async fn events(
    State(api): State<Api>,
    uri: Uri,
    query: Query,
    request: Request,
) -> Result<Response, ApiError> {
    let wanted = Wanted::new(&query)?;
    let follow = query.all("follow").next().is_none() || query.flag("follow")?;
    let seen = match query.text("since") {
        Some(text) if text.parse::<u64>().is_err() => {
            return Err(bad(&format!("since must be an integer from 0 to {}, got {text:?}", u64::MAX)));
        }
        _ => sse::seen(request.headers(), &query, "since"),
    };
    let journal = api.hub.journal();
    if !follow {
        let news = journal.borrow().after(seen.unwrap_or(0), usize::MAX);
        return Ok(json(&uri, &wanted.of(&news).map(|(_, event)| event).collect::<Vec<_>>()));
    }
    // Who has seen nothing sees what happens from now on.
    let seen = seen.unwrap_or_else(|| journal.borrow().last());
    let following = Following { hub: api.hub.clone(), journal, seen };
    let batches = stream::unfold(following, |mut following| async move { Some((following.next().await?, following)) });
    let told = batches.flat_map(move |news| stream::iter(wanted.told(&news)));
    let begin = stream::iter([Told::Seen(seen)]);
    Ok(sse::respond(begin.chain(told), Credentials::new(&api.guard, &request)))
}

/// Where a stream stands.
struct Following {
    hub: Arc<BlockingQueries>,
    journal: watch::Receiver<Journal>,
    seen: u64,
}

impl Following {
    async fn next(&mut self) -> Option<News> {
        loop {
            // Marked as seen while it is looked at: what is added afterwards is a change.
            let news = self.journal.borrow_and_update().after(self.seen, BATCH);
            self.seen = news.last;
            if news.missed != Missed::Nothing || !news.entries.is_empty() {
                return Some(news);
            }
            tokio::select! {
                changed = self.journal.changed() => changed.ok()?,
                () = self.hub.ended() => return None,
            }
        }
    }
}

/// What a client wants to hear of.
struct Wanted {
    services: Vec<Label>,
    nodes: Vec<Label>,
    kinds: Vec<String>,
}

impl Wanted {
    fn new(query: &Query) -> Result<Self, ApiError> {
        let labels = |name: &str| query.all(name).map(label).collect::<Result<Vec<_>, _>>();
        let kinds: Vec<String> = query.all("kind").map(str::to_owned).collect();
        if let Some(unknown) = kinds.iter().find(|word| !Kind::ALL.iter().any(|kind| kind.is(word))) {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
            return Err(bad(&format!(
                "kind={unknown}: expected one of {}, or what stands before the -",
                known.join(", ")
            )));
        }
        Ok(Self { services: labels("service")?, nodes: labels("node")?, kinds })
    }

    fn has(&self, event: &Event) -> bool {
        let among = |wanted: &[Label], is: &Option<Label>| {
            wanted.is_empty() || is.as_ref().is_some_and(|is| wanted.contains(is))
        };
        let kind = self.kinds.is_empty() || self.kinds.iter().any(|word| event.kind.is(word));
        among(&self.services, &event.service) && among(&self.nodes, &event.node) && kind
    }

    /// The events that are wanted; before them, whatever is wanted, that some are missing.
    fn of(&self, news: &News) -> impl Iterator<Item = (Kind, api::event::Event)> {
        let entries = news.entries.iter().filter(|entry| self.has(&entry.event));
        missed(news.missed).into_iter().chain(entries.map(|entry| (entry.event.kind, shown(entry))))
    }

    /// The same for a stream.
    fn told(&self, news: &News) -> Vec<Told> {
        let events = self.of(news).filter_map(|(kind, event)| {
            let data = serde_json::to_vec(&event).ok()?.into();
            Some(Told::Event { id: event.sequence, kind: kind.as_str(), data })
        });
        // Where the last ones were not wanted, too.
        events.chain([Told::Seen(news.last)]).collect()
    }
}

fn missed(missed: Missed) -> Option<(Kind, api::event::Event)> {
    let (count, text) = match missed {
        Missed::Nothing => return None,
        Missed::These(count) => (Some(count), format!("{count} events before these are not kept any more")),
        Missed::Unknown => {
            (None, "the agent was started anew: what happened before these is not known any more".to_owned())
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let event = Event { count, ..Event::new(Kind::Missed, text) };
    let shown = shown(&Entry { sequence: 0, at: now, event });
    Some((Kind::Missed, api::event::Event { sequence: None, ..shown }))
}

fn shown(entry: &Entry) -> api::event::Event {
    let Entry { sequence, at, event } = entry;
    let text = |label: &Option<Label>| label.as_ref().map(ToString::to_string);
    let place = event.place.as_ref();
    api::event::Event {
        sequence: Some(*sequence),
        time: rfc3339_millis(*at),
        kind: event.kind.as_str().to_owned(),
        node: text(&event.node),
        service: text(&event.service),
        instance: text(&event.instance),
        was: event.was.map(str::to_owned),
        state: event.state.map(str::to_owned),
        file: place.map(|(path, ..)| path.display().to_string()),
        line: place.map(|(_, line, _)| *line),
        column: place.map(|(.., column)| *column),
        count: event.count,
        text: event.text.clone(),
    }
}
