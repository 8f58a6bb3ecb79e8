//! A file of muster's in the place of another, which is kept beside it and comes back as it was: a link as a link, with its
//! owner and its times.
//!
//! At no moment is there no file, or half of one.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::error::SetupError;

/// How the first line of ours begins.
const MARK: &str = "# Written by `muster setup ";
/// How it ends where there was nothing before.
const NOTHING: &str = "; there was no file before.";
/// Octets of a file that are looked at.
const MAX_FILE: u64 = 1024 * 1024;

/// Where a file of ours goes.
pub(super) struct Place {
    path: PathBuf,
    kept: PathBuf,
    /// The command that writes it.
    by: &'static str,
}

/// What is there.
enum Standing {
    Nothing,
    /// Somebody else's.
    Foreign,
    /// Ours, in place of nothing, or of what is kept.
    Ours {
        kept: bool,
    },
}

/// What undoing did, or would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RestoreError {
    /// There was nothing of ours.
    Nothing,
    /// Ours is gone.
    Removed,
    /// What was there before is back.
    Restored,
}

impl Place {
    /// `path` below `root`, which is `/` but for tests; `by` is the command's name.
    pub(super) fn new(root: &Path, path: &str, by: &'static str) -> Self {
        let path = root.join(path.trim_start_matches('/'));
        let mut kept = path.clone().into_os_string();
        kept.push(".before-muster");
        Self { path, kept: kept.into(), by }
    }

    /// Where ours goes.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where what was there before is, for now or from then on, and what it says; nothing if there was nothing.
    pub(super) fn former(&self) -> Result<(&Path, String), SetupError> {
        let at = match self.standing()? {
            Standing::Ours { .. } => &self.kept,
            Standing::Foreign | Standing::Nothing => &self.path,
        };
        Ok((at, read(at)?.unwrap_or_default()))
    }

    /// The whole of ours: a first line that says whose it is, and `body`.
    pub(super) fn text(&self, body: &str) -> Result<String, SetupError> {
        let kept = !matches!(self.standing()?, Standing::Nothing | Standing::Ours { kept: false });
        let before = if kept { format!("; before it was {}.", self.kept.display()) } else { NOTHING.to_owned() };
        Ok(format!("{MARK}{}`, undone by its --undo{before}\n{body}", self.by))
    }

    /// Puts ours there.
    pub(super) fn put(&self, body: &str) -> Result<(), SetupError> {
        let text = self.text(body)?;
        let failed = |error| SetupError::Write { path: self.path.clone(), error };
        self.path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        let keeps = matches!(self.standing()?, Standing::Foreign);
        if keeps {
            // What was kept of an earlier time is older than what is there now.
            remove(&self.kept).map_err(failed)?;
            // Not followed: of a link it is the link that is kept.
            fs::hard_link(&self.path, &self.kept).map_err(failed)?;
        }
        let mut next = self.path.clone().into_os_string();
        next.push(".new-muster");
        let next = PathBuf::from(next);
        let replaced = write(&next, &text).and_then(|()| fs::rename(&next, &self.path));
        replaced.map_err(|error| {
            let _ = remove(&next);
            if keeps {
                let _ = remove(&self.kept);
            }
            failed(error)
        })
    }

    /// Brings back what was there; with `only_say`, does not.
    pub(super) fn undo(&self, only_say: bool) -> Result<RestoreError, SetupError> {
        let failed = |error| SetupError::Write { path: self.path.clone(), error };
        match self.standing()? {
            Standing::Nothing => Ok(RestoreError::Nothing),
            Standing::Foreign if self.kept.symlink_metadata().is_err() => Ok(RestoreError::Nothing),
            Standing::Foreign => Err(SetupError::Foreign(self.path.clone())),
            Standing::Ours { kept: true } => {
                if self.kept.symlink_metadata().is_err() {
                    return Err(SetupError::Lost { path: self.path.clone(), kept: self.kept.clone() });
                }
                if !only_say {
                    fs::rename(&self.kept, &self.path).map_err(failed)?;
                }
                Ok(RestoreError::Restored)
            }
            Standing::Ours { kept: false } => {
                if !only_say {
                    remove(&self.path).map_err(failed)?;
                    // A folder for such files goes with the last of them.
                    if self.path.parent().is_some_and(|folder| folder.extension().is_some_and(|name| name == "d")) {
                        let _ = self.path.parent().map(fs::remove_dir);
                    }
                }
                Ok(RestoreError::Removed)
            }
        }
    }

