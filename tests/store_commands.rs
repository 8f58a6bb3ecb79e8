//! Commands for the store, run with the built program against an agent with a store of one voter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use support::{
    agent::Agent,
    process::{self, Finish, Owned},
    run,
    wait::until,
};

const STORE: &str = "store: {voters: [host-a]}\n";

/// An agent with a store that has a leader.
fn agent() -> Agent {
    let agent = Agent::start_with(STORE, &[], |_| {});
    until("the store has a leader", || muster(&agent, &["store", "status"], "").0 == 0);
    agent
}

fn command(agent: &Agent, arguments: &[&str]) -> Command {
    let mut command = process::muster();
    command.args(arguments).env("MUSTER_HTTP_ADDR", agent.http().to_string());
    command
}

/// Runs a command with this input. Returns its exit code, its output and its errors.
fn muster(agent: &Agent, arguments: &[&str], input: &str) -> (i32, String, String) {
    let output = command(agent, arguments).finish_with(input);
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs a command that succeeds; returns its output.
#[track_caller]
fn done(agent: &Agent, arguments: &[&str], input: &str) -> String {
    let (code, output, errors) = muster(agent, arguments, input);
    assert!(code == 0 && errors.is_empty(), "{arguments:?}: {code} {errors}");
    output
}

/// Waits until a key has a value.
#[track_caller]
fn wait_for_value(agent: &Agent, key: &str, expected: &str) {
    until("the key has the value", || muster(agent, &["kv", "get", key], "").1.trim_end() == expected);
}

/// Starts a command whose output is not read.
fn spawn(agent: &Agent, arguments: &[&str]) -> Owned {
    Owned(command(agent, arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Returns the session that holds a lock; `None` if there is none.
fn holder(agent: &Agent, name: &str) -> Option<String> {
    let (_, output, _) = muster(agent, &["kv", "get", &format!("{name}/.lock"), "--json"], "");
    let entry: Value = serde_json::from_str(&output).ok()?;
    entry["Session"].as_str().map(str::to_owned)
}

/// Waits until a session holds a lock.
#[track_caller]
fn wait_for_holder(agent: &Agent, name: &str) -> String {
    until("the lock is held", || holder(agent, name).is_some());
    holder(agent, name).unwrap()
}

fn code(child: &mut Child) -> Option<i32> {
    process::wait(child).code()
}

#[test]
fn keys_are_written_read_listed_and_deleted() {
    let agent = agent();
    let folder = run::temp_dir();
    let file = folder.path().join("value");
    fs::write(&file, b"\xff\x00").unwrap();
    let at_file = format!("@{}", file.display());
    // Arguments, input, exit code, output, errors.
    let cases: &[(&[&str], &str, i32, &str, &str)] = &[
        (&["kv", "get", "none"], "", 1, "", "muster: there is no key none\n"),
        (&["kv", "list"], "", 0, "KEY  VALUE\n", ""),
        (&["kv", "put", "app/limits", "max=10"], "", 0, "app/limits: set\n", ""),
        (&["kv", "put", "app/color", "-"], "blue\n", 0, "app/color: set\n", ""),
        (&["kv", "put", "app/number", "-5"], "", 0, "app/number: set\n", ""),
        (&["kv", "put", "blob", &at_file], "", 0, "blob: set\n", ""),
        (
            &["kv", "put", "blob", "@/nowhere"],
            "",
            2,
            "",
            "muster: cannot read the value from /nowhere: No such file or directory (os error 2)\n",
        ),
        (&["kv", "get", "app/limits"], "", 0, "max=10\n", ""),
        (&["kv", "get", "app/limits", "--raw"], "", 0, "max=10", ""),
        (&["kv", "get", "app/color"], "", 0, "blue\n", ""),
        (&["kv", "get", "blob", "--base64"], "", 0, "/wA=\n", ""),
        (
            &["kv", "list", "app/"],
            "",
            0,
            "KEY         VALUE\napp/color   blue\\n\napp/limits  max=10\napp/number  -5\n",
            "",
        ),
        (&["kv", "list", "--keys", "--separator", "/"], "", 0, "app/\nblob\n", ""),
        (&["kv", "put", "app/limits", "max=20", "--cas", "0"], "", 1, "", "muster: key app/limits exists: not set\n"),
        (
            &["kv", "put", "app/limits", "max=20", "--cas", "1"],
            "",
            1,
            "",
            "muster: key app/limits does not have index 1: not set\n",
        ),
        (
            &["kv", "delete", "app/limits", "--cas", "1"],
            "",
            1,
            "",
            "muster: key app/limits does not have index 1: not deleted\n",
        ),
        (&["kv", "put", "a b/ü?#%", "odd"], "", 0, "a b/ü?#%: set\n", ""),
        (&["kv", "get", "a b/ü?#%"], "", 0, "odd\n", ""),
        (&["kv", "delete", "blob"], "", 0, "blob: deleted\n", ""),
        (&["kv", "delete", "app/", "--recurse"], "", 0, "app/*: deleted\n", ""),
        (&["kv", "list", "--keys"], "", 0, "a b/ü?#%\n", ""),
    ];
    for (arguments, input, code, output, errors) in cases {
        let found = muster(&agent, arguments, input);
        assert_eq!(found, (*code, (*output).to_owned(), (*errors).to_owned()), "{arguments:?}");
    }
    done(&agent, &["kv", "put", "count", "1", "--flags", "7"], "");
    let entry: Value = serde_json::from_str(&done(&agent, &["kv", "get", "count", "--json"], "")).unwrap();
    assert_eq!((&entry["Flags"], &entry["Value"]), (&7.into(), &"MQ==".into()));
    let index = entry["ModifyIndex"].to_string();
    assert_eq!(done(&agent, &["kv", "put", "count", "2", "--cas", &index, "--json"], ""), "true\n");
    fs::write(&file, vec![b'x'; 512 * 1024 + 1]).unwrap();
    let (code, _, errors) = muster(&agent, &["kv", "put", "big", &at_file], "");
    assert!(code == 2 && errors.contains("is too long: the limit is 524288 octets"), "{errors}");
}

#[test]
fn cluster_without_store_says_so() {
    let agent = Agent::start();
    let cases: &[&[&str]] = &[
        &["kv", "get", "a"],
        &["kv", "put", "a", "b"],
        &["kv", "export"],
        &["lock", "a", "--", "true"],
        &["store", "status"],
        &["store", "add", "b"],
    ];
    for arguments in cases {
        let (code, output, errors) = muster(&agent, arguments, "");
        assert_eq!((code, &*output), (1, ""), "{arguments:?}: {errors}");
        assert!(errors.starts_with("muster: this cluster has no store: set store.voters"), "{errors}");
    }
}

#[test]
fn export_import_snapshot_and_restore_move_keys() {
    let agent = agent();
    let folder = run::temp_dir();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // Of Consul's tool, more than one transaction.
    let keys = (0..200).map(|n| format!("{{\"key\": \"app/{n:03}\", \"flags\": {n}, \"value\": \"eA==\"}}"));
    let text = format!("[{}]", keys.collect::<Vec<_>>().join(",\n\t"));
    assert_eq!(done(&agent, &["kv", "import"], &text), "200 keys imported\n");
    done(&agent, &["kv", "put", "other", "1"], "");
    let exported = done(&agent, &["kv", "export", "app/"], "");
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(parsed(&exported), parsed(&text));
    assert_eq!(parsed(&done(&agent, &["kv", "export", "none"], "")), parsed("[]"));

    let backup = path("backup.json");
    assert_eq!(done(&agent, &["store", "snapshot", &backup], ""), "201 keys saved\n");
    done(&agent, &["kv", "put", "app/000", "changed"], "");
    done(&agent, &["kv", "put", "new", "1"], "");
    let (code, output, errors) = muster(&agent, &["store", "restore", &backup], "");
    assert_eq!((code, &*output), (1, ""));
    assert_eq!(
        errors,
        "muster: 1 key of the store is not in the backup, such as new: --delete-others deletes what is not in it\n"
    );
    let restored = done(&agent, &["store", "restore", &backup, "--delete-others"], "");
    assert_eq!(restored, "201 keys restored\n1 key deleted\n");
    assert_eq!(done(&agent, &["kv", "get", "app/000"], ""), "x\n");
    assert_eq!(muster(&agent, &["kv", "get", "new"], "").0, 1);
    let (code, _, errors) = muster(&agent, &["kv", "import", "/nowhere"], "");
    assert!(code == 2 && errors.starts_with("muster: cannot read /nowhere: "), "{errors}");
}

#[test]
fn watch_prints_each_change() {
    let agent = agent();
    done(&agent, &["kv", "put", "app/a", "1"], "");
    let mut watching = command(&agent, &["kv", "watch", "app/", "--recurse"]);
    let mut watching =
        Owned(watching.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let lines = process::lines(watching.0.stdout.take().unwrap());
    let next = || lines.recv_timeout(support::wait::DEADLINE).unwrap();
    assert_eq!(next(), "set app/a 1");
    done(&agent, &["kv", "put", "app/b", "2"], "");
    assert_eq!(next(), "set app/b 2");
    done(&agent, &["kv", "put", "other", "1"], "");
    done(&agent, &["kv", "delete", "app/a"], "");
    assert_eq!(next(), "delete app/a");
}

#[test]
fn lock_excludes_others_and_keeps_the_exit_code() {
    let agent = agent();
    let (code_of_command, output, _) = muster(&agent, &["lock", "job", "--", "sh", "-c", "echo ran; exit 7"], "");
    assert_eq!((code_of_command, &*output), (7, "ran\n"));
    // The key is removed with the lock.
    assert_eq!(muster(&agent, &["kv", "get", "job/.lock"], "").0, 1);
    assert_eq!(muster(&agent, &["lock", "job", "--", "/nowhere"], "").0, 127);
    let (usage, _, errors) = muster(&agent, &["lock", "job", "--ttl", "1s", "--", "true"], "");
    assert!(usage == 2 && errors.contains("expected 10s to 24h"), "{errors}");

    let mut first = spawn(&agent, &["lock", "job", "--", "sleep", "600"]);
    wait_for_holder(&agent, "job");
    let (waited, _, errors) = muster(&agent, &["lock", "job", "--wait", "1s", "--", "true"], "");
    assert!(waited == 1 && errors.contains("lock job was not acquired within 1s"), "{errors}");
    let put = format!("{} kv put after second", env!("CARGO_BIN_EXE_muster"));
    let mut second = spawn(&agent, &["lock", "job", "--", "sh", "-c", &put]);
    // SIGTERM is passed on to the first command; its end frees the lock for the second one at once.
    kill(process::pid(&first.0), Signal::SIGTERM).unwrap();
    assert_eq!(code(&mut first.0), Some(128 + Signal::SIGTERM as i32));
    assert_eq!(code(&mut second.0), Some(0));
    wait_for_value(&agent, "after", "second");
}

#[test]
fn lost_lock_ends_the_command() {
    let agent = agent();
    let folder = run::temp_dir();
    let ended = folder.path().join("ended");
    let ready = folder.path().join("ready");
    let script =
        |on_term: &str| format!("trap '{on_term}' TERM; touch {}; sleep 600 & wait; sleep 600", ready.display());
    let on_term = format!("echo TERM > {}; exit 0", ended.display());
    let mut locked = spawn(&agent, &["lock", "job", "--", "sh", "-c", &script(&on_term)]);
    let session = wait_for_holder(&agent, "job");
    until("the command runs", || ready.exists());
    let destroyed = process::command("curl")
        .args(["-sS", "-X", "PUT", &format!("http://{}/v1/session/destroy/{session}", agent.http())])
        .finish();
    assert_eq!(destroyed.stdout, b"true");
    assert_eq!(code(&mut locked.0), Some(1));
    assert_eq!(fs::read_to_string(&ended).unwrap(), "TERM\n");

    // A command that ignores SIGTERM is killed.
    fs::remove_file(&ready).unwrap();
    let mut stubborn = spawn(&agent, &["lock", "other", "--", "sh", "-c", &script("")]);
    let session = wait_for_holder(&agent, "other");
    until("the command runs", || ready.exists());
    process::command("curl")
        .args(["-sS", "-X", "PUT", &format!("http://{}/v1/session/destroy/{session}", agent.http())])
        .finish();
    assert_eq!(code(&mut stubborn.0), Some(1));
}

#[test]
fn store_is_shown_changed_and_recovered() {
    let mut agent = agent();
    done(&agent, &["kv", "put", "key", "kept"], "");
    let status = done(&agent, &["store", "status"], "");
    assert!(status.contains("leader    host-a, term ") && status.contains("host-a  leader  0 entries"), "{status}");
    // The leader gives the cluster its id shortly after the election.
    let status_now = || -> Value { serde_json::from_str(&done(&agent, &["store", "status", "--json"], "")).unwrap() };
    until("the cluster has an id", || status_now()["ClusterID"] != "");
    let status = status_now();
    assert_eq!((&status["Leader"], &status["Keys"]), (&"host-a".into(), &1.into()));
    let cases: &[(&[&str], &str)] = &[
        (&["store", "add", "host-b"], "muster: host-b cannot be reached"),
        (&["store", "add", "host-a"], "muster: host-a is a voter already"),
        (&["store", "remove", "host-b"], "muster: host-b is not a member"),
        (&["store", "remove", "host-a"], "muster: the last voter cannot be removed"),
    ];
    for (arguments, expected) in cases {
        let (code, _, errors) = muster(&agent, arguments, "");
        assert!(code == 1 && errors.starts_with(expected), "{arguments:?}: {errors}");
    }

    let data = agent.path("data").display().to_string();
    let recover = ["store", "recover", "--data-dir", &data, "--node", "host-a"];
    let (code, _, errors) = muster(&agent, &recover, "");
    assert!(code == 2 && errors.contains("an agent is using it"), "{errors}");
    agent.signal(Signal::SIGTERM);
    agent.wait();
    let recovered = done(&agent, &recover, "");
    assert!(recovered.starts_with("host-a is the only voter: 1 keys at revision "), "{recovered}");
    agent.start_again();
    agent.wait_until_answering();
    wait_for_value(&agent, "key", "kept");
    until("a leader", || muster(&agent, &["store", "status"], "").0 == 0);
    done(&agent, &["kv", "put", "key", "new"], "");
    let again: Value = serde_json::from_str(&done(&agent, &["store", "status", "--json"], "")).unwrap();
    assert_eq!(again["ClusterID"], status["ClusterID"]);
    assert_ne!(again["Members"][0]["ID"], status["Members"][0]["ID"]);
}
