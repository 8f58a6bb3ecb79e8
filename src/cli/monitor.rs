//! `muster monitor`: what happens, as it happens.

use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};

use super::{
    Exit,
    client::{self, Client, ClientError, segment, with},
    table::{print, printable},
};
use crate::api::event::Event;

/// How long the agent may be silent: it says something every 30 s.
const SILENCE: Duration = Duration::from_secs(75);
/// From one attempt to reach the agent again to the next: doubled each time, from the first of these to the second.
const AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];
/// Octets of a line of the stream: an event is some hundred.
const MAX_LINE: usize = 64 * 1024;
/// Characters of the longest kind of event.
const KIND: usize = 17;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only what is about this service; may be given several times
    #[arg(long, value_name = "SERVICE")]
    service: Vec<String>,
    /// Only what is about this node or its instances; may be given several times
    #[arg(long, value_name = "NODE")]
    node: Vec<String>,
    /// Only events of this kind, as instance-down, or of this group, as instance; may be given several times
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    #[command(flatten)]
    client: client::Args,
}

impl Args {
    fn path(&self) -> String {
        let all = [("service", &self.service), ("node", &self.node), ("kind", &self.kind)];
        let pairs = all.into_iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", segment(value))).collect();
        format!("/v1/muster/events?{}", pairs.join("&"))
    }
}

pub(super) fn run(args: &Args) -> Exit {
    with(&args.client, |client| {
        client.myself()?;
        client.run(follow(client, args))
    })
}

/// Prints events until the agent says no, over restarts of it.
async fn follow(client: &Client, args: &Args) -> Result<(), ClientError> {
    let (mut events, mut pause, mut lost) = (Events::default(), AGAIN[0], false);
    loop {
        match client.open(&args.path(), events.seen).await {
            Ok(mut body) => {
                if lost {
                    eprintln!("muster: the agent is there again");
                }
                pause = AGAIN[0];
                while let Ok(Some(Ok(frame))) = timeout(SILENCE, body.frame()).await {
                    for data in events.take(frame.data_ref().map_or(&[], |data| data)) {
                        let event: Event = client.read(data.as_bytes())?;
                        print(&if args.client.json { data + "\n" } else { line(&event) });
                    }
                }
                eprintln!("muster: the agent has ended, or cannot be reached any more: asking again until it is there");
                (events.rest, lost) = (Vec::new(), true);
            }
            Err(trouble) if !lost || matches!(trouble, ClientError::Refused(_)) => return Err(trouble),
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(AGAIN[1]);
    }
}

fn line(event: &Event) -> String {
    let Event { time, kind, text, .. } = event;
    format!("{}  {:KIND$}  {}\n", printable(time), printable(kind), printable(text))
}

/// A stream as it is read (WHATWG HTML, "Server-sent events"), as far as ours go: no event has more than one line of data.
#[derive(Debug, Default)]
struct Events {
    /// The last event that is known to be seen.
    seen: Option<u64>,
    /// A line that has not ended yet.
    rest: Vec<u8>,
}

impl Events {
    /// The data of the events that these octets complete.
    fn take(&mut self, octets: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        for part in octets.split_inclusive(|octet| *octet == b'\n') {
            if self.rest.len() + part.len() <= MAX_LINE {
                self.rest.extend_from_slice(part);
            }
            if !part.ends_with(b"\n") {
                continue;
            }
            let line = String::from_utf8_lossy(&self.rest).trim_end().to_owned();
            self.rest.clear();
            match line.split_once(": ") {
                Some(("id", id)) => self.seen = id.parse().ok().or(self.seen),
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
    fn events_are_read_however_they_are_cut() {
        let text = ":\n\nid: 7\n\nid: 8\nevent: a\ndata: {\"é\": 1}\n\nevent: missed\ndata: {}\n\n:\n\nid: 9\n\n";
        for size in 1..text.len() {
            let mut events = Events::default();
            let told: Vec<String> = text.as_bytes().chunks(size).flat_map(|part| events.take(part)).collect();
            assert_eq!((told, events.seen), (vec!["{\"é\": 1}".to_owned(), "{}".to_owned()], Some(9)), "{size}");
        }
        let mut events = Events::default();
        for _ in 0..100 {
            events.take(&[b'x'; 10_000]);
        }
        assert!(events.rest.len() <= MAX_LINE, "a line without end");
    }

    #[test]
    fn a_line_is_a_time_a_kind_and_what_happened() {
        let event = Event {
            time: "2026-01-02T03:04:05.678Z".to_owned(),
            kind: "node-gone".to_owned(),
            text: "host-b is gone: its agent has ended\u{1b}[2J".to_owned(),
            ..Event::default()
        };
        let expected = "2026-01-02T03:04:05.678Z  node-gone          host-b is gone: its agent has ended [2J\n";
        assert_eq!(line(&event), expected);
    }
}