    fn standing(&self) -> Result<Standing, SetupError> {
        let Some(text) = read(&self.path)? else {
            // A link to nothing is somebody's too.
            let exists = self.path.symlink_metadata().is_ok();
            return Ok(if exists { Standing::Foreign } else { Standing::Nothing });
        };
        Ok(match text.lines().next() {
            Some(first) if first.starts_with(MARK) => Standing::Ours { kept: !first.ends_with(NOTHING) },
            _ => Standing::Foreign,
        })
    }
}

/// What a file says; `None` if there is none, or only a link to nothing.
pub(super) fn read(path: &Path) -> Result<Option<String>, SetupError> {
    let mut octets = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut octets)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&octets).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SetupError::Read { path: path.to_owned(), error }),
    }
}

/// Everybody reads these files, whatever the umask is.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn place(root: &Path) -> Place {
        Place::new(root, "/etc/x.d/muster.conf", "x")
    }

    #[test]
    fn nothing_comes_back_as_nothing() {
        let root = tempfile::tempdir().unwrap();
        let place = place(root.path());
        assert_eq!(place.undo(false).unwrap(), RestoreError::Nothing);
        place.put("a\n").unwrap();
        place.put("b\n").unwrap();
        assert_eq!(
            fs::read_to_string(place.path()).unwrap(),
            "# Written by `muster setup x`, undone by its --undo; there was no file before.\nb\n"
        );
        assert_eq!(place.former().unwrap().1, "");
        assert_eq!(place.undo(true).unwrap(), RestoreError::Removed);
        assert_eq!(place.undo(false).unwrap(), RestoreError::Removed);
        assert!(!root.path().join("etc/x.d").exists());
        assert_eq!(place.undo(false).unwrap(), RestoreError::Nothing);
    }

    #[test]
    fn a_file_comes_back_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let place = place(root.path());
        fs::create_dir_all(root.path().join("etc/x.d")).unwrap();
        fs::write(place.path(), "theirs\n").unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o640)).unwrap();
        let before = place.path().metadata().unwrap();
        for _ in 0..2 {
            place.put("ours\n").unwrap();
            assert_eq!(place.former().unwrap(), (place.kept.as_path(), "theirs\n".to_owned()));
            assert_eq!(place.path().metadata().unwrap().mode() & 0o777, 0o644);
        }
        assert_eq!(place.undo(true).unwrap(), RestoreError::Restored);
        assert_eq!(place.undo(false).unwrap(), RestoreError::Restored);
        let after = place.path().metadata().unwrap();
        assert_eq!((after.ino(), after.mode(), after.mtime()), (before.ino(), before.mode(), before.mtime()));
        assert_eq!(fs::read_to_string(place.path()).unwrap(), "theirs\n");
        assert_eq!(fs::read_dir(root.path().join("etc/x.d")).unwrap().count(), 1);
        assert_eq!(place.undo(false).unwrap(), RestoreError::Nothing);
    }

    #[test]
    fn a_link_comes_back_as_a_link() {
        for target in ["there", "nowhere"] {
            let root = tempfile::tempdir().unwrap();
            let place = place(root.path());
            fs::create_dir_all(root.path().join("etc/x.d")).unwrap();
            fs::write(root.path().join("etc/x.d/there"), "theirs\n").unwrap();
            symlink(target, place.path()).unwrap();
            place.put("ours\n").unwrap();
            assert!(!place.path().is_symlink());
            assert_eq!(place.undo(false).unwrap(), RestoreError::Restored);
            assert_eq!(fs::read_link(place.path()).unwrap(), Path::new(target));
            assert_eq!(fs::read_to_string(root.path().join("etc/x.d/there")).unwrap(), "theirs\n");
        }
    }

    #[test]
    fn what_somebody_wrote_since_is_left_alone_and_counts_from_then_on() {
        let root = tempfile::tempdir().unwrap();
        let place = place(root.path());
        fs::create_dir_all(root.path().join("etc/x.d")).unwrap();
        fs::write(place.path(), "theirs\n").unwrap();
        place.put("ours\n").unwrap();
        fs::write(place.path(), "newer\n").unwrap();
        assert!(matches!(place.undo(false), Err(SetupError::Foreign(_))));
        place.put("ours\n").unwrap();
        assert_eq!(place.former().unwrap().1, "newer\n");
        fs::remove_file(&place.kept).unwrap();
        assert!(matches!(place.undo(false), Err(SetupError::Lost { .. })));
    }
}
