//! Runs one program and guarantees that its process group ends.
//!
//! The program leads its own process group. The group is killed when the program has exited (children left behind would
//! accumulate with every tick) and when the future is dropped, which is how timeout, reload and shutdown cancel a probe. A
//! process that leaves the group with `setsid` keeps running; the probe does not wait for it. The runtime reaps killed
//! processes.
//!
//! The program inherits nothing: its environment is [`PATH`] and a locale (the agent's may hold a token or the notification
//! socket of systemd), its working directory `/`, its input empty, its only open file the output pipe.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, PipeReader, Read},
    process::{ExitStatus, Stdio},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    net::unix::pipe::Receiver,
    process::{Child, Command},
    sync::OwnedSemaphorePermit,
    task::spawn_blocking,
};

use super::error::ProbeError;
use crate::printable::blanked;

/// Maximum characters of the first line.
pub(super) const MAX_LINE: usize = 200;
/// Search path of programs.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Maximum octets kept of stdout and stderr together. The rest is read and discarded, so that a full pipe does not block
/// the program.
const MAX_OUTPUT: usize = 4096;

/// Start of the output of a program: at most [`MAX_OUTPUT`] octets of stdout and stderr together.
#[derive(Debug, Default)]
pub(super) struct Output(Vec<u8>);

impl Output {
    /// Returns the first line that is not blank, bounded and without unprintable characters.
    pub(super) fn first_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        // The line goes into logs and responses: terminal escapes must not.
        blanked(&line.chars().take(MAX_LINE).collect::<String>())
    }

    /// Returns the kept output.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// Runs `program` with `arguments` and waits for its exit. Holds `permit` until the process group has ended.
///
/// `output` has what the program has written so far, also when this future is dropped before the exit.
pub(super) async fn run(
    program: &OsStr,
    arguments: impl IntoIterator<Item: AsRef<OsStr>>,
    permit: Option<OwnedSemaphorePermit>,
    output: &mut Output,
) -> Result<ExitStatus, ProbeError> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer))
        .process_group(0)
        .kill_on_drop(true);
    // Starting a program blocks until it is loaded: forever on a file system that hangs.
    let start = move || Group::new(command.spawn()?, permit);
    let group = match spawn_blocking(start).await {
        Ok(Ok(group)) => group,
        Ok(Err(error)) => return Err(not_started(&error)),
        Err(stopped) => return Err(ProbeError::NotRun(stopped.to_string())),
    };
    finish(group, reader, output).await.map_err(ProbeError::from)
}

async fn finish(mut group: Group, reader: PipeReader, output: &mut Output) -> io::Result<ExitStatus> {
    let reader = Receiver::from_owned_fd(reader.into())?;
    let kept = &mut output.0;
    let mut open = true;
    let status = loop {
        tokio::select! {
            biased;
            status = group.leader.wait() => break status?,
            ready = reader.readable(), if open => {
                ready?;
                open = drain(kept, |buffer| reader.try_read(buffer));
            }
        }
    };
    // Killed now: the leader's id names the group only until another process can get that id.
    drop(group);
    // Output written before the exit is available; processes outside the group are not waited for.
    let mut rest = File::from(reader.into_nonblocking_fd()?);
    drain(kept, |buffer| rest.read(buffer));
    Ok(status)
}

