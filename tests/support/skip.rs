//! Tests that need more than Rust say so when they cannot run; in CI they must.

use std::{
    env, fs,
    io::{self, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
};

use super::process::{self, Finish};

/// Set, it turns every skip into a failure: CI installs what the tests need.
pub const REQUIRE: &str = "MUSTER_TEST_REQUIRE";

/// Whether `program` is installed; if not, says that `test` is skipped and which Debian package would help.
pub fn tool(test: &str, program: &str, package: &str) -> bool {
    is_on_path(program) || skip(test, &format!("{program} is not installed (apt-get install {package})"))
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether a file is there; if not, says that `test` is skipped and what makes it.
pub fn file(test: &str, path: &Path, how: &str) -> bool {
    path.exists() || skip(test, &format!("{} is not there ({how})", path.display()))
}

/// Whether a program is installed that cargo installs; if not, says that `test` is skipped.
pub fn crate_tool(test: &str, program: &str) -> bool {
    is_on_path(program) || skip(test, &format!("{program} is not installed (cargo install --locked {program})"))
}

/// Whether a program is installed that pip installs; if not, says that `test` is skipped.
pub fn python_tool(test: &str, program: &str) -> bool {
    is_on_path(program) || skip(test, &format!("{program} is not installed (pip install {program})"))
}

/// Whether this host has ::1; if not, reports that `test` is skipped.
pub fn loopback_v6(test: &str) -> bool {
    TcpListener::bind("[::1]:0").is_ok() || skip(test, "this host has no ::1")
}

/// Whether the test runs as root; if not, says that `test` is skipped.
pub fn root(test: &str) -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    root || skip(test, "it needs root")
}

/// Whether this process, and those that it starts, may have so many files open; if not, says that `test` is skipped.
pub fn open_files(test: &str, most: u64) -> bool {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard.max(most), hard.max(most));
    raised.is_ok() || skip(test, &format!("it needs {most} open files, and may have {hard} (ulimit -Hn)"))
}

/// Whether the test may make network namespaces and has the tools to wire and to break them; if not, says that `test` is
/// skipped.
pub fn namespaces(test: &str) -> bool {
    let permitted = || thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join().is_ok_and(|made| made.is_ok());
    root(test)
        && tool(test, "ip", "iproute2")
        && tool(test, "nft", "nftables")
        && (permitted() || skip(test, "it may make no network namespaces"))
}

/// Whether the test may make hosts of its own: networks, and folders in the place of /etc and /run; if not, says that `test` is
/// skipped.
pub fn machines(test: &str) -> bool {
    namespaces(test)
        && ["unshare", "mount"]
            .iter()
            .all(|program| tool(test, program, if *program == "mount" { "mount" } else { "util-linux" }))
}

/// A file of a Debian package: as it is installed here, else unpacked into `folder` from the archive, since to install the
/// package would change how this host resolves names. `None`: says that `test` is skipped.
pub fn file_of(test: &str, package: &str, paths: &[&str], folder: &Path) -> Option<PathBuf> {
    let find = |root: &Path| paths.iter().map(|path| root.join(path)).find(|path| path.is_file());
    if let Some(path) = find(Path::new("/")) {
        return Some(path);
    }
    let unpack = "apt-get -qq download \"$1\" && dpkg -x \"$1\"_*.deb .";
    let unpacked = process::command("sh").args(["-c", unpack, "sh", package]).current_dir(folder).finish();
    let found = if unpacked.status.success() { find(folder) } else { None };
    if found.is_none() {
        skip(test, &format!("{} is neither installed nor to be had by apt-get download {package}", paths.join(" or ")));
    }
    found
}

fn skip(test: &str, why: &str) -> bool {
    assert!(env::var_os(REQUIRE).is_none(), "{test} cannot run, and {REQUIRE} is set: {why}");
    // Through the descriptor itself: the test harness captures `eprintln!` of tests that pass, and a file that is opened a
    // second time has an offset of its own, so that one writer overwrites what the other has written.
    let _ = io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes());
    false
}
