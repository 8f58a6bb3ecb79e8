//! Third-party programs: each has a log and is killed on drop.

use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use super::{process, wait};

/// Running program.
pub struct Program {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Program {
    /// Starts it; its output goes to a file in `folder`.
    pub fn start(mut command: Command, folder: &Path) -> Self {
        let name = Path::new(command.get_program()).file_name().unwrap().to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        let file = fs::File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, name, log }
    }

    /// Returns its output so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `shown` returns the expected value. Fails if the program ends.
    #[track_caller]
    pub fn wait_for<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, expected: &T, mut shown: impl FnMut() -> T) {
        wait::poll(|| {
            let shown = shown();
            if shown == *expected {
                return Ok(());
            }
            let state = format!("{what}: {} shows {shown:?} instead of {expected:?}\n{}", self.name, self.log());
            assert!(self.child.try_wait().unwrap().is_none(), "the program ended: {state}");
            Err(state)
        });
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        process::kill_now(&mut self.child);
        if thread::panicking() {
            eprintln!("{}'s log:\n{}", self.name, self.log());
        }
    }
}

/// Returns a loopback address whose port is free over UDP and TCP, for programs that cannot bind port 0.
pub fn free() -> SocketAddr {
    loop {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
