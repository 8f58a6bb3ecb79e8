//! etcdctl, the client of etcd's own project.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use nix::sys::signal::{Signal, kill};

use super::{
    process::{self, finish_within},
    skip,
    wait::DEADLINE,
};

/// Time limit of a command.
const LIMIT: Duration = Duration::from_secs(60);

/// etcdctl with the endpoints of a store.
pub struct Etcdctl {
    options: Vec<String>,
}

impl Etcdctl {
    /// Returns the client of these addresses.
    pub fn on(addresses: &[SocketAddr]) -> Self {
        Self { options: vec![endpoints("http", addresses)] }
    }

    /// Returns the client of addresses with TLS, which trusts an authority, or those of the system.
    pub fn with_tls(addresses: &[SocketAddr], authority: Option<&Path>) -> Self {
        let authority = authority.map(|authority| format!("--cacert={}", authority.display()));
        Self { options: std::iter::once(endpoints("https", addresses)).chain(authority).collect() }
    }

    /// Returns a command. Words of `arguments` are separated by spaces; words in quotes are one argument.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = process::command("etcdctl");
        command.env("ETCDCTL_API", "3").args(&self.options);
        for (index, part) in arguments.split('"').enumerate() {
            if index % 2 == 1 {
                command.arg(part);
            } else {
                command.args(part.split_whitespace());
            }
        }
        command
    }

    /// Runs a command with this input. Returns what it prints; errors begin with `Error`.
    #[track_caller]
    pub fn run_with(&self, arguments: &str, input: &str) -> String {
        let output = finish_within(&mut self.command(arguments), input, LIMIT);
        let Output { status, stdout, stderr } = output.unwrap_or_else(|error| panic!("{error}"));
        let [out, err] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).trim().to_owned());
        // `endpoint health` prints to standard error.
        if status.success() && !out.is_empty() { out } else { err }
    }

    /// Runs a command. Returns what it prints; errors begin with `Error`.
    #[track_caller]
    pub fn run(&self, arguments: &str) -> String {
        self.run_with(arguments, "")
    }

    /// Runs commands one after the other and compares what they print.
    #[track_caller]
    pub fn expect(&self, steps: &[(&str, &str)]) {
        for (arguments, expected) in steps {
            assert_eq!(self.run(arguments), *expected, "etcdctl {arguments}");
        }
    }

    /// Runs commands and expects that each prints a text, among others.
    #[track_caller]
    pub fn expect_part(&self, cases: &[(&str, &str)]) {
        for (arguments, expected) in cases {
            let text = self.run(arguments);
            assert!(text.contains(expected), "etcdctl {arguments}: {text}");
        }
    }

    /// Starts a command that keeps running.
    pub fn start(&self, arguments: &str) -> Running {
        let mut child = self.command(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = process::lines(child.stdout.take().unwrap());
        Running { program: process::Owned(child), lines }
    }
}

/// Reports whether etcdctl is installed; if not, skips `test`.
pub fn is_installed(test: &str) -> bool {
    skip::tool(test, "etcdctl", "etcd-client")
}

fn endpoints(scheme: &str, addresses: &[SocketAddr]) -> String {
    let urls: Vec<String> = addresses.iter().map(|address| format!("{scheme}://{address}")).collect();
    format!("--endpoints={}", urls.join(","))
}

/// A command that keeps running, and its lines.
pub struct Running {
    program: process::Owned,
    lines: Receiver<String>,
}

impl Running {
    /// Returns the next line.
    #[track_caller]
    pub fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line in time")
    }

    /// Returns the next lines.
    #[track_caller]
    pub fn lines<const COUNT: usize>(&self) -> [String; COUNT] {
        std::array::from_fn(|_| self.line())
    }

    /// Asserts that no line comes for a while.
    #[track_caller]
    pub fn assert_silent(&self, time: Duration) {
        assert_eq!(self.lines.recv_timeout(time), Err(RecvTimeoutError::Timeout));
    }

    /// Ends the command as Ctrl-C does.
    pub fn interrupt(&self) {
        kill(process::pid(&self.program.0), Signal::SIGINT).unwrap();
    }
}
