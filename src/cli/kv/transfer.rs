//! `muster kv export` and `import`: keys as JSON, in the format of `consul kv export`.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::export_file::ExportFile;
use crate::{
    api::kv::{Exported, KEY_COUNT, TxnAnswer},
    cli::{
        Exit,
        client::{Client, ClientError, REQUEST_TIMEOUT, segment},
        output::{Stream, print},
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
    /// File with the JSON, also as @FILE; - reads standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

pub(super) fn export(client: &Client, args: &ExportArgs) -> Result<Exit, ClientError> {
    Stream::copied(client.block_on(receive_export(client, &args.prefix, &mut Stream)))?;
    Ok(Exit::Done)
}

/// Writes an export of all keys that begin with a prefix, as it arrives. Returns the number of these keys in the store; `None` if
/// the agent does not tell.
pub(in crate::cli) async fn receive_export(
    client: &Client,
    prefix: &str,
    to: &mut impl Write,
) -> Result<Option<u64>, ClientError> {
    receive(client, &format!("{EXPORT}{}", segment(prefix)), to).await
}

/// Returns the names of all keys, and the number of keys that are not UTF-8.
pub(in crate::cli) fn all_keys(client: &Client) -> Result<(Vec<String>, u64), ClientError> {
    let mut names = Vec::new();
    let count = client.block_on(receive(client, "/v1/kv/?keys", &mut names))?;
    let names: Vec<String> = client.read(&names)?;
    let nameless = count.unwrap_or_default().saturating_sub(names.len() as u64);
    Ok((names, nameless))
}

/// Writes a response of any size, as it arrives. Returns the number of keys in its head.
async fn receive(client: &Client, path: &str, to: &mut impl Write) -> Result<Option<u64>, ClientError> {
    let incomplete = |reason: String| ClientError::Failed(format!("the response is incomplete: {reason}\nTry again."));
    let unwritable = |error: io::Error| ClientError::Failed(format!("cannot write the response: {error}"));
    let response = client.open_stream(path, None).await?;
    let keys = response.headers().get(KEY_COUNT).and_then(|count| count.to_str().ok()?.parse().ok());
    let mut body = response.into_body();
    loop {
        let frame = timeout(IDLE, body.frame()).await;
        match frame.map_err(|_| incomplete(format!("the agent sent nothing for {} s", IDLE.as_secs())))? {
            None => return to.flush().map(|()| keys).map_err(unwritable),
            Some(Err(error)) => return Err(incomplete(error.to_string())),
            Some(Ok(frame)) => to.write_all(&frame.into_data().unwrap_or_default()).map_err(unwritable)?,
        }
    }
}

pub(super) fn import(client: &Client, args: &ImportArgs, json: bool) -> Result<Exit, ClientError> {
    // Consul's tool writes file names as `@FILE`.
    let name = args.file.to_str().map(|path| path.strip_prefix('@').unwrap_or(path));
    let mut file = match name {
        Some("-") => ExportFile::standard_input()?,
        Some(name) => ExportFile::open(name.as_ref())?,
        None => ExportFile::open(&args.file)?,
    };
    let mut keys = 0;
    file.check(|_| keys += 1)?;
    set(client, &mut file, keys)?;
    print(&if json { format!("{}\n", json!({"Keys": keys})) } else { counted(keys, "imported") });
    Ok(Exit::Done)
}

/// A line with a number of keys.
pub(in crate::cli) fn counted(keys: usize, what: &str) -> String {
    format!("{keys} {} {what}\n", if keys == 1 { "key" } else { "keys" })
}

/// Sets the keys of a checked export, whose number is `whole`.
pub(in crate::cli) fn set(client: &Client, file: &mut ExportFile, whole: usize) -> Result<(), ClientError> {
    let mut transactions = Transactions::new(client, whole);
    file.each(|Exported { key, flags, value }| {
        let octets = key.len() + value.len();
        transactions.add(octets, json!({"KV": {"Verb": "set", "Key": key, "Flags": flags, "Value": value}}))
    })?;
    transactions.send()
}

/// Deletes keys.
pub(in crate::cli) fn delete(client: &Client, keys: &[String]) -> Result<(), ClientError> {
    let mut transactions = Transactions::new(client, keys.len());
    for key in keys {
        transactions.add(key.len(), json!({"KV": {"Verb": "delete", "Key": key}}))?;
    }
    transactions.send()
}

/// Operations on keys, sent in transactions. Each transaction is whole; a failure leaves those before it.
struct Transactions<'c> {
    client: &'c Client,
    /// Number of all operations.
    whole: usize,
    /// Number of operations that were applied.
    done: usize,
    /// Operations of the next transaction.
    next: Vec<Value>,
    /// Octets of keys and values of the next transaction.
    octets: usize,
}

impl<'c> Transactions<'c> {
    fn new(client: &'c Client, whole: usize) -> Self {
        Self { client, whole, done: 0, next: Vec::new(), octets: 0 }
    }

    /// Adds an operation. Sends those before it if it does not fit.
    fn add(&mut self, octets: usize, operation: Value) -> Result<(), ClientError> {
        if !fits(self.next.len(), self.octets, octets) {
            self.send()?;
        }
        self.next.push(operation);
        self.octets += octets;
        Ok(())
    }

    /// Applies the operations that were added.
    fn send(&mut self) -> Result<(), ClientError> {
        if self.next.is_empty() {
            return Ok(());
        }
        let number = self.next.len();
        let body = Value::Array(std::mem::take(&mut self.next)).to_string();
        self.octets = 0;
        self.apply(body)
            .map_err(|error| error.map(|text| format!("{text}\n{} of {} keys are done.", self.done, self.whole)))?;
        self.done += number;
        Ok(())
    }

    fn apply(&self, body: String) -> Result<(), ClientError> {
        let asked = self.client.ask(Method::PUT, TXN, body.into(), REQUEST_TIMEOUT);
        let response = self.client.block_on(asked)?;
        if response.status() == StatusCode::CONFLICT {
            let answer: TxnAnswer = self.client.read(response.body())?;
            let reasons: Vec<String> = answer.errors.into_iter().flatten().map(|error| error.what).collect();
            return Err(ClientError::Refused(reasons.join("; ")));
        }
        self.client.success(response).map(drop)
    }
}

/// Reports whether an operation fits a transaction with this number of operations and octets. The first one always does.
fn fits(operations: usize, octets: usize, next: usize) -> bool {
    operations == 0 || (operations < MAX_OPERATIONS && octets + next <= MAX_OCTETS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kv::MAX_VALUE;

    #[test]
    fn transactions_are_bounded_in_operations_and_octets() {
        let cases = [
            (0, 0, MAX_OCTETS + 1, true),
            (63, 100, 1, true),
            (64, 100, 1, false),
            (1, MAX_OCTETS, 0, true),
            (1, MAX_OCTETS, 1, false),
        ];
        for (operations, octets, next, expected) in cases {
            assert_eq!(fits(operations, octets, next), expected, "{operations} {octets} {next}");
        }
        assert!(MAX_VALUE.div_ceil(3) * 4 <= MAX_OCTETS);
    }
}
