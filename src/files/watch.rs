//! Keeps the [`Contents`] of a folder up to date: whole states, each within a moment of the change.
//!
//! Three things make sure that no change is lost. The kernel's events (inotify, through `notify`) say where to look,
//! never what is there: the file itself is read, after the event. A scan of all metadata follows whenever events may
//! be missing: their queue overflowed, the way to the files changed, the user asked. And at intervals it is done
//! anyway, for what the kernel tells nobody: changes on a file server, a mount over the folder.
//!
//! ```text
//! kernel ─ events ─► notify's thread ─ marks ─► Pending ─ due ─► task ─ Work ─► Eye (blocking) ─ Contents ─► watch
//! ```
//!
//! - [`pending`]: marks, one a file however many events, and when to look. Pure.
//! - [`symlinks`]: which folders to watch, through all symbolic links.
//! - [`scan`]: reads what changed.
//! - [`grace_period`]: what is in service while the folder is gone. Pure.

mod grace_period;
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
    grace_period::{GracePeriod, Seen},
    pending::{Pace, Pending, Sign, Work},
    scan::{FolderScan, ScanRequest},
    symlinks::SymlinkChain,
};
use super::contents::{Contents, Folder, FolderError, ReadError, WatchError};

/// A file at rest is read this long after its last event: longer than any editor pauses between the writes of one
/// save, and a small part of the 200 ms in which an edit has to be answered.
const SETTLE: Duration = Duration::from_millis(25);
/// A file that does not come to rest is read this long after its first event.
const LONGEST: Duration = Duration::from_millis(100);
/// From one scan of all metadata to the next: a thousand files cost some milliseconds of one.
const SCAN: Duration = Duration::from_secs(5);
/// The same while the kernel does not tell of changes.
const POLL: Duration = Duration::from_secs(1);
/// Scans in a row, each because the way to the files changed during the one before. Then the next interval.
const ROUNDS: usize = 5;

/// Watches `folder` until `shutdown` and publishes every new state. The first one is complete when this returns.
///
/// Each new value of `rescan` makes it read every file, whatever the metadata say. The task ends early only if
/// the other half of its work panics, and then panics itself.
pub async fn spawn(
    folder: Folder,
    rescan: watch::Receiver<()>,
    shutdown: CancellationToken,
) -> (watch::Receiver<Contents>, JoinHandle<()>) {
    let (_, contents, task) = start(folder, Timing::default(), rescan, shutdown).await;
    (contents, task)
}

/// All durations in one place, so that tests can leave one road open and close the others.
#[derive(Clone, Copy, Debug)]
struct Timing {
    pace: Pace,
    scan: Duration,
    poll: Duration,
    grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { pace: Pace { settle: SETTLE, longest: LONGEST }, scan: SCAN, poll: POLL, grace: grace_period::GRACE }
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
    let eye = Eye::new(folder, timing, marks.clone());
    match look(eye, Work { scan: true, ..Work::default() }, &shutdown).await {
        Some((eye, contents)) => {
            let (sender, receiver) = watch::channel(contents);
            (marks, receiver, tokio::spawn(run(eye, timing, sender, rescan, shutdown)))
        }
        None => (marks, watch::channel(nothing).1, tokio::spawn(async {})),
    }
}

