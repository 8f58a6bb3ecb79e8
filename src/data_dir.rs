//! Persistent state: small files in `data_dir`, each replaced atomically.
//!
//! No file is needed to answer queries. An agent whose files cannot be read starts without them. A file that cannot be
//! written is a [`Failure`], which the log and `muster status` show: the agent goes on, keeps the content in memory, and tries
//! again ([`DataDir::retry`]).

use std::{
    array,
    collections::BTreeMap,
    fs::{self, OpenOptions, Permissions},
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::fcntl::OFlag;
use tokio::{
    sync::watch,
    task::block_in_place,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    clock::unix_now,
    diagnostic::Diagnostic,
    model::{
        date::rfc3339,
        member::{INCARNATIONS, MAX_GENERATION},
    },
};

mod zone_copies;

/// Mode of the files: some hold keys.
const PRIVATE: u32 = 0o600;
/// Maximum size of a file in octets: twice the registrations of a full node.
const MAX_FILE: u64 = 128 << 20;
/// First and longest pause before a failed write is repeated; the pause doubles each time.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// A file of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stored {
    Serial,
    Generation,
    Peers,
    Keyring,
    Registered,
    State,
    DynamicZones,
}

impl Stored {
    const ALL: [Self; 7] =
        [Self::Serial, Self::Generation, Self::Peers, Self::Keyring, Self::Registered, Self::State, Self::DynamicZones];

    fn name(self) -> &'static str {
        match self {
            Self::Serial => "zone-serial",
            Self::Generation => "generation",
            Self::Peers => "peers",
            Self::Keyring => "keyring",
            Self::Registered => "registered.json",
            Self::State => "state",
            Self::DynamicZones => "dynamic-zones",
        }
    }

    /// Consequence of a failed write.
    fn consequence(self) -> &'static str {
        match self {
            Self::Serial => "the serial of the zone may go back at the next start",
            Self::Generation => "the next start needs a correct clock to be accepted by its peers",
            Self::Peers => "the next start finds its peers by gossip.join only",
            Self::Keyring => "the next start has the keys of gossip.key_file",
            Self::Registered => "clients cannot register services",
            Self::State => "the next start knows neither peers nor the results of checks",
            Self::DynamicZones => "the next start answers dynamic zones only once the store responds",
        }
    }
}

/// A file that cannot be written at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    path: PathBuf,
    error: String,
    /// Unix time of the first failure.
    since: Duration,
    consequence: &'static str,
}

impl Failure {
    /// Diagnostic for people.
    pub fn diagnostic(&self) -> Diagnostic {
        let message = format!("cannot be written since {}: {}", rfc3339(self.since), self.error);
        Diagnostic::whole(&self.path, message).with_hint(self.consequence)
    }
}

/// The data directory of a running agent. Clones share their state.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    failures: watch::Sender<BTreeMap<&'static str, Failure>>,
    /// Content of each file that could not be written and is tried again. The lock covers writes of the file.
    unsaved: [Mutex<Option<Vec<u8>>>; Stored::ALL.len()],
    /// The serial last stored, for a reload after the loss of the folder.
    serial: Mutex<Option<u32>>,
}

