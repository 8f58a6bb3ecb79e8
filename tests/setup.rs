//! `muster setup` on folders that stand for a host: what is written, what speaks against it, and that it can be undone. That
//! questions then arrive is what `host.rs` shows, on real networks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Output,
};

use support::{
    process::{self, Finish},
    run, skip,
};
use tempfile::TempDir;

/// A folder that stands for a host, and its agent's configuration.
struct Host {
    root: TempDir,
    folder: TempDir,
}

/// An agent that resolves without the system's servers.
const UPSTREAMS: &str = "resolver: {upstreams: [192.0.2.53]}\n";

impl Host {
    fn new(config: &str) -> Self {
        let host = Self { root: run::temp_dir(), folder: run::temp_dir() };
        fs::create_dir(host.path("etc")).unwrap();
        let text = format!("node: host-a\nadvertise: 10.0.5.7\nzones_dir: zones\n{config}");
        fs::write(host.folder.path().join("muster.yaml"), text).unwrap();
        host
    }

    /// One on which systemd-resolved runs.
    fn with_resolved(config: &str) -> Self {
        let host = Self::new(config);
        host.write("run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n");
        host
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    fn write(&self, relative: &str, text: &str) {
        fs::create_dir_all(self.path(relative).parent().unwrap()).unwrap();
        fs::write(self.path(relative), text).unwrap();
    }

    fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap()
    }

    fn command(&self, program: &str, before: &[&str], arguments: &[&str]) -> Output {
        let mut command = process::command(program);
        command.args(before).arg("setup").args(arguments).arg("--root").arg(self.root.path());
        command.arg("--config").arg(self.folder.path().join("muster.yaml")).finish()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_muster"), &[], arguments)
    }

    /// What a command that works prints, without where the folder is.
    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().replace(&self.root.path().display().to_string(), "")
    }

    /// What one that does not work says, which changes nothing.
    #[track_caller]
    fn refused(&self, arguments: &[&str], status: i32) -> String {
        let before = self.all();
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        assert_eq!(self.all(), before, "{arguments:?} changed something");
        let text = String::from_utf8(output.stderr).unwrap();
        text.replace(&self.root.path().display().to_string(), "")
            .replace(&self.folder.path().display().to_string(), "…")
    }

    /// Everything: where links lead, what files hold, their modes and times.
    fn all(&self) -> BTreeMap<PathBuf, String> {
        let mut all = BTreeMap::new();
        walk(self.root.path(), &mut all);
        all
    }
}

fn walk(folder: &Path, all: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let what = path.symlink_metadata().unwrap();
        let text = if what.is_symlink() {
            format!("a link to {:?}", path.read_link().unwrap())
        } else if what.is_dir() {
            walk(&path, all);
            format!("a folder, {:o}", what.mode())
        } else {
            format!("{:o} {} {:?}", what.mode(), what.mtime_nsec(), fs::read_to_string(&path).unwrap())
        };
        all.insert(path, text);
    }
}

const DROP_IN: &str = "etc/systemd/resolved.conf.d/muster.conf";

#[test]
fn resolved_is_told_of_all_that_muster_answers() {
    let host = Host::with_resolved(
        "alias_domains: svc.example\ndns: {listen: [\"0.0.0.0:8600\"]}\n\
         resolver: {routes: {corp.example: 192.0.2.1}}\n",
    );
    fs::create_dir(host.folder.path().join("zones")).unwrap();
    fs::write(host.folder.path().join("zones/example.org.zone"), "").unwrap();
    let before = host.all();
    let expected = "\
        # Servers in one list are taken for equal, so that no other may stand beside muster:\n\
        # the empty DNS= forgets those that other files name.\n\
        [Resolve]\n\
        DNS=\n\
        DNS=127.0.0.1:8600\n\
        Domains=~service.local ~svc.example ~example.org ~corp.example ~5.0.10.in-addr.arpa\n";
    let shown = host.done(&["resolved", "--dry-run"]);
    assert_eq!(host.all(), before, "--dry-run changed something");
    for line in expected.lines() {
        assert!(shown.contains(&format!("    {line}\n")), "{shown}");
    }
    let note = "note: names in 5.0.10.in-addr.arpa that muster does not know do not exist: who else knows them belongs into \
                resolver.routes\n";
    assert_eq!(host.done(&["resolved"]), format!("/etc/systemd/resolved.conf.d/muster.conf: written\n{note}"));
    let written = host.read(DROP_IN);
    let (first, body) = written.split_once('\n').unwrap();
    assert_eq!(first, "# Written by `muster setup resolved`, undone by its --undo; there was no file before.");
    assert_eq!(body, expected);
    assert!(shown.contains(first));
    assert_eq!(host.path(DROP_IN).metadata().unwrap().permissions().mode() & 0o777, 0o644);
    host.done(&["resolved"]);
    assert_eq!(host.read(DROP_IN), written, "once more is the same");
    let written = host.all();
    assert!(host.done(&["resolved", "--undo", "--dry-run"]).contains("would be removed"));
    assert_eq!(host.all(), written, "--dry-run changed something");
    assert_eq!(host.done(&["resolved", "--undo"]), "/etc/systemd/resolved.conf.d/muster.conf: removed\n");
    fs::remove_dir(host.path("etc/systemd")).unwrap();
    assert_eq!(host.all(), before);
    assert!(host.done(&["resolved", "--undo"]).starts_with("nothing to undo: "));
}

