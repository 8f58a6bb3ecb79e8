//! Folder watcher: publishes the complete [`Contents`] of a folder soon after each change.
//!
//! Three mechanisms ensure that no change is lost:
//!
//! - inotify events (through `notify`) name the files to read. The content is always read after the event.
//! - A full scan follows when events may be missing: the queue overflowed, a symlink or folder on the path changed, or the
//!   user requested a reload.
//! - A periodic scan finds changes without events: those on a file server, or a mount over the folder.
//!
//! ```text
//! kernel ─ events ─► notify's thread ─ marks ─► Pending ─ due ─► task ─ Work ─► Scanner (blocking) ─ Contents ─► watch
//! ```
//!
//! - [`pending`]: changed files and their debounce. Pure.
//! - [`symlinks`]: the folders to watch, through all symbolic links.
//! - [`scan`]: reads changed files.
//! - [`missing_folder`]: the files in use while the folder is missing. Pure.

mod missing_folder;
mod pending;
mod scan;
mod symlinks;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use notify::{
    Event, EventHandler, EventKind, INotifyWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, spawn_blocking},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use self::{
    missing_folder::{GracePeriod, Seen},
    pending::{Pace, Pending, Sign, Work},
    scan::{FolderScan, ScanRequest},
    symlinks::SymlinkChain,
};
use super::contents::{Contents, Folder, FolderError, WatchError};

/// Debounce: a closed file is read this long after its last event. Longer than editors pause between the writes of one
/// save, and a small part of the 200 ms in which an edit must take effect.
const SETTLE: Duration = Duration::from_millis(25);
/// Maximum debounce: a file that keeps changing is read this long after its first event.
const LONGEST: Duration = Duration::from_millis(100);
/// Interval of full scans. A scan of a thousand files takes some milliseconds.
const SCAN: Duration = Duration::from_secs(5);
/// Interval of full scans without inotify.
const POLL: Duration = Duration::from_secs(1);
/// Maximum consecutive scans because the path to the files changed during a scan. The next interval follows.
const ROUNDS: usize = 5;

/// Watches `folder` until `shutdown` and publishes every new state. The first state is complete on return.
///
/// Each new value of `rescan` makes the watcher read every file, even if its metadata are unchanged. A panic in the blocking
/// part is resumed in the task.
pub async fn spawn(
    folder: Folder,
    rescan: watch::Receiver<()>,
    shutdown: CancellationToken,
) -> (watch::Receiver<Contents>, JoinHandle<()>) {
    let (_, contents, task) = start(folder, Timing::default(), rescan, shutdown).await;
    (contents, task)
}

/// All durations, so that tests can disable mechanisms one by one.
#[derive(Clone, Copy, Debug)]
struct Timing {
    pace: Pace,
    scan: Duration,
    poll: Duration,
    grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { pace: Pace { settle: SETTLE, longest: LONGEST }, scan: SCAN, poll: POLL, grace: missing_folder::GRACE }
    }
}

async fn start(
    folder: Folder,
    timing: Timing,
    rescan: watch::Receiver<()>,
    shutdown: CancellationToken,
) -> (Arc<Marks>, watch::Receiver<Contents>, JoinHandle<()>) {
    let marks = Arc::new(Marks::new(timing.pace, folder.limits.files));
    let nothing = Contents::empty(&folder.path);
    let scanner = Scanner::new(folder, timing, marks.clone());
    match scan_blocking(scanner, Work { scan: true, ..Work::default() }, &shutdown).await {
        Some((scanner, contents)) => {
            let (sender, receiver) = watch::channel(contents);
            (marks, receiver, tokio::spawn(run(scanner, timing, sender, rescan, shutdown)))
        }
        None => (marks, watch::channel(nothing).1, tokio::spawn(async {})),
    }
}

async fn run(
    mut scanner: Scanner,
    timing: Timing,
    sender: watch::Sender<Contents>,
    mut rescan: watch::Receiver<()>,
    shutdown: CancellationToken,
) {
    let mut can_rescan = true;
    let mut rescans = 0;
    let mut scanned = Instant::now();
    let mut due: Option<Instant> = None;
    loop {
        let interval = scanned + scanner.interval();
        let scan = scanner.grace.until().filter(|until| *until > scanned).map_or(interval, |until| until.min(interval));
        let wake = due.map_or(scan, |due| due.min(scan));
        let requested = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            changed = rescan.changed(), if can_rescan => {
                can_rescan = changed.is_ok();
                can_rescan
            }
            () = scanner.marks.first.notified(), if due.is_none() => {
                due = Some(Instant::now() + timing.pace.settle);
                continue;
            }
            () = sleep_until(wake.into()) => false,
        };
        let now = Instant::now();
        // A requested read does not wait for files to settle.
        let due_by = if requested { now + timing.pace.longest } else { now };
        let (mut work, next) = scanner.marks.lock().take(due_by);
        rescans += u64::from(requested);
        work.reread |= requested;
        work.rearm |= requested;
        work.scan |= requested || now >= scan;
        due = next;
        if work.is_empty() {
            continue;
        }
        if work.scan {
            scanned = now;
        }
        let Some((returned, contents)) = scan_blocking(scanner, work, &shutdown).await else { return };
        scanner = returned;
        let contents = Contents { rescans, ..contents };
        sender.send_if_modified(|published| {
            let differs = *published != contents;
            if differs {
                *published = contents;
            }
            differs
        });
        // At most one scan per debounce interval, however many files changed.
        due = due.map(|due| due.max(now + timing.pace.settle));
    }
}