impl DataDir {
    /// Returns the data directory at this path, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        let unsaved = array::from_fn(|_| Mutex::default());
        let shared = Shared { failures: watch::Sender::default(), unsaved, serial: Mutex::default() };
        Self { path, shared: Arc::new(shared) }
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that cannot be written at present, by name.
    pub fn failures(&self) -> watch::Receiver<BTreeMap<&'static str, Failure>> {
        self.shared.failures.subscribe()
    }

    /// Returns the ceiling stored by [`store_serial`](Self::store_serial), by this process if the file is absent or unreadable;
    /// `None` if there is none.
    pub fn load_serial(&self) -> Option<u32> {
        self.load_number(Stored::Serial).or_else(|| *self.serial())
    }

    /// Stores an upper bound for the serial of the discovery zone.
    pub fn store_serial(&self, ceiling: u32) {
        *self.serial() = Some(ceiling);
        self.keep(Stored::Serial, format!("{ceiling}\n").into_bytes());
    }

    /// Returns a generation higher than `above` and than any before, a multiple of [`INCARNATIONS`]: nanoseconds since 1970
    /// or the successor of the stored one, whichever is higher. It grows even if the clock is set back or the folder is lost.
    pub fn next_generation(&self, above: u64) -> u64 {
        let is_valid = |generation: &u64| *generation < MAX_GENERATION;
        let now = Some(unix_now().as_nanos() as u64).filter(is_valid).unwrap_or(0);
        let stored = self.load_number(Stored::Generation).filter(is_valid).unwrap_or(0).max(above);
        let least = if stored == 0 { 0 } else { stored.saturating_add(INCARNATIONS) };
        let next = now.max(least).min(MAX_GENERATION) / INCARNATIONS * INCARNATIONS;
        self.keep(Stored::Generation, format!("{next}\n").into_bytes());
        next
    }

    /// Returns the addresses stored by [`store_peers`](Self::store_peers); empty if they are unreadable.
    pub fn load_peers(&self) -> Vec<SocketAddr> {
        let text = self.load_text(Stored::Peers).unwrap_or_default();
        text.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    /// Stores the gossip addresses of peers.
    pub fn store_peers(&self, peers: &[SocketAddr]) {
        let lines: String = peers.iter().map(|peer| format!("{peer}\n")).collect();
        self.keep(Stored::Peers, lines.into_bytes());
    }

    /// Returns the keyring stored by [`store_keyring`](Self::store_keyring).
    pub fn load_keyring(&self) -> Option<String> {
        self.load_text(Stored::Keyring)
    }

    /// Stores the gossip keys after a change at run time; only the owner can read the file.
    pub fn store_keyring(&self, keyring: String) {
        self.keep(Stored::Keyring, keyring.into_bytes());
    }

    /// Returns registrations and holds stored by [`store_registered`](Self::store_registered).
    pub fn load_registered(&self) -> Option<String> {
        self.load_text(Stored::Registered)
    }

    /// Stores registrations and holds of the HTTP API.
    ///
    /// # Errors
    /// The system's error. The caller decides what to do: the content is not tried again.
    pub fn store_registered(&self, registered: &str) -> io::Result<()> {
        self.store(Stored::Registered, registered.as_bytes(), &mut self.unsaved(Stored::Registered))
    }

    /// Copies registrations that are only partly readable, before they are overwritten.
    pub fn keep_damaged_registered(&self, problem: &str) {
        self.keep_damaged(Stored::Registered, problem);
    }

    /// Returns the state stored by [`store_state`](Self::store_state), and the Unix time until which it was the current one.
    pub fn load_state(&self) -> Option<(Vec<u8>, Duration)> {
        let octets = self.load(Stored::State)?;
        let modified = fs::metadata(self.file(Stored::State)).and_then(|known| known.modified()).ok()?;
        Some((octets, modified.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    /// Stores the state for the next start.
    ///
    /// # Errors
    /// The system's error. The caller stores a newer state later: this one is not tried again.
    pub fn store_state(&self, state: &[u8]) -> io::Result<()> {
        self.store(Stored::State, state, &mut self.unsaved(Stored::State))
    }

    /// Marks the stored state as the current one, without writing it again. Not durable: after a power failure, the results
    /// of checks do not count anyway.
    ///
    /// # Errors
    /// The system's error.
    pub fn touch_state(&self) -> io::Result<()> {
        fs::File::open(self.file(Stored::State))?.set_modified(SystemTime::now())
    }

    /// Copies a state that is damaged, before it is overwritten.
    pub fn keep_damaged_state(&self, problem: &str) {
        self.keep_damaged(Stored::State, problem);
    }

    /// Returns the copy of the dynamic zones.
    pub fn load_dynamic_zones(&self) -> Option<String> {
        self.load_text(Stored::DynamicZones)
    }

    /// Stores the copy of the dynamic zones, which the store has as well.
    ///
    /// # Errors
    /// The system's error. The caller stores a newer copy later: this one is not tried again.
    pub fn store_dynamic_zones(&self, copy: &str) -> io::Result<()> {
        self.store(Stored::DynamicZones, copy.as_bytes(), &mut self.unsaved(Stored::DynamicZones))
    }

    /// Copies a damaged copy of the dynamic zones, before it is overwritten.
    pub fn keep_damaged_dynamic_zones(&self, problem: &str) {
        self.keep_damaged(Stored::DynamicZones, problem);
    }

    /// Repeats failed writes until `shutdown`.
    pub async fn retry(self, shutdown: CancellationToken) {
        let mut failures = self.failures();
        let (mut pause, mut due) = (RETRY[0], None);
        loop {
            if !self.has_unsaved() {
                (pause, due) = (RETRY[0], None);
            } else if due.is_none() {
                due = Some(Instant::now() + pause);
            }
            tokio::select! {
                changed = failures.changed() => if changed.is_err() { return },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    block_in_place(|| self.store_unsaved());
                    (pause, due) = ((2 * pause).min(RETRY[1]), None);
                }
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn has_unsaved(&self) -> bool {
        Stored::ALL.into_iter().any(|file| self.unsaved(file).is_some())
    }

    fn store_unsaved(&self) {
        for file in Stored::ALL {
            let mut unsaved = self.unsaved(file);
            if let Some(content) = unsaved.take()
                && self.store(file, &content, &mut unsaved).is_err()
            {
                *unsaved = Some(content);
            }
        }
    }

    fn unsaved(&self, file: Stored) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.shared.unsaved[file as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serial(&self) -> MutexGuard<'_, Option<u32>> {
        self.shared.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, file: Stored) -> PathBuf {
        self.path.join(file.name())
    }

    /// Stores a file, or keeps its content to try again.
    fn keep(&self, file: Stored, content: Vec<u8>) {
        let mut unsaved = self.unsaved(file);
        if self.store(file, &content, &mut unsaved).is_err() {
            *unsaved = Some(content);
        }
    }

    /// Stores a file, and logs the first failure and its end. The content replaces an unsaved one.
    fn store(&self, file: Stored, content: &[u8], unsaved: &mut Option<Vec<u8>>) -> io::Result<()> {
        let path = self.file(file);
        let stored = replace(&path, content);
        let error = stored.as_ref().err().map(ToString::to_string);
        if error.is_none() {
            *unsaved = None;
        }
        let changed = |known: &mut BTreeMap<&'static str, Failure>| match (known.get_mut(file.name()), error) {
            (None, None) => false,
            (Some(_), None) => {
                info!(path = %path.display(), "written again");
                known.remove(file.name());
                true
            }
            (Some(failure), Some(error)) => std::mem::replace(&mut failure.error, error.clone()) != error,
            (None, Some(error)) => {
                let consequence = file.consequence();
                warn!(path = %path.display(), %error, %consequence, "cannot write; going on and trying again");
                known.insert(file.name(), Failure { path, error, since: unix_now(), consequence });
                true
            }
        };
        self.shared.failures.send_if_modified(changed);
        stored
    }

    /// Reads a file; `None` if it is absent or unreadable.
    fn load(&self, file: Stored) -> Option<Vec<u8>> {
        let path = self.file(file);
        match read(&path) {
            Ok(octets) => Some(octets),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot read; starting without it");
                None
            }
        }
    }

    fn load_text(&self, file: Stored) -> Option<String> {
        Some(String::from_utf8_lossy(&self.load(file)?).into_owned())
    }

    fn load_number<T: std::str::FromStr>(&self, file: Stored) -> Option<T> {
        let number = self.load_text(file)?.trim().parse().ok();
        if number.is_none() {
            warn!(path = %self.file(file).display(), "damaged: not a number; starting without it");
        }
        number
    }

    fn keep_damaged(&self, file: Stored, problem: &str) {
        let path = self.file(file);
        let copy = path.with_extension("damaged");
        match fs::copy(&path, &copy) {
            Ok(_) => warn!(path = %path.display(), copy = %copy.display(), %problem, "damaged; keeping a copy"),
            Err(error) => warn!(path = %path.display(), %error, %problem, "damaged; cannot keep a copy"),
        }
    }
}

/// Reads a regular file. Never waits for the writer of a pipe.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut octets = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut octets)?;
    Ok(octets)
}

/// Replaces a file atomically: after a crash it has the old or the new content, never a part.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    // The folder may have been removed at run time.
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension("partial");
    let written = write(&partial, content).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // On a full disk, a part takes the space of other files.
        let _ = fs::remove_file(&partial);
    }
    written?;
    // The rename is durable once the folder is synced.
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(PRIVATE).custom_flags(OFlag::O_NONBLOCK.bits());
    let mut file = options.open(path)?;
    // A leftover partial file may have another mode.
    file.set_permissions(Permissions::from_mode(PRIVATE))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(folder: &tempfile::TempDir) -> DataDir {
        DataDir::new(folder.path().to_owned())
    }

    #[test]
    fn generations_grow_even_if_the_clock_is_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let dir = dir(&folder);
        let first = dir.next_generation(0);
        let second = dir.next_generation(0);
        assert!(second >= first + INCARNATIONS && second.is_multiple_of(INCARNATIONS), "{first} {second}");
        // The clock was a century ahead and was set back.
        let ahead = first + 100 * 365 * 86_400 * 1_000_000_000;
        fs::write(dir.file(Stored::Generation), format!("{ahead}")).unwrap();
        assert!(dir.next_generation(0) > ahead);
        fs::write(dir.file(Stored::Generation), "\0junk").unwrap();
        assert!(dir.next_generation(0) >= second);
        assert!(dir.next_generation(2 * ahead) > 2 * ahead);
        assert!(dir.next_generation(0) > 2 * ahead);
        // Peers would refuse what is above.
        for generation in [MAX_GENERATION, u64::MAX] {
            fs::write(dir.file(Stored::Generation), format!("{generation}")).unwrap();
            assert!((second..ahead).contains(&dir.next_generation(0)));
        }
        assert_eq!(dir.next_generation(MAX_GENERATION - 1), MAX_GENERATION);
    }

    #[test]
    fn peers_round_trip_and_junk_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let dir = dir(&folder);
        assert_eq!(dir.load_peers(), []);
        let peers = ["10.0.0.7:7946".parse().unwrap(), "[2001:db8::1]:7946".parse().unwrap()];
        dir.store_peers(&peers);
        assert_eq!(dir.load_peers(), peers);
        fs::write(dir.file(Stored::Peers), "10.0.0.7\nx\n10.0.0.8:1\n").unwrap();
        assert_eq!(dir.load_peers(), ["10.0.0.8:1".parse().unwrap()]);
    }

    #[test]
    fn keyring_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let dir = dir(&folder);
        let partial = dir.file(Stored::Keyring).with_extension("partial");
        fs::write(&partial, "").unwrap();
        fs::set_permissions(&partial, Permissions::from_mode(0o644)).unwrap();
        dir.store_keyring("key\n".to_owned());
        assert_eq!(dir.load_keyring().as_deref(), Some("key\n"));
        let mode = fs::metadata(dir.file(Stored::Keyring)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn serial_round_trips_and_junk_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let first = dir(&folder);
        assert_eq!(first.load_serial(), None);
        first.store_serial(7);
        first.store_serial(8);
        assert_eq!(first.load_serial(), Some(8));
        assert_eq!(dir(&folder).load_serial(), Some(8));
        for junk in ["\0junk", "", "-1", "\n"] {
            fs::write(first.file(Stored::Serial), junk).unwrap();
            assert_eq!(dir(&folder).load_serial(), None, "{junk:?}");
            // A reload within the process.
            assert_eq!(first.load_serial(), Some(8), "{junk:?}");
        }
    }

    #[test]
    fn touched_state_was_current_until_then() {
        let folder = tempfile::tempdir().unwrap();
        let dir = dir(&folder);
        assert_eq!(dir.load_state(), None);
        assert!(dir.touch_state().is_err());
        dir.store_state(b"state").unwrap();
        let path = dir.file(Stored::State);
        fs::File::open(path).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        assert_eq!(dir.load_state(), Some((b"state".to_vec(), Duration::from_secs(1))));
        dir.touch_state().unwrap();
        assert!(dir.load_state().unwrap().1 > Duration::from_secs(1_700_000_000));
    }

    #[test]
    fn unreadable_files_are_absent() {
        let folder = tempfile::tempdir().unwrap();
        let dir = dir(&folder);
        for file in Stored::ALL {
            fs::create_dir(dir.file(file)).unwrap();
        }
        let loaded = (dir.load_serial(), dir.load_peers(), dir.load_keyring(), dir.load_registered(), dir.load_state());
        assert_eq!(loaded, (None, vec![], None, None, None));
        fs::remove_dir(dir.file(Stored::Keyring)).unwrap();
        nix::unistd::mkfifo(&dir.file(Stored::Keyring), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(dir.load_keyring(), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn failed_writes_are_repeated_and_reported() {
        let folder = tempfile::tempdir().unwrap();
        // The folder's path is that of a file.
        let path = folder.path().join("data");
        fs::write(&path, "").unwrap();
        let dir = DataDir::new(path.clone());
        let shutdown = CancellationToken::new();
        let retry = tokio::spawn(dir.clone().retry(shutdown.clone()));
        dir.store_serial(7);
        dir.store_serial(8);
        assert!(dir.store_registered("{}").is_err());
        assert!(dir.next_generation(0) > 0);
        let mut failures = dir.failures();
        let shown: Vec<String> = failures.borrow().values().map(|failure| failure.diagnostic().to_string()).collect();
        let names = ["data/generation", "data/registered.json", "data/zone-serial"];
        assert_eq!(shown.len(), names.len());
        for (shown, name) in shown.iter().zip(names) {
            assert!(shown.contains(name) && shown.contains("cannot be written since 20"), "{shown}");
        }
        fs::remove_file(&path).unwrap();
        // Registrations are not repeated here.
        let cleared = failures.wait_for(|now| now.keys().eq(["registered.json"].iter()));
        tokio::time::timeout(Duration::from_secs(30), cleared).await.unwrap().unwrap();
        assert_eq!(dir.load_serial(), Some(8), "the last content counts");
        dir.store_registered("{}").unwrap();
        assert!(dir.failures().borrow().is_empty());
        shutdown.cancel();
        retry.await.unwrap();
    }

    #[test]
    fn failed_write_leaves_the_former_content_and_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let dir = dir(&folder);
        fs::create_dir(dir.file(Stored::Serial)).unwrap();
        dir.store_serial(7);
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["zone-serial"]);
    }
}
