//! `muster setup` with `--root`: the written files, the obstacles and the undo. `host.rs` tests resolution on real networks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

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

/// The root folder of a host, and the folder with its agent's configuration.
struct Host {
    root: TempDir,
    folder: TempDir,
}

/// Configuration of an agent with explicit upstreams.
const UPSTREAMS: &str = "resolver: {upstreams: [192.0.2.53]}\n";

impl Host {
    fn new(config: &str) -> Self {
        let host = Self { root: run::temp_dir(), folder: run::temp_dir() };
        fs::create_dir(host.path("etc")).unwrap();
        let text = format!("node: host-a\nadvertise: 10.0.5.7\nzones_dir: zones\n{config}");
        fs::write(host.folder.path().join("muster.yaml"), text).unwrap();
        host
    }

    /// A host where systemd-resolved runs.
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

    /// Runs a command that must succeed. Returns its output, without the root folder.
    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().replace(&self.root.path().display().to_string(), "")
    }

    /// Runs a command that must fail and change no file. Returns its error output, without the folders.
    #[track_caller]
    fn fail(&self, arguments: &[&str], status: i32) -> String {
        let before = self.snapshot();
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        assert_eq!(self.snapshot(), before, "{arguments:?} changed files");
        let text = String::from_utf8(output.stderr).unwrap();
        text.replace(&self.root.path().display().to_string(), "")
            .replace(&self.folder.path().display().to_string(), "…")
    }

    /// All files below the root: targets of links, contents, modes and times.
    fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        let mut all = BTreeMap::new();
        walk(self.root.path(), &mut all);
        all
    }
}

fn walk(folder: &Path, all: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let text = if metadata.is_symlink() {
            format!("link to {:?}", path.read_link().unwrap())
        } else if metadata.is_dir() {
            walk(&path, all);
            format!("folder, {:o}", metadata.mode())
        } else {
            format!("{:o} {} {:?}", metadata.mode(), metadata.mtime_nsec(), fs::read_to_string(&path).unwrap())
        };
        all.insert(path, text);
    }
}

const DROP_IN: &str = "etc/systemd/resolved.conf.d/muster.conf";

#[test]
fn resolved_drop_in_has_all_domains_and_is_removed_by_undo() {
    let host = Host::with_resolved(
        "alias_domains: svc.example\ndns: {listen: [\"0.0.0.0:8600\"]}\n\
         resolver: {routes: {corp.example: 192.0.2.1}}\n",
    );
    fs::create_dir(host.folder.path().join("zones")).unwrap();
    fs::write(host.folder.path().join("zones/example.org.zone"), "").unwrap();
    let before = host.snapshot();
    let expected = "\
        # systemd-resolved treats all servers of a list as equal, so muster must be the only one:\n\
        # the empty DNS= removes the servers of other files.\n\
        [Resolve]\n\
        DNS=\n\
        DNS=127.0.0.1:8600\n\
        Domains=~service.local ~svc.example ~example.org ~corp.example ~5.0.10.in-addr.arpa\n";
    let shown = host.succeed(&["resolved", "--dry-run"]);
    assert_eq!(host.snapshot(), before, "--dry-run changed something");
    for line in expected.lines() {
        assert!(shown.contains(&format!("    {line}\n")), "{shown}");
    }
    let note = "note: names in 5.0.10.in-addr.arpa that muster does not know are NXDOMAIN; add a server that knows them to \
                resolver.routes\n";
    assert_eq!(host.succeed(&["resolved"]), format!("/etc/systemd/resolved.conf.d/muster.conf: written\n{note}"));
    let written = host.read(DROP_IN);
    let (first, body) = written.split_once('\n').unwrap();
    assert_eq!(
        first,
        "# Written by `muster setup resolved`; --undo restores the former state; there was no file before."
    );
    assert_eq!(body, expected);
    assert!(shown.contains(first));
    assert_eq!(host.path(DROP_IN).metadata().unwrap().permissions().mode() & 0o777, 0o644);
    host.succeed(&["resolved"]);
    assert_eq!(host.read(DROP_IN), written, "a second run changes nothing");
    let written = host.snapshot();
    assert!(host.succeed(&["resolved", "--undo", "--dry-run"]).contains("would be removed"));
    assert_eq!(host.snapshot(), written, "--dry-run changed something");
    assert_eq!(host.succeed(&["resolved", "--undo"]), "/etc/systemd/resolved.conf.d/muster.conf: removed\n");
    fs::remove_dir(host.path("etc/systemd")).unwrap();
    assert_eq!(host.snapshot(), before);
    assert!(host.succeed(&["resolved", "--undo"]).starts_with("nothing to undo: "));
}

