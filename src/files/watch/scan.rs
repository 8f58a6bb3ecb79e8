//! Folder scan: the files of a folder as of the last scan; reads those that changed since.
//!
//! Blocking. A file is read again if its metadata changed, if an event named it, or if it was modified so shortly before it
//! was read that another change might not show in its metadata ([`TICK`]). Unreadable files are retried in every scan. A
//! file keeps its `Arc` while its octets are the same. The octets of a zone file are followed by those of the files that it includes, so
//! that a change of an included file is a change of the zone file.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::missing_folder::Files;
use crate::files::{
    access,
    contents::{Exposure, FileKind, FileText, Folder, FolderError, MAX_IGNORED, ReadError},
    read::{self, Entry},
    zone_file,
};

/// Coarsest timestamp resolution of a file system: the metadata of a file that changed less than this ago are not trusted.
/// FAT has two seconds.
const TICK: Duration = Duration::from_secs(2);

/// The files of a folder as of the last scan.
pub(super) struct FolderScan {
    folder: Folder,
    entries: BTreeMap<OsString, EntryState>,
    files: Files,
    /// Total octets of all files.
    total: u64,
    crowded: bool,
    ignored: Ignored,
    /// True if every user of the host can add files to the folder.
    is_open: bool,
    /// Files that the last read found emptied, and whose former text is kept until the next read: programs empty a file
    /// before they write it.
    emptied: BTreeSet<OsString>,
}

/// Metadata of a file at its last read.
struct EntryState {
    /// Metadata that identify the content; `None`: read again.
    stamp: Option<Stamp>,
    link: bool,
    /// Permissions that every user of the host has, with the file in use.
    exposure: Option<Exposure>,
    /// Files that it includes.
    included: Vec<IncludedState>,
}

/// Metadata of an included file at its last read.
struct IncludedState {
    /// Path below the folder.
    path: PathBuf,
    stamp: Option<Stamp>,
    exposure: Option<Exposure>,
}

/// Metadata that differ after every change, unless the timestamps are too coarse.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files of a scan that need special treatment.
pub(super) struct ScanRequest<'a> {
    /// Files to read even if their metadata are unchanged.
    pub(super) named: &'a HashSet<OsString>,
    /// Files to leave unread.
    pub(super) held: &'a HashSet<OsString>,
    /// True if to read every file even if its metadata are unchanged.
    pub(super) reread: bool,
}

/// Ignored names: the first ones in sort order, and the number of others.
#[derive(Default)]
struct Ignored {
    names: BTreeSet<OsString>,
    more: usize,
}

impl Ignored {
    fn add(&mut self, name: OsString) {
        self.names.insert(name);
        if self.names.len() > MAX_IGNORED {
            self.names.pop_last();
            self.more += 1;
        }
    }
}

impl FolderScan {
    /// Creates a scan without files.
    pub(super) fn new(folder: Folder) -> Self {
        Self {
            folder,
            entries: BTreeMap::new(),
            files: Files::new(),
            total: 0,
            crowded: false,
            ignored: Ignored::default(),
            is_open: false,
            emptied: BTreeSet::new(),
        }
    }

    /// Names of files that have to be read again, since they were empty and may be about to be written.
    pub(super) fn emptied(&self) -> impl Iterator<Item = &OsString> {
        self.emptied.iter()
    }

    /// The scanned folder.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The files as of the last scan, without those that others include.
    pub(super) fn including(&self) -> Files {
        let entries = self.entries.iter().filter(|(_, entry)| !entry.included.is_empty());
        let paths: Vec<(&Path, Vec<PathBuf>)> = entries
            .map(|(name, entry)| (Path::new(name), entry.included.iter().map(|file| file.path.clone()).collect()))
            .collect();
        let mut files = self.files.clone();
        for path in zone_file::included_only(paths.iter().map(|(name, paths)| (*name, paths.as_slice()))) {
            files.remove(&self.folder.path.join(path));
        }
        files
    }

