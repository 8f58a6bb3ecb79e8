//! Bounded read of a file that may be of any size, a pipe, a dangling link, or deleted at any moment.
//!
//! Blocking: call it in `spawn_blocking`.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::fcntl::OFlag;

use super::{
    access,
    contents::{Exposure, FileText, ReadError},
};

/// Kind of a directory entry.
pub(super) enum Entry {
    /// No entry.
    Absent,
    /// A symbolic link without a target.
    Dangling,
    /// A file of any kind.
    Present {
        /// True if the path itself is a symbolic link.
        link: bool,
        /// Metadata of the file, links followed.
        metadata: Metadata,
    },
}

impl Entry {
    /// Inspects `path` without opening it.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let own = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::Absent),
            Err(error) => return Err(error),
        };
        if !own.is_symlink() {
            return Ok(Self::Present { link: false, metadata: own });
        }
        match path.metadata() {
            Ok(metadata) => Ok(Self::Present { link: true, metadata }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::Dangling),
            Err(error) => Err(error),
        }
    }
}

/// Reads the regular file at `path`, links followed, if it has at most `limit` octets.
///
/// Never waits for the writer of a pipe, and never reads more than `limit` + 1 octets.
pub fn read(path: &Path, limit: u64) -> FileText {
    match Entry::at(path)? {
        Entry::Absent => Err(ReadError::Absent),
        Entry::Dangling => Err(ReadError::Dangling),
        // Opening a device can have side effects, so inspect the file first.
        Entry::Present { metadata, .. } if !metadata.is_file() => Err(ReadError::NotAFile),
        Entry::Present { .. } => open(path)?.octets(limit),
    }
}

/// A file that another one includes.
pub struct Included {
    /// Its content.
    pub text: FileText,
    /// Metadata before it was read; `None` if it could not be opened.
    pub(super) metadata: Option<Metadata>,
    /// Permission that every user of the host has.
    pub(super) exposure: Option<Exposure>,
}

/// Reads the regular file at `path` below `folder`, if it has at most `limit` octets and its links may be followed.
pub fn read_included(folder: &Path, path: &Path, limit: u64) -> Included {
    let unread = |error| Included { text: Err(error), metadata: None, exposure: None };
    match Entry::at(&folder.join(path)) {
        Ok(Entry::Present { metadata, .. }) if !metadata.is_file() => return unread(ReadError::NotAFile),
        Ok(Entry::Present { .. }) => {}
        Ok(Entry::Dangling) => return unread(ReadError::Dangling),
        Ok(Entry::Absent) => return unread(ReadError::Absent),
        Err(error) => return unread(error.into()),
    }
    let opened = match open(&folder.join(path)) {
        Ok(opened) => opened,
        Err(error) => return unread(error.into()),
    };
    match access::admit_included(folder, path, &opened.metadata) {
        Ok(exposure) => {
            let metadata = Some(opened.metadata.clone());
            Included { text: opened.octets(limit), metadata, exposure }
        }
        Err(error) => unread(error),
    }
}

/// An open regular file with its metadata before the first read.
pub(super) struct Opened {
    file: File,
    /// A change during the read makes the metadata of the next scan differ from these.
    pub(super) metadata: Metadata,
}

/// Opens the regular file at `path`.
///
/// The file may have become a pipe since it was inspected: `O_NONBLOCK` opens a pipe without waiting, and the type is
/// checked again.
///
/// # Errors
/// [`ErrorKind::IsADirectory`] for anything but a regular file; errors of the system.
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
    /// Reads all octets if there are at most `limit`.
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

    /// The file may be replaced between the inspection by [`read`] and the opening.
    #[test]
    fn opening_a_pipe_does_not_wait_for_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert_eq!(open(&pipe).err().map(|error| error.kind()), Some(ErrorKind::IsADirectory));
    }

    /// The metadata of the file report a size of 0.
    #[test]
    fn file_larger_than_its_metadata_report_is_refused() {
        assert_eq!(read(Path::new("/proc/self/status"), 8), Err(ReadError::TooLarge(8)));
    }
}
