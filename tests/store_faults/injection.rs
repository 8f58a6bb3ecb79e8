//! Fault injection into one agent: failing writes and fsyncs, loss of power, and steps of the clock. See `faults.c`.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::support::{
    process::{self, Finish},
    run,
};

/// Octets of the commands in shared memory.
const COMMANDS: u64 = 16;

/// A write or an fsync that fails with EIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DiskFault {
    /// An fsync fails, and nothing since the last one is on disk.
    SyncLoses = 1,
    /// An fsync fails, and half of the octets since the last one are on disk.
    SyncTears,
    /// An fsync fails, and nothing since the last one is on disk, but all can be read until the power is lost. The next
    /// fsync succeeds, as on Linux.
    SyncKeepsPages,
    /// A write fails after half of its octets.
    WriteTears,
    /// Each fsync waits until the fault is ended.
    SyncHangs,
}

/// Compiled shared object and program.
pub(crate) struct Injection(TempDir);

impl Injection {
    pub(crate) fn compile() -> Self {
        let injection = Self(run::temp_dir());
        let source = injection.0.path().join("faults.c");
        fs::write(&source, include_str!("faults.c")).unwrap();
        for (options, output) in [(&["-shared", "-fPIC"][..], "faults.so"), (&["-DPOWER_LOSS"], "power_loss")] {
            let mut gcc = process::command("gcc");
            gcc.args(["-O1", "-Wall", "-Werror", "-o"]).arg(injection.0.path().join(output)).args(options);
            let output = gcc.arg(&source).arg("-ldl").finish();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        injection
    }

    /// Creates the commands for one agent.
    pub(crate) fn commands(&self, name: &str) -> Commands {
        let path = self.0.path().join(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(COMMANDS).unwrap();
        Commands { file, path, object: self.0.path().join("faults.so") }
    }

    /// Removes what no fsync has covered from the files below a folder, except for some thousandths of it. Their process must
    /// have ended. Returns what was removed.
    pub(crate) fn lose_power(&self, folder: &Path, thousandths: u64) -> String {
        let mut command = process::command(self.0.path().join("power_loss"));
        command.arg(thousandths.to_string()).args(files(folder));
        let output = command.finish();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Commands to the shared object in one agent.
pub(crate) struct Commands {
    file: File,
    path: PathBuf,
    object: PathBuf,
}

impl Commands {
    /// Environment of the agent.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("LD_PRELOAD", self.object.display().to_string()), ("FAULTS", self.path.display().to_string())]
    }

    /// Shifts the system's clock by a number of seconds from the true time.
    pub(crate) fn shift_clock(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// Makes the next write or fsync fail.
    pub(crate) fn fail(&self, fault: DiskFault) {
        self.file.write_all_at(&(fault as i64).to_ne_bytes(), 8).unwrap();
    }

    /// Ends a fault that lasts.
    pub(crate) fn end(&self) {
        self.file.write_all_at(&0_i64.to_ne_bytes(), 8).unwrap();
    }

    /// Reports whether the last fault has happened.
    pub(crate) fn has_failed(&self) -> bool {
        let mut fault = [0; 8];
        self.file.read_exact_at(&mut fault, 8).unwrap();
        fault == [0; 8]
    }
}
