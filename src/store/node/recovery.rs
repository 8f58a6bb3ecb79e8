//! `muster store recover`: makes the voter of this host the only one, after the loss of a majority.
//!
//! The recovered store is written beside the former one and takes its place by renames. The former one is kept.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::member::{ID, random_id, read_id, write_id};
use crate::store::raft::{self, RecoverStateError, RecoveredState};

/// Suffix of the folder that is being written.
const NEW: &str = "recovered";
/// Suffix of the former folder.
const FORMER: &str = "before-recovery";

/// Reasons why a store cannot be recovered. Nothing has changed then, except for [`Self::Halfway`].
#[derive(Debug, Error)]
pub(crate) enum RecoveryError {
    /// The folder has no store.
    #[error("{} has no store: --data-dir is the data_dir of the agent's configuration", .0.display())]
    NoStore(PathBuf),
    /// A former recovery left its backup; holds its path.
    #[error("{} exists: it is the store before another recovery; move it elsewhere", .0.display())]
    FormerExists(PathBuf),
    /// The state cannot be recovered.
    #[error(transparent)]
    State(#[from] RecoverStateError),
    /// The former store was renamed, and can neither be replaced nor renamed back.
    #[error(
        "the store is in {former}, and cannot be renamed back to {folder}: {error}; rename it by hand before the agent starts",
        former = former.display(),
        folder = folder.display()
    )]
    Halfway {
        /// The folder of the store, which is missing.
        folder: PathBuf,
        /// The folder with the store.
        former: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// Files cannot be read or written.
    #[error("cannot use {}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
}

/// Outcome of a recovery.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The state.
    pub(crate) state: RecoveredState,
    /// Folder with the store before the recovery.
    pub(crate) former: PathBuf,
}

/// Makes the member in a folder the only voter of its store. The agent must not run.
///
/// # Errors
/// The reason why the store is unchanged.
pub(crate) async fn recover(folder: &Path, node: &str) -> Result<Recovered, RecoveryError> {
    let (new, former) = (folder.with_extension(NEW), folder.with_extension(FORMER));
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| RecoveryError::Io { path, error }
    };
    if !folder.join(ID).exists() {
        return Err(RecoveryError::NoStore(folder.to_owned()));
    }
    if former.exists() {
        return Err(RecoveryError::FormerExists(former));
    }
    let id = read_id(folder).map_err(at(folder))?;
    // An interrupted recovery leaves this folder.
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&new)(error)),
        _ => fs::create_dir(&new).map_err(at(&new))?,
    }
    raft::restrict(&new).and_then(|()| raft::restrict(folder)).map_err(at(&new))?;
    let new_id = random_id().map_err(at(&new))?;
    let state = raft::recover(folder, &new, node, id, new_id).await?;
    write_id(&new, new_id).map_err(at(&new))?;
    own_like(&new, folder).map_err(at(&new))?;
    replace(folder, &former, &new)?;
    let parent = folder.parent().unwrap_or(folder);
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(at(parent))?;
    Ok(Recovered { state, former })
}

/// Renames a folder, and another one to its place. Neither has changed if this fails.
fn replace(folder: &Path, former: &Path, new: &Path) -> Result<(), RecoveryError> {
    let failed = |path: &Path, error| RecoveryError::Io { path: path.to_owned(), error };
    fs::rename(folder, former).map_err(|error| failed(folder, error))?;
    fs::rename(new, folder).map_err(|error| match fs::rename(former, folder) {
        Ok(()) => failed(new, error),
        Err(back) => RecoveryError::Halfway { folder: folder.to_owned(), former: former.to_owned(), error: back },
    })
}

/// Gives a folder and its files the owner and the mode of another folder: the command often runs as root, the agent does not.
fn own_like(folder: &Path, model: &Path) -> io::Result<()> {
    let model = fs::metadata(model)?;
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        chown(&path, Some(model.uid()), Some(model.gid()))?;
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
        }
    }
    fs::set_permissions(folder, model.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_replacement_leaves_the_store_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (store, former, new) =
            (folder.path().join("store"), folder.path().join("former"), folder.path().join("new"));
        fs::create_dir(&store).unwrap();
        fs::write(store.join(ID), "id").unwrap();
        let failed = replace(&store, &former, &new).unwrap_err();
        assert!(matches!(&failed, RecoveryError::Io { path, .. } if *path == new), "{failed}");
        assert_eq!(fs::read_to_string(store.join(ID)).unwrap(), "id");
        assert!(!former.exists());

        fs::create_dir(&new).unwrap();
        replace(&store, &former, &new).unwrap();
        assert!(former.join(ID).exists() && store.exists() && !new.exists());
    }
}
