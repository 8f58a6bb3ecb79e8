//! What a folder of files holds: the value that goes from the watcher to the parsers.
//!
//! Core: no I/O. A file that cannot be read is part of the contents, with the reason, so that the parsers can tell it
//! from one that was deleted: the former keeps its last good content in service, the latter is withdrawn.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use crate::diagnostic::Diagnostic;

/// A whole state of a folder. Clones share structure; a file that has not changed keeps its `Arc` from one state to
/// the next, so that a consumer finds what is new by comparing pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Which folder, as the configuration names it.
    pub folder: Arc<Path>,
    /// The files in it, by path and so in the order of their names.
    pub files: imbl::OrdMap<PathBuf, Arc<FileText>>,
    /// What is wrong with the folder itself.
    pub problems: Vec<FolderError>,
}

impl Contents {
    /// A folder of which nothing is known yet.
    pub fn empty(folder: &Path) -> Self {
        Self { folder: folder.into(), files: imbl::OrdMap::new(), problems: Vec::new() }
    }

    /// What is wrong with the folder itself, as it is printed.
    pub fn folder_problems(&self) -> impl Iterator<Item = Diagnostic> {
        self.problems.iter().map(|problem| problem.at(&self.folder))
    }
}

/// A file's octets, or why there are none.
pub type FileText = Result<Box<[u8]>, ReadError>;

/// A folder to read: where, which of its files, how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Where. The contents' paths begin with it as it is written here.
    pub path: PathBuf,
    /// The extensions of its files, without the dot.
    pub extensions: &'static [&'static str],
    /// Whether other files of the node belong into this folder, or into one below it: then no file is reported as ignored.
    pub shared: bool,
    /// Whether it is a problem that there is no such folder. One that vanishes always is, until its files are
    /// withdrawn.
    pub required: bool,
    /// How much is read.
    pub limits: Limits,
}

/// How much of a folder is read. What exceeds a limit is left out with a problem that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of one file.
    pub file: u64,
    /// Files; of those that are new, the first by name are read while there is room.
    pub files: usize,
    /// Octets of all files.
    pub total: u64,
}

/// The most ignored files of a folder that are listed by name; the rest is counted.
pub const MAX_IGNORED: usize = 20;
/// Files of one folder: a thousand services in a file each are usual, more than this is a folder given by mistake.
pub const MAX_FILES: usize = 20_000;
/// Octets of all files of one folder, which stay in memory for as long as they are in service.
pub const MAX_TOTAL: u64 = 256 << 20;

impl Limits {
    /// The usual limits, for files of at most `file` octets.
    pub const fn for_files_of(file: u64) -> Self {
        Self { file, files: MAX_FILES, total: MAX_TOTAL }
    }
}

impl Folder {
    /// Whether a file of this name is one of the folder's.
    ///
    /// Hidden files are not, nor what editors and package managers put beside a file while they replace it
    /// (`.web.yaml.swp`, `web.yaml~`, `#web.yaml#`, `4913`, `web.yaml.dpkg-new`): those have another extension, or
    /// begin with a dot or a `#`.
    pub fn wants(&self, name: &OsStr) -> bool {
        !is_hidden(name)
            && Path::new(name)
                .extension()
                .is_some_and(|extension| self.extensions.iter().any(|wanted| extension == *wanted))
    }

    /// Whether the author of a file of this name probably expects it to be read, and it is not: `web.json`,
    /// `db.example.org`, `web.YAML`, a sub-folder.
    pub fn ignores(&self, name: &OsStr) -> bool {
        !self.shared && !self.wants(name) && !is_left_behind(name)
    }

    /// The folder of a node that has the folder `other`, too.
    #[must_use]
    pub fn beside(self, other: &Self) -> Self {
        // `./s` is in `.`, as `s` is.
        let plain = |path: &Path| path.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>();
        Self { shared: self.shared || plain(&other.path).starts_with(plain(&self.path)), ..self }
    }
}

/// Begins with a dot, or with a `#` as Emacs' backups do.
fn is_hidden(name: &OsStr) -> bool {
    matches!(name.as_encoded_bytes().first(), None | Some(b'.' | b'#'))
}

/// What nobody expects to be read, and no warning is printed for: hidden files, READMEs, and what editors, package managers
/// and people leave beside a file (`web.yaml~`, `4913`, `web.yaml.dpkg-new`, `web.yaml.disabled`).
fn is_left_behind(name: &OsStr) -> bool {
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

/// Why a file's octets are not at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It has more than so many octets.
    TooLarge(u64),
    /// With it the folder's files would have more than so many octets.
    NoRoom(u64),
    /// A folder, a pipe, a socket or a device.
    NotAFile,
    /// A symbolic link to nothing.
    Dangling,
    /// The process may not read it.
    Denied,
    /// Something else, in the system's words.
    Io(String),
}

impl ReadError {
    /// As a problem of the file at `path`.
    pub fn at(&self, path: &Path) -> Diagnostic {
        let problem = Diagnostic::whole(path, self.to_string());
        match self.hint() {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TooLarge(_) => Some("split it"),
            Self::NoRoom(_) => Some("move what does not belong here to another folder"),
            Self::NotAFile => Some("give it another name, or move it out of this folder"),
            Self::Dangling => Some("mend or remove the link"),
            Self::Denied => Some("let the user that muster runs as read it"),
            Self::Io(_) => None,
        }
    }
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Io(error.to_string()),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(limit) => write!(f, "the file has more than {limit} octets and is not read"),
            Self::NoRoom(limit) => {
                write!(f, "the files of this folder have more than {limit} octets together, this one is not read")
            }
            Self::NotAFile => f.write_str("this is not a regular file"),
            Self::Dangling => f.write_str("the symbolic link leads nowhere"),
            Self::Denied => f.write_str("no permission to read the file"),
            Self::Io(error) => write!(f, "cannot read the file: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// What is wrong with a folder as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderError {
    /// There is no such folder, and nothing of it is in service.
    Missing,
    /// It has vanished, or came back without some of its files: these stay in service for so many seconds after it
    /// went.
    Vanished(u64),
    /// It is there and cannot be listed: its last contents stay.
    Unreadable(ReadError),
    /// More than so many files: what is new is not read.
    Crowded(usize),
    /// A file or sub-folder of this name is not read, though its author may expect it. Only these names are read.
    Ignored(OsString, &'static [&'static str]),
    /// So many more are not read.
    MoreIgnored(usize),
    /// The kernel does not tell of all changes, so they are looked for at intervals.
    Unwatched(WatchError),
}