#[test]
fn a_drop_in_of_ones_own_comes_back() {
    let host = Host::with_resolved("");
    host.write(DROP_IN, "[Resolve]\nDNS=127.0.0.1:8600\nDomains=~service.local\n");
    host.write("etc/systemd/resolved.conf.d/dnssec.conf", "[Resolve]\nDNSSEC=no\n");
    let before = host.all();
    host.done(&["resolved"]);
    assert!(host.read(DROP_IN).contains("DNS=127.0.0.1\n"));
    assert!(host.done(&["resolved", "--undo"]).contains("what was there before is back"));
    assert_eq!(host.all(), before);
}

#[test]
fn what_speaks_against_a_drop_in() {
    let host = Host::new("");
    assert!(host.refused(&["resolved"], 1).contains("systemd-resolved does not run here"));
    assert!(host.done(&["resolved", "--dry-run", "--force"]).contains("note: with --force, although systemd-resolved"));

    let host = Host::with_resolved("");
    host.write("etc/systemd/resolved.conf", "[Resolve]\nDNS=192.0.2.1#a.example 192.0.2.2:54\n");
    host.write("etc/systemd/resolved.conf.d/local.conf", "[Resolve]\nDNS=2001:db8::1\n");
    let said = host.refused(&["resolved"], 1);
    assert!(said.contains("muster would have nobody to ask for other names"), "{said}");
    assert!(said.contains("Add this to …/muster.yaml"), "{said}");
    assert!(
        said.contains("\nresolver:\n  upstreams: [192.0.2.1, \"192.0.2.2:54\", \"2001:db8::1\"]\n"),
        "the lines to add: {said}"
    );
    host.done(&["resolved", "--force"]);

    let host = Host::with_resolved(UPSTREAMS);
    host.write("etc/systemd/resolved.conf", "[Resolve]\nDNS=192.0.2.1\n");
    host.done(&["resolved"]);
    host.write("run/systemd/resolved.conf.d/zz.conf", "[Resolve]\nDNS=192.0.2.1\n");
    let said = host.refused(&["resolved"], 1);
    assert!(said.contains("/run/systemd/resolved.conf.d/zz.conf names DNS servers too, and is read after"), "{said}");

    let host = Host::with_resolved("dns: {listen: [\"127.0.0.1:0\"]}\n");
    assert!(host.refused(&["resolved", "--force"], 1).contains("ports that the kernel chooses"));
}