    /// Paths below the folder of the files that others include.
    pub(super) fn included(&self) -> impl Iterator<Item = &Path> {
        self.entries.values().flat_map(|entry| &entry.included).map(|file| file.path.as_path())
    }

    /// Reports whether there are more files than the limit.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// Files that are ignored although their authors may expect them to be read, as of the last scan.
    pub(super) fn ignored(&self) -> impl Iterator<Item = FolderError> {
        // A file, or a folder of files, that others include is not ignored.
        let is_included = |name: &OsString| self.included().any(|path| path.starts_with(name));
        let names = self.ignored.names.iter().filter(move |name| !is_included(name));
        let named = names.map(|name| FolderError::Ignored(name.clone(), self.folder.kind));
        named.chain((self.ignored.more > 0).then_some(FolderError::MoreIgnored(self.ignored.more)))
    }

    /// Files with too wide permissions, as of the last scan.
    pub(super) fn exposed(&self) -> impl Iterator<Item = FolderError> {
        let folder = self.is_open.then(|| FolderError::Exposed(OsString::new(), Exposure::OpenFolder));
        let own = self.entries.iter().filter_map(|(name, entry)| Some((name.as_os_str(), entry.exposure?)));
        let included = self.entries.values().flat_map(|entry| &entry.included);
        let included = included.filter_map(|file| Some((file.path.as_os_str(), file.exposure?)));
        let files: BTreeMap<_, _> = own.chain(included).collect();
        let more = files.len().saturating_sub(MAX_IGNORED);
        let named = files.into_iter().take(MAX_IGNORED);
        let named = named.map(|(name, exposure)| FolderError::Exposed(name.to_owned(), exposure));
        folder.into_iter().chain(named).chain((more > 0).then_some(FolderError::MoreExposed(more)))
    }

    /// Paths of the files that are symbolic links.
    pub(super) fn links(&self) -> impl Iterator<Item = PathBuf> {
        self.entries.iter().filter(|(_, entry)| entry.link).map(|(name, _)| self.folder.path.join(name))
    }

