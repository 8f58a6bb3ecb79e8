//! The files of one folder as they were when last looked at; reads again those that changed since.
//!
//! Blocks. A file is read again when its metadata differ, when an event named it, or when it changed so shortly
//! before it was read that another change would not show in its metadata ([`TICK`]). What could not be read is tried
//! again every time. A file keeps its `Arc` for as long as its octets are the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::grace_period::Files;
use crate::files::{
    contents::{FileText, Folder, FolderError, MAX_IGNORED, ReadError},
    read::{self, Entry},
};

/// How coarse the time stamps of a file system may be: a file that changed less than this ago is not believed to be
/// unchanged. FAT counts in two seconds.
const TICK: Duration = Duration::from_secs(2);

/// What is known of a folder's files.
pub(super) struct FolderScan {
    folder: Folder,
    known: BTreeMap<OsString, Known>,
    files: Files,
    /// Octets of all files.
    total: u64,
    crowded: bool,
    ignored: Ignored,
}

struct Known {
    /// Metadata that are as good as the content; `None`: read again.
    stamp: Option<Stamp>,
    link: bool,
}

/// Which content: it differs after a change, unless the time stamps are too coarse.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    number: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Which files to read although their metadata did not change, and which to leave.
pub(super) struct ScanRequest<'a> {
    pub(super) named: &'a HashSet<OsString>,
    pub(super) held: &'a HashSet<OsString>,
    pub(super) distrust: bool,
}

