//! Exec probe: the exit status of a command decides, as with Nagios plugins. 0 is passing, 1 warning, all else critical.
//! The first line of output is the reason.

use std::{ffi::OsStr, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use nix::sys::signal::Signal;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    error::ProbeError,
    process::{self, Output},
};
use crate::model::announcement::cut;

/// Runs the command for at most `patience`, and keeps at most `output_max` octets of its output. The reason of a timeout has the output as well.
pub(super) async fn probe(
    argv: &[String],
    output_max: usize,
    permit: Option<OwnedSemaphorePermit>,
    patience: Duration,
) -> Result<(), ProbeError> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(ProbeError::critical("no program"));
    };
    let mut output = Output::default();
    let finished = timeout(patience, process::run(OsStr::new(program), arguments, permit, &mut output)).await;
    match finished {
        Ok(status) => evaluate(status?, &cut(&output.first_line(), output_max)),
        Err(_) => Err(match cut(&output.first_line(), output_max) {
            line if line.is_empty() => ProbeError::timed_out(patience),
            line => ProbeError::critical(format!("timed out after {patience:?}: {line}")),
        }),
    }
}

/// Returns the result of a command with this exit status and first line of output.
fn evaluate(status: ExitStatus, line: &str) -> Result<(), ProbeError> {
    let reason = |how: String| if line.is_empty() { how } else { format!("{how}: {line}") };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(1), _) => Err(ProbeError::Warning(reason("exit 1".to_owned()))),
        (Some(code), _) => Err(ProbeError::Critical(reason(format!("exit {code}")))),
        (None, signal) => {
            let name = signal.and_then(|number| Signal::try_from(number).ok()).map_or("a signal", Signal::as_str);
            Err(ProbeError::Critical(reason(format!("killed by {name}"))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::process::MAX_LINE;

    #[tokio::test]
    async fn exit_status_decides_and_first_line_is_the_reason() {
        let critical = |reason: &str| Err(ProbeError::critical(reason));
        let warning = |reason: &str| Err(ProbeError::Warning(reason.to_owned()));
        let sh = |script: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let cases = [
            (sh("echo fine"), Ok(())),
            (sh("exit 1"), warning("exit 1")),
            (sh("echo; echo '  DISK WARNING  '; echo more; exit 1"), warning("exit 1: DISK WARNING")),
            (sh("echo bad >&2; exit 2"), critical("exit 2: bad")),
            (sh("printf '\\033[31mred\\007'; exit 2"), critical("exit 2:  [31mred ")),
            (sh("head -c 9000 /dev/zero; exit 2"), critical(&format!("exit 2: {}", " ".repeat(200)))),
            (sh("printf 'caf\\351'; exit 3"), critical("exit 3: caf\u{fffd}")),
            (sh("echo dying; kill -s SEGV $$"), critical("killed by SIGSEGV: dying")),
            (vec!["/bin/false".to_owned()], warning("exit 1")),
            (vec!["/nonexistent/check".to_owned()], critical("program not found")),
            (vec!["/etc/passwd".to_owned()], critical("program not executable")),
            (vec!["/".to_owned()], critical("program not executable")),
            (vec!["/bin/a\0b".to_owned()], critical("program not started: nul byte found in provided data")),
            (vec![], critical("no program")),
        ];
        for (argv, expected) in cases {
            assert_eq!(probe(&argv, MAX_LINE, None, Duration::from_secs(60)).await, expected, "{argv:?}");
        }
    }

    #[tokio::test]
    async fn limit_of_the_output_leaves_the_exit_status() {
        let argv = ["/bin/sh", "-c", "echo full; exit 2"].map(str::to_owned);
        assert_eq!(probe(&argv, 3, None, Duration::from_secs(60)).await, Err(ProbeError::critical("exit 2: ful")));
    }

    #[tokio::test]
    async fn output_before_a_timeout_is_shown() {
        let brief = Duration::from_millis(400);
        let cases = [
            ("echo connecting to db; sleep 60", "timed out after 400ms: connecting to db"),
            ("echo >&2; echo ' trouble ' >&2; exec sleep 60", "timed out after 400ms: trouble"),
            ("printf 'no line end'; sleep 60", "timed out after 400ms: no line end"),
            ("printf 'red\\033[31m\\342\\200\\256'; sleep 60", "timed out after 400ms: red [31m "),
            ("sleep 60", "timed out after 400ms"),
        ];
        for (script, expected) in cases {
            let argv = ["/bin/sh", "-c", script].map(str::to_owned);
            assert_eq!(probe(&argv, MAX_LINE, None, brief).await, Err(ProbeError::critical(expected)), "{script}");
        }
    }
}