#[test]
fn former_drop_in_is_restored() {
    let host = Host::with_resolved("");
    host.write(DROP_IN, "[Resolve]\nDNS=127.0.0.1:8600\nDomains=~service.local\n");
    host.write("etc/systemd/resolved.conf.d/dnssec.conf", "[Resolve]\nDNSSEC=no\n");
    let before = host.snapshot();
    host.succeed(&["resolved"]);
    assert!(host.read(DROP_IN).contains("DNS=127.0.0.1\n"));
    assert!(host.succeed(&["resolved", "--undo"]).contains("muster.conf: restored"));
    assert_eq!(host.snapshot(), before);
}

#[test]
fn obstacles_to_resolved_are_reported() {
    let host = Host::new("");
    assert!(host.fail(&["resolved"], 1).contains("systemd-resolved is not running"));
    let shown = host.succeed(&["resolved", "--dry-run", "--force"]);
    assert!(shown.contains("note: ignored with --force: systemd-resolved is not running"), "{shown}");

    let host = Host::with_resolved("");
    host.write("etc/systemd/resolved.conf", "[Resolve]\nDNS=192.0.2.1#a.example 192.0.2.2:54\n");
    host.write("etc/systemd/resolved.conf.d/local.conf", "[Resolve]\nDNS=2001:db8::1\n");
    let message = host.fail(&["resolved"], 1);
    assert!(message.contains("muster would have no upstream"), "{message}");
    assert!(message.contains("Add these lines to …/muster.yaml"), "{message}");
    assert!(
        message.contains("\nresolver:\n  upstreams: [192.0.2.1, \"192.0.2.2:54\", \"2001:db8::1\"]\n"),
        "the lines to add: {message}"
    );
    host.succeed(&["resolved", "--force"]);

    let host = Host::with_resolved(UPSTREAMS);
    host.write("etc/systemd/resolved.conf", "[Resolve]\nDNS=192.0.2.1\n");
    host.succeed(&["resolved"]);
    host.write("run/systemd/resolved.conf.d/zz.conf", "[Resolve]\nDNS=192.0.2.1\n");
    let message = host.fail(&["resolved"], 1);
    assert!(message.contains("/run/systemd/resolved.conf.d/zz.conf names DNS servers and is read after"), "{message}");

    let host = Host::with_resolved("dns: {listen: [\"127.0.0.1:0\"]}\n");
    assert!(host.fail(&["resolved", "--force"], 1).contains("ports that the kernel chooses"));
}

