//! Content of a folder: the value that the watcher passes to the parsers.
//!
//! Core: no I/O. An unreadable file is part of the contents, with the reason. So parsers distinguish it from a deleted file:
//! the last valid content of an unreadable file stays in use, a deleted file is withdrawn.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use crate::{diagnostic::Diagnostic, model::zone::zone_in_file_name, printable};

/// Complete state of a folder.
///
/// Clones share structure. An unchanged file keeps its `Arc` from one state to the next, so a consumer finds changes by
/// comparing pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Path of the folder, as configured.
    pub folder: Arc<Path>,
    /// The files of the folder, sorted by path.
    pub files: imbl::OrdMap<PathBuf, Arc<FileText>>,
    /// Problems of the folder as a whole.
    pub problems: Vec<FolderError>,
    /// Number of requested rescans, so that each one has an outcome, even if it finds no change.
    pub rescans: u64,
}

impl Contents {
    /// Contents of a folder that has not been read yet.
    pub fn empty(folder: &Path) -> Self {
        Self { folder: folder.into(), files: imbl::OrdMap::new(), problems: Vec::new(), rescans: 0 }
    }

    /// The problems of the folder as diagnostics.
    pub fn folder_problems(&self) -> impl Iterator<Item = Diagnostic> {
        self.problems.iter().map(|problem| problem.at(&self.folder))
    }
}

/// Octets of a file, or the reason why it could not be read.
pub type FileText = Result<Arc<[u8]>, ReadError>;

/// A folder to read: its path, the files of interest and the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Path of the folder. The paths in [`Contents`] begin with it, unchanged.
    pub path: PathBuf,
    /// Kind of the files to read.
    pub kind: FileKind,
    /// True if the folder, or a subfolder, also holds other files of the node. If so, no file is reported as ignored.
    pub shared: bool,
    /// True if a missing folder is a problem. A folder that vanishes always is, until its files are withdrawn.
    pub required: bool,
    /// Requirements on the permissions of its files.
    pub access: Access,
    /// Limits on files and octets.
    pub limits: Limits,
}

/// Kind of files, by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// `*.yaml` and `*.yml`.
    Yaml,
    /// Zone files: `NAME.zone`, `NAME.db` and `db.NAME`, with the files that they include.
    Zone,
    /// YAML and zone files.
    Any,
    /// TSIG keys: `*.key` and `*.conf`.
    Key,
    /// Keys of signed zones: `*.key` and `*.private`.
    KeyPair,
}

impl FileKind {
    /// Reports whether a file of this name is of this kind.
    pub fn has(self, name: &OsStr) -> bool {
        let is_yaml = || Path::new(name).extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        match self {
            Self::Yaml => is_yaml(),
            Self::Zone => is_zone(name),
            Self::Any => is_yaml() || is_zone(name),
            Self::Key => Path::new(name).extension().is_some_and(|extension| extension == "key" || extension == "conf"),
            Self::KeyPair => {
                Path::new(name).extension().is_some_and(|extension| extension == "key" || extension == "private")
            }
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yaml => "that end in .yaml or .yml",
            Self::Zone => "named NAME.zone, NAME.db or db.NAME",
            Self::Key => "that end in .key or .conf",
            Self::KeyPair => "that end in .key or .private",
            Self::Any => "that end in .yaml or .yml, and zone files (NAME.zone, NAME.db, db.NAME),",
        })
    }
}

fn is_zone(name: &OsStr) -> bool {
    // A backup of a file with the prefix has another end: `db.example.org.bak`.
    name.to_str().is_some_and(|text| zone_in_file_name(text).is_some() && !(text.starts_with("db.") && is_backup(name)))
}

/// Requirements on the permissions of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A file that every user of the host can change is reported and read.
    Content,
    /// A file that every user of the host can change is not read: it could run commands.
    Trusted,
    /// As [`Trusted`](Self::Trusted), and a file that every user of the host can read is reported.
    Secret,
    /// As [`Secret`](Self::Secret), except that files with the extension `key` hold public keys.
    KeyPairs,
}

impl Access {
    /// Reports whether a file of this path is a secret.
    pub fn is_secret(self, path: &Path) -> bool {
        match self {
            Self::Content | Self::Trusted => false,
            Self::Secret => true,
            Self::KeyPairs => path.extension().is_none_or(|extension| extension != "key"),
        }
    }
}

/// Permission of every user of the host on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exposure {
    /// The file can be changed.
    #[error("every user of this host can change this file")]
    Writable,
    /// The file can be replaced: its folder can be changed.
    #[error("every user of this host can replace this file")]
    Replaceable,
    /// Files can be added to the folder.
    #[error("every user of this host can add files to this folder")]
    OpenFolder,
    /// The file is a secret that can be read.
    #[error("every user of this host can read this secret")]
    Readable,
}

