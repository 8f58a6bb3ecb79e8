//! `muster store snapshot` and `restore`: all keys of the store, in the format of `muster kv export`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Seek, Write},
    path::Path,
};

use serde_json::json;
use tempfile::NamedTempFile;

use crate::{
    api::kv::MAX_VALUE,
    cli::{
        Exit,
        client::{Client, ClientError},
        kv::{
            export_file::{ExportFile, length},
            transfer::{all_keys, counted, delete, receive_export, set},
        },
        output::{Stream, print, print_error},
        signals::interrupted,
        table::printable,
    },
    printable,
};

/// Name for standard output and standard input.
const STANDARD: &str = "-";

/// Writes all keys to a file, which is whole or unchanged; to standard output once all have arrived. Only the owner of the file
/// can read it: values of keys are often secrets. Keys that `restore` cannot set are a problem.
pub(super) fn snapshot(client: &Client, path: &Path, json: bool) -> Result<Exit, ClientError> {
    if path == Path::new(STANDARD) {
        return to_standard_output(client);
    }
    let failed = |error: io::Error| ClientError::Failed(format!("cannot write {}: {error}", printable::path(path)));
    // A device, or a link such as /dev/stdout, would be replaced as well.
    if fs::symlink_metadata(path).is_ok_and(|existing| !existing.is_file()) {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it exists and is no regular file")));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // In the same folder, so that it can replace the file; with mode 0600.
    let temporary = NamedTempFile::new_in(folder).map_err(failed)?;
    let contents = receive(client, path, temporary.as_file())?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    print(&if json { format!("{}\n", json!({"Keys": contents.keys})) } else { counted(contents.keys, "saved") });
    Ok(contents.report())
}

fn to_standard_output(client: &Client) -> Result<Exit, ClientError> {
    let failed = |error: io::Error| ClientError::Failed(format!("cannot write the backup: {error}"));
    let mut temporary = tempfile::tempfile().map_err(failed)?;
    let contents = receive(client, Path::new("the backup"), &temporary)?;
    temporary.rewind().map_err(failed)?;
    Stream::copied(io::copy(&mut temporary, &mut Stream).and_then(|_| Stream.flush())).map_err(failed)?;
    Ok(contents.report())
}

/// Receives a backup in a file that is only named so.
fn receive(client: &Client, name: &Path, file: &File) -> Result<Contents, ClientError> {
    let failed = |error: io::Error| ClientError::Failed(format!("cannot write {}: {error}", printable::path(name)));
    let mut writer = BufWriter::new(file);
    let in_store = client.block_on(async {
        tokio::select! {
            received = receive_export(client, "", &mut writer) => received,
            // The temporary file is removed.
            () = interrupted() => Err(failed(io::ErrorKind::Interrupted.into())),
        }
    })?;
    drop(writer);
    let mut contents = Contents::read(&mut ExportFile::written(name, file.try_clone().map_err(failed)?))?;
    contents.omitted = in_store.unwrap_or_default().saturating_sub(contents.keys as u64);
    Ok(contents)
}

/// Numbers of keys in a backup.
#[derive(Default)]
struct Contents {
    keys: usize,
    /// Keys with values that Consul's API does not accept.
    large: usize,
    /// The first one of these keys.
    first_large: Option<String>,
    /// Keys of the store that are not in the backup, since they are not UTF-8.
    omitted: u64,
}

impl Contents {
    /// Reads a backup, which also proves that it is whole.
    fn read(file: &mut ExportFile) -> Result<Self, ClientError> {
        let mut contents = Self::default();
        file.each(|entry| {
            contents.keys += 1;
            if length(&entry).is_some_and(|length| length > MAX_VALUE) {
                contents.large += 1;
                contents.first_large.get_or_insert(entry.key);
            }
            Ok(())
        })?;
        Ok(contents)
    }

    /// Warns of keys that this backup does not bring back.
    fn report(&self) -> Exit {
        if let Some(first) = &self.first_large {
            let keys = counted(self.large, if self.large == 1 { "has a value" } else { "have values" });
            print_error!(
                "muster: warning: {} above {MAX_VALUE} octets, such as {}: `restore` refuses this backup",
                keys.trim_end(),
                printable(first)
            );
        }
        if self.omitted > 0 {
            let keys = counted(self.omitted as usize, if self.omitted == 1 { "is" } else { "are" });
            print_error!(
                "muster: warning: {} not UTF-8 and not in the backup: read and restore such keys by etcd's API",
                keys.trim_end()
            );
        }
        if self.large == 0 && self.omitted == 0 { Exit::Done } else { Exit::Problems }
    }
}

/// Sets the keys of a file and deletes all others.
pub(super) fn restore(client: &Client, path: &Path, delete_others: bool, json: bool) -> Result<Exit, ClientError> {
    let mut file = if path == Path::new(STANDARD) { ExportFile::standard_input()? } else { ExportFile::open(path)? };
    let (mut keys, mut kept) = (0, BTreeSet::new());
    file.check(|entry| {
        keys += 1;
        kept.insert(entry.key);
    })?;
    let (names, nameless) = all_keys(client)?;
    if nameless > 0 {
        print_error!(
            "muster: {} not UTF-8: `restore` cannot delete such keys, and has changed nothing\nDelete them by etcd's API, then \
             restore: `etcdctl get '' --prefix --keys-only --write-out=json` lists all keys in base64.",
            counted(nameless as usize, if nameless == 1 { "of the store is" } else { "of the store are" }).trim_end()
        );
        return Ok(Exit::Problems);
    }
    let others: Vec<String> = names.into_iter().filter(|key| !kept.contains(key)).collect();
    if let (Some(first), false) = (others.first(), delete_others) {
        print_error!(
            "muster: {} not in the backup, such as {}: --delete-others deletes what is not in it",
            counted(others.len(), if others.len() == 1 { "of the store is" } else { "of the store are" }).trim_end(),
            printable(first)
        );
        return Ok(Exit::Problems);
    }
    set(client, &mut file, keys)?;
    delete(client, &others)?;
    print(&if json {
        format!("{}\n", json!({"Keys": keys, "Deleted": others.len()}))
    } else {
        format!("{}{}", counted(keys, "restored"), counted(others.len(), "deleted"))
    });
    Ok(Exit::Done)
}
