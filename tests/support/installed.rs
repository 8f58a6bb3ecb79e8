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

impl Installed {
    /// Creates the folder with one copy, without debug information, from which the others are made.
    pub fn new() -> Self {
        let folder = run::temp_dir();
        let mut strip = process::command("objcopy");
        strip.arg("--strip-debug").arg(env!("CARGO_BIN_EXE_muster")).arg(folder.path().join("original"));
        let output = strip.finish();
        assert!(output.status.success(), "objcopy: {}", String::from_utf8_lossy(&output.stderr));
        Self { folder }
    }

    /// Installs a copy under this name and returns its path. An earlier one is replaced by a rename.
    pub fn install(&self, name: &str) -> PathBuf {
        let original = self.folder.path().join("original");
        self.replace(name, |new| assert!(fs::copy(original, new).is_ok(), "cannot copy the program"))
    }

    /// Replaces the copy of this name by a file with this content.
    pub fn install_content(&self, name: &str, content: &[u8]) -> PathBuf {
        self.replace(name, |new| fs::write(new, content).unwrap())
    }

    /// Replaces the copy of this name by the first half of the program, as a broken download would.
    pub fn install_truncated(&self, name: &str) -> PathBuf {
        let octets = fs::read(self.folder.path().join("original")).unwrap();
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