/// Why the kernel does not tell of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchError {
    /// This user has no inotify watch left.
    Watches,
    /// This user has no inotify instance left, or the process no file descriptor.
    Instances,
    /// The process may not watch this folder, which leads to the files.
    Denied(PathBuf),
    /// Something else, in the system's words.
    Io(String),
}

impl FolderError {
    /// As a problem of the folder at `path`.
    pub fn at(&self, path: &Path) -> Diagnostic {
        let problem = match self {
            Self::Ignored(name, _) => Diagnostic::whole(&path.join(name), self.to_string()).as_warning(),
            Self::MoreIgnored(_) => Diagnostic::whole(path, self.to_string()).as_warning(),
            _ => Diagnostic::whole(path, self.to_string()),
        };
        match self.hint() {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Ignored(..) | Self::MoreIgnored(_) => None,
            Self::Missing => Some("create it"),
            Self::Vanished(_) => None,
            Self::Unreadable(ReadError::Denied) => Some("let the user that muster runs as read it"),
            Self::Unreadable(_) => None,
            Self::Crowded(_) => Some("put several services into one file, or move what does not belong here"),
            Self::Unwatched(WatchError::Watches) => Some("raise the sysctl fs.inotify.max_user_watches"),
            Self::Unwatched(WatchError::Instances) => {
                Some("raise the sysctl fs.inotify.max_user_instances or the limit of open files")
            }
            Self::Unwatched(WatchError::Denied(_)) => Some("let the user that muster runs as read that folder"),
            Self::Unwatched(WatchError::Io(_)) => None,
        }
    }
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such folder"),
            Self::Vanished(seconds) => {
                write!(f, "the folder has vanished: what it held and has not come back is withdrawn after {seconds} s")
            }
            Self::Unreadable(ReadError::NotAFile) => f.write_str("this is not a folder"),
            Self::Unreadable(ReadError::Denied) => {
                f.write_str("no permission to list the folder, its last contents stay in service")
            }
            Self::Unreadable(error) => write!(f, "cannot list the folder, its last contents stay in service: {error}"),
            Self::Crowded(limit) => {
                write!(f, "more than {limit} files: the new ones among them are not read")
            }
            Self::Ignored(_, extensions) => {
                write!(f, "ignored: the files that are read here end in .{}", extensions.join(" or ."))
            }
            Self::MoreIgnored(1) => f.write_str("1 more file is ignored"),
            Self::MoreIgnored(count) => write!(f, "{count} more files are ignored"),
            Self::Unwatched(why) => write!(f, "changes here may be noticed late: {why}"),
        }
    }
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watches => f.write_str("no inotify watch is left"),
            Self::Instances => f.write_str("no inotify instance is left"),
            Self::Denied(path) => write!(f, "no permission to watch {}", path.display()),
            Self::Io(error) => write!(f, "cannot watch it: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_editors_and_package_managers_leave_is_not_wanted() {
        let folder = Folder {
            path: "services.d".into(),
            extensions: &["yaml", "yml"],
            shared: false,
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
            assert_eq!(folder.wants(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn ignored_files_are_those_whose_author_may_expect_to_be_read() {
        let folder = crate::files::services::folder("services.d".into());
        let expected =
            ["web.json", "web.YAML", "web.yam", "db.example.org", "web", "sub", "web.conf", "example.org.zone"];
        let left = [
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
        for (names, ignored) in [(&expected[..], true), (&left, false)] {
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
            let folder = crate::files::services::folder(services.into());
            let folder = folder.beside(&crate::files::zones::folder(zones.into()));
            assert_eq!(folder.ignores(OsStr::new("web.json")), ignored, "{services} {zones}");
        }
    }

    #[test]
    fn problems_say_what_to_do() {
        let cases = [
            (
                ReadError::Denied.at(Path::new("d/web.yaml")),
                "d/web.yaml:1:1: no permission to read the file (let the user that muster runs as read it)",
            ),
            (
                ReadError::TooLarge(1024).at(Path::new("d/web.yaml")),
                "d/web.yaml:1:1: the file has more than 1024 octets and is not read (split it)",
            ),
            (
                FolderError::Ignored("web.json".into(), &["yaml", "yml"]).at(Path::new("d")),
                "d/web.json:1:1: warning: ignored: the files that are read here end in .yaml or .yml",
            ),
            (FolderError::MoreIgnored(2).at(Path::new("d")), "d:1:1: warning: 2 more files are ignored"),
            (FolderError::Missing.at(Path::new("d")), "d:1:1: there is no such folder (create it)"),
            (
                FolderError::Unwatched(WatchError::Watches).at(Path::new("d")),
                "d:1:1: changes here may be noticed late: no inotify watch is left \
                 (raise the sysctl fs.inotify.max_user_watches)",
            ),
        ];
        for (problem, expected) in cases {
            assert_eq!(problem.to_string(), expected);
        }
    }
}
