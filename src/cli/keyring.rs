//! `muster keyring` and `muster keygen`: gossip encryption keys.

use std::io::{self, Read};

use hyper::{Method, body::Bytes};
use ring::rand::{SecureRandom, SystemRandom};

use super::{
    Exit,
    client::{self, Client, ClientError, print_json, with_exit},
    output::{print, print_error},
    table::{Table, printable},
};
use crate::{
    api::{self, Keyring},
    model::keyring::{KEY_LEN, Key},
};

/// Endpoint of the keyring.
const PATH: &str = "/v1/operator/keyring";
/// The endpoint for changes that skip members.
const FORCED: &str = "/v1/operator/keyring?force";
/// Maximum size of a key read from standard input, in octets.
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
    /// List keys, the number of nodes that have each, and the number that encrypt with it
    List,
    /// Install a key on all nodes, which they accept from then on
    Install {
        /// Key in base64; - reads it from standard input, which keeps it out of process lists
        key: String,
        #[command(flatten)]
        force: Force,
    },
    /// Make an installed key the primary key, with which all nodes encrypt
    Use {
        /// Id of the key, or the key; - reads it from standard input
        key: String,
        #[command(flatten)]
        force: Force,
    },
    /// Remove a key that is not the primary key from all nodes
    Remove {
        /// Id of the key, or the key; - reads it from standard input
        key: String,
        #[command(flatten)]
        force: Force,
    },
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Force {
    /// Change the nodes that answer although other members cannot be asked
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: Args) -> Exit {
    let Args { change, client: options } = args;
    with_exit(&options, |client| match change {
        Change::List => list(client, options.json),
        Change::Install { key, force } => apply(
            client,
            options.json,
            Method::POST,
            force,
            key,
            "key installed; `muster keyring use` makes it the primary key",
        ),
        Change::Use { key, force } => apply(client, options.json, Method::PUT, force, key, "this key encrypts"),
        Change::Remove { key, force } => apply(
            client,
            options.json,
            Method::DELETE,
            force,
            key,
            "key removed; now put the primary key alone into gossip.key_file of every host",
        ),
    })
}

/// Prints a new random key; needs no agent.
pub(super) fn generate() -> Exit {
    let mut octets = [0; KEY_LEN];
    if SystemRandom::new().fill(&mut octets).is_err() {
        print_error!("muster: cannot read random numbers from the system");
        return Exit::CouldNotRun;
    }
    print(&format!("{}\n", Key::from_random(octets).to_base64()));
    Exit::Done
}

/// Lists the keys; a node that does not answer is a problem.
fn list(client: &Client, json: bool) -> Result<Exit, ClientError> {
    let answer = client.get(PATH)?;
    let rings: Vec<Keyring> = client.read(&answer)?;
    let silent = |ring: &Keyring| ring.num_nodes.saturating_sub(ring.muster.answered);
    let exit = if rings.iter().any(|ring| silent(ring) > 0) { Exit::Problems } else { Exit::Done };
    if json {
        return print_json(client, &answer).map(|()| exit);
    }
    let mut table = Table::with_head(&["KEY", "NODES", "PRIMARY"]);
    for ring in &rings {
        for (id, nodes) in &ring.keys {
            let primary = ring.primary_keys.get(id).copied().unwrap_or_default();
            let of = |count: usize| format!("{count} of {}", ring.num_nodes);
            table.row([id.clone(), of(*nodes), of(primary)]);
        }
    }
    print(&table.to_string());
    for ring in &rings {
        print_messages(ring);
        let silent = silent(ring);
        if silent > 0 {
            print(&format!("{silent} of {} nodes did not answer\n", ring.num_nodes));
        }
    }
    Ok(exit)
}

fn apply(
    client: &Client,
    json: bool,
    method: Method,
    Force { force }: Force,
    key: String,
    done: &str,
) -> Result<Exit, ClientError> {
    let key = if key == "-" { from_stdin()? } else { key };
    let body = serde_json::to_vec(&api::Key { key }).map_err(|error| ClientError::Failed(error.to_string()))?;
    let path = if force { FORCED } else { PATH };
    let answer = client.change(method, path, Bytes::from(body))?;
    if json {
        return print_json(client, &answer).map(|()| Exit::Done);
    }
    // Only a forced change has a response: the nodes that it did not reach.
    let absent: Vec<Keyring> = if answer.is_empty() { Vec::new() } else { client.read(&answer)? };
    if absent.is_empty() {
        print(&format!("all nodes: {done}\n"));
    } else {
        print(&format!("the nodes that answered: {done}\n"));
    }
    absent.iter().for_each(print_messages);
    Ok(Exit::Done)
}

fn print_messages(ring: &Keyring) {
    for (node, reason) in &ring.messages {
        print(&format!("{}\n", printable(&format!("{node}: {reason}"))));
    }
}

fn from_stdin() -> Result<String, ClientError> {
    let mut text = String::new();
    io::stdin()
        .take(MAX_INPUT)
        .read_to_string(&mut text)
        .map_err(|error| ClientError::Failed(format!("cannot read a key from standard input: {error}")))?;
    match text.trim() {
        "" => Err(ClientError::Failed("standard input has no key: `muster keygen` prints one".to_owned())),
        key => Ok(key.to_owned()),
    }
}
