//! `muster kv`: keys of the store, by the endpoints that Consul has as well.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
};

use data_encoding::BASE64;
use hyper::{Method, StatusCode, body::Bytes};

use super::{
    EXIT_STATUS, Exit,
    client::{self, Client, ClientError, print_json, segment, with_exit},
    output::{print, print_error, write},
    table::{Table, printable},
};
use crate::api::kv::{KeyValue, MAX_VALUE};

pub(super) mod export_file;
pub(super) mod transfer;
mod watch;

/// Endpoint of the keys.
const PATH: &str = "/v1/kv/";
/// Message for an empty key.
const EMPTY: &str = "the key is empty: state a key";
/// Longest shown value in a list, in characters.
const SHOWN: usize = 60;

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    client: client::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the value of a key
    Get(GetArgs),
    /// Set a key
    Put(PutArgs),
    /// Delete a key, or the keys that begin with a prefix
    Delete(DeleteArgs),
    /// List the keys that begin with a prefix, with their values
    List(ListArgs),
    /// Print a key, or the keys that begin with a prefix, and each change
    Watch(watch::Args),
    /// Print all keys that begin with a prefix as JSON, which `import` and Consul read
    Export(transfer::ExportArgs),
    /// Set the keys of an export of muster or of Consul
    Import(transfer::ImportArgs),
}

#[derive(Debug, clap::Args)]
struct GetArgs {
    /// The key
    #[arg(value_parser = key)]
    key: String,
    /// Print the octets of the value and nothing else
    #[arg(long, conflicts_with = "base64")]
    raw: bool,
    /// Print the value in base64
    #[arg(long)]
    base64: bool,
}

