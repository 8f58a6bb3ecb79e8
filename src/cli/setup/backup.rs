//! Replaces a system file by one of muster, keeps the former file beside it and restores it.
//!
//! The backup is a hard link, so that a symbolic link, the owner, the mode and the times are restored as they were. The file
//! is replaced atomically: at no moment is it missing or incomplete.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::error::SetupError;

/// Start of the first line of a managed file. Identifies the files that undo may remove.
const MARK: &str = "# Written by `muster setup ";
/// End of the first line of a managed file that replaced no file.
const NO_BACKUP: &str = "; there was no file before.";
/// Maximum number of octets read of a file.
const MAX_FILE: u64 = 1024 * 1024;

/// A system file that a command replaces.
pub(super) struct ManagedFile {
    path: PathBuf,
    backup: PathBuf,
    /// Name of the subcommand that writes the file.
    subcommand: &'static str,
}

/// Current state of a file.
enum FileState {
    Missing,
    /// Not written by muster.
    Foreign,
    /// Written by muster, with or without a backup of a former file.
    Managed {
        has_backup: bool,
    },
}

/// Effect of undoing a setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// There was no managed file.
    Nothing,
    /// The managed file was removed.
    Removed,
    /// The former file was restored.
    Restored,
}

impl ManagedFile {
    /// The file at `path` below `root`, which is `/` except in tests.
    pub(super) fn new(root: &Path, path: &str, subcommand: &'static str) -> Self {
        let path = root.join(path.trim_start_matches('/'));
        let mut backup = path.clone().into_os_string();
        backup.push(".before-muster");
        Self { path, backup: backup.into(), subcommand }
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Path and content of the former file, before or after it has been replaced. The content of a missing file is empty.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn former(&self) -> Result<(&Path, String), SetupError> {
        let path = match self.state()? {
            FileState::Managed { .. } => &self.backup,
            FileState::Foreign | FileState::Missing => &self.path,
        };
        Ok((path, read(path)?.unwrap_or_default()))
    }

    /// Full content of the managed file: a first line that identifies it, then `body`.
    ///
    /// # Errors
    /// The current file cannot be read.
    pub(super) fn text(&self, body: &str) -> Result<String, SetupError> {
        let has_backup = !matches!(self.state()?, FileState::Missing | FileState::Managed { has_backup: false });
        let former =
            if has_backup { format!("; the former file is {}.", self.backup.display()) } else { NO_BACKUP.to_owned() };
        Ok(format!("{MARK}{}`; --undo restores the former state{former}\n{body}", self.subcommand))
    }

    /// Writes the managed file. Keeps a foreign file as the backup, in place of an older backup.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub(super) fn write(&self, body: &str) -> Result<(), SetupError> {
        let text = self.text(body)?;
        let failed = |error| SetupError::Write { path: self.path.clone(), error };
        self.path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        let needs_backup = matches!(self.state()?, FileState::Foreign);
        if needs_backup {
            remove(&self.backup).map_err(failed)?;
            // Does not follow symbolic links: the backup of a link is a link.
            fs::hard_link(&self.path, &self.backup).map_err(failed)?;
        }
        let mut next = self.path.clone().into_os_string();
        next.push(".new-muster");
        let next = PathBuf::from(next);
        let replaced = create(&next, &text).and_then(|()| fs::rename(&next, &self.path));
        replaced.map_err(|error| {
            let _ = remove(&next);
            if needs_backup {
                let _ = remove(&self.backup);
            }
            failed(error)
        })
    }

    /// Restores the former state. A dry run changes nothing and returns the effect that it would have.
    ///
    /// # Errors
    /// The file was changed by another program, the backup is missing, or a file cannot be read or written.
    pub(super) fn undo(&self, dry_run: bool) -> Result<Undone, SetupError> {
        let failed = |error| SetupError::Write { path: self.path.clone(), error };
        match self.state()? {
            FileState::Missing => Ok(Undone::Nothing),
            FileState::Foreign if self.backup.symlink_metadata().is_err() => Ok(Undone::Nothing),
            FileState::Foreign => Err(SetupError::Foreign(self.path.clone())),
            FileState::Managed { has_backup: true } => {
                if self.backup.symlink_metadata().is_err() {
                    return Err(SetupError::NoBackup { path: self.path.clone(), backup: self.backup.clone() });
                }
                if !dry_run {
                    fs::rename(&self.backup, &self.path).map_err(failed)?;
                }
                Ok(Undone::Restored)
            }
            FileState::Managed { has_backup: false } => {
                if !dry_run {
                    remove(&self.path).map_err(failed)?;
                    // An empty drop-in folder is removed too.
                    if self.path.parent().is_some_and(|folder| folder.extension().is_some_and(|name| name == "d")) {
                        let _ = self.path.parent().map(fs::remove_dir);
                    }
                }
                Ok(Undone::Removed)
            }
        }
    }

