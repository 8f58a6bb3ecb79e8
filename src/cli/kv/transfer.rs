//! `muster kv export` and `import`: keys as JSON, in the format of `consul kv export`.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
    time::Duration,
};

use data_encoding::BASE64;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    api::kv::{Exported, MAX_VALUE, TxnAnswer},
    cli::{
        Exit,
        client::{Client, ClientError, segment},
        table::{print, printable},
    },
};

/// Endpoint of exports.
const EXPORT: &str = "/v1/muster/store/export/";
/// Endpoint of transactions.
const TXN: &str = "/v1/txn";
/// Largest number of keys in a transaction, as in Consul.
const MAX_OPERATIONS: usize = 64;
/// Largest number of octets of keys and encoded values in a transaction: the agent accepts 1 MiB with the JSON around them. One
/// value of the greatest size fits.
const MAX_OCTETS: usize = 800 << 10;
/// Largest export that is read, in octets: it is held in memory.
const MAX_IMPORT: u64 = 4 << 30;
/// Time limit for the next part of an export.
const IDLE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// Beginning of the keys [default: all keys]
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// File with the JSON; - reads standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

pub(super) fn export(client: &Client, args: &ExportArgs) -> Result<Exit, ClientError> {
    receive(client, &args.prefix, &mut io::stdout())?;
    Ok(Exit::Done)
}

/// Writes an export of all keys that begin with a prefix, as it arrives.
pub(in crate::cli) fn receive(client: &Client, prefix: &str, to: &mut impl Write) -> Result<(), ClientError> {
    let incomplete = |reason: String| ClientError::Failed(format!("the export is incomplete: {reason}\nRun it again."));
    client.block_on(async {
        let mut body = client.open_stream(&format!("{EXPORT}{}", segment(prefix)), None).await?;
        loop {
            let frame = timeout(IDLE, body.frame()).await;
            match frame.map_err(|_| incomplete(format!("the agent sent nothing for {} s", IDLE.as_secs())))? {
                None => break,
                Some(Err(error)) => return Err(incomplete(error.to_string())),
                Some(Ok(frame)) => {
                    let octets = frame.into_data().unwrap_or_default();
                    to.write_all(&octets).map_err(|error| incomplete(format!("cannot write it: {error}")))?;
                }
            }
        }
        to.flush().map_err(|error| incomplete(format!("cannot write it: {error}")))
    })
}

pub(super) fn import(client: &Client, args: &ImportArgs, json: bool) -> Result<Exit, ClientError> {
    let entries = read(&args.file)?;
    set(client, &entries)?;
    print(&if json { format!("{}\n", json!({"Keys": entries.len()})) } else { counted(entries.len(), "imported") });
    Ok(Exit::Done)
}

/// A line with a number of keys.
pub(in crate::cli) fn counted(keys: usize, what: &str) -> String {
    format!("{keys} {} {what}\n", if keys == 1 { "key" } else { "keys" })
}

/// Reads an export from a file, or from standard input for `-`. Consul's tool writes file names as `@FILE`.
pub(in crate::cli) fn read(path: &std::path::Path) -> Result<Vec<Exported>, ClientError> {
    let name = printable(&path.display().to_string()).into_owned();
    let failed = |error: io::Error| ClientError::Failed(format!("cannot read {name}: {error}"));
    let mut octets = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().take(MAX_IMPORT).read_to_end(&mut octets).map_err(failed)?;
    } else {
        let path = path.to_str().and_then(|path| path.strip_prefix('@')).map_or(path, std::path::Path::new);
        File::open(path).map_err(failed)?.take(MAX_IMPORT).read_to_end(&mut octets).map_err(failed)?;
    }
    let entries: Vec<Exported> = serde_json::from_slice(&octets).map_err(|error| {
        ClientError::Failed(format!(
            "{name} is not an export: {error}\nExpected a JSON list as `muster kv export` and `consul kv export` print it."
        ))
    })?;
    for entry in &entries {
        check(entry).map_err(|reason| ClientError::Failed(format!("{name}: key {:?} {reason}", entry.key)))?;
    }
    Ok(entries)
}

