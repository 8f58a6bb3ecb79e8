//! `muster kv watch`: prints the state of keys and each change, by blocking queries.

use std::{collections::BTreeMap, time::Duration};

use hyper::StatusCode;
use serde_json::json;
use tokio::time::sleep;

use super::{PATH, ensure_named, shown, value_of};
use crate::{
    api::kv::KeyValue,
    cli::{
        Exit,
        client::{Client, ClientError, segment},
        output::{print, print_error},
        table::printable,
    },
    printable::escaped_json,
};

/// First and maximum delay between attempts; the delay doubles with each attempt.
const RETRY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];
/// Shortest time between two queries, so that a key that changes all the time does not keep the agent busy.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key; with --recurse, the beginning of the keys
    key: String,
    /// Watch all keys that begin with KEY
    #[arg(long)]
    recurse: bool,
}

/// Keys as they were last printed.
#[derive(Debug, Default)]
struct Known {
    /// Index of the last response; 0: the next one comes at once.
    index: u64,
    keys: BTreeMap<String, KeyValue>,
}

/// A difference between two states.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Set(KeyValue),
    Deleted(String),
}

pub(super) fn run(client: &Client, args: &Args, json: bool) -> Result<Exit, ClientError> {
    ensure_named(&args.key, args.recurse)?;
    client.run(follow(client, args, json)).map(|()| Exit::Done)
}

/// Prints changes until the agent refuses the request. Repeats the query after a lost connection, and while the store has no leader.
async fn follow(client: &Client, args: &Args, json: bool) -> Result<(), ClientError> {
    let (mut known, mut delay, mut is_failing, mut has_begun) = (Known::default(), RETRY[0], false, false);
    loop {
        match query(client, args, known.index).await {
            Ok((index, entries)) => {
                if is_failing {
                    print_error!("muster: the store answers again");
                }
                (delay, is_failing, has_begun) = (RETRY[0], false, true);
                for change in known.update(index, entries) {
                    print(&line(&change, json)?);
                }
                sleep(PAUSE).await;
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(error)) if !has_begun => return Err(error),
            Err(Failure::Passing(error)) => {
                if !is_failing {
                    let text = error.to_string();
                    print_error!("muster: {}; trying again", printable(text.lines().next().unwrap_or_default()));
                    is_failing = true;
                }
                sleep(delay).await;
                delay = (delay * 2).min(RETRY[1]);
            }
        }
    }
}

/// Failure of a query.
enum Failure {
    /// Repeating the query does not help.
    Final(ClientError),
    /// The agent or the leader is away.
    Passing(ClientError),
}

/// Returns the index and the keys, after a change if `index` is not 0.
async fn query(client: &Client, args: &Args, index: u64) -> Result<(u64, Vec<KeyValue>), Failure> {
    let recurse = if args.recurse { "?recurse" } else { "" };
    let path = format!("{PATH}{}{recurse}", segment(&args.key));
    let (index, response) = client.wait(&path, Some(index)).await.map_err(Failure::Passing)?;
    let status = response.status();
    if status == StatusCode::NOT_FOUND && index.is_some() {
        return Ok((index.unwrap_or_default(), Vec::new()));
    }
    let failure = if status.is_server_error() { Failure::Passing } else { Failure::Final };
    let body = client.success(response).map_err(failure)?;
    Ok((index.unwrap_or_default(), client.read(&body).map_err(Failure::Final)?))
}

impl Known {
    /// Takes a new state and returns its differences.
    fn update(&mut self, index: u64, entries: Vec<KeyValue>) -> Vec<Change> {
        // An index that goes back is that of another store: one that was restored.
        self.index = if index < self.index { 0 } else { index };
        let new: BTreeMap<String, KeyValue> = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let deleted = self.keys.keys().filter(|key| !new.contains_key(*key)).cloned().map(Change::Deleted);
        let set = new
            .iter()
            .filter(|(key, entry)| self.keys.get(*key).is_none_or(|known| known.modify_index != entry.modify_index));
        let mut set: Vec<KeyValue> = set.map(|(_, entry)| entry.clone()).collect();
        set.sort_by_key(|entry| entry.modify_index);
        let changes = deleted.chain(set.into_iter().map(Change::Set)).collect();
        self.keys = new;
        changes
    }
}

fn line(change: &Change, json: bool) -> Result<String, ClientError> {
    Ok(match (change, json) {
        (Change::Set(entry), false) => format!("set {} {}\n", printable(&entry.key), shown(&value_of(entry)?)),
        (Change::Deleted(key), false) => format!("delete {}\n", printable(key)),
        (Change::Set(entry), true) => format!("{}\n", escaped_json(&json!(entry).to_string())),
        (Change::Deleted(key), true) => {
            format!("{}\n", escaped_json(&json!({"Key": key, "Deleted": true}).to_string()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, modify_index: u64) -> KeyValue {
        KeyValue { key: key.to_owned(), modify_index, value: Some("eA==".to_owned()), ..KeyValue::default() }
    }

    #[test]
    fn changes_are_differences_in_order() {
        let mut known = Known::default();
        let set = |key, index| Change::Set(entry(key, index));
        assert_eq!(known.update(5, vec![entry("a", 5), entry("b", 3)]), [set("b", 3), set("a", 5)]);
        assert_eq!(known.update(6, vec![entry("a", 5), entry("b", 3)]), []);
        assert_eq!(
            known.update(8, vec![entry("b", 7), entry("c", 8)]),
            [Change::Deleted("a".to_owned()), set("b", 7), set("c", 8)]
        );
        known.update(2, vec![]);
        assert_eq!(known.index, 0);
    }

    #[test]
    fn lines_have_the_change_the_key_and_the_value() {
        let set = Change::Set(entry("a\n", 5));
        assert_eq!(line(&set, false).unwrap(), "set a\\n x\n");
        assert_eq!(line(&Change::Deleted("a".to_owned()), false).unwrap(), "delete a\n");
        assert!(line(&set, true).unwrap().contains("\"ModifyIndex\":5"));
    }
}
