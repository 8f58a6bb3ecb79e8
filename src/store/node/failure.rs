//! The failure of this node's voter: the error and its remedy, for the status and the log.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Time within which a failure is not logged again.
const BETWEEN_LINES: Duration = Duration::from_secs(60);
/// Ends of errors of the system: no space left on the device, or within the quota.
const FULL: [&str; 2] = ["(os error 28)", "(os error 122)"];

/// The cause of a failure, as far as it changes the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The content of files is damaged or missing.
    Damaged,
    /// The disk is full.
    Full,
    /// Another error of the disk or the system.
    Other,
}

impl Cause {
    /// Returns the cause of an error by its text, which passes through libraries that keep nothing else of it.
    pub(super) fn of(error: &str) -> Self {
        if FULL.iter().any(|end| error.contains(end)) { Self::Full } else { Self::Other }
    }

    /// Returns what an operator does.
    fn remedy(self) -> &'static str {
        match self {
            Self::Damaged => {
                "stop the agent, move this folder away and start the agent: the node receives the store from the other voters. \
                 Without other voters, restore a backup (docs/store.md, \"A damaged log\")"
            }
            Self::Full => "free space on the disk of this folder: the voter then returns by itself",
            Self::Other => "check the disk and the permissions of this folder: the voter tries again every 5 s",
        }
    }
}

/// The failure of this node's voter. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The failure, while it lasts.
    text: Option<String>,
    /// Times at which failures were logged.
    logged: BTreeMap<String, Instant>,
}

impl Failure {
    /// Notes a failure of the voter with this folder. Returns its text if it is to be logged: a lasting one once a minute.
    pub(super) fn note(&self, folder: &Path, error: &str, cause: Cause) -> Option<String> {
        let text = format!("{error} (folder {}): {}", folder.display(), cause.remedy());
        let mut known = self.lock();
        known.text = Some(text.clone());
        known.logged.retain(|_, logged| logged.elapsed() < BETWEEN_LINES);
        (!known.logged.contains_key(&text)).then(|| {
            known.logged.insert(text.clone(), Instant::now());
            text
        })
    }

    /// Forgets what was logged: the next failure is another one.
    pub(super) fn forget(&self) {
        self.lock().logged.clear();
    }

    /// Notes that the voter can write.
    pub(super) fn clear(&self) {
        self.lock().text = None;
    }

    /// The failure, while it lasts.
    pub(super) fn text(&self) -> Option<String> {
        self.lock().text.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lasting_failure_is_logged_once_a_minute() {
        let (failure, folder) = (Failure::default(), Path::new("/data/store"));
        let full = "when Write Logs: No space left on device (os error 28)";
        let note = |error: &str| failure.note(folder, error, Cause::of(error)).is_some();
        assert!(note(full) && !note(full) && note("another error"));
        failure.clear();
        assert!(!note(full), "the failure of a voter that starts and fails at its first write lasts");
        failure.forget();
        assert!(note(full) && !note(full));
        tokio::time::advance(BETWEEN_LINES).await;
        assert!(note(full));
        let text = failure.text().unwrap();
        assert!(text.contains(full) && text.contains("/data/store") && text.contains("free space"), "{text}");
        failure.clear();
        assert_eq!(failure.text(), None);
    }
}
