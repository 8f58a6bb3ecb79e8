//! systemd: notifications, and its store of file descriptors (sd_notify(3), sd_listen_fds(3)).
//!
//! Without systemd, all functions do nothing. Errors are logged: no answer depends on the service manager.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

pub use sd_notify::NotifyState;
use tracing::warn;

use crate::inherited_fd;

/// Sends notifications.
pub fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot notify systemd");
    }
}

/// Timeout of the watchdog; `None` without one.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Stores sockets under a name: systemd keeps them open until the service is stopped, and passes them to its next process.
/// A stored socket is not stored twice.
pub fn store(name: &str, sockets: &[OwnedFd]) {
    let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    // Listening sockets are kept whatever happens to their peers.
    let states = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
    if let Err(error) = sd_notify::notify_with_fds(&states, &sockets) {
        warn!(%error, name, "cannot store a socket with systemd; a restart closes it");
    }
}

/// Removes the sockets of a name from the store.
pub fn forget(name: &str) {
    notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

/// Takes the stored sockets of the previous process, with their names. To be called once, at the start of the process.
pub fn stored_sockets() -> Vec<(String, OwnedFd)> {
    let passed = match sd_notify::listen_fds_with_names() {
        Ok(passed) => passed,
        Err(error) => {
            warn!(%error, "systemd passed unusable sockets; binding new ones");
            return Vec::new();
        }
    };
    passed.filter_map(|(number, name)| Some((name, inherited_fd::adopt(number)?))).collect()
}
