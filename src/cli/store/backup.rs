//! `muster store snapshot` and `restore`: all keys of the store, in the format of `muster kv export`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter},
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
        signals::interrupted,
        table::{print, printable},
    },
    printable,
};

/// Writes all keys to a file, which is whole or unchanged. Only its owner can read it: values of keys are often secrets.
pub(super) fn snapshot(client: &Client, path: &Path, json: bool) -> Result<Exit, ClientError> {
    let failed = |error: io::Error| ClientError::Failed(format!("cannot write {}: {error}", printable::path(path)));
    // A device, or a link such as /dev/stdout, would be replaced as well.
    if fs::symlink_metadata(path).is_ok_and(|existing| !existing.is_file()) {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it exists and is no regular file")));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // In the same folder, so that it can replace the file; with mode 0600.
    let temporary = NamedTempFile::new_in(folder).map_err(failed)?;
    let mut writer = BufWriter::new(temporary.as_file());
    client.block_on(async {
        tokio::select! {
            received = receive_export(client, "", &mut writer) => received,
            // The temporary file is removed.
            () = interrupted() => Err(failed(io::ErrorKind::Interrupted.into())),
        }
    })?;
    drop(writer);
    let contents = Contents::read(&mut ExportFile::written(path, temporary.reopen().map_err(failed)?))?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    if let Some(first) = &contents.first_large {
        let keys = counted(contents.large, if contents.large == 1 { "has a value" } else { "have values" });
        eprintln!(
            "muster: warning: {} above {MAX_VALUE} octets, such as {}: `restore` refuses this backup",
            keys.trim_end(),
            printable(first)
        );
    }
    print(&if json { format!("{}\n", json!({"Keys": contents.keys})) } else { counted(contents.keys, "saved") });
    Ok(Exit::Done)
}

/// Numbers of keys in a backup.
#[derive(Default)]
struct Contents {
    keys: usize,
    /// Keys with values that Consul's API does not accept.
    large: usize,
    /// The first one of these keys.
    first_large: Option<String>,
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
}

/// Sets the keys of a file and deletes all others.
pub(super) fn restore(client: &Client, path: &Path, delete_others: bool, json: bool) -> Result<Exit, ClientError> {
    let mut file = ExportFile::open(path)?;
    let (mut keys, mut kept) = (0, BTreeSet::new());
    file.check(|entry| {
        keys += 1;
        kept.insert(entry.key);
    })?;
    let others: Vec<String> = all_keys(client)?.into_iter().filter(|key| !kept.contains(key)).collect();
    if let (Some(first), false) = (others.first(), delete_others) {
        eprintln!(
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