/// Reads available output, at most the default capacity of a pipe, so that an endless writer does not block the caller.
/// Keeps the first [`MAX_OUTPUT`] octets. Reports whether more may follow.
fn drain(kept: &mut Vec<u8>, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> bool {
    let mut buffer = [0; 8192];
    for _ in 0..8 {
        match read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => kept.extend_from_slice(&buffer[..count.min(MAX_OUTPUT - kept.len())]),
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// Running process group; killed on drop.
struct Group {
    leader: Child,
    number: Pid,
    /// Released when the group has ended.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Group {
    fn new(leader: Child, permit: Option<OwnedSemaphorePermit>) -> io::Result<Self> {
        let number = leader.id().and_then(|id| i32::try_from(id).ok()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { leader, number: Pid::from_raw(number), _permit: permit })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel assigns ids in turn, and none that still names a group: no other group can have got this id since the
        // leader's exit, which the caller has just observed.
        match killpg(self.number, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {} // already ended
            Err(error) => tracing::warn!(group = %self.number, %error, "cannot kill the process group of a check"),
        }
    }
}

fn not_started(error: &io::Error) -> ProbeError {
    match error.kind() {
        io::ErrorKind::NotFound => ProbeError::critical("program not found"),
        io::ErrorKind::PermissionDenied => ProbeError::critical("program not executable"),
        // The node is out of processes; the service may be healthy.
        io::ErrorKind::WouldBlock => ProbeError::NotRun("cannot start a process".to_owned()),
        _ => ProbeError::from(error).of("program not started"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    async fn sh(script: &str) -> (ExitStatus, Output) {
        let mut output = Output::default();
        let status = run(OsStr::new("/bin/sh"), ["-c", script], None, &mut output).await.unwrap();
        (status, output)
    }

    /// Reports whether the process runs; a zombie does not.
    fn runs(process: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        !matches!(state, None | Some('Z' | 'X'))
    }

    async fn wait_for_exit(process: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while runs(process) {
            assert!(Instant::now() < end, "{process} still runs");
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn program_inherits_nothing() {
        let open = tempfile::NamedTempFile::new().unwrap();
        let cases = [
            ("env | grep -v -e ^PWD= -e ^_= -e ^OLDPWD= -e ^SHLVL= | sort", format!("LC_ALL=C.UTF-8\nPATH={PATH}\n")),
            ("pwd", "/\n".to_owned()),
            ("readlink /proc/self/fd/0", "/dev/null\n".to_owned()),
            (&format!("ls -l /proc/self/fd | grep -c {}", open.path().display()), "0\n".to_owned()),
        ];
        for (script, expected) in cases {
            assert_eq!(sh(script).await.1.text(), expected, "{script}");
        }
    }

    #[tokio::test]
    async fn dropping_the_future_kills_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("pids");
        let script =
            format!("sleep 60 & sh -c 'sleep 61 & echo $$ $! >> {0}; wait' & echo $$ $! >> {0}; wait", note.display());
        let mut output = Output::default();
        let mut run = Box::pin(run(OsStr::new("/bin/sh"), ["-c", &script], None, &mut output));
        let written = async {
            loop {
                let text = std::fs::read_to_string(&note).unwrap_or_default();
                let pids: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
                if pids.len() >= 4 {
                    return pids;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let pids = tokio::select! {
            _ = &mut run => panic!("the program ended"),
            pids = written => pids,
        };
        assert!(pids.iter().all(|pid| runs(pid)));
        drop(run);
        for pid in pids {
            wait_for_exit(&pid).await;
        }
    }

    #[tokio::test]
    async fn child_left_behind_does_not_delay_and_is_killed() {
        let began = Instant::now();
        let (status, output) = sh("sleep 60 & echo $!").await;
        assert!(status.success());
        wait_for_exit(&output.first_line()).await;
        // A process that left the group keeps running, with the pipe open; it ends by itself.
        let (status, output) = sh("setsid sleep 20 & echo output").await;
        assert_eq!((status.success(), output.first_line().as_str()), (true, "output"));
        assert!(began.elapsed() < Duration::from_secs(15));
    }

    #[tokio::test]
    async fn output_is_kept_up_to_a_limit_and_drained() {
        let (status, output) = sh("head -c 3000000 /dev/zero | tr '\\0' x; echo done >&2; exit 3").await;
        assert_eq!((status.code(), output.0.len()), (Some(3), MAX_OUTPUT));
        let mut output = Output::default();
        let endless = run(OsStr::new("/bin/sh"), ["-c", "yes"], None, &mut output);
        assert!(timeout(Duration::from_millis(300), endless).await.is_err());
        assert_eq!((output.0.len(), output.first_line().as_str()), (MAX_OUTPUT, "y"));
    }

    #[tokio::test]
    async fn killed_programs_are_reaped() {
        let (mut pids, folder) = (Vec::new(), tempfile::tempdir().unwrap());
        for round in 0..5 {
            let note = folder.path().join(round.to_string());
            let script = format!("echo $$ > {}; sleep 60", note.display());
            let mut output = Output::default();
            let run = run(OsStr::new("/bin/sh"), ["-c", &script], None, &mut output);
            let _ = timeout(Duration::from_millis(200), run).await;
            let written = std::fs::read_to_string(note).unwrap_or_default();
            pids.extend(written.split_whitespace().map(str::to_owned));
        }
        assert!(!pids.is_empty());
        let end = Instant::now() + Duration::from_secs(10);
        while pids.iter().any(|pid| std::fs::exists(format!("/proc/{pid}")).unwrap()) {
            assert!(Instant::now() < end, "zombies of {pids:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}
