//! Third-party programs: each has a log and is killed on drop.

use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use nix::sys::signal::{Signal, kill};

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

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(process::pid(&self.child), signal).unwrap();
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        process::kill_now(&mut self.child);
    }

    /// Ends it with SIGTERM and waits for its end.
    pub fn end(&mut self) {
        process::terminate(&mut self.child);
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

/// Ports below those that Linux gives to clients and for port 0 (`ip_local_port_range`): nothing takes one before the program that it
/// is meant for binds it.
const PORTS: Range<u16> = 10_000..32_000;

/// Returns a loopback address whose port is free over UDP and TCP, for programs that cannot bind port 0. No other call of this process
/// returns it.
pub fn free() -> SocketAddr {
    // Processes that run at the same time begin at different ports.
    static NEXT: LazyLock<AtomicUsize> = LazyLock::new(|| AtomicUsize::new(fastrand::usize(..PORTS.len())));
    loop {
        let port = PORTS.clone().nth(NEXT.fetch_add(1, Ordering::Relaxed) % PORTS.len()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
