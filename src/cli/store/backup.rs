//! `muster store snapshot` and `restore`: all keys of the store, in the format of `muster kv export`.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::cli::{
    Exit,
    client::{Client, ClientError},
    kv::transfer::{counted, delete, read, receive, set},
    table::{print, printable},
};

/// Mode of the file: values of keys are often secrets.
const MODE: u32 = 0o600;

/// Writes all keys to a file, which is whole or unchanged.
pub(super) fn snapshot(client: &Client, path: &Path, json: bool) -> Result<Exit, ClientError> {
    let name = printable(&path.display().to_string()).into_owned();
    let failed = |error: io::Error| ClientError::Failed(format!("cannot write {name}: {error}"));
    let temporary = temporary(path);
    let written = write(client, &temporary).and_then(|()| {
        let keys = read(&temporary)?.len();
        fs::rename(&temporary, path).map_err(failed)?;
        File::open(parent(path)).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(keys)
    });
    if written.is_err() {
        // The next attempt replaces a file that stays.
        let _ = fs::remove_file(&temporary);
    }
    let keys = written?;
    print(&if json { format!("{}\n", json!({"Keys": keys})) } else { counted(keys, "saved") });
    Ok(Exit::Done)
}

fn write(client: &Client, path: &Path) -> Result<(), ClientError> {
    let failed = |error: io::Error| {
        ClientError::Failed(format!("cannot write {}: {error}", printable(&path.display().to_string())))
    };
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path).map_err(failed)?;
    let mut file = BufWriter::new(file);
    receive(client, "", &mut file)?;
    file.flush().and_then(|()| file.get_ref().sync_all()).map_err(failed)
}

/// Path of the file while it is written: in the same folder, so that a rename replaces it.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Sets the keys of a file and deletes all others.
pub(super) fn restore(client: &Client, path: &Path, delete_others: bool, json: bool) -> Result<Exit, ClientError> {
    let entries = read(path)?;
    let kept: BTreeSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    let response = client.query("/v1/kv/?keys")?;
    let known: Vec<String> = client.read(&client.success(response)?)?;
    let others: Vec<String> = known.into_iter().filter(|key| !kept.contains(key.as_str())).collect();
    if let (Some(first), false) = (others.first(), delete_others) {
        eprintln!(
            "muster: {} not in the backup, such as {}: --delete-others deletes what is not in it",
            counted(others.len(), if others.len() == 1 { "of the store is" } else { "of the store are" }).trim_end(),
            printable(first)
        );
        return Ok(Exit::Problems);
    }
    set(client, &entries)?;
    delete(client, &others)?;
    print(&if json {
        format!("{}\n", json!({"Keys": entries.len(), "Deleted": others.len()}))
    } else {
        format!("{}{}", counted(entries.len(), "restored"), counted(others.len(), "deleted"))
    });
    Ok(Exit::Done)
}
