//! Programs of others that a test starts: each with a log, ended with its test.

use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::agent::DEADLINE;

/// A running program.
pub struct Program {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it prints goes into a file of `folder`.
    pub fn start(mut command: Command, folder: &Path) -> Self {
        let name = Path::new(command.get_program()).file_name().unwrap().to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        let file = fs::File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, name, log }
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it shows what is due; what it shows instead is in the message of the failure.
    #[track_caller]
    pub fn wait_for<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, due: &T, mut shown: impl FnMut() -> T) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let now = shown();
            if now == *due {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            let in_time = ended.is_none() && Instant::now() < deadline;
            assert!(in_time, "{what}: {} shows {now:?} where {due:?} is due\n{}", self.name, self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}'s log:\n{}", self.name, self.log());
        }
    }
}

/// A port on loopback that nobody has, over UDP and TCP, for programs that cannot be told to take any.
pub fn free() -> SocketAddr {
    loop {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
