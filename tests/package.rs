//! The Debian package: built, installed, run, upgraded, removed and purged in a tree of its own; and its unit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::UdpSocket,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{Ask, agent::DEADLINE, decode, namespaces::Namespace, show_data, skip};

/// The exposure that `systemd-analyze security` may find at most, in tenths.
const EXPOSURE: &str = "20";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command that has to succeed.
fn run(command: &mut Command) -> String {
    let output: Output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// The package of the program that was built for this test. cargo-deb removes the one of before.
fn package(version: &str) -> Vec<u8> {
    // target/debug/muster
    let target = Path::new(env!("CARGO_BIN_EXE_muster")).parent().unwrap().parent().unwrap();
    let mut build = Command::new(repository().join("packaging/build"));
    let text = run(build.args(["dev", version]).env("CARGO_TARGET_DIR", target));
    let path = text.lines().map(PathBuf::from).find(|path| path.extension().is_some_and(|end| end == "deb"));
    fs::read(path.expect(&text)).unwrap()
}

/// The mirror of Debian that this host's apt knows, and the release that this host is.
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
    let url = url.expect("a mirror of Debian among apt's sources").to_owned();
    let release = fs::read_to_string("/etc/os-release").unwrap();
    let release = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap();
    (url, release.to_owned())
}

/// A Debian of nothing but what every Debian has.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = tempfile::tempdir().unwrap();
        let (url, release) = mirror();
        run(Command::new("debootstrap")
            .args(["--variant=minbase", "--include=systemd-standalone-sysusers", &release])
            .arg(tree.path())
            .arg(url));
        Self(tree)
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.0.path().join(absolute.trim_start_matches('/'))
    }

    fn chroot(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.0.path()).args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command
    }

    fn install(&self, package: &[u8]) -> String {
        fs::write(self.path("/tmp/muster.deb"), package).unwrap();
        run(&mut self.chroot(&["dpkg", "-i", "/tmp/muster.deb"]))
    }

    /// Runs the agent as it was installed, as its user, and asks it for a name.
    fn ask(&self, name: &str, qtype: u16) -> Vec<String> {
        let network = Namespace::new();
        network.enter(|| {
            // With what its unit gives it.
            let mut command = self.chroot(&["setpriv", "--reuid=muster", "--regid=muster", "--init-groups"]);
            command.args(["--no-new-privs", "--bounding-set=-all,+net_bind_service"]);
            command.args(["--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service"]);
            let mut agent = command.args(["/usr/bin/muster", "agent"]).stderr(Stdio::piped()).spawn().unwrap();
            let mut log = String::new();
            let mut lines = BufReader::new(agent.stderr.take().unwrap()).lines();
            while !log.contains("INFO answering") {
                let line = lines.next().unwrap_or_else(|| panic!("the agent ended: {log}")).unwrap();
                log.extend([&line, "\n"]);
            }
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let query = Ask { name: name.to_owned(), qtype, edns: Some(1232), dnssec_ok: false }.packet(7);
            let mut reply = [0; 4096];
            let started = std::time::Instant::now();
            let len = loop {
                socket.send_to(&query, "127.0.0.1:53").unwrap();
                match socket.recv(&mut reply) {
                    Ok(len) => break len,
                    Err(error) => assert!(started.elapsed() < DEADLINE, "{error}: {log}"),
                }
            };
            kill(Pid::from_raw(agent.id() as i32), Signal::SIGTERM).unwrap();
            assert!(agent.wait().unwrap().success());
            decode(&reply[..len]).answers.iter().map(|record| show_data(&record.data)).collect()
        })
    }
}

