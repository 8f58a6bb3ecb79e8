//! Copies of the built program that tests replace, as a package's upgrade does.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    process::{self, Finish},
    run,
};

/// Folder with copies of the built program, removed on drop.
pub struct Installed {
    folder: TempDir,
}

/// Names of two equal files. An installation is a hard link to one of them, and the next one of the same name to the other:
/// the program's file is another one after an upgrade, and 20 nodes take the space of two.
const ORIGINALS: [&str; 2] = ["original", "other-original"];

impl Installed {
    /// Creates the folder with the files, without debug information, that are installed.
    pub fn new() -> Self {
        let folder = run::temp_dir();
        let [original, other] = ORIGINALS.map(|name| folder.path().join(name));
        let mut strip = process::command("objcopy");
        strip.arg("--strip-debug").arg(env!("CARGO_BIN_EXE_muster")).arg(&original);
        let output = strip.finish();
        assert!(output.status.success(), "objcopy: {}", String::from_utf8_lossy(&output.stderr));
        fs::copy(original, other).unwrap_or_else(|error| panic!("cannot copy the program: {error}"));
        Self { folder }
    }

    /// Installs the program under this name and returns its path. An earlier one is replaced by a rename, by another file.
    pub fn install(&self, name: &str) -> PathBuf {
        let [original, other] = ORIGINALS.map(|name| self.folder.path().join(name));
        let next = if is_same_file(&original, &self.folder.path().join(name)) { other } else { original };
        self.replace(name, |new| fs::hard_link(next, new).unwrap())
    }

    /// Replaces the copy of this name by a file with this content.
    pub fn install_content(&self, name: &str, content: &[u8]) -> PathBuf {
        self.replace(name, |new| fs::write(new, content).unwrap())
    }

    /// Replaces the copy of this name by the first half of the program, as a broken download would.
    pub fn install_truncated(&self, name: &str) -> PathBuf {
        let octets = fs::read(self.folder.path().join(ORIGINALS[0])).unwrap();
        self.install_content(name, &octets[..octets.len() / 2])
    }

    /// Removes the copy of this name.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    fn replace(&self, name: &str, write: impl FnOnce(&Path)) -> PathBuf {
        let (path, new) = (self.folder.path().join(name), self.folder.path().join(format!("{name}.new")));
        write(&new);
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, &path).unwrap();
        path
    }
}

/// Reports whether a process runs the file that is now at this path.
pub fn runs(pid: u32, program: &Path) -> bool {
    is_same_file(Path::new(&format!("/proc/{pid}/exe")), program)
}

/// Reports whether two paths, after symbolic links, are one file.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    identity(one).is_some_and(|found| Some(found) == identity(other))
}
