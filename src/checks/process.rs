//! Runs one program to its end, and makes sure of that end.
//!
//! The program leads a process group of its own. The group is killed when the program has exited (a child that it
//! left behind would pile up with every tick) and when nobody waits any more: time-out, reload and shutdown all drop
//! the future, and dropping is the only way that work ends here. What leaves the group with `setsid` has asked to live
//! on; it keeps nobody waiting. The runtime reaps whatever was not waited for.
//!
//! A program sees nothing of this process: an empty environment but for [`PATH`] and a locale (ours may hold a token,
//! or the notification socket of systemd), `/` as working directory, no input, and no open file of ours but its output.

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

/// Characters of a first line.
const MAX_LINE: usize = 200;
/// Where programs find programs.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Octets of output, standard and error together, that are kept. The rest is read and thrown away, so that a program
/// that says much is not stopped by a full pipe.
const MAX_OUTPUT: usize = 4096;

/// How a program ended.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    output: Vec<u8>,
}

impl Finished {
    /// The first line with something on it.
    pub(super) fn first_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.output);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        // It goes into logs and messages: no escapes for somebody's terminal, and not more than is read there.
        line.chars().take(MAX_LINE).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    /// All that was kept.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

/// Runs `program` with `arguments` and waits for its exit. Holds `permit` until the program is gone.
pub(super) async fn run(
    program: &OsStr,
    arguments: impl IntoIterator<Item: AsRef<OsStr>>,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<Finished, ProbeError> {
    let (output, for_program) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(for_program.try_clone()?))
        .stderr(Stdio::from(for_program))
        .process_group(0)
        .kill_on_drop(true);
    // Starting a program blocks until it has been loaded: for ever if it lies on a file system that hangs.
    let start = move || Group::new(command.spawn()?, permit);
    let group = match spawn_blocking(start).await {
        Ok(Ok(group)) => group,
        Ok(Err(error)) => return Err(not_started(&error)),
        Err(stopped) => return Err(ProbeError::NotRun(stopped.to_string())),
    };
    finish(group, output).await.map_err(ProbeError::from)
}

async fn finish(mut group: Group, output: PipeReader) -> io::Result<Finished> {
    let output = Receiver::from_owned_fd(output.into())?;
    let mut kept = Vec::new();
    let mut open = true;
    let status = loop {
        tokio::select! {
            biased;
            status = group.leader.wait() => break status?,
            ready = output.readable(), if open => {
                ready?;
                open = drain(&mut kept, |buffer| output.try_read(buffer));
            }
        }
    };
    // Now: the leader's number names the group only as long as no other process can have it.
    drop(group);
    // What was written before the exit is there; what someone outside the group still writes is not waited for.
    let mut rest = File::from(output.into_nonblocking_fd()?);
    drain(&mut kept, |buffer| rest.read(buffer));
    Ok(Finished { status, output: kept })
}

/// Reads what is there, but at most as much as a pipe holds by default, so that one who never stops writing keeps
/// nobody busy. Keeps the first [`MAX_OUTPUT`] octets. Whether there may be more to come.
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

/// A running process group. Dropping it kills all of it.
struct Group {
    leader: Child,
    number: Pid,
    /// Given back when the group is gone.
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
        // The kernel hands out numbers in turn, and none that still names a group: between the leader's end, which the
        // caller has just seen, and this line no other group can have come by it.
        match killpg(self.number, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {} // nobody left is what we wish for
            Err(error) => tracing::warn!(group = %self.number, %error, "a check's process group was not killed"),
        }
    }
}

fn not_started(error: &io::Error) -> ProbeError {
    match error.kind() {
        io::ErrorKind::NotFound => ProbeError::critical("program not found"),
        io::ErrorKind::PermissionDenied => ProbeError::critical("program not executable"),
        // Out of processes: the node's trouble, not the service's.
        io::ErrorKind::WouldBlock => ProbeError::NotRun("no process can be started".to_owned()),
        _ => ProbeError::from(error).of("program not started"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    async fn sh(script: &str) -> Finished {
        run(OsStr::new("/bin/sh"), ["-c", script], None).await.unwrap()
    }

    /// Whether the process runs: one that nobody has reaped yet does not.
    fn runs(process: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        !matches!(state, None | Some('Z' | 'X'))
    }

    async fn ends(process: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while runs(process) {
            assert!(Instant::now() < end, "{process} still runs");
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_program_sees_nothing_of_this_process() {
        let open = tempfile::NamedTempFile::new().unwrap();
        let cases = [
            ("env | grep -v -e ^PWD= -e ^_= -e ^OLDPWD= -e ^SHLVL= | sort", format!("LC_ALL=C.UTF-8\nPATH={PATH}\n")),
            ("pwd", "/\n".to_owned()),
            ("readlink /proc/self/fd/0", "/dev/null\n".to_owned()),
            (&format!("ls -l /proc/self/fd | grep -c {}", open.path().display()), "0\n".to_owned()),
        ];
        for (script, expected) in cases {
            assert_eq!(sh(script).await.text(), expected, "{script}");
        }
    }

    #[tokio::test]
    async fn whoever_stops_waiting_ends_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("pids");
        let script =
            format!("sleep 60 & sh -c 'sleep 61 & echo $$ $! >> {0}; wait' & echo $$ $! >> {0}; wait", note.display());
        let mut run = Box::pin(run(OsStr::new("/bin/sh"), ["-c", &script], None));
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
            _ = &mut run => panic!("nobody has ended it"),
            pids = written => pids,
        };
        assert!(pids.iter().all(|pid| runs(pid)));
        drop(run);
        for pid in pids {
            ends(&pid).await;
        }
    }

    #[tokio::test]
    async fn a_child_left_behind_keeps_nobody_waiting_and_is_ended() {
        let began = Instant::now();
        let finished = sh("sleep 60 & echo $!").await;
        assert!(finished.status.success());
        ends(&finished.first_line()).await;
        // One that left the group lives on, with our pipe in its hands; it ends by itself.
        let finished = sh("setsid sleep 20 & echo said").await;
        assert_eq!((finished.status.success(), finished.first_line().as_str()), (true, "said"));
        assert!(began.elapsed() < Duration::from_secs(15));
    }

    #[tokio::test]
    async fn output_is_kept_up_to_a_bound_and_drained_beyond() {
        let finished = sh("head -c 3000000 /dev/zero | tr '\\0' x; echo done >&2; exit 3").await;
        assert_eq!((finished.status.code(), finished.output.len()), (Some(3), MAX_OUTPUT));
        let endless = timeout(Duration::from_millis(300), run(OsStr::new("/bin/sh"), ["-c", "yes"], None)).await;
        assert!(endless.is_err());
    }

    #[tokio::test]
    async fn programs_that_were_killed_are_reaped() {
        let (mut pids, folder) = (Vec::new(), tempfile::tempdir().unwrap());
        for round in 0..5 {
            let note = folder.path().join(round.to_string());
            let script = format!("echo $$ > {}; sleep 60", note.display());
            let _ = timeout(Duration::from_millis(200), run(OsStr::new("/bin/sh"), ["-c", &script], None)).await;
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
