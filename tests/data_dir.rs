//! The data directory: an agent answers without a writable or readable one, says so, and recovers by itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use support::{
    agent::Agent,
    http,
    process::{self, Finish},
    skip,
    wait::until,
};

const SRV: u16 = 33;
/// A service, and the answer for it.
const WEB: &str = "service: web\nid: one\nport: 8080\naddress: 10.0.0.9\n";
const WEB_ANSWER: &str = "SRV 1 10 8080 one.web.service.local.";

/// Returns the exit code and the output of `muster status`.
fn status(agent: &Agent) -> (Option<i32>, String) {
    let address = agent.http().to_string();
    let output = process::muster().args(["status", "--http-addr", &address]).finish();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn register(agent: &Agent, name: &str) -> http::Answer {
    let body = json!({"Name": name, "Port": 1}).to_string();
    http::ask(agent.http(), "PUT", "/v1/agent/service/register", &body)
}

/// Runs an agent whose `data` is a tmpfs of 64 KiB, in a mount namespace of its own, and fills it first.
const FULL_DISK: &str = r#"data=$(dirname "$4")/data
mkdir -p "$data" && mount -t tmpfs -o size=64k tmpfs "$data" || exit 9
dd if=/dev/zero of="$data/filler" bs=4k 2>/dev/null
exec "$@""#;

#[test]
fn full_disk_keeps_no_agent_from_answering() {
    let test = "full_disk_keeps_no_agent_from_answering";
    if !skip::machines(test) {
        return;
    }
    let mut command = process::command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", FULL_DISK, "sh", env!("CARGO_BIN_EXE_muster")]);
    let agent = Agent::launch(command, "", &[], |folder| fs::write(folder.join("services.d/web.yaml"), WEB).unwrap());
    // The folder in the agent's mount namespace.
    let data = PathBuf::from(format!("/proc/{}/root{}", agent.pid(), agent.path("data").display()));
    assert!(data.join("filler").exists());
    assert_eq!(agent.answers("web.service.local.", SRV), [WEB_ANSWER]);

    let no_space = "cannot be written since 20";
    let (code, text) = status(&agent);
    assert_eq!(code, Some(1), "{text}");
    for name in ["zone-serial", "generation"] {
        let line = text.lines().find(|line| line.contains(&format!("data/{name}:1:1: {no_space}")));
        assert!(line.is_some_and(|line| line.contains("No space left on device")), "{name}: {text}");
    }
    let refused = register(&agent, "db");
    assert_eq!(refused.status, 507, "{}", refused.body);
    assert!(refused.body.contains("Cannot write the change to data_dir; nothing was changed"), "{}", refused.body);
    until("the state is tried", || agent.log().contains("data/state"));

    fs::remove_file(data.join("filler")).unwrap();
    until("nothing is reported", || status(&agent).0 == Some(0));
    assert!(!status(&agent).1.contains("cannot be written"));
    for name in ["zone-serial", "generation", "state"] {
        assert!(data.join(name).metadata().unwrap().len() > 0, "{name}");
    }
    assert_eq!(register(&agent, "db").status, 200);
    assert_eq!(agent.answers("web.service.local.", SRV), [WEB_ANSWER]);
    // Each write was tried again, and is logged once.
    let log = agent.log();
    for name in ["zone-serial", "generation", "registered.json", "state"] {
        let lines = |level: &str| {
            let of_file = |line: &&str| line.contains(level) && line.contains(&format!("data/{name}"));
            log.lines().filter(of_file).count()
        };
        assert_eq!((lines("WARN"), lines("INFO")), (1, 1), "{name}: {log}");
    }
}

#[test]
fn agent_without_a_data_directory_answers() {
    // A file is where the folder should be.
    let agent = Agent::start_with("", &[], |folder| {
        fs::write(folder.join("services.d/web.yaml"), WEB).unwrap();
        fs::write(folder.join("data"), "").unwrap();
    });
    assert_eq!(agent.answers("web.service.local.", SRV), [WEB_ANSWER]);
    assert_eq!(status(&agent).0, Some(1));
    fs::remove_file(agent.path("data")).unwrap();
    until("nothing is reported", || status(&agent).0 == Some(0));
    assert_eq!(register(&agent, "db").status, 200);
}

/// Writes a damaged file.
type Damage = fn(&Path, &[u8]);

/// Damages that a crash, a full disk or an operator leaves.
const DAMAGES: [(&str, Damage); 6] = [
    ("truncated", |path, content| fs::write(path, &content[..content.len() / 2]).unwrap()),
    ("empty", |path, _| fs::write(path, "").unwrap()),
    ("junk", |path, _| fs::write(path, b"\0\xff{[\n\r\x1b7 \xf0\x9f").unwrap()),
    ("one bit", |path, content| {
        let mut content = content.to_vec();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(path, content).unwrap();
    }),
    ("a folder", |path, _| fs::create_dir(path).unwrap()),
    ("unreadable", |path, _| symlink(path.file_name().unwrap(), path).unwrap()),
];

#[test]
fn damaged_file_keeps_no_agent_from_answering() {
    // A data directory with every file.
    let key = String::from_utf8(process::muster().arg("keygen").finish().stdout).unwrap();
    let prepare = |folder: &Path| {
        fs::write(folder.join("services.d/web.yaml"), WEB).unwrap();
        fs::write(folder.join("key"), &key).unwrap();
    };
    let config = "gossip: {listen: 127.0.0.1:0, key_file: key}\n";
    let mut agent = Agent::start_with(config, &[], prepare);
    http::put(&agent, "agent/service/register", &json!({"Name": "db", "Port": 1, "Check": {"TTL": "1h"}}));
    http::put(&agent, "agent/check/pass/service:db", &Value::Null);
    let added = String::from_utf8(process::muster().arg("keygen").finish().stdout).unwrap();
    let body = json!({"Key": added.trim()}).to_string();
    assert_eq!(http::ask(agent.http(), "POST", "/v1/operator/keyring", &body).status, 200);
    until("the keyring is stored", || agent.path("data/keyring").exists());
    agent.signal(Signal::SIGUSR1);
    agent.signal(Signal::SIGTERM);
    agent.wait();
    fs::write(agent.path("data/peers"), "127.0.0.1:1\n").unwrap();
    let names = ["generation", "keyring", "peers", "registered.json", "state", "zone-serial"];
    let mut found: Vec<_> = fs::read_dir(agent.path("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, names);
    let contents: Vec<_> = names.iter().map(|name| fs::read(agent.path("data").join(name)).unwrap()).collect();

    for name in names {
        for (damage, write) in DAMAGES {
            let prepare = |folder: &Path| {
                prepare(folder);
                fs::create_dir(folder.join("data")).unwrap();
                for (other, content) in names.iter().zip(&contents) {
                    let path = folder.join("data").join(other);
                    if *other == name { write(&path, content) } else { fs::write(path, content).unwrap() }
                }
            };
            let agent = Agent::start_with(config, &[], prepare);
            let case = format!("{name}: {damage}");
            assert_eq!(agent.answers("web.service.local.", SRV), [WEB_ANSWER], "{case}");
            // Services of clients are lost with their file only; a changed bit may be valid.
            if name != "registered.json" {
                let db = agent.answers("db.service.local.", SRV);
                assert_eq!(db.len(), usize::from(name != "state"), "{case}: {db:?}");
            }
            if damage == "junk" || damage == "unreadable" {
                let log = agent.log();
                let reported = log.lines().any(|line| line.contains("WARN") && line.contains(&format!("data/{name}")));
                assert!(reported || (name == "peers" || name == "keyring") && damage == "junk", "{case}: {log}");
            }
        }
    }
}

#[test]
fn broken_file_keeps_its_last_valid_content_over_a_restart() {
    let mut agent = Agent::start_with("", &[], |folder| fs::write(folder.join("services.d/web.yaml"), WEB).unwrap());
    agent.write_service("web.yaml", "service: web\nprot: 8080\n");
    agent.wait_for_log("unknown key `prot`");
    let stays = "the last valid content of this file stays in use";
    for crash in [false, true] {
        if crash {
            // The state is stored at the change, too.
            until("the state has the content", || {
                fs::read_to_string(agent.path("data/state")).is_ok_and(|state| state.contains("port: 8080"))
            });
            agent.signal(Signal::SIGKILL);
        } else {
            agent.signal(Signal::SIGUSR1);
            agent.signal(Signal::SIGTERM);
        }
        agent.start_again();
        agent.wait_until_answering();
        assert_eq!(agent.answers("web.service.local.", SRV), [WEB_ANSWER]);
        agent.wait_for_log(stays);
        assert!(status(&agent).1.contains(stays));
    }
    // Only a deletion withdraws it.
    fs::remove_file(agent.path("services.d/web.yaml")).unwrap();
    until("it is withdrawn", || agent.answers("web.service.local.", SRV).is_empty());
}

#[test]
fn deadline_of_a_ttl_check_runs_on_after_a_crash() {
    let mut agent = Agent::start();
    for (name, ttl) in [("short", "4s"), ("long", "1h")] {
        http::put(&agent, "agent/service/register", &json!({"Name": name, "Port": 1, "Check": {"TTL": ttl}}));
        http::put(&agent, &format!("agent/check/pass/service:{name}"), &Value::Null);
    }
    until("the state has both results", || {
        let state = fs::read_to_string(agent.path("data/state")).unwrap_or_default();
        state.lines().filter(|line| line.starts_with("own ") && line.contains("\"state\":\"p\"")).count() == 2
    });
    agent.signal(Signal::SIGKILL);
    agent.wait();
    std::thread::sleep(std::time::Duration::from_secs(5));
    agent.start_again();
    agent.wait_until_answering();
    assert_eq!(agent.answers("short.service.local.", SRV), [""; 0]);
    assert_eq!(agent.answers("long.service.local.", SRV).len(), 1);
    let why = agent.answers("_why.short.service.local.", 16);
    assert!(why.iter().any(|text| text.contains("no report within 4s")), "{why:?}");
}
