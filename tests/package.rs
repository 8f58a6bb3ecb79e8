//! Debian packages: built, installed, run, upgraded, removed and purged in a minimal Debian; systemd unit; man pages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::{Signal, kill};
use support::{
    Ask, decode, document,
    namespaces::Namespace,
    packages::{Packages, debootstrap, run},
    process, show_data, skip,
    wait::{self, DEADLINE},
};

/// Highest exposure that `systemd-analyze security` may report, in tenths.
const EXPOSURE: &str = "20";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the section names of an ELF file.
fn sections(elf: &Path) -> Vec<String> {
    let output = run(process::command("readelf").args(["--section-headers", "--wide"]).arg(elf));
    let name = |line: &str| line.split_once(']')?.1.split_whitespace().next().map(str::to_owned);
    output.lines().filter_map(name).collect()
}

/// Returns the build id of an ELF file, in hexadecimal.
fn build_id(elf: &Path) -> String {
    let output = run(process::command("readelf").arg("--notes").arg(elf));
    let id = output.lines().find_map(|line| line.trim().strip_prefix("Build ID: "));
    id.expect("a build id").to_owned()
}

/// Minimal Debian in a temporary folder.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = support::run::temp_dir();
        debootstrap("systemd-standalone-sysusers", tree.path());
        Self(tree)
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.0.path().join(absolute.trim_start_matches('/'))
    }

    fn chroot(&self, arguments: &[&str]) -> Command {
        let mut command = process::command("chroot");
        command.arg(self.0.path()).args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command
    }

    fn install(&self, package: &[u8]) -> String {
        fs::write(self.path("/tmp/muster.deb"), package).unwrap();
        run(&mut self.chroot(&["dpkg", "-i", "/tmp/muster.deb"]))
    }

    /// Runs the installed agent as its user and queries it.
    fn ask(&self, name: &str, qtype: u16) -> Vec<String> {
        let network = Namespace::new();
        network.enter(|| {
            // Same privileges as in the unit.
            let mut command = self.chroot(&["setpriv", "--reuid=muster", "--regid=muster", "--init-groups"]);
            command.args(["--no-new-privs", "--bounding-set=-all,+net_bind_service"]);
            command.args(["--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service"]);
            let mut agent = command.args(["/usr/bin/muster", "agent"]).stderr(Stdio::piped()).spawn().unwrap();
            let mut log = String::new();
            let lines = process::lines(agent.stderr.take().unwrap());
            wait::until("the agent answers", || {
                let line = lines.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("the agent ended: {log}"));
                log.extend([&line, "\n"]);
                line.contains("INFO answering")
            });
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let query = Ask { name: name.to_owned(), qtype, edns: Some(1232), dnssec_ok: false }.packet(7);
            let mut reply = [0; 4096];
            let len = wait::poll(|| {
                socket.send_to(&query, "127.0.0.1:53").unwrap();
                socket.recv(&mut reply)
            });
            kill(process::pid(&agent), Signal::SIGTERM).unwrap();
            assert!(process::wait(&mut agent).success());
            decode(&reply[..len]).answers.iter().map(|record| show_data(&record.data)).collect()
        })
    }
}

