//! Commands for the store, run with the built program against an agent with a store of one voter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use support::{
    agent::Agent,
    http::ask,
    process::{self, Finish, Owned},
    run,
    wait::{poll, until},
};

const STORE: &str = "store: {voters: [host-a], etcd: {listen: [127.0.0.1:0]}}\n";

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

/// Updates and writes fail without a leader: the status of the agent names the reason and the remedy.
#[test]
fn store_without_leader_is_a_problem_of_the_status() {
    let agent = Agent::start_with("store: {voters: [host-a, host-b, host-c]}\n", &[], |_| {});
    let (code, output, _) = muster(&agent, &["status"], "");
    assert!(code == 1 && output.contains("the store has no leader"), "{code} {output}");
    assert!(output.contains("start the agents of"), "{output}");
    let (code, output, _) = muster(&agent, &["status", "--json"], "");
    let status: Value = serde_json::from_str(&output).unwrap();
    let problem = status["Muster"]["StoreProblem"].as_str().unwrap();
    assert!(code == 1 && problem.starts_with("the store has no leader"), "{code} {problem}");
    // A request takes longer than this without a leader.
    let start = Instant::now();
    let (code, _, errors) = muster(&agent, &["lock", "job", "--wait", "1s", "--", "true"], "");
    assert_eq!((code, &*errors), (124, "muster: lock job was not acquired within 1s\n"));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let agent = self::agent();
    assert_eq!(muster(&agent, &["status"], "").0, 0);
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
    poll(|| holder(agent, name).ok_or("no session holds the lock"))
}

/// Ends a session, as an operator does.
#[track_caller]
fn destroy(agent: &Agent, session: &str) {
    let answer = ask(agent.http(), "PUT", &format!("/v1/session/destroy/{session}"), "");
    assert_eq!((answer.status, answer.body.trim()), (200, "true"));
}