/// Runs the work on a blocking thread. Returns `None` on shutdown, which does not wait for a slow file server.
async fn scan_blocking(mut scanner: Scanner, work: Work, shutdown: &CancellationToken) -> Option<(Scanner, Contents)> {
    let task = spawn_blocking(move || {
        let contents = scanner.apply(work);
        (scanner, contents)
    });
    tokio::select! {
        () = shutdown.cancelled() => None,
        done = task => match done {
            Ok(done) => Some(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => None,
            },
        },
    }
}

/// Blocking part of the watcher: scans the folder and sets inotify watches.
struct Scanner {
    path: PathBuf,
    scan: FolderScan,
    grace: GracePeriod,
    timing: Timing,
    marks: Arc<Marks>,
    chain: SymlinkChain,
    watcher: Option<INotifyWatcher>,
    unwatched: Option<WatchError>,
}

impl Scanner {
    fn new(folder: Folder, timing: Timing, marks: Arc<Marks>) -> Self {
        Self {
            // Without a working directory a relative path stays relative.
            path: std::path::absolute(&folder.path).unwrap_or_else(|_| folder.path.clone()),
            scan: FolderScan::new(folder),
            grace: GracePeriod::new(timing.grace),
            timing,
            marks,
            chain: SymlinkChain::default(),
            watcher: None,
            unwatched: None,
        }
    }

    /// Interval until the next scan.
    fn interval(&self) -> Duration {
        if self.unwatched.is_some() { self.timing.poll } else { self.timing.scan }
    }

    fn apply(&mut self, mut work: Work) -> Contents {
        work.rearm |= self.watcher.is_none() || (work.scan && self.unwatched.is_some());
        let mut outcome = Ok(());
        for _ in 0..ROUNDS {
            // Watch first, then read: a change in between causes an event.
            if work.rearm {
                self.arm();
            }
            let request = ScanRequest { named: &work.named, held: &work.held, reread: work.reread };
            outcome = if work.scan || work.rearm || self.chain.folder.is_none() {
                self.scan.scan_all(&request)
            } else {
                self.scan.scan_named(&request)
            };
            // Read first, then resolve the path again: it may have changed, or new links may have appeared.
            if self.walk() == self.chain {
                break;
            }
            work.rearm = true;
        }
        for name in self.scan.emptied() {
            self.marks.add(|pending, now| pending.file(name, Sign::Written, now));
        }
        self.contents(outcome)
    }

    fn walk(&self) -> SymlinkChain {
        let links = self.scan.links().map(|link| self.path.join(link.file_name().unwrap_or_default()));
        // A change in the folder of an included file is found as that of a link's target.
        let included = self.scan.included().map(|path| self.path.join(path));
        SymlinkChain::walk(&self.path, links.chain(included))
    }

