//! Debian packages of the program under test, and minimal Debians to install them into.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use super::process::{self, Finish, finish_within};

/// Limit for a build of the packages, which splits and compresses the symbols of a development build.
const BUILD_LIMIT: Duration = Duration::from_secs(1200);

/// Runs a command that must succeed and returns its output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.finish();
    printed(command, &output)
}

#[track_caller]
fn printed(command: &Command, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// Packages of one version, as file contents.
pub struct Packages {
    /// `muster`.
    pub program: Vec<u8>,
    /// `muster-dbgsym`.
    pub symbols: Vec<u8>,
}

impl Packages {
    /// Builds both packages from the program of this test run. cargo-deb removes packages of other versions.
    pub fn build(version: &str) -> Self {
        // The program is target/debug/muster.
        let target = Path::new(env!("CARGO_BIN_EXE_muster")).parent().unwrap().parent().unwrap();
        let mut build = process::command(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/build"));
        build.args(["dev", version]).env("CARGO_TARGET_DIR", target);
        let output = finish_within(&mut build, "", BUILD_LIMIT).unwrap_or_else(|error| panic!("{error}"));
        let output = printed(&build, &output);
        let package = |extension: &str| {
            let path = output.lines().map(Path::new).find(|path| path.extension().is_some_and(|end| end == extension));
            fs::read(path.expect(&output)).unwrap()
        };
        Self { program: package("deb"), symbols: package("ddeb") }
    }
}

/// Returns the Debian mirror and the release of this host.
fn mirror() -> (String, String) {
    let lists = fs::read_dir("/etc/apt/sources.list.d").unwrap().map(|entry| entry.unwrap().path());
    let texts: Vec<String> = [PathBuf::from("/etc/apt/sources.list")]
        .into_iter()
        .chain(lists)
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    let words = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#'));
    let url = words
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"));
    let url = url.expect("a Debian mirror in the apt sources").to_owned();
    let release = fs::read_to_string("/etc/os-release").unwrap();
    let release = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap();
    (url, release.to_owned())
}

/// Makes a minimal Debian of the host's release, with an additional package or more (separated by commas), in a folder.
pub fn debootstrap(include: &str, folder: &Path) {
    let (url, release) = mirror();
    let mut debootstrap = process::command("debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include={include}"), &release]).arg(folder).arg(url);
    run(&mut debootstrap);
}