/// Commands that let only the owner and the agent read a file.
pub const GRANT_GROUP: &str =
    "run `chgrp muster` and `chmod 640` on the file; without the package, name the group of the user that runs muster";

impl Exposure {
    /// Command that ends it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Writable => "run `chmod o-w` on the file",
            Self::Replaceable => "run `chmod o-w` on the folder of the file",
            Self::OpenFolder => "run `chmod o-w` on the folder",
            // Without the group, the agent may lose its access to the file.
            Self::Readable => GRANT_GROUP,
        }
    }

    /// Warning about the file or folder at `path`.
    pub fn at(self, path: &Path) -> Diagnostic {
        Diagnostic::whole(path, self.to_string()).with_hint(self.hint()).as_warning()
    }
}

/// Limits on the content of a folder. Content beyond a limit is not read and is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum octets of one file.
    pub file: u64,
    /// Maximum number of files. Known files stay; new files are added in the order of their names.
    pub files: usize,
    /// Maximum octets of all files.
    pub total: u64,
}

/// Maximum number of ignored files of a folder that are listed by name, and of files with too wide permissions; the rest is
/// counted.
pub const MAX_IGNORED: usize = 20;
/// Maximum number of files in a folder. A thousand files are usual; more than this means a misconfigured path.
pub const MAX_FILES: usize = 20_000;
/// Maximum octets of all files of one folder. They stay in memory while they are in use.
pub const MAX_TOTAL: u64 = 256 << 20;

impl Limits {
    /// Default limits for files of at most `file` octets.
    pub const fn for_files_of(file: u64) -> Self {
        Self { file, files: MAX_FILES, total: MAX_TOTAL }
    }
}

impl Folder {
    /// Reports whether a file of this name is read.
    ///
    /// Hidden files and temporary files of editors and package managers are not read (`.web.yaml.swp`, `web.yaml~`,
    /// `#web.yaml#`, `4913`, `web.yaml.dpkg-new`): they have another extension, or begin with a dot or a `#`.
    pub fn reads(&self, name: &OsStr) -> bool {
        !is_hidden(name) && self.kind.has(name)
    }

    /// Reports whether a file of this name is not read although its author may expect it to be: `web.json`,
    /// `web.YAML`, a subfolder.
    pub fn ignores(&self, name: &OsStr) -> bool {
        !self.shared && !self.reads(name) && !is_backup(name)
    }

    /// The same folder, marked as shared if `other` is in it.
    #[must_use]
    pub fn beside(self, other: &Self) -> Self {
        // `./s` is in `.`, and so is `s`.
        let plain = |path: &Path| path.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>();
        Self { shared: self.shared || plain(&other.path).starts_with(plain(&self.path)), ..self }
    }
}

/// Reports whether a name is empty or begins with a dot, or with the `#` of Emacs auto-save files.
fn is_hidden(name: &OsStr) -> bool {
    matches!(name.as_encoded_bytes().first(), None | Some(b'.' | b'#'))
}

/// Reports whether a name is ignored without a warning: hidden files, READMEs, and backups of editors, package managers and
/// people (`web.yaml~`, `4913`, `web.yaml.dpkg-new`, `web.yaml.disabled`).
fn is_backup(name: &OsStr) -> bool {
    const SUFFIXES: &[&str] = &[
        "bak", "backup", "disabled", "off", "old", "orig", "part", "rej", "rpmnew", "rpmorig", "rpmsave", "save",
        "swp", "tmp",
    ];
    let Some(name) = name.to_str().map(str::to_ascii_lowercase) else { return false };
    let (stem, suffix) = name.rsplit_once('.').unwrap_or((&name, ""));
    is_hidden(OsStr::new(&name))
        || name.ends_with('~')
        || name.bytes().all(|b| b.is_ascii_digit())
        || stem == "readme"
        || SUFFIXES.contains(&suffix)
        || ["dpkg-", "ucf-"].iter().any(|prefix| suffix.starts_with(prefix))
}

/// Reason why a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The file exceeds this number of octets.
    #[error("the file is larger than {0} octets and is not read")]
    TooLarge(u64),
    /// With this file, the files of the folder would exceed this number of octets.
    #[error("the files of this folder exceed {0} octets in total; this file is not read")]
    NoRoom(u64),
    /// A folder, a pipe, a socket or a device.
    #[error("this is not a regular file")]
    NotAFile,
    /// A symbolic link without a target.
    #[error("dangling symbolic link")]
    Dangling,
    /// There is no file.
    #[error("there is no such file")]
    Absent,
    /// The process has no permission.
    #[error("no permission to read the file")]
    Denied,
    /// Another file has this name since this one was opened. The next read finds it.
    #[error("the file was replaced while it was read")]
    Replaced,
    /// A link to a file that the owner of the link may not read.
    #[error("this link leads to a file that its owner may not read; it is not followed")]
    ForeignLink,
    /// A file that every user of the host can change, in a folder of trusted files.
    #[error("{0}; the file is not read")]
    Exposed(Exposure),
    /// Another error, as the system describes it.
    #[error("cannot read the file: {0}")]
    Io(String),
}

