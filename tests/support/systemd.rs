//! The socket on which a service manager receives notifications (sd_notify(3)).

use std::{os::unix::net::UnixDatagram, path::PathBuf};

use tempfile::TempDir;

use super::{
    run,
    wait::{DEADLINE, until},
};

/// A notification socket in a folder of its own.
pub struct NotifySocket {
    socket: UnixDatagram,
    folder: TempDir,
}

impl NotifySocket {
    /// Binds a socket.
    pub fn bind() -> Self {
        let folder = run::temp_dir();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, folder }
    }

    /// Value of `NOTIFY_SOCKET`.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    /// Receives the next notification: one assignment a line.
    #[track_caller]
    pub fn receive(&self) -> String {
        let mut message = [0; 1024];
        let len = self.socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..len]).into_owned()
    }

    /// Receives notifications until one has this line.
    #[track_caller]
    pub fn wait_for(&self, line: &str) {
        until(line, || self.receive().lines().any(|found| found == line));
    }
}
