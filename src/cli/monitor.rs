//! `muster monitor`: follows the agent's event stream and reconnects when it ends.

use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};

use super::{
    Exit,
    client::{self, Client, ClientError, segment, with},
    output::{print, print_error},
    table::printable,
};
use crate::{api::events::Event, printable::escaped_json};

/// Time without data after which the connection counts as lost; the agent sends a heartbeat every 30 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// First and maximum delay between attempts to reconnect; the delay doubles with each attempt.
const RECONNECT_DELAY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];
/// Maximum length of a line of the stream in octets; longer lines are cut.
const MAX_LINE: usize = 64 * 1024;
/// Width of the column with the kind: the length of the longest kind.
const KIND_WIDTH: usize = 17;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print only events of this service; repeatable
    #[arg(long, value_name = "SERVICE")]
    service: Vec<String>,
    /// Print only events of this node and its instances; repeatable
    #[arg(long, value_name = "NODE")]
    node: Vec<String>,
    /// Print only events of this kind (instance-down) or group (instance); repeatable
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    #[command(flatten)]
    client: client::Args,
}

impl Args {
    fn path(&self) -> String {
        let filters = [("service", &self.service), ("node", &self.node), ("kind", &self.kind)];
        let pairs = filters.into_iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", segment(value))).collect();
        format!("/v1/muster/events?{}", pairs.join("&"))
    }
}

pub(super) fn run(args: &Args) -> Exit {
    with(&args.client, |client| {
        client.agent()?;
        client.run(follow(client, args))
    })
}

/// Prints events until the agent refuses the request. Reconnects after a lost connection, such as a restart of the agent.
async fn follow(client: &Client, args: &Args) -> Result<(), ClientError> {
    let (mut events, mut delay, mut lost) = (Events::default(), RECONNECT_DELAY[0], false);
    loop {
        match client.open_stream(&args.path(), events.last_seen).await {
            Ok(response) => {
                let mut body = response.into_body();
                if lost {
                    print_error!("muster: reconnected to the agent");
                }
                delay = RECONNECT_DELAY[0];
                while let Ok(Some(Ok(frame))) = timeout(IDLE_TIMEOUT, body.frame()).await {
                    for data in events.feed(frame.data_ref().map_or(&[], |data| data)) {
                        let event: Event = client.read(data.as_bytes())?;
                        print(&if args.client.json { format!("{}\n", escaped_json(&data)) } else { line(&event) });
                    }
                }
                print_error!("muster: lost the connection to the agent; reconnecting");
                (events.partial, lost) = (Vec::new(), true);
            }
            Err(error) if !lost || matches!(error, ClientError::Refused(_)) => return Err(error),
            Err(_) => {}
        }
        sleep(delay).await;
        delay = (delay * 2).min(RECONNECT_DELAY[1]);
    }
}

fn line(event: &Event) -> String {
    let Event { time, kind, text, .. } = event;
    format!("{}  {:KIND_WIDTH$}  {}\n", printable(time), printable(kind), printable(text))
}

/// Parser of an event stream (WHATWG HTML, "Server-sent events"), limited to the agent's: each event has one line of data.
#[derive(Debug, Default)]
struct Events {
    /// Id of the last event received.
    last_seen: Option<u64>,
    /// The received part of an incomplete line.
    partial: Vec<u8>,
}

impl Events {
    /// Adds octets of the stream and returns the data of the events that they complete.
    fn feed(&mut self, octets: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        for part in octets.split_inclusive(|octet| *octet == b'\n') {
            if self.partial.len() + part.len() <= MAX_LINE {
                self.partial.extend_from_slice(part);
            }
            if !part.ends_with(b"\n") {
                continue;
            }
            let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
            self.partial.clear();
            match line.split_once(": ") {
                Some(("id", id)) => self.last_seen = id.parse().ok().or(self.last_seen),
                Some(("data", data)) => all.push(data.to_owned()),
                _ => {}
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_parsed_from_fragments_of_any_size() {
        let text = ":\n\nid: 7\n\nid: 8\nevent: a\ndata: {\"é\": 1}\n\nevent: missed\ndata: {}\n\n:\n\nid: 9\n\n";
        for size in 1..text.len() {
            let mut events = Events::default();
            let data: Vec<String> = text.as_bytes().chunks(size).flat_map(|part| events.feed(part)).collect();
            assert_eq!((data, events.last_seen), (vec!["{\"é\": 1}".to_owned(), "{}".to_owned()], Some(9)), "{size}");
        }
        let mut events = Events::default();
        for _ in 0..100 {
            events.feed(&[b'x'; 10_000]);
        }
        assert!(events.partial.len() <= MAX_LINE, "an endless line");
    }

    #[test]
    fn a_line_has_time_kind_and_text() {
        let event = Event {
            time: "2026-01-02T03:04:05.678Z".to_owned(),
            kind: "node-gone".to_owned(),
            text: "host-b is gone: agent stopped\u{1b}[2J".to_owned(),
            ..Event::default()
        };
        let expected = "2026-01-02T03:04:05.678Z  node-gone          host-b is gone: agent stopped\\u{1b}[2J\n";
        assert_eq!(line(&event), expected);
    }
}