#[test]
fn package_installs_upgrades_and_purges() {
    const TEST: &str = "package_installs_upgrades_and_purges";
    let tools = [("debootstrap", "debootstrap"), ("dpkg-deb", "dpkg"), ("objcopy", "binutils")];
    if !skip::namespaces(TEST) || !tools.iter().all(|(program, package)| skip::tool(TEST, program, package)) {
        return;
    }
    if !skip::crate_tool(TEST, "cargo-deb") {
        return;
    }
    let (first, second) = (Packages::build("1.0.0-1"), Packages::build("1.1.0-1"));
    let tree = Tree::new();
    tree.install(&first.program);
    let owner = |path: &str| {
        let facts = fs::metadata(tree.path(path)).unwrap();
        (facts.uid(), facts.mode() & 0o777)
    };
    let user: u32 = run(&mut tree.chroot(&["id", "-u", "muster"])).trim().parse().unwrap();
    assert!(user > 0 && user < 1000, "{user} is not a system user");
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
        "/usr/share/doc/muster/docs/README.md",
        "/usr/share/doc/muster/examples/services.d/web.yaml",
        "/usr/share/doc/muster/examples/zones/example.org.zone",
        "/usr/share/muster/grafana/muster.json",
        "/usr/share/muster/prometheus/muster.rules.yaml",
    ] {
        assert!(files.lines().any(|line| line == file || format!("/usr{line}") == file), "{file} is not in {files}");
    }
    let enabled = "/etc/systemd/system/multi-user.target.wants/muster.service";
    assert!(fs::symlink_metadata(tree.path(enabled)).is_ok(), "the unit is not enabled");
    run(&mut tree.chroot(&["muster", "validate", "/etc/muster"]));
    assert_symbols_are_separate(&tree, &first.symbols);

    let service = tree.path("/etc/muster/services.d/web.yaml");
    fs::write(&service, "{service: web, address: 10.0.0.1, port: 80}").unwrap();
    assert_eq!(tree.ask("web.service.local.", 1), ["10.0.0.1"]);

    let config = tree.path("/etc/muster/muster.yaml");
    let edited = fs::read_to_string(&config).unwrap() + "domain: svc.example\n";
    fs::write(&config, &edited).unwrap();
    tree.install(&second.program);
    assert_eq!(fs::read_to_string(&config).unwrap(), edited, "the upgrade changed an edited file");
    assert_eq!(tree.ask("web.svc.example.", 1), ["10.0.0.1"]);

    run(&mut tree.chroot(&["dpkg", "-r", "muster"]));
    assert!(!tree.path("/usr/bin/muster").exists());
    assert!(config.exists() && tree.path("/var/lib/muster").exists(), "removal deleted configuration or state");
    fs::remove_file(service).unwrap();
    run(&mut tree.chroot(&["dpkg", "-P", "muster"]));
    for path in ["/etc/muster", "/var/lib/muster", "/usr/share/doc/muster", enabled] {
        assert!(fs::symlink_metadata(tree.path(path)).is_err(), "{path} was not removed");
    }
}

/// Asserts that the installed program has no debug information, and that muster-dbgsym has the debug information of
/// the same build, at the path that debuggers search.
#[track_caller]
fn assert_symbols_are_separate(tree: &Tree, package: &[u8]) {
    const DEBUG_INFORMATION: [&str; 4] = [".debug_info", ".debug_line", ".debug_str", ".symtab"];
    let program = tree.path("/usr/bin/muster");
    let found = sections(&program);
    for section in DEBUG_INFORMATION {
        assert!(!found.iter().any(|name| name == section), "the program has {section}");
    }
    assert!(found.iter().any(|name| name == ".gnu_debuglink"), "the program has no .gnu_debuglink: {found:?}");

    tree.install(package);
    let id = build_id(&program);
    let symbols = tree.path(&format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
    assert_eq!(build_id(&symbols), id);
    let found = sections(&symbols);
    for section in DEBUG_INFORMATION {
        assert!(found.iter().any(|name| name == section), "{} has no {section}: {found:?}", symbols.display());
    }
    run(&mut tree.chroot(&["dpkg", "-P", "muster-dbgsym"]));
}

#[test]
fn unit_has_low_exposure() {
    if !skip::tool("unit_has_low_exposure", "systemd-analyze", "systemd") {
        return;
    }
    let unit = repository().join("packaging/muster.service");
    let mut analyze = process::command("systemd-analyze");
    run(analyze.args(["security", "--offline=true", "--threshold", EXPOSURE]).arg(unit));
}

#[test]
fn man_pages_are_well_formed() {
    if !skip::tool("man_pages_are_well_formed", "groff", "groff-base") {
        return;
    }
    let folder = support::run::temp_dir();
    run(process::muster().arg("man").arg(folder.path()));
    let generated = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    for page in generated.chain([repository().join("packaging/man/muster.yaml.5")]) {
        let mut groff = process::command("groff");
        let warnings = run(groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page));
        assert_eq!(warnings, "", "{}", page.display());
    }
}

