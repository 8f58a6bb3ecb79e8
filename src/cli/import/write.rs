//! Writes the files of a conversion: each atomically, and none over a file that exists.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::ImportError;
use crate::{
    cli::input_files::{folder as visible, has_extension, read},
    import::{MAX_FILE, OutputFile, Privacy, SERVICES_DIR, is_imported},
    printable,
};

/// Mode of a file that every user may read.
const PUBLIC_MODE: u32 = 0o644;
/// Mode of any other file: the user decides on its group.
const PRIVATE_MODE: u32 = 0o600;
/// Permissions of a private file that an administrator may have added to its mode.
const GRANTED: u32 = 0o640;

/// Files in the output folder.
pub(super) struct Written {
    /// The files of the conversion, each with true if only this user can read it.
    pub(super) files: Vec<(PathBuf, bool)>,
    /// Files of an earlier import that this one does not write.
    pub(super) left: Vec<PathBuf>,
}

/// Writes the files. A file that exists with the same content is no obstacle.
///
/// # Errors
/// Without `force`, nothing is written if one of the files exists.
pub(super) fn write(folder: &Path, files: &[OutputFile], force: bool) -> Result<Written, ImportError> {
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
    let left = left(folder, &paths);
    let mut written = Vec::with_capacity(paths.len());
    for (path, file) in paths.into_iter().zip(files) {
        match write_file(&path, file) {
            Ok(is_own) => written.push((path, is_own)),
            Err(error) => return Err(ImportError::Unwritable { path, error }),
        }
    }
    Ok(Written { files: written, left })
}

/// Writes a file. Returns true if only this user can read it.
fn write_file(path: &Path, file: &OutputFile) -> io::Result<bool> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Created with mode 0600, and readable by others only once it is complete.
    let mut temporary = NamedTempFile::new_in(folder)?;
    temporary.write_all(file.text.as_bytes())?;
    let mode = match file.privacy {
        Privacy::Public => PUBLIC_MODE,
        Privacy::Private | Privacy::Secret => fs::symlink_metadata(path)
            .ok()
            .and_then(|former| granted(&former, temporary.as_file()))
            .unwrap_or(PRIVATE_MODE),
    };
    temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    Ok(mode == PRIVATE_MODE)
}

/// Gives a file the group of the file that it replaces, and returns its mode: the group of the agent keeps its access. `None`:
/// the former file was not private, or its group cannot be kept.
fn granted(former: &Metadata, file: &File) -> Option<u32> {
    let mode = former.mode() & 0o777;
    let is_private = former.is_file() && mode & !GRANTED == 0;
    (is_private && fchown(file, None, Some(former.gid())).is_ok()).then_some(mode | PRIVATE_MODE)
}

/// The service files of an earlier import in the output folder, and in those of its nodes.
fn left(output: &Path, written: &[PathBuf]) -> Vec<PathBuf> {
    let written: BTreeSet<&Path> = written.iter().map(PathBuf::as_path).collect();
    let nodes = visible(output).unwrap_or_default();
    let folders = std::iter::once(output.to_owned()).chain(nodes).map(|folder| folder.join(SERVICES_DIR));
    let files = folders.flat_map(|folder| visible(&folder).unwrap_or_default());
    let is_left = |path: &PathBuf| {
        has_extension(path, "yaml")
            && !written.contains(path.as_path())
            && read(path, MAX_FILE).is_ok_and(|text| is_imported(&String::from_utf8_lossy(&text.bytes)))
    };
    files.filter(is_left).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> Vec<OutputFile> {
        let file = |path: &str, privacy| OutputFile { path: path.to_owned(), text: text.to_owned(), privacy };
        vec![
            file("muster.yaml", Privacy::Public),
            file("services.d/web.yaml", Privacy::Public),
            file("services.d/db.yaml", Privacy::Private),
            file("gossip.key", Privacy::Secret),
        ]
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_are_written_with_their_modes_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("new/out");
        let written = write(&output, &files("a"), false).unwrap().files;
        let modes: Vec<_> = written.iter().map(|(path, is_own)| (mode(path), *is_own)).collect();
        assert_eq!(modes, [(0o644, false), (0o644, false), (0o600, true), (0o600, true)]);
        write(&output, &files("a"), false).unwrap();
        let error = write(&output, &files("b"), false).err().unwrap().to_string();
        assert!(error.contains("services.d/web.yaml exists") && error.ends_with("with --force."), "{error}");
        assert_eq!(fs::read_to_string(&written[0].0).unwrap(), "a", "nothing was written");
        write(&output, &files("b"), true).unwrap();
        assert_eq!(fs::read_to_string(&written[3].0).unwrap(), "b");
        let left = fs::read_dir(&output).unwrap().count();
        assert_eq!(left, 3, "no temporary file is left");
    }

    #[test]
    fn private_files_keep_the_access_of_their_group() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &files("a"), false).unwrap();
        let path = folder.path().join("gossip.key");
        for (before, after) in [(0o640, 0o640), (0o600, 0o600), (0o644, 0o600), (0o660, 0o600)] {
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            let written = write(folder.path(), &files("b"), true).unwrap().files;
            assert_eq!((mode(&path), written[3].1), (after, after == 0o600), "{before:o}");
        }
    }

    #[test]
    fn files_of_an_earlier_import_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for path in ["services.d/old.yaml", "services.d/own.yaml", "services.d/web.yaml", "host-a/services.d/old.yaml"]
        {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            let text = if path.ends_with("own.yaml") { "service: a\n" } else { "# From a.json:1\nservice: a\n" };
            fs::write(at(path), text).unwrap();
        }
        let left = write(folder.path(), &files("b"), true).unwrap().left;
        assert_eq!(left, [at("services.d/old.yaml"), at("host-a/services.d/old.yaml")]);
    }
}
