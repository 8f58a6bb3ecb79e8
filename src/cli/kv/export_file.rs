//! A file with keys as JSON, in the format of `consul kv export`. It is read key by key, since it may be larger than the memory.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Seek},
    path::Path,
};

use data_encoding::BASE64;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use crate::{
    api::kv::{Exported, MAX_VALUE},
    cli::client::ClientError,
    printable,
};

/// An open export, which can be read several times.
#[derive(Debug)]
pub(in crate::cli) struct ExportFile {
    name: String,
    file: File,
}

impl ExportFile {
    /// Opens a file.
    pub(in crate::cli) fn open(path: &Path) -> Result<Self, ClientError> {
        let name = printable::path(path).to_string();
        let file = File::open(path).and_then(rewindable);
        Self::new(name, file)
    }

    /// Reads standard input.
    pub(in crate::cli) fn standard_input() -> Result<Self, ClientError> {
        Self::new("standard input".to_owned(), copy(io::stdin().lock()))
    }

    /// The export in a file that this process wrote.
    pub(in crate::cli) fn written(path: &Path, file: File) -> Self {
        Self { name: printable::path(path).to_string(), file }
    }

    fn new(name: String, file: io::Result<File>) -> Result<Self, ClientError> {
        match file {
            Ok(file) => Ok(Self { name, file }),
            Err(error) => Err(ClientError::Failed(format!("cannot read {name}: {error}"))),
        }
    }

    /// Calls a function for each key, from the first one. Stops at its first error.
    pub(in crate::cli) fn each(
        &mut self,
        mut visit: impl FnMut(Exported) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let name = &self.name;
        self.file.rewind().map_err(|error| ClientError::Failed(format!("cannot read {name}: {error}")))?;
        let mut stopped = None;
        let mut json = serde_json::Deserializer::from_reader(BufReader::new(&self.file));
        let read = json.deserialize_seq(Each { visit: &mut visit, stopped: &mut stopped }).and_then(|()| json.end());
        match (stopped, read) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(ClientError::Failed(format!(
                "{name} is not an export: {error}\nExpected a JSON list as `muster kv export` and `consul kv export` print it."
            ))),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Checks all keys, and calls a function for each. A faulty file is therefore refused before anything is changed.
    pub(in crate::cli) fn check(&mut self, mut visit: impl FnMut(Exported)) -> Result<(), ClientError> {
        let name = self.name.clone();
        self.each(|entry| {
            fault(&entry)
                .map_or(Ok(()), |fault| Err(ClientError::Failed(format!("{name}: key {:?} {fault}", entry.key))))?;
            visit(entry);
            Ok(())
        })
    }
}

/// Returns the file, or a copy of it if it is a pipe, which can be read only once.
fn rewindable(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { copy(file) }
}

/// Copies an input to a file without a name, which ends with this process.
fn copy(mut from: impl io::Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut from, &mut file)?;
    Ok(file)
}

/// Returns the number of octets of a value; `None` if it is not base64.
pub(in crate::cli) fn length(entry: &Exported) -> Option<usize> {
    BASE64.decode(entry.value.as_bytes()).ok().map(|value| value.len())
}

fn fault(entry: &Exported) -> Option<String> {
    if entry.key.is_empty() {
        return Some("is empty".to_owned());
    }
    match length(entry) {
        None => Some("has a value that is not base64".to_owned()),
        Some(length) if length > MAX_VALUE => Some(format!("has a value of {length} octets: the limit is {MAX_VALUE}")),
        Some(_) => None,
    }
}

/// Reader of a JSON list.
struct Each<'a, F> {
    visit: &'a mut F,
    /// Error of the function.
    stopped: &'a mut Option<ClientError>,
}

impl<'de, F: FnMut(Exported) -> Result<(), ClientError>> Visitor<'de> for Each<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of keys")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(entry) = list.next_element()? {
            if let Err(error) = (self.visit)(entry) {
                *self.stopped = Some(error);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("[]]", Err("is not an export")),
            (r#"[{"key": "a", "flags": 0, "value": ""}"#, Err("is not an export")),
            ("null", Err("is not an export")),
        ];
        for (text, expected) in cases {
            std::fs::write(&path, text).unwrap();
            let mut file = ExportFile::open(&path).unwrap();
            // The second time from the beginning again.
            for _ in 0..2 {
                let mut number = 0;
                match (file.check(|_| number += 1), expected) {
                    (Ok(()), Ok(expected)) => assert_eq!(number, expected, "{text}"),
                    (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                    (found, _) => panic!("{text}: {found:?}"),
                }
            }
        }
    }
}
