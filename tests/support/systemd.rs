//! Socket on which a service manager receives notifications (sd_notify(3)).

use std::{os::unix::net::UnixDatagram, path::PathBuf};

use tempfile::TempDir;

use super::{
    run,
    wait::{DEADLINE, until},
};

/// Notification socket in a temporary folder.
pub struct NotifySocket {
    socket: UnixDatagram,
    folder: TempDir,
}

impl NotifySocket {
    /// Creates the socket.
    pub fn bind() -> Self {
        let folder = run::temp_dir();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, folder }
    }

    /// Returns the value of `NOTIFY_SOCKET`.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    /// Receives the next notification: one assignment per line. Sockets to store are skipped, and closed.
    #[track_caller]
    pub fn receive(&self) -> String {
        let mut message = [0; 1024];
        loop {
            let len = self.socket.recv(&mut message).unwrap();
            let text = String::from_utf8_lossy(&message[..len]).into_owned();
            if !text.contains("FDSTORE=1") {
                return text;
            }
        }
    }

    /// Receives notifications until one contains this line.
    #[track_caller]
    pub fn wait_for(&self, line: &str) {
        until(line, || self.receive().lines().any(|found| found == line));
    }
}
