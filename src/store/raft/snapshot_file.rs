//! The snapshot on disk: what it covers, and the state.
//!
//! A snapshot is written beside the current one and replaces it by a rename, so that there is always a whole one.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use openraft::SnapshotMeta;
use thiserror::Error;

use super::{Member, MemberId};
use crate::store::state::{SnapshotError, State};

/// Name of the current snapshot in the store's folder.
const CURRENT: &str = "snapshot";
/// Name of a snapshot that is being written here.
const WRITTEN: &str = "snapshot.new";
/// Name of a snapshot that arrives from the leader.
const RECEIVED: &str = "snapshot.received";
/// First octets of a snapshot: the format and its version.
const MAGIC: [u8; 8] = *b"MUSTERS1";
/// Longest description in octets: a few members with their names.
const MAX_META: u32 = 64 << 10;

/// Reasons why a snapshot cannot be read.
#[derive(Debug, Error)]
pub(in crate::store) enum SnapshotFileError {
    /// Reading failed.
    #[error("cannot read the snapshot: {0}")]
    Io(#[from] io::Error),
    /// The file is not a snapshot, or one of another version.
    #[error("the file is not a snapshot of this version of muster")]
    Format,
    /// The state in the snapshot is damaged.
    #[error("the snapshot is damaged: {0}")]
    State(#[from] SnapshotError),
}

/// What a snapshot covers.
pub(super) type Meta = SnapshotMeta<MemberId, Member>;

/// The folder of the store's snapshots.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    folder: PathBuf,
}

impl Snapshots {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Reads the current snapshot; `None` if there is none.
    pub(super) fn read(&self, max_octets: u64) -> Result<Option<(Meta, State)>, SnapshotFileError> {
        match File::open(self.folder.join(CURRENT)) {
            Ok(file) => read(file, max_octets).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the current snapshot and reads what it covers; `None` if there is none.
    pub(super) fn open(&self) -> Result<Option<(Meta, File)>, SnapshotFileError> {
        let open = || File::open(self.folder.join(CURRENT));
        match open() {
            Ok(file) => Ok(Some((read_meta(&mut BufReader::new(file))?, open()?))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a snapshot, which becomes the current one.
    pub(super) fn write(&self, meta: &Meta, state: &State) -> io::Result<File> {
        let path = self.folder.join(WRITTEN);
        let written = write(&path, meta, state).and_then(|()| self.replace_current(&path));
        if let Err(error) = written {
            // On a full disk, the log needs the space. The error of the write says more than one of the removal.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        File::open(self.folder.join(CURRENT))
    }

    /// Removes parts of snapshots that a former run has left.
    pub(super) fn remove_incomplete(&self) -> io::Result<()> {
        [WRITTEN, RECEIVED].iter().try_for_each(|name| match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// Creates the file for a snapshot from the leader.
    pub(super) fn receive(&self) -> io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(true).open(self.folder.join(RECEIVED))
    }

    /// Reads the snapshot from the leader, which becomes the current one.
    pub(super) fn install(&self, max_octets: u64) -> Result<State, SnapshotFileError> {
        let path = self.folder.join(RECEIVED);
        let file = File::open(&path)?;
        file.sync_all()?;
        let (_, state) = read(file, max_octets)?;
        self.replace_current(&path)?;
        Ok(state)
    }

    fn replace_current(&self, by: &Path) -> io::Result<()> {
        fs::rename(by, self.folder.join(CURRENT))?;
        File::open(&self.folder)?.sync_all()
    }
}

fn write(path: &Path, meta: &Meta, state: &State) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let meta = postcard::to_stdvec(meta).map_err(io::Error::other)?;
    file.write_all(&MAGIC)?;
    file.write_all(&u32::try_from(meta.len()).map_err(io::Error::other)?.to_be_bytes())?;
    file.write_all(&meta)?;
    state.encode(&mut file)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn read(file: File, max_octets: u64) -> Result<(Meta, State), SnapshotFileError> {
    let mut reader = BufReader::new(file);
    let meta = read_meta(&mut reader)?;
    Ok((meta, State::decode(&mut reader, max_octets)?))
}

fn read_meta(reader: &mut impl Read) -> Result<Meta, SnapshotFileError> {
    let (mut magic, mut len) = ([0; MAGIC.len()], [0; 4]);
    reader.read_exact(&mut magic)?;
    reader.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len);
    if magic != MAGIC || len > MAX_META {
        return Err(SnapshotFileError::Format);
    }
    let mut octets = vec![0; len as usize];
    reader.read_exact(&mut octets)?;
    postcard::from_bytes(&octets).map_err(|_| SnapshotFileError::Format)
}