/// Names that are not read: the first in their order, and how many more.
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
    /// Nothing is known yet.
    pub(super) fn new(folder: Folder) -> Self {
        Self {
            folder,
            known: BTreeMap::new(),
            files: Files::new(),
            total: 0,
            crowded: false,
            ignored: Ignored::default(),
        }
    }

    /// The folder that is listed.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The files as they were seen last.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Whether there are more files than the limit.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// The files that are not read though their authors may expect it, as the folder was listed last.
    pub(super) fn ignored(&self) -> impl Iterator<Item = FolderError> {
        let names = self.ignored.names.iter();
        let named = names.map(|name| FolderError::Ignored(name.clone(), self.folder.extensions));
        named.chain((self.ignored.more > 0).then_some(FolderError::MoreIgnored(self.ignored.more)))
    }

    /// The paths of files that are symbolic links.
    pub(super) fn links(&self) -> impl Iterator<Item = PathBuf> {
        self.known.iter().filter(|(_, known)| known.link).map(|(name, _)| self.folder.path.join(name))
    }

    /// Looks at the named files only, if that can be done: else at all.
    pub(super) fn look_at_named(&mut self, orders: &ScanRequest<'_>) -> io::Result<()> {
        let new = orders.named.iter().filter(|name| !self.known.contains_key(*name)).count();
        if self.crowded || self.known.len() + new > self.folder.limits.files {
            return self.look_at_all(orders);
        }
        for name in orders.named {
            self.look(name, true);
        }
        // A file that has other names changed under all of them, and the event had only one.
        let has_other_names = |name: &OsString| {
            let metadata = self.folder.path.join(name).metadata();
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.nlink() > 1)
        };
        if orders.named.iter().any(has_other_names) { self.look_at_all(orders) } else { Ok(()) }
    }

    /// Lists the folder and looks at every file. On an error nothing has changed.
    pub(super) fn look_at_all(&mut self, orders: &ScanRequest<'_>) -> io::Result<()> {
        let (names, ignored, crowded) = self.names()?;
        (self.ignored, self.crowded) = (ignored, crowded);
        let unlisted: Vec<OsString> = self.known.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in unlisted {
            if !orders.held.contains(&name) {
                // Some file systems do not list a file that is being replaced by a rename: make sure.
                self.look(&name, false);
            }
        }
        for name in &names {
            if !orders.held.contains(name) {
                self.look(name, orders.distrust || orders.named.contains(name));
            }
        }
        Ok(())
    }

    /// The wanted names, at most as many as the limit; the ignored ones; and whether there are more wanted ones. What is in
    /// service stays: of new names, the first are taken as long as there is room.
    fn names(&self) -> io::Result<(BTreeSet<OsString>, Ignored, bool)> {
        let (mut names, mut new, mut ignored) = (BTreeSet::new(), BTreeSet::new(), Ignored::default());
        let limit = self.folder.limits.files;
        let mut crowded = false;
        for entry in fs::read_dir(&self.folder.path)? {
            let name = entry?.file_name();
            if self.known.contains_key(&name) {
                names.insert(name);
            } else if self.folder.wants(&name) {
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

    fn look(&mut self, name: &OsStr, read_anyway: bool) {
        let path = self.folder.path.join(name);
        let (link, metadata) = match Entry::at(&path) {
            Ok(Entry::Absent) => return self.forget(name),
            Ok(Entry::Dangling) => return self.keep(name, true, None, Err(ReadError::Dangling)),
            Err(error) if error.kind() == ErrorKind::NotADirectory => return self.forget(name),
            Err(error) => {
                let link = self.known.get(name).is_some_and(|known| known.link);
                return self.keep(name, link, None, Err(error.into()));
            }
            Ok(Entry::There { link, metadata }) => (link, metadata),
        };
        if !metadata.is_file() {
            return self.keep(name, link, None, Err(ReadError::NotAFile));
        }
        if !read_anyway
            && let Some(known) = self.known.get_mut(name)
            && known.stamp == Some(Stamp::of(&metadata))
        {
            known.link = link;
            return;
        }
        let before = SystemTime::now();
        let opened = match read::open(&path) {
            Ok(opened) => opened,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::NotFound if link => self.keep(name, link, None, Err(ReadError::Dangling)),
                    ErrorKind::NotFound => self.forget(name),
                    ErrorKind::IsADirectory => self.keep(name, link, None, Err(ReadError::NotAFile)),
                    _ => self.keep(name, link, None, Err(error.into())),
                };
            }
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
        let settled = text.is_ok() && stamp.is_older_than(TICK, before);
        self.keep(name, link, settled.then_some(stamp), text);
    }

    fn keep(&mut self, name: &OsStr, link: bool, stamp: Option<Stamp>, text: FileText) {
        self.known.insert(name.to_owned(), Known { stamp, link });
        let path = self.folder.path.join(name);
        if self.files.get(&path).is_some_and(|old| **old == text) {
            return;
        }
        self.total = self.total - self.octets_of(name) + octets(&text);
        self.files.insert(path, Arc::new(text));
    }

    fn forget(&mut self, name: &OsStr) {
        if self.known.remove(name).is_some() {
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
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            number: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// By the time of its last change, which no program can set at will. A time in the future is not older.
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
    use crate::files::contents::Limits;

    fn listing(dir: &Path, limits: Limits) -> FolderScan {
        FolderScan::new(Folder { path: dir.to_owned(), extensions: &["yaml"], shared: false, required: true, limits })
    }

    const LIMITS: Limits = Limits { file: 16, files: 10, total: 100 };

    fn set(names: &[&str]) -> HashSet<OsString> {
        names.iter().map(OsString::from).collect()
    }

    impl FolderScan {
        fn look_at_all_but(&mut self, held: &[&str]) {
            let orders = ScanRequest { named: &set(&[]), held: &set(held), distrust: false };
            self.look_at_all(&orders).unwrap();
        }

        fn look_only_at(&mut self, named: &[&str]) {
            let orders = ScanRequest { named: &set(named), held: &set(&[]), distrust: false };
            self.look_at_named(&orders).unwrap();
        }

        /// `a=text`, or the reason why there is none.
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
    fn what_changed_is_read_and_the_rest_keeps_its_place_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut listing = listing(dir.path(), LIMITS);
        fs::write(at("a.yaml"), "1").unwrap();
        fs::write(at("b.yaml"), "1").unwrap();
        fs::write(at("c.txt"), "1").unwrap();
        listing.look_at_all_but(&[]);
        assert_eq!(listing.shown(), ["a=1", "b=1"]);

        let before = listing.files().clone();
        fs::write(at("b.yaml"), "2").unwrap();
        fs::write(at("d.yaml"), "2").unwrap();
        listing.look_at_all_but(&[]);
        assert_eq!(listing.shown(), ["a=1", "b=2", "d=2"]);
        assert!(Arc::ptr_eq(&before[&at("a.yaml")], &listing.files()[&at("a.yaml")]));

        let before = listing.files().clone();
        fs::write(at("a.yaml"), "1").unwrap();
        listing.look_only_at(&["a.yaml"]);
        assert!(before.ptr_eq(listing.files()), "written again with the same content");

        fs::remove_file(at("a.yaml")).unwrap();
        listing.look_only_at(&["a.yaml", "nothing.yaml"]);
        assert_eq!(listing.shown(), ["b=2", "d=2"]);
        fs::remove_file(at("b.yaml")).unwrap();
        listing.look_at_all_but(&[]);
        assert_eq!(listing.shown(), ["d=2"]);
    }

    #[test]
    fn a_held_file_stays_as_it_was_until_it_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut listing = listing(dir.path(), LIMITS);
        fs::write(at("a.yaml"), "1").unwrap();
        fs::write(at("b.yaml"), "1").unwrap();
        listing.look_at_all_but(&[]);
        fs::write(at("a.yaml"), "").unwrap();
        fs::remove_file(at("b.yaml")).unwrap();
        fs::write(at("c.yaml"), "").unwrap();
        listing.look_at_all_but(&["a.yaml", "b.yaml", "c.yaml"]);
        assert_eq!(listing.shown(), ["a=1", "b=1"]);
        listing.look_at_all_but(&[]);
        assert_eq!(listing.shown(), ["a=", "c="]);
    }

    /// Of the same size, and at once: the metadata can be the same on a file system with coarse time stamps. Their
    /// age is what the listing goes by, so no such file system is needed here.
    #[test]
    fn metadata_are_trusted_only_when_they_are_old_enough() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), "1").unwrap();
        let stamp = Stamp::of(&dir.path().join("a.yaml").metadata().unwrap());
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(stamp.changed.0 as u64 + seconds);
        for (age, trusted) in [(0, false), (1, false), (2, false), (3, true), (1000, true)] {
            assert_eq!(stamp.is_older_than(TICK, at(age)), trusted, "{age} s");
        }
        assert!(!stamp.is_older_than(TICK, at(0) - Duration::from_secs(10)), "from the future");

        let mut listing = listing(dir.path(), LIMITS);
        listing.look_at_all_but(&[]);
        assert!(listing.known[OsStr::new("a.yaml")].stamp.is_none());
    }

    #[test]
    fn trusted_metadata_save_the_reading_unless_an_event_or_the_user_asks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "new").unwrap();
        let mut listing = listing(dir.path(), LIMITS);
        // As if the file had been read with other content and had kept its metadata.
        let stale = |listing: &mut FolderScan| {
            let stamp = Stamp::of(&path.metadata().unwrap());
            listing.keep(OsStr::new("a.yaml"), false, Some(stamp), Ok(b"old".to_vec().into()));
        };
        stale(&mut listing);
        listing.look_at_all_but(&[]);
        assert_eq!(listing.shown(), ["a=old"]);
        listing.look_only_at(&["a.yaml"]);
        assert_eq!(listing.shown(), ["a=new"]);
        stale(&mut listing);
        listing.look_at_all(&ScanRequest { named: &set(&["a.yaml"]), held: &set(&[]), distrust: false }).unwrap();
        assert_eq!(listing.shown(), ["a=new"]);
        stale(&mut listing);
        listing.look_at_all(&ScanRequest { named: &set(&[]), held: &set(&[]), distrust: true }).unwrap();
        assert_eq!(listing.shown(), ["a=new"]);
    }

    #[test]
    fn limits_leave_out_what_exceeds_them_and_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut listing = listing(dir.path(), Limits { file: 4, files: 3, total: 7 });
        for (name, text) in [("a", "1234"), ("b", "12345"), ("c", "1234"), ("d", "1"), ("e", "1")] {
            fs::write(at(&format!("{name}.yaml")), text).unwrap();
        }
        listing.look_at_all_but(&[]);
        assert_eq!(listing.shown(), ["a=1234", "b=TooLarge(4)", "c=NoRoom(7)"]);
        assert!(listing.is_crowded());

        fs::remove_file(at("b.yaml")).unwrap();
        fs::write(at("a.yaml"), "12").unwrap();
        listing.look_only_at(&["a.yaml", "b.yaml"]);
        assert_eq!(listing.shown(), ["a=12", "c=1234", "d=1"], "who left makes room");

        fs::write(at("aa.yaml"), "").unwrap();
        listing.look_only_at(&["aa.yaml"]);
        assert_eq!(listing.shown(), ["a=12", "c=1234", "d=1"], "who is in service stays");

        fs::remove_file(at("aa.yaml")).unwrap();
        fs::remove_file(at("e.yaml")).unwrap();
        listing.look_at_all_but(&[]);
        assert_eq!(listing.shown(), ["a=12", "c=1234", "d=1"]);
        assert!(!listing.is_crowded());
        assert_eq!(listing.total, 7);
    }

    #[test]
    fn links_are_known_as_such_and_a_link_to_nothing_is_not_a_deleted_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut listing = listing(dir.path(), LIMITS);
        fs::write(at("target"), "1").unwrap();
        fs::write(at("a.yaml"), "1").unwrap();
        symlink("target", at("b.yaml")).unwrap();
        listing.look_at_all_but(&[]);
        assert_eq!(listing.shown(), ["a=1", "b=1"]);
        assert_eq!(listing.links().collect::<Vec<_>>(), [at("b.yaml")]);
        fs::remove_file(at("target")).unwrap();
        listing.look_at_all_but(&[]);
        assert_eq!(listing.shown(), ["a=1", "b=Dangling"]);
    }

    #[test]
    fn a_file_that_was_written_under_one_name_is_read_under_all() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut listing = listing(dir.path(), LIMITS);
        fs::write(at("a.yaml"), "1").unwrap();
        fs::hard_link(at("a.yaml"), at("b.yaml")).unwrap();
        listing.look_at_all_but(&[]);
        fs::write(at("a.yaml"), "2").unwrap();
        listing.look_only_at(&["a.yaml"]);
        assert_eq!(listing.shown(), ["a=2", "b=2"]);
    }

    /// Root may read everything, so it tries as nobody does: through a folder in a file's place.
    #[test]
    fn a_folder_that_cannot_be_listed_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("services.d");
        let mut listing = listing(&path, LIMITS);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.yaml"), "1").unwrap();
        listing.look_at_all_but(&[]);
        fs::rename(&path, dir.path().join("old")).unwrap();
        let orders = ScanRequest { named: &set(&[]), held: &set(&[]), distrust: false };
        assert_eq!(listing.look_at_all(&orders).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(&path, "").unwrap();
        assert_eq!(listing.look_at_all(&orders).unwrap_err().kind(), ErrorKind::NotADirectory);
        assert_eq!(listing.shown(), ["a=1"]);
        fs::remove_file(&path).unwrap();
        fs::rename(dir.path().join("old"), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        listing.look_at_all_but(&[]);
        assert_eq!(listing.shown(), ["a=1"]);
    }
}