    /// Scans only the named files if possible, else all.
    pub(super) fn scan_named(&mut self, request: &ScanRequest<'_>) -> io::Result<()> {
        let new = request.named.iter().filter(|name| !self.entries.contains_key(*name)).count();
        if self.crowded || self.entries.len() + new > self.folder.limits.files {
            return self.scan_all(request);
        }
        for name in request.named {
            self.scan_file(name, true);
        }
        // A hard-linked file changed under all of its names, and the event has only one.
        let has_other_names = |name: &OsString| {
            let metadata = self.folder.path.join(name).metadata();
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.nlink() > 1)
        };
        if request.named.iter().any(has_other_names) { self.scan_all(request) } else { Ok(()) }
    }

    /// Lists the folder and scans every file. An error leaves the state unchanged.
    pub(super) fn scan_all(&mut self, request: &ScanRequest<'_>) -> io::Result<()> {
        let (names, ignored, crowded) = self.names()?;
        (self.ignored, self.crowded) = (ignored, crowded);
        let was_open = std::mem::replace(&mut self.is_open, access::is_open_folder(&self.folder.path));
        let reread = request.reread || was_open != self.is_open;
        let unlisted: Vec<OsString> = self.entries.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in unlisted {
            if !request.held.contains(&name) {
                // Some file systems omit a file that is being replaced by a rename: check it.
                self.scan_file(&name, false);
            }
        }
        for name in &names {
            if !request.held.contains(name) {
                self.scan_file(name, reread || request.named.contains(name));
            }
        }
        Ok(())
    }

    /// Lists the names to read, up to the limit; the ignored names; and whether the limit was exceeded. Known files stay;
    /// new names are added in sort order while there is room.
    fn names(&self) -> io::Result<(BTreeSet<OsString>, Ignored, bool)> {
        let (mut names, mut new, mut ignored) = (BTreeSet::new(), BTreeSet::new(), Ignored::default());
        let limit = self.folder.limits.files;
        let mut crowded = false;
        for entry in fs::read_dir(&self.folder.path)? {
            let name = entry?.file_name();
            if self.entries.contains_key(&name) {
                names.insert(name);
            } else if self.folder.reads(&name) {
                new.insert(name);
            } else if self.folder.ignores(&name) {
                ignored.add(name);
            }
            if new.len() > limit {
                new.pop_last();
                crowded = true;
            }
        }
        let room = limit.saturating_sub(names.len());
        crowded |= new.len() > room;
        names.extend(new.into_iter().take(room));
        Ok((names, ignored, crowded))
    }

    fn scan_file(&mut self, name: &OsStr, reread: bool) {
        let path = self.folder.path.join(name);
        let (link, metadata) = match Entry::at(&path) {
            Ok(Entry::Absent) => return self.forget(name),
            Ok(Entry::Dangling) => return self.keep_unread(name, true, ReadError::Dangling),
            Err(error) if error.kind() == ErrorKind::NotADirectory => return self.forget(name),
            Err(error) => {
                let link = self.entries.get(name).is_some_and(|entry| entry.link);
                return self.keep_unread(name, link, error.into());
            }
            Ok(Entry::Present { link, metadata }) => (link, metadata),
        };
        if !metadata.is_file() {
            return self.keep_unread(name, link, ReadError::NotAFile);
        }
        let folder = &self.folder.path;
        if !reread
            && let Some(entry) = self.entries.get_mut(name)
            && entry.stamp == Some(Stamp::of(&metadata))
            && entry
                .included
                .iter()
                .all(|file| file.stamp.is_some() && file.stamp == Stamp::at(&folder.join(&file.path)))
        {
            entry.link = link;
            return;
        }
        let before = SystemTime::now();
        let opened = match read::open(&path) {
            Ok(opened) => opened,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::NotFound if link => self.keep_unread(name, link, ReadError::Dangling),
                    ErrorKind::NotFound => self.forget(name),
                    ErrorKind::IsADirectory => self.keep_unread(name, link, ReadError::NotAFile),
                    _ => self.keep_unread(name, link, error.into()),
                };
            }
        };
        let exposure = match access::admit(&path, &opened.metadata, self.folder.access, self.is_open) {
            Ok(exposure) => exposure,
            Err(error) => return self.keep_unread(name, link, error),
        };
        let stamp = Stamp::of(&opened.metadata);
        let limits = self.folder.limits;
        let room = limits.total.saturating_sub(self.total - self.octets_of(name));
        let text = match opened.octets(limits.file.min(room)) {
            Err(ReadError::TooLarge(_)) if room < limits.file && stamp.size <= limits.file => {
                Err(ReadError::NoRoom(limits.total))
            }
            Err(ReadError::TooLarge(_)) => Err(ReadError::TooLarge(limits.file)),
            text => text,
        };
        let (text, included) = self.with_included(text, room, before);
        let is_empty = text.as_ref().is_ok_and(|octets| octets.is_empty());
        if is_empty && self.octets_of(name) > 0 && self.emptied.insert(name.to_owned()) {
            return;
        }
        self.emptied.remove(name);
        let settled = text.is_ok() && stamp.is_older_than(TICK, before);
        self.keep(name, EntryState { stamp: settled.then_some(stamp), link, exposure, included }, text);
    }

    /// Adds the included files to the text of a zone file. All of them have at most `room` octets.
    fn with_included(&self, text: FileText, room: u64, before: SystemTime) -> (FileText, Vec<IncludedState>) {
        let (FileKind::Zone, Ok(octets)) = (self.folder.kind, &text) else { return (text, Vec::new()) };
        let mut included = Vec::new();
        let collected = zone_file::collect(&self.folder.path, octets.clone(), |path| {
            let file = read::read_included(&self.folder.path, path, self.folder.limits.file);
            let stamp = file.metadata.as_ref().map(Stamp::of).filter(|stamp| stamp.is_older_than(TICK, before));
            included.push(IncludedState { path: path.to_owned(), stamp, exposure: file.exposure });
            file.text
        });
        let is_within = collected.text.len() as u64 <= room || included.is_empty();
        (if is_within { Ok(collected.text) } else { Err(ReadError::NoRoom(self.folder.limits.total)) }, included)
    }

    fn keep_unread(&mut self, name: &OsStr, link: bool, error: ReadError) {
        self.keep(name, EntryState { stamp: None, link, exposure: None, included: Vec::new() }, Err(error));
    }

    fn keep(&mut self, name: &OsStr, entry: EntryState, text: FileText) {
        self.entries.insert(name.to_owned(), entry);
        let path = self.folder.path.join(name);
        if self.files.get(&path).is_some_and(|old| **old == text) {
            return;
        }
        self.total = self.total - self.octets_of(name) + octets(&text);
        self.files.insert(path, Arc::new(text));
    }

    fn forget(&mut self, name: &OsStr) {
        self.emptied.remove(name);
        if self.entries.remove(name).is_some() {
            self.total -= self.octets_of(name);
            self.files.remove(&self.folder.path.join(name));
        }
    }

    fn octets_of(&self, name: &OsStr) -> u64 {
        self.files.get(&self.folder.path.join(name)).map_or(0, |text| octets(text))
    }
}