/// Reports whether a process runs. A process that ended and was not waited for does not.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
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
fn snapshot_replaces_its_file_at_once_and_holds_any_value() {
    let agent = agent();
    let folder = run::temp_dir();
    let path = |name: &str| folder.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    done(&agent, &["kv", "put", "key", "kept"], "");
    // A file of an earlier version, a link to a file of another owner, and a former backup that every user may read.
    fs::write(path("backup.json.new"), "").unwrap();
    fs::write(path("other"), "of another").unwrap();
    symlink(path("other"), path("link")).unwrap();
    fs::write(path("backup.json"), "former").unwrap();
    fs::set_permissions(path("backup.json"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(done(&agent, &["store", "snapshot", &text("backup.json")], ""), "1 key saved\n");
    assert_eq!(fs::metadata(path("backup.json")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(path("other")).unwrap(), "of another");
    for file in [text("link"), text(""), "/dev/stdout".to_owned(), text("none/backup.json")] {
        let (code, output, errors) = muster(&agent, &["store", "snapshot", &file], "");
        assert!(code == 2 && output.is_empty() && errors.contains("cannot write"), "{file}: {errors}");
    }
    // The names of files are not those of `consul kv import`.
    let mut snapshot = command(&agent, &["store", "snapshot", "@backup.json"]);
    assert!(snapshot.current_dir(folder.path()).finish().status.success());
    let mut restore = command(&agent, &["store", "restore", "@backup.json"]);
    assert!(restore.current_dir(folder.path()).finish().status.success());

    // Only etcd's API writes such a value.
    let put = json!({"key": BASE64.encode(b"large"), "value": BASE64.encode(&vec![b'x'; 600 << 10])});
    assert_eq!(ask(agent.listening("etcd"), "POST", "/v3/kv/put", &put.to_string()).status, 200);
    let (code, output, errors) = muster(&agent, &["store", "snapshot", &text("backup.json")], "");
    // What `restore` does not bring back is a problem.
    assert_eq!((code, &*output), (1, "2 keys saved\n"), "{errors}");
    assert_eq!(
        errors,
        "muster: warning: 1 key has a value above 524288 octets, such as large: `restore` refuses this backup\n"
    );
    let (code, _, errors) = muster(&agent, &["store", "restore", &text("backup.json")], "");
    assert!(code == 2 && errors.contains("key \"large\" has a value of 614400 octets"), "{errors}");
    // A name that is not UTF-8: `restore` does not pretend to delete it.
    let put = json!({"key": BASE64.encode(b"\xff"), "value": ""});
    assert_eq!(ask(agent.listening("etcd"), "POST", "/v3/kv/put", &put.to_string()).status, 200);
    let (code, _, errors) = muster(&agent, &["store", "restore", "-", "--delete-others"], "[]");
    assert!(code == 1 && errors.starts_with("muster: 1 key of the store is not UTF-8: "), "{code} {errors}");
    assert_eq!(done(&agent, &["kv", "get", "key"], ""), "kept\n");
    let (code, _, errors) = muster(&agent, &["store", "snapshot", "-"], "");
    assert!(code == 1 && errors.contains("1 key is not UTF-8 and not in the backup"), "{code} {errors}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "{left:?}");
}

#[test]
fn backup_goes_through_standard_output_and_input() {
    let agent = agent();
    done(&agent, &["kv", "put", "key", "kept"], "");
    let backup = done(&agent, &["store", "snapshot", "-"], "");
    // Nothing else is written to the output: `muster kv export` gives the same octets.
    assert_eq!(backup, done(&agent, &["kv", "export"], ""));
    done(&agent, &["kv", "put", "key", "changed"], "");
    done(&agent, &["kv", "put", "new", "1"], "");
    let (code, output, errors) = muster(&agent, &["store", "restore", "-"], &backup);
    assert!(code == 1 && output.is_empty() && errors.contains("--delete-others"), "{errors}");
    let restored = done(&agent, &["store", "restore", "-", "--delete-others"], &backup);
    assert_eq!(restored, "1 key restored\n1 key deleted\n");
    assert_eq!(done(&agent, &["kv", "get", "key"], ""), "kept\n");
    // An input that ends early changes nothing.
    let (code, _, errors) = muster(&agent, &["store", "restore", "-", "--delete-others"], &backup[..backup.len() / 2]);
    assert!(code == 2 && errors.starts_with("muster: "), "{errors}");
    assert_eq!(done(&agent, &["kv", "get", "key"], ""), "kept\n");
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
fn exit_status_of_lock_tells_its_failures_from_the_command() {
    let agent = agent();
    let folder = run::temp_dir();
    let text = folder.path().join("text");
    fs::write(&text, "").unwrap();
    let text = text.display().to_string();
    let _holder = spawn(&agent, &["lock", "held", "--", "sleep", "600"]);
    wait_for_holder(&agent, "held");
    // Arguments, exit code, output, part of the errors. `lost_lock_ends_all_processes_of_the_command` has the lost lock.
    let cases: &[(&[&str], i32, &str, &str)] = &[
        (&["job", "--", "sh", "-c", "echo ran; exit 7"], 7, "ran\n", ""),
        (&["job", "--", "true"], 0, "", ""),
        (&["job", "--", "sh", "-c", "kill -KILL $$"], 128 + 9, "", ""),
        (&["job", "--", "/nowhere"], 127, "", "muster: cannot start /nowhere: No such file"),
        (&["job", "--", &text], 126, "", "muster: cannot start "),
        (&["held", "--wait", "1s", "--", "true"], 124, "", "lock held was not acquired within 1s"),
        (&["job", "--ttl", "1s", "--", "true"], 2, "", "expected 10s to 24h"),
        (&["job", "--http-addr", "127.0.0.1:1", "--", "true"], 2, "", "cannot query the agent"),
    ];
    for (arguments, code, output, errors) in cases {
        let (found, printed, complaint) = muster(&agent, &[&["lock"], *arguments].concat(), "");
        assert_eq!((found, &*printed), (*code, *output), "{arguments:?}: {complaint}");
        assert!(complaint.contains(errors), "{arguments:?}: {complaint}");
    }
    // The key is removed with the lock.
    assert_eq!(muster(&agent, &["kv", "get", "job/.lock"], "").0, 1);
}

#[test]
fn lock_with_a_limit_has_several_holders() {
    let agent = agent();
    let folder = run::temp_dir();
    let started = |name: &str| folder.path().join(name);
    let start = |name: &str, limit: &str| {
        let script = format!("touch {}; sleep 600", started(name).display());
        spawn(&agent, &["lock", "job", "--limit", limit, "--", "sh", "-c", &script])
    };
    let mut holders = ["a", "b", "c"].map(|name| start(name, "3"));
    until("three commands run", || ["a", "b", "c"].iter().all(|name| started(name).exists()));
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--limit", "3", "--wait", "1s"], 124, "lock job was not acquired within 1s"),
        (&["--limit", "2"], 1, "key job/.lock is not a lock with `--limit 2`: all contenders set the same limit"),
        (&[], 1, "the lock has several holders: set --limit to their number"),
        (&["--limit", "0"], 2, "0 is not in 1..=1000"),
    ];
    for (options, code, expected) in cases {
        let (found, _, errors) = muster(&agent, &[&["lock", "job"], *options, &["--", "true"]].concat(), "");
        assert!(found == *code && errors.contains(expected), "{options:?}: {found} {errors}");
    }
    let lock: Value = serde_json::from_str(&done(&agent, &["kv", "get", "job/.lock"], "")).unwrap();
    assert_eq!((&lock["Limit"], lock["Holders"].as_object().unwrap().len()), (&3.into(), 3), "{lock}");

    // The next host takes the place of one that is lost, whose command is ended.
    let mut next = start("d", "3");
    let sessions = |agent: &Agent| -> Vec<String> {
        let lock: Value = serde_json::from_str(&done(agent, &["kv", "get", "job/.lock"], "")).unwrap();
        lock["Holders"].as_object().unwrap().keys().cloned().collect()
    };
    destroy(&agent, &sessions(&agent)[0]);
    until("the fourth command runs", || started("d").exists());
    let ended: Vec<Option<i32>> = poll(|| {
        let ended: Vec<_> = holders.iter_mut().filter_map(|holder| holder.0.try_wait().unwrap()).collect();
        if ended.is_empty() { Err("no command has ended") } else { Ok(ended.iter().map(ExitStatus::code).collect()) }
    });
    assert_eq!(ended, [Some(125)]);
    assert_eq!(sessions(&agent).len(), 3);

    // All keys are removed with the last holder.
    for holder in holders.iter_mut().chain([&mut next]) {
        if holder.0.try_wait().unwrap().is_none() {
            kill(process::pid(&holder.0), Signal::SIGTERM).unwrap();
            process::wait(&mut holder.0);
        }
    }
    assert_eq!(done(&agent, &["kv", "list", "job/", "--keys"], ""), "");
}

#[test]
fn lock_passes_to_the_next_waiting_command() {
    let agent = agent();
    let mut first = spawn(&agent, &["lock", "job", "--", "sleep", "600"]);
    wait_for_holder(&agent, "job");
    let put = format!("{} kv put after second", env!("CARGO_BIN_EXE_muster"));
    let mut second = spawn(&agent, &["lock", "job", "--", "sh", "-c", &put]);
    // SIGTERM is passed on to the first command; its end frees the lock for the second one at once.
    kill(process::pid(&first.0), Signal::SIGTERM).unwrap();
    assert_eq!(code(&mut first.0), Some(128 + Signal::SIGTERM as i32));
    assert_eq!(code(&mut second.0), Some(0));
    wait_for_value(&agent, "after", "second");
}

#[test]
fn lost_lock_ends_all_processes_of_the_command() {
    let agent = agent();
    let folder = run::temp_dir();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (ready, ended) = (path("ready"), path("ended"));
    // Reports its id, and ignores SIGTERM.
    let stubborn = format!("trap '' TERM; echo $$ > {ready}.new; mv {ready}.new {ready}; while :; do sleep 1; done");
    let child = path("child");
    fs::write(&child, &stubborn).unwrap();
    let leader_ends = format!("trap 'echo TERM > {ended}; exit 0' TERM; sh {child} & wait");
    for (name, script) in [("leader-ends", &leader_ends), ("leader-stays", &stubborn)] {
        let mut locked = spawn(&agent, &["lock", name, "--", "sh", "-c", script]);
        let session = wait_for_holder(&agent, name);
        until("the command runs", || fs::exists(&ready).unwrap());
        destroy(&agent, &session);
        assert_eq!(code(&mut locked.0), Some(125), "{name}");
        let pid = fs::read_to_string(&ready).unwrap();
        until("the process ends", || !is_running(pid.trim()));
        fs::remove_file(&ready).unwrap();
    }
    assert_eq!(fs::read_to_string(&ended).unwrap(), "TERM\n");
}

#[test]
fn store_is_shown_changed_and_recovered() {
    let mut agent = agent();
    done(&agent, &["kv", "put", "key", "kept"], "");
    // The leader gives the cluster its id shortly after the election.
    let status_now = || -> Value { serde_json::from_str(&done(&agent, &["store", "status", "--json"], "")).unwrap() };
    until("the cluster has an id", || status_now()["ClusterID"] != "");
    let status = done(&agent, &["store", "status"], "");
    assert!(
        status.contains("leader    host-a, term ") && status.contains("host-a  leader  alive  0 entries"),
        "{status}"
    );
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
    let last_entry = format!("\nthe last log entry has term {} and index ", status["Term"]);
    assert!(recovered.contains(&last_entry), "{recovered}");
    agent.start_again();
    agent.wait_until_answering();
    wait_for_value(&agent, "key", "kept");
    until("a leader", || muster(&agent, &["store", "status"], "").0 == 0);
    done(&agent, &["kv", "put", "key", "new"], "");
    let again: Value = serde_json::from_str(&done(&agent, &["store", "status", "--json"], "")).unwrap();
    assert_eq!(again["ClusterID"], status["ClusterID"]);
    assert_ne!(again["Members"][0]["ID"], status["Members"][0]["ID"]);
}