/// The examples in the documents contain every key; other tests parse these examples.
#[test]
fn manual_lists_every_key() {
    let manual = fs::read_to_string(repository().join("packaging/man/muster.yaml.5")).unwrap();
    let words: Vec<&str> = manual.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let mut keys: Vec<String> = muster::config::CONFIG_KEYS.iter().map(|key| (*key).to_owned()).collect();
    for document in ["docs/configuration.md", "docs/service-files.md", "docs/resolver.md"] {
        for block in document::blocks(document).iter().filter(|block| block.language == "yaml") {
            let found = keys_of(&block.text);
            assert!(!found.is_empty(), "{document} has a YAML block without keys: {}", block.text);
            keys.extend(found);
        }
    }
    let missing: Vec<&String> = keys.iter().filter(|key| !words.contains(&key.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Examples show what a key is for. A key that only the manual has is not found there.
#[test]
fn examples_of_all_keys_have_every_key_of_the_manual() {
    let manual = fs::read_to_string(repository().join("packaging/man/muster.yaml.5")).unwrap();
    let (service, check) = (muster::files::service_file::SERVICE_KEYS, muster::files::service_file::CHECK_KEYS);
    for (section, known, documents) in [
        ("CONFIGURATION", muster::config::CONFIG_KEYS, &["docs/configuration.md", "docs/names-and-answers.md"][..]),
        ("SERVICE FILES", service, &["docs/service-files.md"]),
        ("CHECKS", check, &["docs/service-files.md"]),
    ] {
        let keys = section_keys(&manual, section);
        let missing: Vec<&&str> = known.iter().filter(|key| !keys.contains(key)).collect();
        assert!(missing.is_empty(), "{section} of the manual lacks {missing:?}");
        // Some keys are in comments or in a table.
        let text: String =
            documents.iter().map(|document| fs::read_to_string(repository().join(document)).unwrap()).collect();
        let examples = match section {
            "CONFIGURATION" => text.as_str(),
            _ => text.split("\n## ").find(|part| part.starts_with("All keys")).unwrap(),
        };
        let words: Vec<&str> = examples.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let missing: Vec<&&str> = keys.iter().filter(|key| !words.contains(key)).collect();
        assert!(missing.is_empty(), "{documents:?} lack {missing:?}");
    }
}

/// Returns the keys that a section of the manual describes: the words in bold after each `.TP`.
fn section_keys<'m>(manual: &'m str, section: &str) -> Vec<&'m str> {
    let from = manual.find(&format!("\n.SH {section}\n")).unwrap() + 1;
    let lines = manual[from..].lines().skip(1).take_while(|line| !line.starts_with(".SH "));
    let lines: Vec<&str> = lines.collect();
    let described = lines.windows(2).filter(|pair| pair[0] == ".TP").filter_map(|pair| pair[1].strip_prefix(".B"));
    let words = described.flat_map(|text| text.trim_start_matches('R').split([' ', ',', '"']));
    words.filter(|word| !word.is_empty()).collect()
}

/// Returns the keys at the start of lines and in flow mappings, such as `cache: {stale: 24h}`. Comments are ignored.
fn keys_of(yaml: &str) -> Vec<String> {
    let lines = yaml.lines().map(|line| line.split_once(" #").map_or(line, |(content, _)| content));
    // Users choose the keys of these tables.
    let is_free =
        |line: &str| ["meta", "ports", "headers", "routes", "tagged_addresses"].iter().any(|key| line.starts_with(key));
    let candidates = lines.flat_map(|line| {
        let line = line.trim_start_matches([' ', '-']);
        let parts = if is_free(line) { 1 } else { usize::MAX };
        line.split(['{', ',']).take(parts)
    });
    let key = |part: &str| {
        let (key, _) = part.split_once(':')?;
        let key = key.trim();
        let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        is_key.then(|| key.to_owned())
    };
    candidates.filter_map(key).collect()
}