impl ReadError {
    /// Diagnostic of the file at `path`.
    pub fn at(&self, path: &Path) -> Diagnostic {
        let problem = Diagnostic::whole(path, self.to_string());
        match self.hint() {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }

    /// Suggested fix.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TooLarge(_) => Some("split it"),
            Self::NoRoom(_) => Some("move unrelated files to another folder"),
            Self::NotAFile => Some("rename it, or move it out of this folder"),
            Self::Dangling => Some("fix or remove the link"),
            Self::Denied => Some("grant the user that runs muster read permission"),
            Self::ForeignLink => Some("copy the file, or let root or the owner of the file make the link"),
            // The problem of the folder has the hint, once for all of its files.
            Self::Exposed(Exposure::OpenFolder) => None,
            Self::Exposed(exposure) => Some(exposure.hint()),
            Self::Absent | Self::Replaced | Self::Io(_) => None,
        }
    }
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Absent,
            std::io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Io(error.to_string()),
        }
    }
}

/// Problem of a folder as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FolderError {
    /// The folder does not exist, and none of its files is in use.
    #[error("there is no such folder")]
    Missing,
    /// The folder has vanished, or returned without some of its files. Missing files stay in use for a grace period of
    /// this number of seconds.
    #[error("the folder has vanished: files that do not return within {0} s are withdrawn")]
    Vanished(u64),
    /// The path is a file.
    #[error("this is not a folder")]
    NotAFolder,
    /// The process has no permission. The last contents stay in use.
    #[error("no permission to list the folder; its last contents stay in use")]
    Denied,
    /// The folder cannot be listed. Its last contents stay in use.
    #[error("cannot list the folder; its last contents stay in use: {0}")]
    Unreadable(String),
    /// More than this number of files. New files are not read.
    #[error("more than {0} files: new files are not read")]
    Crowded(usize),
    /// A file or subfolder of this name is not read, although its author may expect it. Only files of this kind are read.
    #[error("ignored: only files {1} are read")]
    Ignored(OsString, FileKind),
    /// Number of further files that are not read.
    #[error("{0} more file{s_are} ignored", s_are = if *.0 == 1 { " is" } else { "s are" })]
    MoreIgnored(usize),
    /// A file of this name, or the folder for an empty name, has too wide permissions.
    #[error("{1}")]
    Exposed(OsString, Exposure),
    /// Number of further files with too wide permissions.
    #[error("{0} more file{s_have} too wide permissions", s_have = if *.0 == 1 { " has" } else { "s have" })]
    MoreExposed(usize),
    /// The kernel does not report all changes; the folder is scanned at intervals.
    #[error("changes may be detected late: {0}")]
    Unwatched(WatchError),
}

/// Reason why the kernel does not report changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The inotify watch limit of this user.
    #[error("inotify watch limit reached")]
    Watches,
    /// The inotify instance limit of this user, or the open file limit of the process.
    #[error("inotify instance or open file limit reached")]
    Instances,
    /// The process has no permission to watch this folder on the path to the files.
    #[error("no permission to watch {}", printable::path(.0))]
    Denied(PathBuf),
    /// Another error, as the system describes it.
    #[error("inotify failed: {0}")]
    Io(String),
}