    /// Watches all folders of the symlink chain with a new watcher.
    ///
    /// The old watcher is dropped, not changed: `notify` keeps watches by path and removes one when it reads the deletion
    /// of the path. By then this path may be a new folder.
    fn arm(&mut self) {
        self.chain = self.walk();
        let listener = Listener {
            marks: self.marks.clone(),
            folder: self.chain.folder.as_ref().map(|(path, _)| path.clone()),
            watched: self.scan.folder().clone(),
            steps: self.chain.steps.clone(),
        };
        self.unwatched = None;
        let mut watcher = match INotifyWatcher::new(listener, notify::Config::default()) {
            Ok(watcher) => watcher,
            Err(error) => {
                self.watcher = None;
                self.unwatched = Some(reason(&error));
                return;
            }
        };
        // The folder itself comes last: of two paths to one folder, `notify` keeps the last one.
        for folder in self.chain.others.keys().chain(self.chain.folder.iter().map(|(path, _)| path)) {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                // The folder has just vanished: the check after the read finds the changed chain.
                Err(notify::Error { kind: notify::ErrorKind::PathNotFound, .. }) | Ok(()) => {}
                Err(error) => self.unwatched = Some(reason(&error)),
            }
        }
        self.watcher = Some(watcher);
    }

    fn contents(&mut self, outcome: std::io::Result<()>) -> Contents {
        let folder = self.scan.folder();
        let mut problems = Vec::new();
        let seen = match outcome {
            Ok(()) => Seen::Files(self.scan.including(), self.chain.folder.as_ref().map(|(_, identity)| *identity)),
            Err(error) => match error.kind() {
                ErrorKind::NotFound => Seen::Missing,
                ErrorKind::NotADirectory => {
                    problems.push(FolderError::NotAFolder);
                    Seen::Missing
                }
                kind => {
                    problems.push(match kind {
                        ErrorKind::PermissionDenied => FolderError::Denied,
                        _ => FolderError::Unreadable(error.to_string()),
                    });
                    Seen::Unreadable
                }
            },
        };
        let missing = matches!(seen, Seen::Missing);
        let files = self.grace.update(seen, Instant::now()).clone();
        if self.grace.until().is_some() {
            problems.push(FolderError::Vanished(self.grace.length().as_secs()));
        } else if missing && problems.is_empty() && folder.required {
            problems.push(FolderError::Missing);
        }
        if !missing && self.scan.is_crowded() {
            problems.push(FolderError::Crowded(folder.limits.files));
        }
        if !missing {
            problems.extend(self.scan.ignored());
            problems.extend(self.scan.exposed());
        }
        problems.extend(self.unwatched.clone().map(FolderError::Unwatched));
        Contents { folder: folder.path.as_path().into(), files, problems, rescans: 0 }
    }
}

/// Maps an error of `notify` to a reason with a hint for the user.
fn reason(error: &notify::Error) -> WatchError {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => WatchError::Watches,
        notify::ErrorKind::Io(io) if io.kind() == ErrorKind::PermissionDenied => {
            WatchError::Denied(error.paths.first().cloned().unwrap_or_default())
        }
        notify::ErrorKind::Io(io)
            if [Errno::EMFILE, Errno::ENFILE].iter().any(|errno| io.raw_os_error() == Some(*errno as i32)) =>
        {
            WatchError::Instances
        }
        _ => WatchError::Io(error.to_string()),
    }
}

/// Pending changes, shared by notify's thread and the task.
struct Marks {
    pending: Mutex<Pending>,
    /// Notified on the first mark.
    first: Notify,
}

impl Marks {
    fn new(pace: Pace, max_names: usize) -> Self {
        Self { pending: Mutex::new(Pending::new(pace, max_names)), first: Notify::new() }
    }

    fn add(&self, mark: impl FnOnce(&mut Pending, Instant)) {
        let mut pending = self.lock();
        let was_empty = pending.is_empty();
        mark(&mut pending, Instant::now());
        if was_empty {
            self.first.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Marks are consistent after every call, even one that panicked.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns events into marks, on notify's thread.
struct Listener {
    marks: Arc<Marks>,
    /// Path of the folder in events.
    folder: Option<PathBuf>,
    watched: Folder,
    steps: HashSet<PathBuf>,
}

impl EventHandler for Listener {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        match event {
            Ok(event) if !event.need_rescan() => {
                let Some((sign, replaces)) = classify(event.kind) else { return };
                for path in &event.paths {
                    self.mark(path, sign, replaces);
                }
            }
            // The queue has overflowed or cannot be read. Start a new one.
            lost => {
                tracing::debug!(folder = %self.watched.path.display(), ?lost, "file events were lost");
                self.marks.add(|pending, now| pending.rearm(Sign::Touched, now));
            }
        }
    }
}

impl Listener {
    fn mark(&self, path: &Path, sign: Sign, replaces: bool) {
        let file = path.file_name().filter(|name| path.parent() == self.folder.as_deref() && self.watched.reads(name));
        let step = self.steps.contains(path);
        if file.is_none() && !step {
            return;
        }
        self.marks.add(|pending, now| {
            if let Some(name) = file {
                pending.file(name, sign, now);
            }
            match (step, replaces) {
                (true, true) => pending.rearm(sign, now),
                (true, false) => pending.folder(sign, now),
                (false, _) => {}
            }
        });
    }
}

/// Maps an event to a sign, and to whether another file may now have the path. `None`: the event is irrelevant.
///
/// `notify` also reports every open, including those of this process, and reports a rename within a folder three times.
fn classify(kind: EventKind) -> Option<(Sign, bool)> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some((Sign::Complete, false)),
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some((Sign::Complete, true)),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => Some((Sign::Gone, true)),
        EventKind::Modify(ModifyKind::Data(_)) => Some((Sign::Written, false)),
        EventKind::Modify(_) | EventKind::Any | EventKind::Other => Some((Sign::Touched, false)),
    }
}