async fn run(
    mut eye: Eye,
    timing: Timing,
    sender: watch::Sender<Contents>,
    mut rescan: watch::Receiver<()>,
    shutdown: CancellationToken,
) {
    let mut listening = true;
    let mut scanned = Instant::now();
    let mut due: Option<Instant> = None;
    loop {
        let interval = scanned + eye.interval();
        let scan = eye.grace.until().filter(|until| *until > scanned).map_or(interval, |until| until.min(interval));
        let wake = due.map_or(scan, |due| due.min(scan));
        let asked = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            changed = rescan.changed(), if listening => {
                listening = changed.is_ok();
                listening
            }
            () = eye.marks.made.notified(), if due.is_none() => {
                due = Some(Instant::now() + timing.pace.settle);
                continue;
            }
            () = sleep_until(wake.into()) => false,
        };
        let now = Instant::now();
        let (mut work, next) = eye.marks.lock().take(now);
        work.distrust |= asked;
        work.rearm |= asked;
        work.scan |= asked || now >= scan;
        due = next;
        if work.is_empty() {
            continue;
        }
        if work.scan {
            scanned = now;
        }
        let Some((returned, contents)) = look(eye, work, &shutdown).await else { return };
        eye = returned;
        sender.send_if_modified(|published| {
            let differs = *published != contents;
            if differs {
                *published = contents;
            }
            differs
        });
        // However many files there are to look at, there is at most one look in so long.
        due = due.map(|due| due.max(now + timing.pace.settle));
    }
}