fn check(entry: &Exported) -> Result<(), String> {
    if entry.key.is_empty() {
        return Err("is empty".to_owned());
    }
    let value = BASE64.decode(entry.value.as_bytes()).map_err(|_| "has a value that is not base64".to_owned())?;
    if value.len() > MAX_VALUE {
        return Err(format!("has a value of {} octets: the limit is {MAX_VALUE}", value.len()));
    }
    Ok(())
}

/// Sets keys. Each transaction is whole; a failure leaves those before it.
pub(in crate::cli) fn set(client: &Client, entries: &[Exported]) -> Result<(), ClientError> {
    let operation =
        |entry: &Exported| json!({"KV": {"Verb": "set", "Key": entry.key, "Flags": entry.flags, "Value": entry.value}});
    apply(client, entries, |entry| entry.key.len() + entry.value.len(), operation)
}

/// Deletes keys.
pub(in crate::cli) fn delete(client: &Client, keys: &[String]) -> Result<(), ClientError> {
    apply(client, keys, String::len, |key| json!({"KV": {"Verb": "delete", "Key": key}}))
}

/// Applies an operation to each item, in transactions.
fn apply<T>(
    client: &Client,
    mut items: &[T],
    octets: impl Fn(&T) -> usize,
    operation: impl Fn(&T) -> serde_json::Value,
) -> Result<(), ClientError> {
    let whole = items.len();
    while !items.is_empty() {
        let (now, later) = items.split_at(fitting(items, &octets));
        let body = serde_json::Value::Array(now.iter().map(&operation).collect()).to_string();
        let done = whole - items.len();
        let stopped = |error: ClientError| match error {
            ClientError::Refused(text) => ClientError::Refused(format!("{text}\n{done} of {whole} keys are done.")),
            ClientError::Failed(text) => ClientError::Failed(format!("{text}\n{done} of {whole} keys are done.")),
        };
        let response = client.block_on(client.ask(Method::PUT, TXN, body.into(), crate::cli::client::REQUEST_TIMEOUT));
        let response = response.map_err(stopped)?;
        if response.status() == StatusCode::CONFLICT {
            let answer: TxnAnswer = client.read(response.body())?;
            let reasons: Vec<String> = answer.errors.into_iter().flatten().map(|error| error.what).collect();
            return Err(stopped(ClientError::Refused(reasons.join("; "))));
        }
        client.success(response).map_err(stopped)?;
        items = later;
    }
    Ok(())
}

/// Number of the first items that fit a transaction: at least one.
fn fitting<T>(items: &[T], octets: impl Fn(&T) -> usize) -> usize {
    let mut whole = 0;
    let fitting = items.iter().take(MAX_OPERATIONS).take_while(|item| {
        whole += octets(item);
        whole <= MAX_OCTETS
    });
    fitting.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_bounded_in_operations_and_octets() {
        let cases: [(Vec<usize>, usize); 5] = [
            (vec![1; 100], 64),
            (vec![1; 3], 3),
            (vec![MAX_OCTETS + 1, 1], 1),
            (vec![MAX_OCTETS, 1], 1),
            (vec![300 << 10; 5], 2),
        ];
        for (items, expected) in cases {
            assert_eq!(fitting(&items, |octets| *octets), expected, "{items:?}");
        }
        assert!(MAX_VALUE.div_ceil(3) * 4 <= MAX_OCTETS);
    }

    #[test]
    fn entries_of_consul_are_accepted_and_faults_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let cases = [
            (r#"[{"key": "a", "flags": 7, "value": "eA==", "namespace": "default"}]"#, Ok(1)),
            ("[]", Ok(0)),
            (r#"[{"key": "a", "flags": 0, "value": "%"}]"#, Err("key \"a\" has a value that is not base64")),
            (r#"[{"value": ""}]"#, Err("is empty")),
            ("{}", Err("is not an export")),
        ];
        for (text, expected) in cases {
            std::fs::write(&path, text).unwrap();
            match (read(&path), expected) {
                (Ok(entries), Ok(number)) => assert_eq!(entries.len(), number, "{text}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