#[test]
fn resolv_conf_names_muster_alone_and_comes_back() {
    let host = Host::new(UPSTREAMS);
    host.write("etc/resolv.conf", "# by hand\nsearch a.example\nnameserver 192.0.2.1\noptions ndots:2\n");
    fs::set_permissions(host.path("etc/resolv.conf"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = host.all();
    let expected = "nameserver 127.0.0.1\nsearch a.example\noptions edns0 ndots:2\n";
    let shown = host.done(&["resolv-conf", "--dry-run"]);
    assert_eq!(host.all(), before, "--dry-run changed something");
    assert!(expected.lines().all(|line| shown.contains(&format!("    {line}\n"))), "{shown}");
    for _ in 0..2 {
        assert_eq!(host.done(&["resolv-conf"]), "/etc/resolv.conf: written\n");
        let written = host.read("etc/resolv.conf");
        let (first, body) = written.split_once('\n').unwrap();
        assert!(first.ends_with("/etc/resolv.conf.before-muster."), "{first}");
        assert_eq!(body, expected);
        assert_eq!(host.read("etc/resolv.conf.before-muster").lines().next(), Some("# by hand"));
    }
    assert!(host.done(&["resolv-conf", "--undo"]).contains("what was there before is back"));
    assert_eq!(host.all(), before);
    assert!(host.done(&["resolv-conf", "--undo"]).starts_with("nothing to undo: "));
}

#[test]
fn a_link_comes_back_as_a_link_and_nothing_as_nothing() {
    let host = Host::new(UPSTREAMS);
    host.write(
        "run/NetworkManager/resolv.conf",
        "# Generated by NetworkManager\nsearch a.example\nnameserver 192.0.2.1\n",
    );
    symlink("../run/NetworkManager/resolv.conf", host.path("etc/resolv.conf")).unwrap();
    let before = host.all();
    let shown = host.done(&["resolv-conf"]);
    assert!(shown.contains("note: NetworkManager writes this file too: "), "{shown}");
    assert!(host.read("etc/resolv.conf").contains("\nsearch a.example\n"));
    assert!(host.read("run/NetworkManager/resolv.conf").contains("192.0.2.1"), "what the link led to is left alone");
    host.done(&["resolv-conf", "--undo"]);
    assert_eq!(host.all(), before);

    fs::remove_file(host.path("etc/resolv.conf")).unwrap();
    let before = host.all();
    host.done(&["resolv-conf"]);
    assert!(host.done(&["resolv-conf", "--undo"]).contains("removed"));
    assert_eq!(host.all(), before);
}

#[test]
fn what_speaks_against_a_resolv_conf() {
    let cases = [
        ("dns: {listen: [\"127.0.0.1:8600\"]}\n", "nameserver 192.0.2.1\n", "resolv.conf has no ports"),
        ("resolver: {allow: [192.0.2.0/24]}\n", "nameserver 192.0.2.1\n", "muster resolves no names but its own"),
        (UPSTREAMS, "nameserver 127.0.0.53\n", "Run `muster setup resolved` instead"),
        (
            "",
            "nameserver 192.0.2.1\nnameserver 127.0.0.1\nnameserver 2001:db8::1\n",
            "\nresolver:\n  upstreams: [192.0.2.1, \"2001:db8::1\"]\n",
        ),
        ("", "", "\nresolver:\n  upstreams: [ADDRESS OF A RESOLVER]\n"),
        ("resolver: {upstream: x}\n", "", "…/muster.yaml:4:12: "),
    ];
    for (config, former, expected) in cases {
        let host = Host::new(config);
        host.write("etc/resolv.conf", former);
        let said = host.refused(&["resolv-conf"], 1);
        assert!(said.contains(expected), "{said}");
    }
    let host = Host::new("");
    host.write("etc/resolv.conf", "nameserver 192.0.2.1\n");
    assert!(
        host.done(&["resolv-conf", "--force"]).contains("note: with --force, although muster would have nobody to ask")
    );
    // What is ours is not taken for the servers of before.
    assert!(host.refused(&["resolv-conf"], 1).contains("[192.0.2.1]"));
    host.write("etc/resolv.conf", "nameserver 192.0.2.9\n");
    assert!(host.refused(&["resolv-conf", "--undo"], 1).contains("/etc/resolv.conf is not what muster wrote"));
}

#[test]
fn without_a_configuration_nothing_can_be_done() {
    let host = Host::new("");
    fs::remove_file(host.folder.path().join("muster.yaml")).unwrap();
    for way in ["resolved", "resolv-conf"] {
        assert!(host.refused(&[way], 2).contains("cannot read the configuration …/muster.yaml"));
        assert!(host.done(&[way, "--undo"]).starts_with("nothing to undo: "), "which needs none");
    }
}

#[test]
fn without_root_it_says_so() {
    let test = "setup without root";
    if !skip::root(test) || !skip::tool(test, "setpriv", "util-linux") {
        return;
    }
    let host = Host::new(UPSTREAMS);
    host.write("etc/resolv.conf", "nameserver 192.0.2.1\n");
    for folder in [&host.root, &host.folder] {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
    // Nobody can run the program where it was built.
    let program = host.folder.path().join("muster");
    fs::copy(env!("CARGO_BIN_EXE_muster"), &program).unwrap();
    let before = host.all();
    let arguments = ["--reuid=65534", "--regid=65534", "--clear-groups", program.to_str().unwrap()];
    let output = host.command("setpriv", &arguments, &["resolv-conf"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("takes root: run it with sudo"), "{said}");
    assert_eq!(host.all(), before);
}
