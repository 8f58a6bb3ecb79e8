//! Standard output and standard error of the commands: a full disk is an error, a closed pipe is none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    fs::{self, OpenOptions},
    io::{PipeWriter, pipe},
    process::{Command, ExitStatus, Stdio},
};

use support::{
    agent::Agent,
    http,
    process::{self, Finish, Owned},
    program::free,
    run,
    wait::{poll, until},
};
use tempfile::TempDir;

/// Commands that print. KEYS and FILE stand for a folder and a service file.
const COMMANDS: &[&str] = &[
    "--help",
    "kv --help",
    "help kv get",
    "--version",
    "keygen",
    "completions bash",
    "validate FILE",
    "dnssec keygen example.org --dir KEYS",
    "dnssec ds example.org --dir KEYS",
    "kv get key",
    "kv get key --raw",
    "kv get key --base64",
    "kv get key --json",
    "kv put key value",
    "kv list",
    "kv list --keys",
    "kv list --json",
    "kv export",
    "kv watch key",
    "kv watch key --json",
    "store status",
    "store status --json",
    "store snapshot -",
    "members",
    "services",
    "services --json",
    "instances web",
    "explain web.service.local",
    "status",
    "zone list",
    "zone show example.org",
    "zone diff example.org FILE.zone",
    "reload",
];

/// A service file.
const WEB: &str = "{service: web, id: w1, address: 10.0.0.1, port: 80}\n";

fn agent() -> Agent {
    let agent = Agent::start_with("store: {voters: [host-a]}\n", &[], |folder| {
        fs::write(folder.join("services.d/web.yaml"), WEB).unwrap();
        let zone = "$TTL 300\n@ SOA ns hostmaster 5 3600 600 86400 60\n@ NS ns\nns A 192.0.2.1\n";
        fs::write(folder.join("zones/example.org.zone"), zone).unwrap();
    });
    until("a key is written", || command(&agent, &["kv", "put", "key", "secret"]).finish().status.success());
    agent
}

fn command(agent: &Agent, arguments: &[&str]) -> Command {
    let mut command = process::muster();
    command.args(arguments).env("MUSTER_HTTP_ADDR", agent.http().to_string()).stdin(Stdio::null());
    command
}

/// Files that commands need.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(run::temp_dir());
        fs::write(files.0.path().join("other.zone"), "$TTL 300\n@ SOA ns hostmaster 5 3600 600 86400 60\n@ NS ns\n")
            .unwrap();
        let made =
            process::muster().args(["dnssec", "keygen", "example.org", "--dir"]).arg(files.path("keys")).finish();
        assert!(made.status.success(), "{made:?}");
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Returns a command of [`COMMANDS`].
    fn command(&self, agent: &Agent, text: &str) -> Command {
        let arguments: Vec<String> = text
            .split(' ')
            .map(|word| match word {
                "KEYS" => self.path("keys"),
                "FILE" => agent.path("services.d/web.yaml").display().to_string(),
                "FILE.zone" => self.path("other.zone"),
                other => other.to_owned(),
            })
            .collect();
        command(agent, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs a command to its end, and returns its exit code and standard error.
    fn run(&self, mut command: Command, text: &str) -> (Option<i32>, String) {
        let errors = self.path("errors");
        command.stderr(fs::File::create(&errors).unwrap());
        let mut running = Owned(command.spawn().unwrap());
        let ended: ExitStatus = poll(|| running.0.try_wait().unwrap().ok_or_else(|| format!("`{text}` has not ended")));
        (ended.code(), fs::read_to_string(errors).unwrap())
    }
}

/// Returns the end of a pipe that has no reader.
fn unread() -> PipeWriter {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn commands_fail_if_their_output_cannot_be_written() {
    let (agent, files) = (agent(), Files::new());
    for text in COMMANDS {
        let mut command = files.command(&agent, text);
        command.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
        let (code, errors) = files.run(command, text);
        assert_eq!(code, Some(2), "{text}: {errors}");
        assert!(
            errors.starts_with("muster: cannot write the ") && errors.contains("No space left"),
            "{text}: {errors}"
        );
        assert_eq!(errors.matches("No space left").count(), 1, "{text}: {errors}");
    }
}

/// `head -1` has read enough: the rest of the output is lost without a word.
#[test]
fn closed_pipe_is_no_error() {
    let (agent, files) = (agent(), Files::new());
    for text in COMMANDS {
        let mut command = files.command(&agent, text);
        command.stdout(unread());
        // The zone differs from the file.
        let expected = if text.starts_with("zone diff") { 1 } else { 0 };
        assert_eq!(files.run(command, text), (Some(expected), String::new()), "{text}");
    }
}

#[test]
fn unread_messages_do_not_change_the_exit_code() {
    let agent = agent();
    for (arguments, expected) in [
        (&["kv", "get", "none"][..], 1),
        (&["kv", "get", "key", "--cas"], 2),
        (&["zone", "show", "none.test"], 1),
        (&["zone", "diff", "example.org", "none.zone"], 2),
        (&["dnssec", "ds", "example.org", "--dir", "none"], 2),
        (&["validate", "none.yaml"], 2),
        (&["status", "--http-addr", "127.0.0.1:1"], 2),
        (&["agent", "--config", "none.yaml"], 2),
    ] {
        let mut command = command(&agent, arguments);
        command.stdout(unread()).stderr(unread());
        assert_eq!(command.spawn().unwrap().wait().unwrap().code(), Some(expected), "{arguments:?}");
    }
}

#[test]
fn agent_outlives_the_reader_of_its_log() {
    let (folder, listen) = (run::temp_dir(), free());
    for name in ["services.d", "zones"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let config = format!(
        "node: host-a\nadvertise: 10.0.0.7\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\ndns: {{listen: \
         [127.0.0.1:0]}}\nhttp: {{listen: [\"{listen}\"]}}\ngossip: {{listen: 127.0.0.1:0}}\nresolver: {{allow: []}}\n"
    );
    fs::write(folder.path().join("muster.yaml"), config).unwrap();
    let mut command = process::muster();
    command.args(["agent", "--config"]).arg(folder.path().join("muster.yaml")).stdin(Stdio::null()).stderr(unread());
    let mut agent = Owned(command.spawn().unwrap());
    let status = || http::try_ask(listen, "GET", "/v1/muster/status", "").map(|answer| answer.status);
    until("the agent answers", || status() == Some(200));
    fs::write(folder.path().join("services.d/web.yaml"), WEB).unwrap();
    let reloaded = process::muster().args(["reload", "--http-addr", &listen.to_string()]).finish();
    assert_eq!((reloaded.status.code(), status()), (Some(0), Some(200)), "{reloaded:?}");
    process::terminate(&mut agent.0);
    assert_eq!(process::wait(&mut agent.0).code(), Some(0));
}