#[test]
fn a_package_comes_serves_changes_and_goes() {
    const TEST: &str = "a_package_comes_serves_changes_and_goes";
    let tools = [("debootstrap", "debootstrap"), ("dpkg-deb", "dpkg"), ("strip", "binutils")];
    if !skip::namespaces(TEST) || !tools.iter().all(|(program, package)| skip::tool(TEST, program, package)) {
        return;
    }
    if !skip::crate_tool(TEST, "cargo-deb") {
        return;
    }
    let (first, second) = (package("1.0.0-1"), package("1.1.0-1"));
    let tree = Tree::new();
    tree.install(&first);
    let owner = |path: &str| {
        let facts = fs::metadata(tree.path(path)).unwrap();
        (facts.uid(), facts.mode() & 0o777)
    };
    let user: u32 = run(&mut tree.chroot(&["id", "-u", "muster"])).trim().parse().unwrap();
    assert!(user > 0 && user < 1000, "a user of the system");
    assert_eq!(owner("/var/lib/muster"), (user, 0o750));
    assert_eq!(owner("/etc/muster/muster.yaml"), (0, 0o644));
    assert_eq!(owner("/usr/bin/muster"), (0, 0o755));
    let files = run(&mut tree.chroot(&["dpkg", "-L", "muster"]));
    for file in [
        "/usr/lib/systemd/system/muster.service",
        "/usr/lib/sysusers.d/muster.conf",
        "/usr/share/man/man1/muster-agent.1.gz",
        "/usr/share/man/man5/muster.yaml.5.gz",
        "/usr/share/bash-completion/completions/muster",
        "/usr/share/doc/muster/copyright",
        "/usr/share/muster/grafana/muster.json",
        "/usr/share/muster/prometheus/muster.rules.yaml",
    ] {
        assert!(files.lines().any(|line| line == file || format!("/usr{line}") == file), "{file} is not in {files}");
    }
    let enabled = "/etc/systemd/system/multi-user.target.wants/muster.service";
    assert!(fs::symlink_metadata(tree.path(enabled)).is_ok(), "it starts with the system");
    run(&mut tree.chroot(&["muster", "validate", "/etc/muster"]));

    let service = tree.path("/etc/muster/services.d/web.yaml");
    fs::write(&service, "{service: web, address: 10.0.0.1, port: 80}").unwrap();
    assert_eq!(tree.ask("web.service.local.", 1), ["10.0.0.1"]);

    let config = tree.path("/etc/muster/muster.yaml");
    let edited = fs::read_to_string(&config).unwrap() + "domain: svc.example\n";
    fs::write(&config, &edited).unwrap();
    tree.install(&second);
    assert_eq!(fs::read_to_string(&config).unwrap(), edited, "what was edited stays");
    assert_eq!(tree.ask("web.svc.example.", 1), ["10.0.0.1"]);

    run(&mut tree.chroot(&["dpkg", "-r", "muster"]));
    assert!(!tree.path("/usr/bin/muster").exists());
    assert!(config.exists() && tree.path("/var/lib/muster").exists(), "for when it comes back");
    fs::remove_file(service).unwrap();
    run(&mut tree.chroot(&["dpkg", "-P", "muster"]));
    for path in ["/etc/muster", "/var/lib/muster", "/usr/share/doc/muster", enabled] {
        assert!(fs::symlink_metadata(tree.path(path)).is_err(), "{path} is left");
    }
}

#[test]
fn the_unit_gives_away_little() {
    if !skip::tool("the_unit_gives_away_little", "systemd-analyze", "systemd") {
        return;
    }
    let unit = repository().join("packaging/muster.service");
    let mut analyze = Command::new("systemd-analyze");
    run(analyze.args(["security", "--offline=true", "--threshold", EXPOSURE]).arg(unit));
}

#[test]
fn man_pages_are_well_formed() {
    if !skip::tool("man_pages_are_well_formed", "groff", "groff-base") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    run(Command::new(env!("CARGO_BIN_EXE_muster")).arg("man").arg(folder.path()));
    let made = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    for page in made.chain([repository().join("packaging/man/muster.yaml.5")]) {
        let mut groff = Command::new("groff");
        let said = run(groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page));
        assert_eq!(said, "", "{}", page.display());
    }
}

/// Every key of the configuration and of service files is in the manual.
#[test]
fn the_manual_has_every_key() {
    let manual = fs::read_to_string(repository().join("packaging/man/muster.yaml.5")).unwrap();
    let words: Vec<&str> = manual.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    for key in muster::config::CONFIG_KEYS {
        assert!(words.contains(key), "{key}");
    }
    // The README's examples name every key, and are read by a test.
    let is_yaml = |block: &&str| block.starts_with("yaml\n");
    for block in readme.split("```").filter(is_yaml) {
        for line in block.lines().skip(1) {
            let key = line.trim_start_matches([' ', '-']).split(':').next().unwrap_or_default();
            let is_key =
                line.contains(':') && key.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !key.is_empty();
            assert!(!is_key || words.contains(&key), "{key}");
        }
    }
}