#[derive(Debug, clap::Args)]
struct PutArgs {
    /// The key
    #[arg(value_parser = key)]
    key: String,
    /// The value; @FILE reads it from a file, - from standard input, which keeps it out of process lists
    #[arg(allow_negative_numbers = true)]
    value: String,
    /// Number to store with the value
    #[arg(long, value_name = "N")]
    flags: Option<u64>,
    /// Set the key only if it has this index, as `get --json` shows it; 0: only if there is no such key
    #[arg(long, value_name = "INDEX")]
    cas: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct DeleteArgs {
    /// The key; with --recurse, the beginning of the keys, or '' for all
    key: String,
    /// Delete all keys that begin with KEY
    #[arg(long, conflicts_with = "cas")]
    recurse: bool,
    /// Delete the key only if it has this index
    #[arg(long, value_name = "INDEX")]
    cas: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Beginning of the keys [default: all keys]
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Print only the names of the keys
    #[arg(long)]
    keys: bool,
    /// Cut names behind the first occurrence of this text after the prefix, and print each once
    #[arg(long, value_name = "TEXT", requires = "keys")]
    separator: Option<String>,
}

/// Parses a key.
fn key(text: &str) -> Result<String, String> {
    if text.is_empty() { Err(EMPTY.to_owned()) } else { Ok(text.to_owned()) }
}

/// Refuses an empty key, which only a prefix can be.
fn ensure_named(key: &str, is_prefix: bool) -> Result<(), ClientError> {
    if key.is_empty() && !is_prefix {
        return Err(ClientError::Failed(format!("{EMPTY}; --recurse takes '' as all keys")));
    }
    Ok(())
}

pub(super) fn run(args: Args) -> Exit {
    let Args { action, client: options } = args;
    let json = options.json;
    with_exit(&options, |client| match &action {
        Action::Get(args) => get(client, args, json),
        Action::Put(args) => put(client, args, json),
        Action::Delete(args) => delete(client, args, json),
        Action::List(args) => list(client, args, json),
        Action::Watch(args) => watch::run(client, args, json),
        Action::Export(args) => transfer::export(client, args),
        Action::Import(args) => transfer::import(client, args, json),
    })
}

/// Reports a problem of a key on one line, and returns the exit code of a command that found it.
fn problem(text: &str) -> Exit {
    print_error!("muster: {}", printable(text));
    Exit::Problems
}

/// Returns the body of a response about keys; `None` if there is no such key.
fn found(client: &Client, path: &str) -> Result<Option<Bytes>, ClientError> {
    let response = client.query(path)?;
    // An agent without this endpoint explains its 404.
    if response.status() == StatusCode::NOT_FOUND && response.body().is_empty() {
        return Ok(None);
    }
    client.success(response).map(Some)
}

fn get(client: &Client, args: &GetArgs, json: bool) -> Result<Exit, ClientError> {
    let body = found(client, &format!("{PATH}{}", segment(&args.key)))?;
    let entries: Vec<KeyValue> = body.map(|body| client.read(&body)).transpose()?.unwrap_or_default();
    let Some(entry) = entries.first() else { return Ok(problem(&format!("there is no key {}", args.key))) };
    let octets = value_of(entry)?;
    if json {
        let text = serde_json::to_vec(entry).map_err(|error| ClientError::Failed(error.to_string()))?;
        print_json(client, &text)?;
    } else if args.base64 {
        print(&format!("{}\n", BASE64.encode(&octets)));
    } else if args.raw {
        write(&octets);
    } else {
        write(&shown_whole(&octets, io::stdout().is_terminal()));
    }
    Ok(Exit::Done)
}

/// The value with a line end. A terminal gets no control characters: a value may come from anywhere.
fn shown_whole(octets: &[u8], is_terminal: bool) -> Vec<u8> {
    let mut shown = if is_terminal {
        let text = String::from_utf8_lossy(octets);
        text.split('\n').map(|line| printable(line).into_owned()).collect::<Vec<_>>().join("\n").into_bytes()
    } else {
        octets.to_vec()
    };
    if !shown.ends_with(b"\n") {
        shown.push(b'\n');
    }
    shown
}

/// Octets of the value of an entry.
fn value_of(entry: &KeyValue) -> Result<Vec<u8>, ClientError> {
    entry.octets().ok_or_else(|| {
        ClientError::Failed(format!("the agent answered with a value of key {} that is not base64", entry.key))
    })
}

/// The value on one line, cut where it is long.
fn shown(octets: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(octets) else { return format!("({} octets, not text)", octets.len()) };
    let text = printable(text);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

fn put(client: &Client, args: &PutArgs, json: bool) -> Result<Exit, ClientError> {
    let value = match (args.value.as_str(), args.value.strip_prefix('@')) {
        ("-", _) => read_bounded(io::stdin(), "standard input")?,
        (_, Some("")) => return Err(ClientError::Failed("the name of a file is missing behind `@`".to_owned())),
        (_, Some(path)) => {
            let file = File::open(path)
                .map_err(|error| ClientError::Failed(format!("cannot read the value from {path}: {error}")))?;
            read_bounded(file, path)?
        }
        (text, None) => text.as_bytes().to_vec(),
    };
    let mut path = format!("{PATH}{}?", segment(&args.key));
    for (name, number) in [("flags", args.flags), ("cas", args.cas)] {
        path.extend(number.map(|number| format!("{name}={number}&")));
    }
    let answer = client.send(Method::PUT, &path, value.into())?;
    let reason = match args.cas {
        Some(0) => format!("key {} exists: not set", args.key),
        Some(index) => format!("key {} does not have index {index}: not set", args.key),
        None => format!("key {} was not set", args.key),
    };
    confirmed(client, &answer, json, &format!("{}: set", args.key), &reason)
}

/// Reads a value, at most one octet longer than allowed.
fn read_bounded(from: impl Read, name: &str) -> Result<Vec<u8>, ClientError> {
    let mut value = Vec::new();
    from.take(MAX_VALUE as u64 + 1)
        .read_to_end(&mut value)
        .map_err(|error| ClientError::Failed(format!("cannot read the value from {name}: {error}")))?;
    if value.len() > MAX_VALUE {
        return Err(ClientError::Failed(format!(
            "the value in {name} is too long: the limit is {MAX_VALUE} octets; split the value over several keys"
        )));
    }
    Ok(value)
}

fn delete(client: &Client, args: &DeleteArgs, json: bool) -> Result<Exit, ClientError> {
    ensure_named(&args.key, args.recurse)?;
    let query = match (args.recurse, args.cas) {
        (true, _) => "recurse".to_owned(),
        (false, Some(index)) => format!("cas={index}"),
        (false, None) => String::new(),
    };
    let answer = client.send(Method::DELETE, &format!("{PATH}{}?{query}", segment(&args.key)), Bytes::new())?;
    let done = if args.recurse { format!("{}*: deleted", args.key) } else { format!("{}: deleted", args.key) };
    let reason = match args.cas {
        Some(index) => format!("key {} does not have index {index}: not deleted", args.key),
        None => format!("key {} was not deleted", args.key),
    };
    confirmed(client, &answer, json, &done, &reason)
}

/// Reports the outcome of a change: the response is `true`, or `false` if its condition did not hold.
fn confirmed(client: &Client, answer: &[u8], json: bool, done: &str, reason: &str) -> Result<Exit, ClientError> {
    let is_done: bool = client.read(answer)?;
    if json {
        print(&format!("{is_done}\n"));
    } else if is_done {
        print(&format!("{}\n", printable(done)));
    }
    Ok(if is_done { Exit::Done } else { problem(reason) })
}

fn list(client: &Client, args: &ListArgs, json: bool) -> Result<Exit, ClientError> {
    let separator = args.separator.as_ref().map_or_else(String::new, |text| format!("&separator={}", segment(text)));
    let what = if args.keys { format!("keys{separator}") } else { "recurse".to_owned() };
    let body = found(client, &format!("{PATH}{}?{what}", segment(&args.prefix)))?;
    let body = body.unwrap_or_else(|| Bytes::from_static(b"[]"));
    if json {
        print_json(client, &body)?;
    } else if args.keys {
        let keys: Vec<String> = client.read(&body)?;
        keys.iter().for_each(|key| print(&format!("{}\n", printable(key))));
    } else {
        let entries: Vec<KeyValue> = client.read(&body)?;
        let mut table = Table::with_head(&["KEY", "VALUE"]);
        for entry in &entries {
            table.row([entry.key.clone(), shown(&value_of(entry)?)]);
        }
        print(&table.to_string());
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_on_one_line() {
        let cases: [(&[u8], String); 4] = [
            (b"max=10", "max=10".to_owned()),
            (b"a\nb\x1b[2J", "a\\nb\\u{1b}[2J".to_owned()),
            (b"\xff\xfe", "(2 octets, not text)".to_owned()),
            (&[b'x'; 61], format!("{}…", "x".repeat(60))),
        ];
        for (octets, expected) in cases {
            assert_eq!(shown(octets), expected);
        }
    }

    #[test]
    fn whole_values_end_with_a_line_and_do_not_drive_a_terminal() {
        assert_eq!(shown_whole(b"a\nb", false), b"a\nb\n");
        assert_eq!(shown_whole(b"a\n", false), b"a\n");
        assert_eq!(shown_whole(b"\xff\x1b", false), b"\xff\x1b\n");
        assert_eq!(shown_whole(b"a\nb\x1b[2J", true), b"a\nb\\u{1b}[2J\n");
    }
}
