//! Reads one file that may be anything: of any size, a pipe, a link to nothing, gone in the next moment.
//!
//! Blocks: in a task it belongs into `spawn_blocking`.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::fcntl::OFlag;

use super::contents::{FileText, ReadError};

/// What stands at a path.
pub(super) enum Entry {
    /// Nothing.
    Absent,
    /// A link to nothing.
    Dangling,
    /// A file of whatever kind.
    There {
        /// Whether the path itself is a symbolic link.
        link: bool,
        /// The file's, links followed.
        metadata: Metadata,
    },
}

impl Entry {
    /// Looks at `path` without opening it.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let own = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::Absent),
            Err(error) => return Err(error),
        };
        if !own.is_symlink() {
            return Ok(Self::There { link: false, metadata: own });
        }
        match path.metadata() {
            Ok(metadata) => Ok(Self::There { link: true, metadata }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::Dangling),
            Err(error) => Err(error),
        }
    }
}

/// The octets of the regular file at `path`, links followed, if there are at most `limit`.
///
/// Never waits for a pipe's other end, and never reads more than `limit` octets and one.
pub fn read(path: &Path, limit: u64) -> FileText {
    match Entry::at(path)? {
        Entry::Absent => Err(io::Error::from(ErrorKind::NotFound).into()),
        Entry::Dangling => Err(ReadError::Dangling),
        // Opening a device can have effects, so it is looked at first.
        Entry::There { metadata, .. } if !metadata.is_file() => Err(ReadError::NotAFile),
        Entry::There { .. } => open(path)?.octets(limit),
    }
}

/// A regular file, open, and what was known of it before the first octet was read.
pub(super) struct Opened {
    file: File,
    /// A change while the file is read makes the next look see other metadata than these.
    pub(super) metadata: Metadata,
}

/// Opens the regular file at `path`; [`ErrorKind::IsADirectory`] stands for all that are not.
///
/// Between a look and the opening the file may have become a pipe: `O_NONBLOCK` opens that without waiting, and the
/// second look refuses it.
pub(super) fn open(path: &Path) -> io::Result<Opened> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(ErrorKind::IsADirectory.into());
    }
    Ok(Opened { file, metadata })
}

impl Opened {
    /// All octets, if there are at most `limit`.
    pub(super) fn octets(self, limit: u64) -> FileText {
        let size = self.metadata.len();
        if size > limit {
            return Err(ReadError::TooLarge(limit));
        }
        let mut octets = Vec::with_capacity(size as usize);
        self.file.take(limit.saturating_add(1)).read_to_end(&mut octets)?;
        if octets.len() as u64 > limit { Err(ReadError::TooLarge(limit)) } else { Ok(octets.into()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, os::unix::net::UnixListener};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("fits"), "12345678").unwrap();
        fs::write(at("large"), "123456789").unwrap();
        fs::create_dir(at("folder")).unwrap();
        mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        symlink("fits", at("link")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        symlink("pipe", at("link to a pipe")).unwrap();
        let cases: [(&str, Result<&[u8], ReadError>); 8] = [
            ("fits", Ok(b"12345678")),
            ("large", Err(ReadError::TooLarge(8))),
            ("folder", Err(ReadError::NotAFile)),
            ("pipe", Err(ReadError::NotAFile)),
            ("socket", Err(ReadError::NotAFile)),
            ("link", Ok(b"12345678")),
            ("dangling", Err(ReadError::Dangling)),
            ("link to a pipe", Err(ReadError::NotAFile)),
        ];
        for (name, expected) in cases {
            assert_eq!(read(&at(name), 8), expected.map(Into::into), "{name}");
        }
        assert!(read(&at("nothing"), 8).is_err());
        assert_eq!(read(Path::new("/dev/zero"), 8), Err(ReadError::NotAFile));
    }

    /// What [`read`]'s first look cannot exclude: the file becomes something else before it is opened.
    #[test]
    fn opening_a_pipe_does_not_wait_for_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert_eq!(open(&pipe).err().map(|error| error.kind()), Some(ErrorKind::IsADirectory));
    }

    /// Its size says 0.
    #[test]
    fn a_file_that_has_more_than_it_says_is_cut_off_at_the_limit() {
        assert_eq!(read(Path::new("/proc/self/status"), 8), Err(ReadError::TooLarge(8)));
    }
}
