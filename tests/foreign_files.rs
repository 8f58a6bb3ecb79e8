//! Files of another kind where muster expects its own, through a link or by mistake, and names of files with any character:
//! diagnostics, log and API never show content of such a file, and every message is one line.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, lchown, symlink},
    },
    path::Path,
};

use nix::unistd::Uid;
use support::{
    agent::Agent,
    http::ask,
    process::{self, Finish},
    run,
};

/// Files with secrets, which are the words that contain `SeCr3t`.
const SECRETS: &[(&str, &str)] = &[
    ("gossip key", "SeCr3tMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=\n"),
    ("shadow", "root:$6$SeCr3tsalt$SeCr3thash.:19000:0:99999:7:::\ndaemon:*:19000::::::\nme:$y$SeCr3t:1:0:9:7:::\n"),
    ("password", "SeCr3t"),
    ("PEM", "-----BEGIN PRIVATE KEY-----\nMIISeCr3t\nSeCr3tAA==\n-----END PRIVATE KEY-----\n"),
    ("PEM without line ends", "-----BEGIN PRIVATE KEY-----MIISeCr3t-----END PRIVATE KEY-----\n"),
    ("PEM cut", "-----BEGIN SeCr3t\nMIISeCr3t\n"),
    ("dotenv", "PASSWORD=SeCr3t\nexport TOKEN='SeCr3t'\n"),
    ("INI", "[db]\npassword = SeCr3t\n"),
    ("netrc", "machine a login b password SeCr3t\n"),
    ("pgpass", "db.example:5432:*:me:SeCr3t\n"),
    ("htpasswd", "me:$apr1$SeCr3t$SeCr3t\n$SeCr3t: x\n"),
    ("TSIG", "key \"SeCr3t.\" {\n  algorithm hmac-sha256;\n  secret \"SeCr3t==\";\n};\n"),
    ("DNSSEC key", "Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: SeCr3t=\n"),
    ("prose", "this a SeCr3t\nSeCr3t MX SeCr3t\nSeCr3t.example. A SeCr3t\n TXT\n SeCr3t SeCr3t SeCr3t\n"),
    (
        "prose with an address",
        "SeCr3t 10.0.0.1 SeCr3t\n$SeCr3t SeCr3t\n$TTL SeCr3t\n$ORIGIN SeCr3t..\n$GENERATE SeCr3t x\n",
    ),
    ("service parameters", "SeCr3t SVCB 1 . SeCr3t=1\nSeCr3t SVCB 1 . port=SeCr3t\nSeCr3t SVCB 1 . alpn=SeCr3t\\\n"),
    ("YAML", "apiVersion: v1\nkind: SeCr3t\ndata: {password: SeCr3t}\nport: SeCr3t\ntags: {SeCr3t: SeCr3t}\n"),
    ("YAML keys", "SeCr3t: 1\nSeCr3t: 2\nport: 99999\n<<: SeCr3t\n"),
    ("YAML list", "- SeCr3t\n- SeCr3t: SeCr3t\n"),
    ("YAML with bad syntax", "password: SeCr3t: SeCr3t\n"),
    ("YAML with a bad scalar", "password: \"SeCr3t\\dSeCr3t\"\n"),
    ("YAML with a tag", "password: !SeCr3t SeCr3t\n"),
    ("YAML with an alias", "password: *SeCr3t\n"),
    ("YAML directive", "%SeCr3t\n---\na: SeCr3t\n"),
    ("JSON", "{\"password\": \"SeCr3t\", \"id\": [\"SeCr3t\"], \"ttl\": \"SeCr3t\"}\n"),
    ("JSON text", "\"SeCr3t\"\n"),
    ("services of another program", "services:\n  web:\n    environment: [SeCr3t]\n"),
    ("images of another program", "services: [SeCr3t, SeCr3t]\n"),
    (
        "tokens",
        "tokens:\n- SeCr3t0123456789abcdef\n- SeCr3t0123456789abcdef: read\n- {name: [SeCr3t], scope: SeCr3t}\n",
    ),
];