fn octets(text: &FileText) -> u64 {
    text.as_ref().map_or(0, |octets| octets.len() as u64)
}

impl Stamp {
    /// Returns the stamp of the file at `path` now.
    fn at(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Compares the time of the last status change, which programs cannot set. A time in the future is not older.
    fn is_older_than(&self, age: Duration, now: SystemTime) -> bool {
        let Ok(now) = now.duration_since(UNIX_EPOCH) else { return false };
        let changed = u64::try_from(self.changed.0).map_or(Duration::ZERO, Duration::from_secs);
        changed + age < now
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
    };

    use super::*;
    use crate::files::contents::{Access, Limits};

    fn scan(dir: &Path, limits: Limits) -> FolderScan {
        FolderScan::new(Folder {
            path: dir.to_owned(),
            kind: FileKind::Yaml,
            shared: false,
            access: Access::Content,
            required: true,
            limits,
        })
    }

    const LIMITS: Limits = Limits { file: 16, files: 10, total: 100 };

    fn set(names: &[&str]) -> HashSet<OsString> {
        names.iter().map(OsString::from).collect()
    }

    impl FolderScan {
        fn scan_all_but(&mut self, held: &[&str]) {
            let request = ScanRequest { named: &set(&[]), held: &set(held), reread: false };
            self.scan_all(&request).unwrap();
        }

        fn scan_only(&mut self, named: &[&str]) {
            let request = ScanRequest { named: &set(named), held: &set(&[]), reread: false };
            self.scan_named(&request).unwrap();
        }

        /// `a=text`, or `a=` and the error.
        fn shown(&self) -> Vec<String> {
            let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = |text: &FileText| match text {
                Ok(octets) => String::from_utf8_lossy(octets).into_owned(),
                Err(error) => format!("{error:?}"),
            };
            self.files.iter().map(|(path, file)| format!("{}={}", name(path), text(file))).collect()
        }
    }

    #[test]
    fn changed_files_are_read_and_others_keep_their_arc() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut scan = scan(dir.path(), LIMITS);
        fs::write(at("a.yaml"), "1").unwrap();
        fs::write(at("b.yaml"), "1").unwrap();
        fs::write(at("c.txt"), "1").unwrap();
        scan.scan_all_but(&[]);
        assert_eq!(scan.shown(), ["a=1", "b=1"]);

        let before = scan.files.clone();
        fs::write(at("b.yaml"), "2").unwrap();
        fs::write(at("d.yaml"), "2").unwrap();
        scan.scan_all_but(&[]);
        assert_eq!(scan.shown(), ["a=1", "b=2", "d=2"]);
        assert!(Arc::ptr_eq(&before[&at("a.yaml")], &scan.files[&at("a.yaml")]));

        let before = scan.files.clone();
        fs::write(at("a.yaml"), "1").unwrap();
        scan.scan_only(&["a.yaml"]);
        assert!(before.ptr_eq(&scan.files), "written again with the same content");

        fs::remove_file(at("a.yaml")).unwrap();
        scan.scan_only(&["a.yaml", "nothing.yaml"]);
        assert_eq!(scan.shown(), ["b=2", "d=2"]);
        fs::remove_file(at("b.yaml")).unwrap();
        scan.scan_all_but(&[]);
        assert_eq!(scan.shown(), ["d=2"]);
    }

