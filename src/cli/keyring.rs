//! `muster keyring` and `muster keygen`: the keys that nodes seal what they tell each other with.

use std::io::{self, Read};

use hyper::{Method, body::Bytes};
use ring::rand::{SecureRandom, SystemRandom};

use super::{
    Exit,
    client::{self, Client, ClientError, print_json, with},
    table::{Table, print, printable},
};
use crate::{
    api::{self, Keyring},
    model::keyring::{KEY_LEN, Key},
};

/// Where the agent has it.
const PATH: &str = "/v1/operator/keyring";
/// Octets that are read of what should be a key.
const MAX_INPUT: u64 = 4096;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    change: Change,
    #[command(flatten)]
    client: client::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Change {
    /// Show which keys there are, and how many nodes have each
    List,
    /// Give all nodes a further key, with which they then can open what others seal
    Install {
        /// The key in base64; - reads it from the input, so that no list of processes shows it
        key: String,
    },
    /// Have all nodes seal with a key that they have
    Use {
        /// The key's id, or the key; - reads it from the input
        key: String,
    },
    /// Have all nodes forget a key that none of them seals with
    Remove {
        /// The key's id, or the key; - reads it from the input
        key: String,
    },
}

pub(super) fn run(args: Args) -> Exit {
    let Args { change, client: options } = args;
    with(&options, |client| match change {
        Change::List => list(client, options.json),
        Change::Install { key } => give(
            client,
            options.json,
            Method::POST,
            key,
            "all nodes have the key; `muster keyring use` has them seal with it",
        ),
        Change::Use { key } => give(client, options.json, Method::PUT, key, "all nodes seal with that key"),
        Change::Remove { key } => give(client, options.json, Method::DELETE, key, "all nodes have forgotten that key"),
    })
}

/// Prints a new key; asks nobody but the system.
pub(super) fn generate() -> Exit {
    let mut octets = [0; KEY_LEN];
    if SystemRandom::new().fill(&mut octets).is_err() {
        eprintln!("muster: the system gives no random numbers");
        return Exit::CouldNotRun;
    }
    print(&format!("{}\n", Key::from_random(octets).to_base64()));
    Exit::Done
}

fn list(client: &Client, json: bool) -> Result<(), ClientError> {
    let answer = client.get(PATH)?;
    let rings: Vec<Keyring> = client.read(&answer)?;
    if json {
        return print_json(client, &answer);
    }
    let mut table = Table::with_head(&["KEY", "NODES", "SEALING"]);
    for ring in &rings {
        for (id, nodes) in &ring.keys {
            let sealing = ring.primary_keys.get(id).copied().unwrap_or_default();
            let of = |count: usize| format!("{count} of {}", ring.num_nodes);
            table.row([id.clone(), of(*nodes), of(sealing)]);
        }
    }
    print(&table.to_string());
    for ring in &rings {
        for (node, reason) in &ring.messages {
            print(&format!("{}\n", printable(&format!("{node}: {reason}"))));
        }
        let silent = ring.num_nodes.saturating_sub(ring.muster.answered);
        if silent > 0 {
            print(&format!("{silent} of {} nodes did not answer\n", ring.num_nodes));
        }
    }
    Ok(())
}

fn give(client: &Client, json: bool, method: Method, key: String, done: &str) -> Result<(), ClientError> {
    let key = if key == "-" { from_input()? } else { key };
    let body = serde_json::to_vec(&api::Key { key }).map_err(|error| ClientError::NotAsked(error.to_string()))?;
    let answer = client.order(method, PATH, Bytes::from(body))?;
    if json {
        return print_json(client, &answer);
    }
    print(&format!("{done}\n"));
    Ok(())
}

fn from_input() -> Result<String, ClientError> {
    let mut text = String::new();
    io::stdin()
        .take(MAX_INPUT)
        .read_to_string(&mut text)
        .map_err(|error| ClientError::NotAsked(format!("cannot read a key from the input: {error}")))?;
    Ok(text.trim().to_owned())
}