/// Does the work where it may block. `None`: there is a shutdown, which does not wait for a file server.
async fn look(mut eye: Eye, work: Work, shutdown: &CancellationToken) -> Option<(Eye, Contents)> {
    let task = spawn_blocking(move || {
        let contents = eye.look(work);
        (eye, contents)
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

/// The blocking half: looks at the folder, and sees to it that the kernel tells of what happens there.
struct Eye {
    path: PathBuf,
    listing: FolderScan,
    grace: GracePeriod,
    timing: Timing,
    marks: Arc<Marks>,
    route: SymlinkChain,
    watcher: Option<INotifyWatcher>,
    unwatched: Option<WatchError>,
}

impl Eye {
    fn new(folder: Folder, timing: Timing, marks: Arc<Marks>) -> Self {
        Self {
            // Without a working folder there is nothing that a relative path could be relative to.
            path: std::path::absolute(&folder.path).unwrap_or_else(|_| folder.path.clone()),
            listing: FolderScan::new(folder),
            grace: GracePeriod::new(timing.grace),
            timing,
            marks,
            route: SymlinkChain::default(),
            watcher: None,
            unwatched: None,
        }
    }

    /// From one scan to the next.
    fn interval(&self) -> Duration {
        if self.unwatched.is_some() { self.timing.poll } else { self.timing.scan }
    }

    fn look(&mut self, mut work: Work) -> Contents {
        work.rearm |= self.watcher.is_none() || (work.scan && self.unwatched.is_some());
        let mut listed = Ok(());
        for _ in 0..ROUNDS {
            // Watch, then read: what changes in between is told.
            if work.rearm {
                self.arm();
            }
            let orders = ScanRequest { named: &work.named, held: &work.held, distrust: work.distrust };
            listed = if work.scan || work.rearm || self.route.folder.is_none() {
                self.listing.look_at_all(&orders)
            } else {
                self.listing.look_at_named(&orders)
            };
            // Read, then look again at the way: it may have changed, or lead through links that were not known.
            if self.walk() == self.route {
                break;
            }
            work.rearm = true;
        }
        self.contents(listed)
    }

    fn walk(&self) -> SymlinkChain {
        SymlinkChain::walk(
            &self.path,
            self.listing.links().map(|link| self.path.join(link.file_name().unwrap_or_default())),
        )
    }

    /// Watches all folders of the route, with a new watcher.
    ///
    /// The old one is not changed but dropped: `notify` knows its watches by path and ends them when it reads that
    /// the path was deleted, which it may do after we have watched a new folder of the same path.
    fn arm(&mut self) {
        self.route = self.walk();
        let listener = Listener {
            marks: self.marks.clone(),
            folder: self.route.folder.as_ref().map(|(path, _)| path.clone()),
            wanted: self.listing.folder().clone(),
            steps: self.route.steps.clone(),
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
        // The folder itself last: of two paths to one folder, `notify` keeps the one that it was told last.
        for folder in self.route.others.keys().chain(self.route.folder.iter().map(|(path, _)| path)) {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                // It went just now: the route is another, which is found after the reading.
                Err(notify::Error { kind: notify::ErrorKind::PathNotFound, .. }) | Ok(()) => {}
                Err(error) => self.unwatched = Some(reason(&error)),
            }
        }
        self.watcher = Some(watcher);
    }

    fn contents(&mut self, listed: std::io::Result<()>) -> Contents {
        let folder = self.listing.folder();
        let mut problems = Vec::new();
        let seen = match listed {
            Ok(()) => {
                Seen::Files(self.listing.files().clone(), self.route.folder.as_ref().map(|(_, identity)| *identity))
            }
            Err(error) => match error.kind() {
                ErrorKind::NotFound => Seen::Missing,
                ErrorKind::NotADirectory => {
                    problems.push(FolderError::Unreadable(ReadError::NotAFile));
                    Seen::Missing
                }
                _ => {
                    problems.push(FolderError::Unreadable(error.into()));
                    Seen::Unreadable
                }
            },
        };
        let missing = matches!(seen, Seen::Missing);
        let files = self.grace.show(seen, Instant::now()).clone();
        if self.grace.until().is_some() {
            problems.push(FolderError::Vanished(self.grace.length().as_secs()));
        } else if missing && problems.is_empty() && folder.required {
            problems.push(FolderError::Missing);
        }
        if !missing && self.listing.is_crowded() {
            problems.push(FolderError::Crowded(folder.limits.files));
        }
        if !missing {
            problems.extend(self.listing.ignored());
        }
        problems.extend(self.unwatched.clone().map(FolderError::Unwatched));
        Contents { folder: folder.path.as_path().into(), files, problems }
    }
}

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

/// The marks, shared by notify's thread and the task.
struct Marks {
    pending: Mutex<Pending>,
    /// The first mark was made.
    made: Notify,
}

impl Marks {
    fn new(pace: Pace, most: usize) -> Self {
        Self { pending: Mutex::new(Pending::new(pace, most)), made: Notify::new() }
    }

    fn make(&self, mark: impl FnOnce(&mut Pending, Instant)) {
        let mut pending = self.lock();
        let first = pending.is_empty();
        mark(&mut pending, Instant::now());
        if first {
            self.made.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Marks are whole after every call, so one that panicked leaves nothing to fear.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns events into marks, on notify's thread.
struct Listener {
    marks: Arc<Marks>,
    /// The folder's path in events.
    folder: Option<PathBuf>,
    wanted: Folder,
    steps: HashSet<PathBuf>,
}

impl EventHandler for Listener {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        match event {
            Ok(event) if !event.need_rescan() => {
                let Some((sign, moves)) = meaning(event.kind) else { return };
                for path in &event.paths {
                    self.tell(path, sign, moves);
                }
            }
            // The queue has overflowed, or cannot be read. A new one has not.
            lost => {
                tracing::debug!(folder = %self.wanted.path.display(), ?lost, "file events were lost");
                self.marks.make(|pending, now| pending.rearm(Sign::Touched, now));
            }
        }
    }
}

impl Listener {
    fn tell(&self, path: &Path, sign: Sign, moves: bool) {
        let file = path.file_name().filter(|name| path.parent() == self.folder.as_deref() && self.wanted.wants(name));
        let step = self.steps.contains(path);
        if file.is_none() && !step {
            return;
        }
        self.marks.make(|pending, now| {
            if let Some(name) = file {
                pending.file(name, sign, now);
            }
            match (step, moves) {
                (true, true) => pending.rearm(sign, now),
                (true, false) => pending.folder(sign, now),
                (false, _) => {}
            }
        });
    }
}

/// What an event says of its path, and whether another file may stand there now; `None`: nothing.
///
/// `notify` also tells of every opening, our own included; and of a rename within a folder three times.
fn meaning(kind: EventKind) -> Option<(Sign, bool)> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some((Sign::Complete, false)),
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some((Sign::Complete, true)),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => Some((Sign::Gone, true)),
        EventKind::Modify(ModifyKind::Data(_)) => Some((Sign::Written, false)),
        EventKind::Modify(_) | EventKind::Any | EventKind::Other => Some((Sign::Touched, false)),
    }
}