    fn state(&self) -> Result<FileState, SetupError> {
        let Some(text) = read(&self.path)? else {
            // A dangling symbolic link is a foreign file too.
            let exists = self.path.symlink_metadata().is_ok();
            return Ok(if exists { FileState::Foreign } else { FileState::Missing });
        };
        Ok(match text.lines().next() {
            Some(first) if first.starts_with(MARK) => FileState::Managed { has_backup: !first.ends_with(NO_BACKUP) },
            _ => FileState::Foreign,
        })
    }
}

/// Reads a file; `None` if it does not exist or is a dangling symbolic link.
///
/// # Errors
/// The file cannot be read.
pub(super) fn read(path: &Path) -> Result<Option<String>, SetupError> {
    let mut octets = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut octets)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&octets).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SetupError::Read { path: path.to_owned(), error }),
    }
}

/// Creates a file that all users can read, whatever the umask is.
fn create(path: &Path, text: &str) -> io::Result<()> {
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

    fn managed(root: &Path) -> ManagedFile {
        ManagedFile::new(root, "/etc/x.d/muster.conf", "x")
    }

    #[test]
    fn undo_removes_a_file_that_replaced_none() {
        let root = tempfile::tempdir().unwrap();
        let file = managed(root.path());
        assert_eq!(file.undo(false).unwrap(), Undone::Nothing);
        file.write("a\n").unwrap();
        file.write("b\n").unwrap();
        assert_eq!(
            fs::read_to_string(file.path()).unwrap(),
            "# Written by `muster setup x`; --undo restores the former state; there was no file before.\nb\n"
        );
        assert_eq!(file.former().unwrap().1, "");
        assert_eq!(file.undo(true).unwrap(), Undone::Removed);
        assert_eq!(file.undo(false).unwrap(), Undone::Removed);
        assert!(!root.path().join("etc/x.d").exists());
        assert_eq!(file.undo(false).unwrap(), Undone::Nothing);
    }

    #[test]
    fn undo_restores_a_file_with_mode_and_times() {
        let root = tempfile::tempdir().unwrap();
        let file = managed(root.path());
        fs::create_dir_all(root.path().join("etc/x.d")).unwrap();
        fs::write(file.path(), "former\n").unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(0o640)).unwrap();
        let before = file.path().metadata().unwrap();
        for _ in 0..2 {
            file.write("managed\n").unwrap();
            assert_eq!(file.former().unwrap(), (file.backup.as_path(), "former\n".to_owned()));
            assert_eq!(file.path().metadata().unwrap().mode() & 0o777, 0o644);
        }
        assert_eq!(file.undo(true).unwrap(), Undone::Restored);
        assert_eq!(file.undo(false).unwrap(), Undone::Restored);
        let after = file.path().metadata().unwrap();
        assert_eq!((after.ino(), after.mode(), after.mtime()), (before.ino(), before.mode(), before.mtime()));
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "former\n");
        assert_eq!(fs::read_dir(root.path().join("etc/x.d")).unwrap().count(), 1);
        assert_eq!(file.undo(false).unwrap(), Undone::Nothing);
    }

    #[test]
    fn undo_restores_a_symbolic_link() {
        for target in ["there", "nowhere"] {
            let root = tempfile::tempdir().unwrap();
            let file = managed(root.path());
            fs::create_dir_all(root.path().join("etc/x.d")).unwrap();
            fs::write(root.path().join("etc/x.d/there"), "former\n").unwrap();
            symlink(target, file.path()).unwrap();
            file.write("managed\n").unwrap();
            assert!(!file.path().is_symlink());
            assert_eq!(file.undo(false).unwrap(), Undone::Restored);
            assert_eq!(fs::read_link(file.path()).unwrap(), Path::new(target));
            assert_eq!(fs::read_to_string(root.path().join("etc/x.d/there")).unwrap(), "former\n");
        }
    }

    #[test]
    fn a_file_changed_since_is_kept_and_becomes_the_backup() {
        let root = tempfile::tempdir().unwrap();
        let file = managed(root.path());
        fs::create_dir_all(root.path().join("etc/x.d")).unwrap();
        fs::write(file.path(), "former\n").unwrap();
        file.write("managed\n").unwrap();
        fs::write(file.path(), "newer\n").unwrap();
        assert!(matches!(file.undo(false), Err(SetupError::Foreign(_))));
        file.write("managed\n").unwrap();
        assert_eq!(file.former().unwrap().1, "newer\n");
        fs::remove_file(&file.backup).unwrap();
        assert!(matches!(file.undo(false), Err(SetupError::NoBackup { .. })));
    }
}
