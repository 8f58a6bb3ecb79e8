//! Child processes of the tests. They start with default signal dispositions, have the name of the run in their
//! environment, and are waited for with a limit.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex, Once,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use super::{run, wait::DEADLINE};

/// Limit for one command.
const COMMAND_LIMIT: Duration = Duration::from_secs(600);
/// Pause between two checks of a process.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns a command with the run's name in its environment, and default signal dispositions.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    static ONCE: Once = Once::new();
    ONCE.call_once(catch_ignored_signals);
    let mut command = Command::new(program);
    command.env(run::VARIABLE, run::name());
    command
}

/// Returns a command of the built program.
pub fn muster() -> Command {
    command(env!("CARGO_BIN_EXE_muster"))
}

/// Installs a handler for every signal that this process ignores, so that its children have the default disposition.
///
/// `nohup` ignores SIGHUP, and a shell without job control ignores SIGINT and SIGQUIT for commands started with `&`.
/// Children inherit the disposition, and a shell cannot trap a signal that was ignored when it started (POSIX `trap`):
/// scripts of the tests would wait for a trapped signal indefinitely. exec(2) resets handlers to the default, but not
/// ignored signals. The handler does nothing, so that this process still ignores the signal.
fn catch_ignored_signals() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(mask.trim(), 16).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    // The standard library resets SIGPIPE in children itself.
    for kind in [
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::quit(),
        SignalKind::terminate(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::child(),
        SignalKind::alarm(),
    ] {
        if ignored & 1 << (kind.as_raw_value() - 1) != 0 {
            // The handler stays after the stream is dropped.
            drop(signal(kind).unwrap());
        }
    }
}

/// Commands that run until they end.
pub trait Finish {
    /// Runs the command without input and returns its output. A command that does not end in time fails the test.
    fn finish(&mut self) -> Output {
        self.finish_with("")
    }

    /// Runs the command with this input.
    fn finish_with(&mut self, input: &str) -> Output;
}

impl Finish for Command {
    #[track_caller]
    fn finish_with(&mut self, input: &str) -> Output {
        finish_within(self, input, COMMAND_LIMIT).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Runs a command until it ends. After `limit`, kills it with its process group.
pub fn finish_within(command: &mut Command, input: &str, limit: Duration) -> Result<Output, String> {
    let deadline = Instant::now() + limit;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    // A program that does not read its input may have ended.
    thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let stdout = Collected::start(child.stdout.take().unwrap());
    let stderr = Collected::start(child.stderr.take().unwrap());
    loop {
        let status = child.try_wait().unwrap();
        // A child of the command may keep its output open.
        if let Some(status) = status.filter(|_| stdout.is_whole() && stderr.is_whole()) {
            return Ok(Output { status, stdout: stdout.octets(), stderr: stderr.octets() });
        }
        if Instant::now() >= deadline {
            let _ = killpg(pid(&child), Signal::SIGKILL);
            let _ = child.wait();
            let printed =
                [stdout, stderr].map(|stream| String::from_utf8_lossy(&stream.octets()).into_owned()).concat();
            return Err(format!("{command:?} did not end within {limit:?}; it printed: {printed}"));
        }
        thread::sleep(PAUSE);
    }
}

/// Output stream of a process, collected by a thread.
struct Collected {
    octets: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Collected {
    fn start(mut stream: impl Read + Send + 'static) -> Self {
        let octets = Arc::new(Mutex::new(Vec::new()));
        let collected = octets.clone();
        let reader = thread::spawn(move || {
            let mut piece = [0; 65_536];
            while let Ok(len @ 1..) = stream.read(&mut piece) {
                collected.lock().unwrap().extend_from_slice(&piece[..len]);
            }
        });
        Self { octets, reader }
    }

    fn is_whole(&self) -> bool {
        self.reader.is_finished()
    }

    fn octets(&self) -> Vec<u8> {
        std::mem::take(&mut self.octets.lock().unwrap())
    }
}

/// Returns the lines of a stream as they arrive; the channel closes with the stream.
pub fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        // Continues to read after the receiver is dropped, since a full pipe would block the program.
        lines.for_each(|line| drop(sender.send(line)));
    });
    lines
}

/// Child that is killed on drop.
pub struct Owned(pub Child);

impl Drop for Owned {
    fn drop(&mut self) {
        kill_now(&mut self.0);
    }
}

/// Returns the process id of a child.
pub fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Waits for a child to end. A child that does not end within [`DEADLINE`] is killed and fails the test.
#[track_caller]
pub fn wait(child: &mut Child) -> ExitStatus {
    ended(child).unwrap_or_else(|| {
        kill_now(child);
        panic!("process {} did not end within {DEADLINE:?}", child.id())
    })
}

/// Ends a child with SIGTERM, so that it can end its own children; with SIGKILL after [`DEADLINE`].
pub fn terminate(child: &mut Child) {
    let _ = kill(pid(child), Signal::SIGTERM);
    if ended(child).is_none() {
        kill_now(child);
    }
}

/// Ends a child with SIGKILL.
pub fn kill_now(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn ended(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let status = child.try_wait().unwrap();
        if status.is_some() || Instant::now() >= deadline {
            return status;
        }
        thread::sleep(PAUSE);
    }
}
