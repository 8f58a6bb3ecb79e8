//! Exec probe: the exit status of a command decides, as with Nagios plugins. 0 is passing, 1 warning, all else critical.
//! The first line of output is the reason.

use std::{ffi::OsStr, os::unix::process::ExitStatusExt};

use nix::sys::signal::Signal;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    error::ProbeError,
    process::{self, Finished},
};

pub(super) async fn probe(argv: &[String], permit: Option<OwnedSemaphorePermit>) -> Result<(), ProbeError> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(ProbeError::critical("no program"));
    };
    evaluate(&process::run(OsStr::new(program), arguments, permit).await?)
}

fn evaluate(finished: &Finished) -> Result<(), ProbeError> {
    let reason = |how: String| match finished.first_line() {
        line if line.is_empty() => how,
        line => format!("{how}: {line}"),
    };
    match (finished.status.code(), finished.status.signal()) {
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
            assert_eq!(probe(&argv, None).await, expected, "{argv:?}");
        }
    }
}