impl FolderError {
    /// Diagnostic of the folder at `path`.
    pub fn at(&self, path: &Path) -> Diagnostic {
        let problem = match self {
            Self::Ignored(name, _) => Diagnostic::whole(&path.join(name), self.to_string()).as_warning(),
            Self::MoreIgnored(_) | Self::MoreExposed(_) => Diagnostic::whole(path, self.to_string()).as_warning(),
            Self::Exposed(name, exposure) if name.is_empty() => return exposure.at(path),
            Self::Exposed(name, exposure) => return exposure.at(&path.join(name)),
            _ => Diagnostic::whole(path, self.to_string()),
        };
        match self.hint() {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("create it"),
            Self::Denied => Some("grant the user that runs muster read permission"),
            Self::Crowded(_) => Some("put several services into one file, or move unrelated files"),
            Self::Unwatched(WatchError::Watches) => Some("raise the sysctl fs.inotify.max_user_watches"),
            Self::Unwatched(WatchError::Instances) => {
                Some("raise the sysctl fs.inotify.max_user_instances or the limit of open files")
            }
            Self::Unwatched(WatchError::Denied(_)) => {
                Some("grant the user that runs muster read permission on that folder")
            }
            Self::Vanished(_)
            | Self::NotAFolder
            | Self::Unreadable(_)
            | Self::Ignored(..)
            | Self::MoreIgnored(_)
            | Self::Exposed(..)
            | Self::MoreExposed(_)
            | Self::Unwatched(WatchError::Io(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_of_editors_and_package_managers_are_not_read() {
        let folder = Folder {
            path: "services.d".into(),
            kind: FileKind::Yaml,
            shared: false,
            access: Access::Content,
            required: true,
            limits: Limits::for_files_of(1 << 20),
        };
        let cases = [
            ("web.yaml", true),
            ("web.yml", true),
            ("web.eu.yaml", true),
            ("web", false),
            ("web.yam", false),
            ("web.YAML", false),
            ("web.json", false),
            (".yaml", false),
            (".web.yaml", false),
            (".#web.yaml", false),
            (".web.yaml.swp", false),
            ("web.yaml~", false),
            ("#web.yaml#", false),
            ("#web.yaml", false),
            ("4913", false),
            ("web.yaml.tmp", false),
            ("web.yaml.dpkg-new", false),
            ("..data", false),
        ];
        for (name, expected) in cases {
            assert_eq!(folder.reads(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn zone_files_have_one_of_three_names() {
        let folder = crate::files::zones::folder("zones".into());
        let read = ["example.org.zone", "example.org.db", "db.example.org", "db.local", "db.example.db"];
        let ignored =
            ["example.org", "db.example.org.signed", "db.yaml", "example.org.zone.signed", "named.conf", "sub"];
        let silent =
            ["db.example.org~", "db.example.org.bak", "db.example.org.dpkg-new", ".db.example.org", "#db.example.org#"];
        for (names, expected) in [(&read[..], (true, false)), (&ignored, (false, true)), (&silent, (false, false))] {
            for name in names {
                let name = OsStr::new(name);
                assert_eq!((folder.reads(name), folder.ignores(name)), expected, "{name:?}");
            }
        }
    }

    #[test]
    fn unread_files_are_reported_unless_they_are_backups() {
        let folder = crate::files::services::folder("services.d".into(), false);
        let expected =
            ["web.json", "web.YAML", "web.yam", "db.example.org", "web", "sub", "web.conf", "example.org.zone"];
        let silent = [
            "web.yaml",
            "web.yml",
            ".hidden",
            "..data",
            "#web.yaml#",
            "web.yaml~",
            "4913",
            "README",
            "README.md",
            "readme.txt",
            "web.yaml.bak",
            "web.yaml.dpkg-dist",
            "web.yaml.ucf-old",
            "web.yaml.rpmnew",
            "web.yaml.disabled",
            "web.yaml.swp",
        ];
        for (names, ignored) in [(&expected[..], true), (&silent, false)] {
            for name in names {
                assert_eq!(folder.ignores(OsStr::new(name)), ignored, "{name}");
            }
        }
        let cases = [
            ("d/s", "d/zones", true),
            ("d/s", "d", true),
            ("d/s", "./d/s", false),
            ("d/s", "d/./s/zones", false),
            ("./", "zones", false),
            ("", "zones", false),
        ];
        for (services, zones, ignored) in cases {
            let folder = crate::files::services::folder(services.into(), false);
            let folder = folder.beside(&crate::files::zones::folder(zones.into()));
            assert_eq!(folder.ignores(OsStr::new("web.json")), ignored, "{services} {zones}");
        }
    }

    #[test]
    fn diagnostics_have_hints() {
        let cases = [
            (
                ReadError::Denied.at(Path::new("d/web.yaml")),
                "d/web.yaml:1:1: no permission to read the file (grant the user that runs muster read permission)",
            ),
            (
                ReadError::TooLarge(1024).at(Path::new("d/web.yaml")),
                "d/web.yaml:1:1: the file is larger than 1024 octets and is not read (split it)",
            ),
            (
                FolderError::Ignored("web.json".into(), FileKind::Yaml).at(Path::new("d")),
                "d/web.json:1:1: warning: ignored: only files that end in .yaml or .yml are read",
            ),
            (FolderError::MoreIgnored(2).at(Path::new("d")), "d:1:1: warning: 2 more files are ignored"),
            (FolderError::Missing.at(Path::new("d")), "d:1:1: there is no such folder (create it)"),
            (
                FolderError::Unwatched(WatchError::Watches).at(Path::new("d")),
                "d:1:1: changes may be detected late: inotify watch limit reached \
                 (raise the sysctl fs.inotify.max_user_watches)",
            ),
        ];
        for (problem, expected) in cases {
            assert_eq!(problem.to_string(), expected);
        }
    }
}