fn validate(folder: &Path, paths: &[&str]) -> String {
    let output = process::muster().arg("validate").args(paths).current_dir(folder).finish();
    assert_ne!(output.status.code(), Some(101), "a panic");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn validate_shows_no_content_of_other_files() {
    for (name, secret) in SECRETS {
        let folder = run::temp_dir();
        let at = |path: &str| folder.path().join(path);
        for path in ["a.yaml", "example.org.zone", "service.local.zone", "secret"] {
            fs::write(at(path), secret).unwrap();
        }
        for dir in ["services.d", "zones", "tokens.d", "conf"] {
            fs::create_dir(at(dir)).unwrap();
        }
        symlink("../secret", at("services.d/x.yaml")).unwrap();
        symlink("../secret", at("zones/example.org.zone")).unwrap();
        symlink("../secret", at("tokens.d/x.yaml")).unwrap();
        symlink("../secret", at("conf/x.yaml")).unwrap();
        fs::write(
            at("muster.yaml"),
            "node: a\nservices_dir: services.d\nzones_dir: zones\ngossip: {key_file: secret}\n\
             http: {tokens_dir: tokens.d, certificate: secret, key: secret}\n",
        )
        .unwrap();
        fs::write(at("conf/muster.yaml"), "node: a\nservices_dir: ../services.d\n").unwrap();
        let paths = ["a.yaml", "example.org.zone", "service.local.zone", "secret", "muster.yaml", "conf"];
        for paths in paths.iter().map(std::slice::from_ref).chain([&paths[..]]) {
            let shown = validate(folder.path(), paths);
            assert!(!shown.contains("SeCr3t"), "{name}, {paths:?}: {shown}");
            assert!(!shown.contains(": no problems\n") || *name == "tokens", "{name}, {paths:?}: {shown}");
        }
        let agent = process::muster().args(["agent", "--config", "secret"]).current_dir(folder.path()).finish();
        let shown = String::from_utf8_lossy(&agent.stderr);
        assert!(!agent.status.success() && !shown.contains("SeCr3t"), "{name}: {shown}");
    }
}

#[test]
fn content_of_a_linked_key_is_in_neither_log_nor_api() {
    let agent = Agent::start_with("", &[], |folder| {
        for (at, (_, secret)) in SECRETS.iter().enumerate() {
            fs::write(folder.join(format!("secret-{at}")), secret).unwrap();
            symlink(format!("../secret-{at}"), folder.join(format!("services.d/x{at}.yaml"))).unwrap();
            symlink(format!("../secret-{at}"), folder.join(format!("zones/x{at}.example.zone"))).unwrap();
        }
    });
    let shown = [
        agent.log(),
        ask(agent.http(), "GET", "/v1/muster/status", "").body,
        ask(agent.http(), "GET", "/v1/muster/events?follow=false&since=0", "").body,
    ];
    for text in shown {
        assert!(!text.contains("SeCr3t"), "{text}");
    }
    assert!(agent.log().contains("x0.yaml:1:1: expected a service, found a text of 42 characters"), "{}", agent.log());
}

/// Names of files, as octets and as shown.
const NAMES: &[(&[u8], &str)] = &[
    (b"a\nERROR forged: b.yaml", "a\\nERROR forged: b.yaml"),
    (b"a\x1b[2Jb.yaml", "a\\u{1b}[2Jb.yaml"),
    (b"caf\xe9.yaml", "caf\\xe9.yaml"),
    ("x\u{202e}lmay.evil.yaml".as_bytes(), "x\\u{202e}lmay.evil.yaml"),
    ("x\u{2066}y\u{2069}.yaml".as_bytes(), "x\\u{2066}y\\u{2069}.yaml"),
    ("x\u{2028}y\u{200f}\u{61c}.yaml".as_bytes(), "x\\u{2028}y\\u{200f}\\u{61c}.yaml"),
];

#[test]
fn names_of_files_are_shown_on_one_line() {
    let agent = Agent::start_with("", &[], |folder| {
        for (name, _) in NAMES {
            fs::write(folder.join("services.d").join(OsStr::from_bytes(name)), "service: [web]\n").unwrap();
            fs::write(folder.join("services.d").join(OsStr::from_bytes(&[name, &b".x"[..]].concat())), "x").unwrap();
        }
    });
    let validated = validate(&agent.path(""), &["services.d"]);
    let status = process::muster().args(["status", "--http-addr", &agent.http().to_string()]).finish();
    let status = String::from_utf8(status.stdout).unwrap();
    let json = process::muster().args(["status", "--json", "--http-addr", &agent.http().to_string()]).finish();
    let json = String::from_utf8(json.stdout).unwrap();
    let (log, api) = (agent.log(), ask(agent.http(), "GET", "/v1/muster/status", "").json().to_string());
    for (name, escaped) in NAMES {
        for (from, text) in [("log", &log), ("validate", &validated), ("status", &status)] {
            assert!(text.contains(&format!("services.d/{escaped}:1:10: expected")), "{from} of {escaped}: {text}");
            assert!(text.contains(&format!("services.d/{escaped}.x:1:1: warning: ignored")), "{from}: {text}");
        }
        assert!(api.contains(&serde_json::to_string(&escaped).unwrap()[1..escaped.len()]), "{escaped}: {api}");
        let _ = name;
    }
    let is_hidden =
        |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{200e}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
    for (from, text) in [("log", &log), ("validate", &validated), ("status", &status), ("JSON", &json)] {
        let raw = text.chars().find(|c| is_hidden(*c) && !matches!(c, '\u{2010}'..='\u{2027}'));
        assert_eq!(raw, None, "{from}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("ERROR")), "{from}: {text}");
    }
}

/// A folder that every user can enter, with a configuration and a file of each kind.
fn open_folder(checks: &str) -> tempfile::TempDir {
    let folder = run::temp_dir();
    chmod(folder.path(), 0o755);
    let at = |path: &str| folder.path().join(path);
    for dir in ["services.d", "zones", "tokens.d"] {
        fs::create_dir(at(dir)).unwrap();
    }
    let key = process::muster().arg("keygen").finish().stdout;
    let files: [(&str, &[u8], u32); 6] = [
        ("services.d/web.yaml", b"service: web\n", 0o644),
        ("services.d/db.yaml", b"service: db\n", 0o644),
        ("zones/service.local.zone", b"a A 192.0.2.1\n", 0o644),
        ("tokens.d/a.yaml", b"tokens: [{name: a, scope: read, token: 0123456789abcdefg}]\n", 0o640),
        ("gossip.key", &key, 0o600),
        ("muster.yaml", b"", 0o644),
    ];
    for (path, content, mode) in files {
        fs::write(at(path), content).unwrap();
        chmod(&at(path), mode);
    }
    let config = format!(
        "node: a\nadvertise: 127.0.0.1\nservices_dir: services.d\nzones_dir: zones\ngossip: {{key_file: gossip.key}}\n\
         http: {{tokens_dir: tokens.d}}\n{checks}"
    );
    fs::write(at("muster.yaml"), config).unwrap();
    folder
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_that_every_user_can_change_or_read_are_reported_or_refused() {
    let change = "every user of this host can change this file";
    let add = "every user of this host can add files to this folder";
    let read = "every user of this host can read this secret";
    let exec = "checks: {allow_exec: true}\n";
    // Settings, file, its mode, and the lines of `muster validate` besides the last one.
    let cases: &[(&str, &str, u32, &[&str])] = &[
        ("", "services.d", 0o755, &[]),
        ("", "services.d/web.yaml", 0o666, &[&format!("services.d/web.yaml:1:1: warning: {change}")]),
        ("", "services.d", 0o777, &[&format!("services.d:1:1: warning: {add} (run `chmod o-w` on the folder)")]),
        (
            exec,
            "services.d",
            0o777,
            &[&format!("services.d:1:1: warning: {add} (run"), "db.yaml:1:1: every", "web.yaml:1:1: every"],
        ),
        ("", "zones/service.local.zone", 0o646, &[&format!("zones/service.local.zone:1:1: warning: {change}")]),
        (exec, "services.d/web.yaml", 0o666, &[&format!("services.d/web.yaml:1:1: {change}; the file is not read")]),
        (exec, "services.d/web.yaml", 0o660, &[]),
        (
            exec,
            "services.d",
            0o1777,
            &[&format!("services.d:1:1: warning: {add}"), "db.yaml:1:1: every", "web.yaml:1:1: every"],
        ),
        ("", "tokens.d/a.yaml", 0o644, &[&format!("tokens.d/a.yaml:1:1: warning: {read}")]),
        ("", "tokens.d/a.yaml", 0o642, &["tokens.d:1:1: warning: no file has a valid token", "; the file is not read"]),
        ("", "gossip.key", 0o604, &[&format!("gossip.key:1:1: warning: {read}")]),
        ("", "gossip.key", 0o602, &[&format!("gossip.key:1:1: warning: {change}")]),
        ("", "gossip.key", 0o640, &[]),
    ];
    // A key that belongs to root needs the group of the agent.
    let hint = "run `chgrp muster` and `chmod 640` on the file; without the package, name the group of the user that runs muster";
    for path in ["gossip.key", "tokens.d/a.yaml"] {
        let folder = open_folder("");
        chmod(&folder.path().join(path), 0o644);
        assert!(validate(folder.path(), &["muster.yaml"]).contains(&format!("{path}:1:1: warning: {read} ({hint})")));
    }
    for (settings, path, mode, expected) in cases {
        let folder = open_folder(settings);
        chmod(&folder.path().join(path), *mode);
        let shown = validate(folder.path(), &["muster.yaml"]);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), expected.len() + 1, "{settings}{path} {mode:o}: {shown}");
        for part in *expected {
            assert!(lines.iter().any(|line| line.contains(part)), "{settings}{path} {mode:o}: no {part:?} in {shown}");
        }
    }
}

#[test]
fn readable_key_is_logged_once() {
    let mut agent = Agent::start_with("gossip: {listen: 127.0.0.1:0, key_file: gossip.key}\n", &[], |folder| {
        chmod(folder, 0o755);
        fs::write(folder.join("gossip.key"), process::muster().arg("keygen").finish().stdout).unwrap();
        chmod(&folder.join("gossip.key"), 0o644);
    });
    agent.wait_for_log("gossip.key:1:1: warning: every user of this host can read this secret");
    assert_eq!(agent.log().matches("gossip.key:1:1").count(), 1, "{}", agent.log());
}

/// Needs root, which may give files away.
#[test]
fn link_is_not_followed_for_an_author_who_may_not_read_the_target() {
    if !Uid::effective().is_root() {
        return;
    }
    let folder = open_folder("");
    let at = |path: &str| folder.path().join(path);
    fs::write(at("private.yaml"), "service: private\n").unwrap();
    chmod(&at("private.yaml"), 0o600);
    symlink("../private.yaml", at("services.d/root.yaml")).unwrap();
    symlink("../private.yaml", at("services.d/user.yaml")).unwrap();
    symlink("../zones", at("services.d/..data")).unwrap();
    lchown(at("services.d/user.yaml"), Some(1234), Some(1234)).unwrap();
    let shown = validate(folder.path(), &["muster.yaml"]);
    let expected = "services.d/user.yaml:1:1: this link leads to a file that its owner may not read; it is not followed (copy the \
                    file, or let root or the owner of the file make the link)";
    let problems: Vec<&str> = shown.lines().filter(|line| line.contains(":1:1:")).collect();
    assert_eq!(problems, [expected], "{shown}");
    chmod(&at("private.yaml"), 0o644);
    let shown = validate(folder.path(), &["muster.yaml"]);
    assert!(shown.contains("user.yaml:1:1: the instance `private/private-a` is already defined"), "{shown}");
}