#[test]
fn resolv_conf_is_replaced_and_restored() {
    let host = Host::new(UPSTREAMS);
    host.write("etc/resolv.conf", "# by hand\nsearch a.example\nnameserver 192.0.2.1\noptions ndots:2\n");
    fs::set_permissions(host.path("etc/resolv.conf"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = host.snapshot();
    let expected = "nameserver 127.0.0.1\nsearch a.example\noptions edns0 ndots:2\n";
    let shown = host.succeed(&["resolv-conf", "--dry-run"]);
    assert_eq!(host.snapshot(), before, "--dry-run changed something");
    assert!(expected.lines().all(|line| shown.contains(&format!("    {line}\n"))), "{shown}");
    for _ in 0..2 {
        assert_eq!(host.succeed(&["resolv-conf"]), "/etc/resolv.conf: written\n");
        let written = host.read("etc/resolv.conf");
        let (first, body) = written.split_once('\n').unwrap();
        assert!(first.ends_with("/etc/resolv.conf.before-muster."), "{first}");
        assert_eq!(body, expected);
        assert_eq!(host.read("etc/resolv.conf.before-muster").lines().next(), Some("# by hand"));
    }
    assert!(host.succeed(&["resolv-conf", "--undo"]).contains("/etc/resolv.conf: restored"));
    assert_eq!(host.snapshot(), before);
    assert!(host.succeed(&["resolv-conf", "--undo"]).starts_with("nothing to undo: "));
}

#[test]
fn undo_restores_a_symbolic_link_and_a_missing_file() {
    let host = Host::new(UPSTREAMS);
    host.write(
        "run/NetworkManager/resolv.conf",
        "# Generated by NetworkManager\nsearch a.example\nnameserver 192.0.2.1\n",
    );
    symlink("../run/NetworkManager/resolv.conf", host.path("etc/resolv.conf")).unwrap();
    let before = host.snapshot();
    let shown = host.succeed(&["resolv-conf"]);
    assert!(shown.contains("note: NetworkManager also writes this file: "), "{shown}");
    assert!(host.read("etc/resolv.conf").contains("\nsearch a.example\n"));
    assert!(host.read("run/NetworkManager/resolv.conf").contains("192.0.2.1"), "the target of the link is unchanged");
    host.succeed(&["resolv-conf", "--undo"]);
    assert_eq!(host.snapshot(), before);

    fs::remove_file(host.path("etc/resolv.conf")).unwrap();
    let before = host.snapshot();
    host.succeed(&["resolv-conf"]);
    assert!(host.succeed(&["resolv-conf", "--undo"]).contains("removed"));
    assert_eq!(host.snapshot(), before);
}

#[test]
fn obstacles_to_resolv_conf_are_reported() {
    let cases = [
        ("dns: {listen: [\"127.0.0.1:8600\"]}\n", "nameserver 192.0.2.1\n", "resolv.conf supports only port 53"),
        ("resolver: {allow: [192.0.2.0/24]}\n", "nameserver 192.0.2.1\n", "muster resolves only its own names"),
        (UPSTREAMS, "nameserver 127.0.0.53\n", "Use `muster setup resolved` instead"),
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
        let message = host.fail(&["resolv-conf"], 1);
        assert!(message.contains(expected), "{message}");
    }
    let host = Host::new("");
    host.write("etc/resolv.conf", "nameserver 192.0.2.1\n");
    let shown = host.succeed(&["resolv-conf", "--force"]);
    assert!(shown.contains("note: ignored with --force: muster would have no upstream"), "{shown}");
    // The former servers come from the backup, not from the managed file.
    assert!(host.fail(&["resolv-conf"], 1).contains("[192.0.2.1]"));
    host.write("etc/resolv.conf", "nameserver 192.0.2.9\n");
    assert!(host.fail(&["resolv-conf", "--undo"], 1).contains("/etc/resolv.conf was not written by muster"));
}

#[test]
fn missing_configuration_is_reported_and_not_needed_for_undo() {
    let host = Host::new("");
    fs::remove_file(host.folder.path().join("muster.yaml")).unwrap();
    for method in ["resolved", "resolv-conf"] {
        assert!(host.fail(&[method], 2).contains("cannot read the configuration …/muster.yaml"));
        assert!(host.succeed(&[method, "--undo"]).starts_with("nothing to undo: "));
    }
}

#[test]
fn missing_permission_is_reported_with_advice() {
    let test = "setup without root";
    if !skip::root(test) || !skip::tool(test, "setpriv", "util-linux") {
        return;
    }
    let host = Host::new(UPSTREAMS);
    host.write("etc/resolv.conf", "nameserver 192.0.2.1\n");
    for folder in [&host.root, &host.folder] {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
    // Other users cannot run the program in the build folder.
    let program = host.folder.path().join("muster");
    fs::copy(env!("CARGO_BIN_EXE_muster"), &program).unwrap();
    let before = host.snapshot();
    let arguments = ["--reuid=65534", "--regid=65534", "--clear-groups", program.to_str().unwrap()];
    let output = host.command("setpriv", &arguments, &["resolv-conf"]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("The command needs root: run it with sudo"), "{message}");
    assert_eq!(host.snapshot(), before);
}
