//! Writes the files of a conversion: each atomically, and none over a file that exists.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::ImportError;
use crate::{import::OutputFile, printable};

/// Mode of a file that every user may read.
const OPEN_MODE: u32 = 0o644;
/// Mode of a file with a secret.
const SECRET_MODE: u32 = 0o600;

/// Writes the files and returns their paths. A file that exists with the same content is no obstacle.
///
/// # Errors
/// Without `force`, nothing is written if one of the files exists.
pub(super) fn write(folder: &Path, files: &[OutputFile], force: bool) -> Result<Vec<PathBuf>, ImportError> {
    let paths: Vec<PathBuf> = files.iter().map(|file| folder.join(&file.path)).collect();
    if !force {
        let is_other = |(path, file): &(&PathBuf, &OutputFile)| {
            fs::symlink_metadata(path).is_ok() && fs::read(path).ok().as_deref() != Some(file.text.as_bytes())
        };
        let exist = paths.iter().zip(files).filter(is_other);
        let exist: Vec<String> = exist.map(|(path, _)| format!("{} exists", printable::path(path))).collect();
        if !exist.is_empty() {
            return Err(ImportError::Exists(exist.join("\n")));
        }
    }
    for (path, file) in paths.iter().zip(files) {
        write_file(path, file).map_err(|error| ImportError::Unwritable { path: path.clone(), error })?;
    }
    Ok(paths)
}

fn write_file(path: &Path, file: &OutputFile) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Created with mode 0600, and readable by others only once it is complete.
    let mut temporary = NamedTempFile::new_in(folder)?;
    temporary.write_all(file.text.as_bytes())?;
    let mode = if file.is_secret { SECRET_MODE } else { OPEN_MODE };
    temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> Vec<OutputFile> {
        let file = |path: &str, is_secret| OutputFile { path: path.to_owned(), text: text.to_owned(), is_secret };
        vec![file("muster.yaml", false), file("services.d/web.yaml", false), file("gossip.key", true)]
    }

    #[test]
    fn files_are_written_with_their_modes_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("new/out");
        let paths = write(&output, &files("a"), false).unwrap();
        let modes = paths.iter().map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o777);
        assert_eq!(modes.collect::<Vec<_>>(), [0o644, 0o644, 0o600]);
        write(&output, &files("a"), false).unwrap();
        let error = write(&output, &files("b"), false).unwrap_err().to_string();
        assert!(error.contains("services.d/web.yaml exists") && error.ends_with("with --force."), "{error}");
        assert_eq!(fs::read_to_string(&paths[0]).unwrap(), "a", "nothing was written");
        write(&output, &files("b"), true).unwrap();
        assert_eq!(fs::read_to_string(&paths[2]).unwrap(), "b");
        let left = fs::read_dir(&output).unwrap().count();
        assert_eq!(left, 3, "no temporary file is left");
    }
}
