//! Shared object for `LD_PRELOAD` that shifts the system's clock of one process.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use crate::support::{
    process::{self, Finish},
    run,
};

/// Shifts CLOCK_REALTIME by the number of seconds in `CLOCK_OFFSET`; all other clocks are as they are.
const SOURCE: &str = r#"
    #define _GNU_SOURCE
    #include <stdlib.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
    int clock_gettime(clockid_t clock, struct timespec *now) {
        int failed = syscall(SYS_clock_gettime, clock, now);
        const char *offset = getenv("CLOCK_OFFSET");
        if (!failed && clock == CLOCK_REALTIME && offset) now->tv_sec += atol(offset);
        return failed;
    }
"#;

/// Compiled shared object, removed on drop.
pub(crate) struct ClockShim(TempDir);

impl ClockShim {
    pub(crate) fn compile() -> Self {
        let shim = Self(run::temp_dir());
        let source = shim.0.path().join("clock.c");
        fs::write(&source, SOURCE).unwrap();
        let mut gcc = process::command("gcc");
        let output = gcc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(shim.path()).arg(source).finish();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        shim
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("clock.so")
    }

    /// Environment of a process whose clock is off by this number of seconds.
    pub(crate) fn environment(&self, offset: i64) -> Vec<(&'static str, String)> {
        vec![("LD_PRELOAD", self.path().display().to_string()), ("CLOCK_OFFSET", offset.to_string())]
    }
}
