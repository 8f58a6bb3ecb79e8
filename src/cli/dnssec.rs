//! `muster dnssec`: keys of signed zones, and the DS records for their parents.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use ring::rand::SystemRandom;

use super::{
    Exit,
    output::{print, print_error},
};
use crate::{
    clock::unix_seconds,
    config::DEFAULT_DNSSEC_KEYS_DIR,
    dns::dnssec::{
        key::{ENTRY_POINT, Key, KeyError, Timing, ZONE_KEY},
        key_file::{
            KeyFileError, KeyId, PRIVATE_EXTENSION, PUBLIC_EXTENSION, PrivateKey, PublicKey, ds_text, noted_delete,
            private_text, public_text,
        },
    },
    model::{
        date::{LAST, rfc3339},
        name::Name,
    },
    printable,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a key pair of a zone, in the form of BIND's key files
    Keygen(Keygen),
    /// Print the DS records of a zone's keys, for the parent zone
    Ds {
        /// Zone
        #[arg(value_parser = Name::parse)]
        zone: Name,
        #[command(flatten)]
        folder: Folder,
    },
}

#[derive(Debug, clap::Args)]
struct Folder {
    /// Folder of the key files
    #[arg(long, value_name = "PATH", default_value = DEFAULT_DNSSEC_KEYS_DIR)]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Keygen {
    /// Zone
    #[arg(value_parser = Name::parse)]
    zone: Name,
    #[command(flatten)]
    folder: Folder,
    /// Make a key that signs only the zone's keys, or only the other records; without this option the key signs all
    #[arg(long, value_name = "ROLE", value_parser = ["ksk", "zsk"])]
    role: Option<String>,
    /// Time from now until the key is published
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = wait)]
    publish: Duration,
    /// Time from now until the key signs
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = wait)]
    activate: Duration,
    /// Time from now until the key no longer signs [default: never]
    #[arg(long, value_name = "DURATION", value_parser = wait)]
    inactive: Option<Duration>,
    /// Time from now until the key is removed [default: never]
    #[arg(long, value_name = "DURATION", value_parser = wait)]
    delete: Option<Duration>,
}

/// Parses a time from now; the date of its end must have a year of four digits, as in key files.
fn wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match unix_seconds().checked_add(wait.as_secs()) {
        Some(end) if end <= LAST.as_secs() => Ok(wait),
        _ => Err(format!("the time ends after {}, the last date of a key file", rfc3339(LAST))),
    }
}

