//! Skipped tests: a test whose tools or privileges are missing prints a line and returns. In CI it fails instead.

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

/// Environment variable that turns every skip into a failure. CI sets it, since it installs all tools.
pub const REQUIRE: &str = "MUSTER_TEST_REQUIRE";

/// Reports whether `program` is installed; if not, skips `test` and names the Debian package.
pub fn tool(test: &str, program: &str, package: &str) -> bool {
    is_on_path(program) || skip(test, &format!("{program} is not installed (apt-get install {package})"))
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Reports whether a file exists; if not, skips `test` and prints `how` to create it.
pub fn file(test: &str, path: &Path, how: &str) -> bool {
    path.exists() || skip(test, &format!("{} does not exist ({how})", path.display()))
}

/// Reports whether a program from crates.io is installed; if not, skips `test`.
pub fn crate_tool(test: &str, program: &str) -> bool {
    is_on_path(program) || skip(test, &format!("{program} is not installed (cargo install --locked {program})"))
}

/// Reports whether a program from PyPI is installed; if not, skips `test`.
pub fn python_tool(test: &str, program: &str) -> bool {
    is_on_path(program) || skip(test, &format!("{program} is not installed (pip install {program})"))
}

/// Reports whether this host has ::1; if not, skips `test`.
pub fn loopback_v6(test: &str) -> bool {
    TcpListener::bind("[::1]:0").is_ok() || skip(test, "this host has no ::1")
}

/// Reports whether the test runs as root; if not, skips it.
pub fn root(test: &str) -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    root || skip(test, "root is required")
}

/// Raises the limit on open files of this process and its children to `most`; skips `test` if that is not permitted.
pub fn open_files(test: &str, most: u64) -> bool {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard.max(most), hard.max(most));
    raised.is_ok() || skip(test, &format!("{most} open files are required, the limit is {hard} (ulimit -Hn)"))
}

/// Reports whether the test may create network namespaces and `ip` and `nft` are installed; if not, skips `test`.
pub fn namespaces(test: &str) -> bool {
    let permitted = || thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join().is_ok_and(|made| made.is_ok());
    root(test)
        && tool(test, "ip", "iproute2")
        && tool(test, "nft", "nftables")
        && (permitted() || skip(test, "creating network namespaces is not permitted"))
}

/// Reports whether the test may create simulated hosts, namespaces with private /etc and /run; if not, skips `test`.
pub fn machines(test: &str) -> bool {
    namespaces(test)
        && ["unshare", "mount"]
            .iter()
            .all(|program| tool(test, program, if *program == "mount" { "mount" } else { "util-linux" }))
}

/// Returns the path of a file of a Debian package. If it is not installed, the package is downloaded and unpacked into
/// `folder`, since an installation could change the name resolution of this host. Skips `test` on failure.
pub fn file_of(test: &str, package: &str, paths: &[&str], folder: &Path) -> Option<PathBuf> {
    let find = |root: &Path| paths.iter().map(|path| root.join(path)).find(|path| path.is_file());
    if let Some(path) = find(Path::new("/")) {
        return Some(path);
    }
    let unpack = "apt-get -qq download \"$1\" && dpkg -x \"$1\"_*.deb .";
    let unpacked = process::command("sh").args(["-c", unpack, "sh", package]).current_dir(folder).finish();
    let found = if unpacked.status.success() { find(folder) } else { None };
    if found.is_none() {
        skip(test, &format!("{} is not installed, and apt-get download {package} failed", paths.join(" or ")));
    }
    found
}

fn skip(test: &str, why: &str) -> bool {
    assert!(env::var_os(REQUIRE).is_none(), "{test} cannot run, and {REQUIRE} is set: {why}");
    // Written to the descriptor: the test harness captures `eprintln!` of tests that pass, and /dev/stderr, opened again,
    // has a separate offset, so that the writers would overwrite each other.
    let _ = io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes());
    false
}