    #[test]
    fn emptied_file_keeps_its_text_until_the_second_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let mut scan = scan(dir.path(), LIMITS);
        fs::write(&path, "1").unwrap();
        scan.scan_only(&["a.yaml"]);
        for (text, shown, again) in [("", "a=1", 1), ("", "a=", 0), ("2", "a=2", 0), ("", "a=2", 1), ("3", "a=3", 0)] {
            fs::write(&path, text).unwrap();
            scan.scan_only(&["a.yaml"]);
            assert_eq!(scan.shown(), [shown]);
            assert_eq!(scan.emptied().count(), again, "{shown}");
        }
    }

    #[test]
    fn held_file_is_unchanged_until_it_is_scanned() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut scan = scan(dir.path(), LIMITS);
        fs::write(at("a.yaml"), "1").unwrap();
        fs::write(at("b.yaml"), "1").unwrap();
        scan.scan_all_but(&[]);
        fs::write(at("a.yaml"), "2").unwrap();
        fs::remove_file(at("b.yaml")).unwrap();
        fs::write(at("c.yaml"), "").unwrap();
        scan.scan_all_but(&["a.yaml", "b.yaml", "c.yaml"]);
        assert_eq!(scan.shown(), ["a=1", "b=1"]);
        scan.scan_all_but(&[]);
        assert_eq!(scan.shown(), ["a=2", "c="]);
    }

    /// With coarse timestamps, two writes in quick succession can have the same metadata. The scan goes by the age of the
    /// timestamps, so the test needs no such file system.
    #[test]
    fn recent_metadata_are_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), "1").unwrap();
        let stamp = Stamp::of(&dir.path().join("a.yaml").metadata().unwrap());
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(stamp.changed.0 as u64 + seconds);
        for (age, trusted) in [(0, false), (1, false), (2, false), (3, true), (1000, true)] {
            assert_eq!(stamp.is_older_than(TICK, at(age)), trusted, "{age} s");
        }
        assert!(!stamp.is_older_than(TICK, at(0) - Duration::from_secs(10)), "from the future");

        let mut scan = scan(dir.path(), LIMITS);
        scan.scan_all_but(&[]);
        assert!(scan.entries[OsStr::new("a.yaml")].stamp.is_none());
    }

    #[test]
    fn unchanged_metadata_skip_the_read_unless_named_or_reread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "new").unwrap();
        let mut scan = scan(dir.path(), LIMITS);
        // As if the file had been read with other content and had kept its metadata.
        let stale = |scan: &mut FolderScan| {
            let stamp = Stamp::of(&path.metadata().unwrap());
            let entry = EntryState { stamp: Some(stamp), link: false, exposure: None, included: Vec::new() };
            scan.keep(OsStr::new("a.yaml"), entry, Ok(b"old".to_vec().into()));
        };
        stale(&mut scan);
        scan.scan_all_but(&[]);
        assert_eq!(scan.shown(), ["a=old"]);
        scan.scan_only(&["a.yaml"]);
        assert_eq!(scan.shown(), ["a=new"]);
        stale(&mut scan);
        scan.scan_all(&ScanRequest { named: &set(&["a.yaml"]), held: &set(&[]), reread: false }).unwrap();
        assert_eq!(scan.shown(), ["a=new"]);
        stale(&mut scan);
        scan.scan_all(&ScanRequest { named: &set(&[]), held: &set(&[]), reread: true }).unwrap();
        assert_eq!(scan.shown(), ["a=new"]);
    }

    #[test]
    fn files_beyond_the_limits_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut scan = scan(dir.path(), Limits { file: 4, files: 3, total: 7 });
        for (name, text) in [("a", "1234"), ("b", "12345"), ("c", "1234"), ("d", "1"), ("e", "1")] {
            fs::write(at(&format!("{name}.yaml")), text).unwrap();
        }
        scan.scan_all_but(&[]);
        assert_eq!(scan.shown(), ["a=1234", "b=TooLarge(4)", "c=NoRoom(7)"]);
        assert!(scan.is_crowded());

        fs::remove_file(at("b.yaml")).unwrap();
        fs::write(at("a.yaml"), "12").unwrap();
        scan.scan_only(&["a.yaml", "b.yaml"]);
        assert_eq!(scan.shown(), ["a=12", "c=1234", "d=1"], "a removed file makes room");

        fs::write(at("aa.yaml"), "").unwrap();
        scan.scan_only(&["aa.yaml"]);
        assert_eq!(scan.shown(), ["a=12", "c=1234", "d=1"], "a known file stays");

        fs::remove_file(at("aa.yaml")).unwrap();
        fs::remove_file(at("e.yaml")).unwrap();
        scan.scan_all_but(&[]);
        assert_eq!(scan.shown(), ["a=12", "c=1234", "d=1"]);
        assert!(!scan.is_crowded());
        assert_eq!(scan.total, 7);
    }

    #[test]
    fn dangling_link_is_not_a_deleted_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut scan = scan(dir.path(), LIMITS);
        fs::write(at("target"), "1").unwrap();
        fs::write(at("a.yaml"), "1").unwrap();
        symlink("target", at("b.yaml")).unwrap();
        scan.scan_all_but(&[]);
        assert_eq!(scan.shown(), ["a=1", "b=1"]);
        assert_eq!(scan.links().collect::<Vec<_>>(), [at("b.yaml")]);
        fs::remove_file(at("target")).unwrap();
        scan.scan_all_but(&[]);
        assert_eq!(scan.shown(), ["a=1", "b=Dangling"]);
    }

    #[test]
    fn hard_linked_file_is_read_under_all_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut scan = scan(dir.path(), LIMITS);
        fs::write(at("a.yaml"), "1").unwrap();
        fs::hard_link(at("a.yaml"), at("b.yaml")).unwrap();
        scan.scan_all_but(&[]);
        fs::write(at("a.yaml"), "2").unwrap();
        scan.scan_only(&["a.yaml"]);
        assert_eq!(scan.shown(), ["a=2", "b=2"]);
    }

    /// Root may read everything, so the test replaces the folder by a file.
    #[test]
    fn folder_that_cannot_be_listed_keeps_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("services.d");
        let mut scan = scan(&path, LIMITS);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.yaml"), "1").unwrap();
        scan.scan_all_but(&[]);
        fs::rename(&path, dir.path().join("old")).unwrap();
        let request = ScanRequest { named: &set(&[]), held: &set(&[]), reread: false };
        assert_eq!(scan.scan_all(&request).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(&path, "").unwrap();
        assert_eq!(scan.scan_all(&request).unwrap_err().kind(), ErrorKind::NotADirectory);
        assert_eq!(scan.shown(), ["a=1"]);
        fs::remove_file(&path).unwrap();
        fs::rename(dir.path().join("old"), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        scan.scan_all_but(&[]);
        assert_eq!(scan.shown(), ["a=1"]);
    }
}