/// Failure of a command.
#[derive(Debug, thiserror::Error)]
enum DnssecError {
    #[error("--{former} {} is later than --{later} {}: a key is published, signs, no longer signs, and is deleted, in this order", humantime::format_duration(*.former_wait), humantime::format_duration(*.later_wait))]
    Order { former: &'static str, former_wait: Duration, later: &'static str, later_wait: Duration },
    #[error("cannot make a key: {0}")]
    Key(#[from] KeyError),
    #[error("cannot write {path}: {error}", path = printable::path(.0), error = .1)]
    Write(PathBuf, io::Error),
    #[error("cannot read {path}: {error}", path = printable::path(.0), error = .1)]
    Read(PathBuf, io::Error),
    #[error("{path}: {error}", path = printable::path(.0), error = .1)]
    File(PathBuf, KeyFileError),
    #[error("{path} has no key of {zone} that DS records can refer to", path = printable::path(.0), zone = .1)]
    NoKey(PathBuf, Name),
}

pub(super) fn run(args: &Args) -> Exit {
    let done = match &args.command {
        Command::Keygen(args) => keygen(args).map(|stem| print(&format!("{stem}\n"))),
        Command::Ds { zone, folder } => ds(zone, &folder.dir).map(|records| print(&records)),
    };
    match done {
        Ok(()) => Exit::Done,
        Err(error) => {
            print_error!("muster: {error}");
            Exit::CouldNotRun
        }
    }
}

/// Makes a key pair; returns the name of its files without their extensions.
fn keygen(args: &Keygen) -> Result<String, DnssecError> {
    check_order(args)?;
    let now = unix_seconds();
    let at = |wait: Duration| now + wait.as_secs();
    let timing = Timing {
        publish: Some(at(args.publish)),
        activate: Some(at(args.activate)),
        inactive: args.inactive.map(at),
        delete: args.delete.map(at),
        ..Timing::default()
    };
    let flags = if args.role.as_deref() == Some("zsk") { ZONE_KEY } else { ZONE_KEY | ENTRY_POINT };
    let (mut key, private) = Key::generate(args.zone.clone(), flags, &SystemRandom::new())?;
    key.timing = timing;
    let stem = KeyId::from(&key).stem();
    let dir = &args.folder.dir;
    fs::create_dir_all(dir).map_err(|error| DnssecError::Write(dir.clone(), error))?;
    let files = [
        (PRIVATE_EXTENSION, 0o600, private_text(&key, &private, now)),
        (PUBLIC_EXTENSION, 0o644, public_text(&key, now)),
    ];
    for (extension, mode, text) in files {
        let path = dir.join(format!("{stem}.{extension}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|error| DnssecError::Write(path, error))?;
    }
    Ok(stem)
}

/// Refuses times in an order in which no key can have them. A key that never ends one state may still be deleted.
fn check_order(args: &Keygen) -> Result<(), DnssecError> {
    let times = [
        ("publish", Some(args.publish)),
        ("activate", Some(args.activate)),
        ("inactive", args.inactive),
        ("delete", args.delete),
    ];
    let mut times = times.into_iter().filter_map(|(name, wait)| Some((name, wait?)));
    let Some((mut former, mut former_wait)) = times.next() else { return Ok(()) };
    for (later, later_wait) in times {
        if former_wait > later_wait {
            return Err(DnssecError::Order { former, former_wait, later, later_wait });
        }
        (former, former_wait) = (later, later_wait);
    }
    Ok(())
}

/// Returns the DS records of the entry points of a zone.
fn ds(zone: &Name, dir: &Path) -> Result<String, DnssecError> {
    let unreadable = |error| DnssecError::Read(dir.to_owned(), error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        paths.push(entry.map_err(unreadable)?.path());
    }
    paths.sort();
    let mut records = String::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == PUBLIC_EXTENSION)) {
        let id = path.file_stem().and_then(|stem| KeyId::parse(stem.to_str()?).ok());
        let Some(id) = id.filter(|id| id.zone == *zone) else { continue };
        let octets = fs::read(path).map_err(|error| DnssecError::Read(path.clone(), error))?;
        let key = PublicKey::parse(&id, &octets).map_err(|error| DnssecError::File(path.clone(), error))?;
        // The parent must not have a DS record of a key that is no longer published. Its user may not read the private key.
        let private = fs::read(path.with_extension(PRIVATE_EXTENSION)).ok();
        let delete = match private.and_then(|octets| PrivateKey::parse(&octets).ok()) {
            Some(private) => private.timing.delete,
            None => noted_delete(&octets),
        };
        let is_deleted = delete.is_some_and(|delete| delete <= unix_seconds());
        if key.flags & ENTRY_POINT != 0 && !is_deleted {
            records += &ds_text(zone, key.flags, &key.key);
        }
    }
    if records.is_empty() { Err(DnssecError::NoKey(dir.to_owned(), zone.clone())) } else { Ok(records) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_end_at_the_last_date_of_a_key_file() {
        assert_eq!(wait("2h"), Ok(Duration::from_secs(7200)));
        for text in ["4000000d", "500000000000y"] {
            let error = wait(text).unwrap_err();
            assert!(error.contains("after 9999-12-31T23:59:59Z"), "{text}: {error}");
        }
        assert!(wait("soon").is_err());
    }

    #[test]
    fn times_of_a_key_have_an_order() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let cases = [
            ((0, 0, None, None), None),
            ((0, 2, Some(2), Some(3)), None),
            ((0, 0, None, Some(0)), None),
            ((2, 1, None, None), Some("--publish 2h is later than --activate 1h")),
            ((0, 2, Some(1), None), Some("--activate 2h is later than --inactive 1h")),
            ((0, 0, Some(2), Some(1)), Some("--inactive 2h is later than --delete 1h")),
            ((0, 2, None, Some(1)), Some("--activate 2h is later than --delete 1h")),
        ];
        for ((publish, activate, inactive, delete), expected) in cases {
            let args = Keygen {
                zone: Name::parse("example.org").unwrap(),
                folder: Folder { dir: PathBuf::new() },
                role: None,
                publish: hours(publish),
                activate: hours(activate),
                inactive: inactive.map(hours),
                delete: delete.map(hours),
            };
            let error = check_order(&args).err().map(|error| error.to_string());
            let error = error.as_deref().and_then(|error| error.split(':').next());
            assert_eq!(error, expected, "{publish} {activate} {inactive:?} {delete:?}");
        }
    }
}
