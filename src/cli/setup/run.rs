//! One run of `muster setup`: writes the file, reloads the resolver, verifies the result, and undoes the change on failure.

use std::{net::SocketAddr, process::Command};

use super::{
    Options, STUB,
    backup::{ManagedFile, Undone},
    error::SetupError,
    facts, verify,
};
use crate::{
    cli::output::{print, print_error},
    config::{Config, Upstreams},
    model::{registered_name::RESERVED_SERVICE, upstream_address::UpstreamAddress},
};

/// A planned change of the host.
pub(super) struct Task<'o> {
    pub(super) options: &'o Options,
    pub(super) config: Config,
    pub(super) file: ManagedFile,
    /// Content of the file after its first line.
    pub(super) body: String,
    /// Command that makes the change effective.
    pub(super) reload: Option<[&'static str; 3]>,
    /// Notes for the user.
    pub(super) notes: Vec<String>,
    /// DNS address of the agent.
    pub(super) agent: SocketAddr,
    /// Resolvers of the host before the change.
    pub(super) before: Vec<SocketAddr>,
    /// Resolver of the host after the change.
    pub(super) after: SocketAddr,
    /// Advice for failed lookups.
    pub(super) hint: &'static str,
}

impl Task<'_> {
    /// Fails because of an obstacle; with `--force`, notes it instead.
    pub(super) fn obstacle(&mut self, error: SetupError) -> Result<(), SetupError> {
        if !self.options.force {
            return Err(error);
        }
        let text = error.to_string();
        self.notes.push(format!("ignored with --force: {}", text.lines().next().unwrap_or_default()));
        Ok(())
    }

    /// Requires that muster can resolve other names, for which the host has queried `upstreams` so far.
    pub(super) fn require_upstreams(&mut self, upstreams: Vec<UpstreamAddress>) -> Result<(), SetupError> {
        if !facts::resolves(&self.config, self.agent) {
            return self.obstacle(SetupError::NoRecursion);
        }
        match self.config.resolver.upstreams {
            Upstreams::System => {
                let (config, file) = (self.options.config.clone(), self.file.path().to_owned());
                self.obstacle(SetupError::NoUpstreams { config, file, upstreams })
            }
            Upstreams::Servers(_) => Ok(()),
        }
    }

    /// Makes the change, or describes it with `--dry-run`.
    pub(super) fn run(&self) -> Result<(), SetupError> {
        if self.options.dry_run { self.describe() } else { self.apply() }
    }

    fn describe(&self) -> Result<(), SetupError> {
        let mut text = format!("would write {}:\n", self.file.path().display());
        text.extend(self.file.text(&self.body)?.lines().map(|line| format!("    {line}\n")));
        text.extend(self.reload().map(|command| format!("would run: {}\n", command.join(" "))));
        if self.options.is_live() {
            text.push_str(&format!("would query the SOA record of {} at {}", self.config.domain, self.agent));
            text.push_str(if self.reload.is_some() { " and 127.0.0.53\n" } else { "\n" });
            text.push_str(&format!("would look up {}\n", self.node_name()));
        }
        print(&(text + &self.notes()));
        Ok(())
    }

    fn apply(&self) -> Result<(), SetupError> {
        let live = self.options.is_live();
        if live && let Err(cause) = verify::serial(self.agent, &self.config.domain) {
            let error = SetupError::Agent { server: self.agent, cause };
            if !self.options.force {
                return Err(error);
            }
            print_error!("muster: {error}");
        }
        let resolved_before = live && self.before.iter().any(|server| verify::resolves_root(*server).is_ok());
        self.file.write(&self.body)?;
        print(&format!("{}: written\n{}", self.file.path().display(), self.notes()));
        let outcome = self.reload().map_or(Ok(()), run_command);
        match outcome.and_then(|()| if live { self.verify(resolved_before) } else { Ok(()) }) {
            Err(error) if self.options.force => {
                print("changes kept (--force)\n");
                Err(error)
            }
            Err(error) => {
                // The first error decides the exit code; a failed undo is only printed.
                if let Err(second) = undo(self.options, &self.file, self.reload) {
                    print_error!("muster: {second}");
                }
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Verifies that programs of this host resolve names.
    fn verify(&self, resolved_before: bool) -> Result<(), SetupError> {
        let domain = &self.config.domain;
        let failed = |subject: &str| {
            let subject = subject.to_owned();
            move |cause| SetupError::Verification { subject, cause, hint: self.hint }
        };
        if self.reload.is_some() && verify::is_listening(STUB) {
            let same_serial = || {
                let expected = verify::serial(self.agent, domain)?;
                match verify::serial(STUB, domain)? {
                    serial if serial == expected => Ok(serial),
                    other => Err(format!("{domain} has serial {other}, but {expected} at the agent")),
                }
            };
            let serial = verify::retry(same_serial).map_err(failed("systemd-resolved at 127.0.0.53"))?;
            print(&format!(
                "agent at {} and systemd-resolved at 127.0.0.53: {domain} has serial {serial}\n",
                self.agent
            ));
        } else {
            let serial = verify::retry(|| verify::serial(self.agent, domain)).map_err(failed("agent"))?;
            print(&format!("agent at {}: {domain} has serial {serial}\n", self.agent));
        }
        let name = self.node_name();
        let found = || {
            let found = verify::look_up(name.trim_end_matches('.'))?;
            let is_own = self.config.advertise.addresses().iter().any(|address| found.contains(address));
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            if is_own { Ok(found.join(", ")) } else { Err(format!("{name} has address {}", found.join(", "))) }
        };
        let found = verify::retry(found).map_err(failed("C library"))?;
        print(&format!("C library: {name} has address {found}\n"));
        if resolved_before {
            verify::retry(|| verify::resolves_root(self.after)).map_err(|cause| SetupError::Verification {
                subject: format!("other names at {}, which resolved before", self.after),
                cause,
                hint: "No upstream of muster answers: set resolver.upstreams.",
            })?;
            print("other names: resolved as before\n");
        }
        Ok(())
    }

    /// The name of the agent's node.
    fn node_name(&self) -> String {
        format!("{}.{RESERVED_SERVICE}.{}", self.config.node, self.config.domain)
    }

    fn reload(&self) -> Option<[&'static str; 3]> {
        self.reload.filter(|_| self.options.is_live())
    }

    fn notes(&self) -> String {
        self.notes.iter().map(|note| format!("note: {note}\n")).collect()
    }
}

/// Restores the former state and reloads the resolver.
///
/// # Errors
/// The file cannot be restored, or the command fails.
pub(super) fn undo(options: &Options, file: &ManagedFile, reload: Option<[&'static str; 3]>) -> Result<(), SetupError> {
    let undone = file.undo(options.dry_run)?;
    let would = if options.dry_run { "would be " } else { "" };
    let path = file.path().display();
    print(&match undone {
        Undone::Nothing => format!("nothing to undo: {path} was not written by muster\n"),
        Undone::Removed => format!("{path}: {would}removed\n"),
        Undone::Restored => format!("{path}: {would}restored\n"),
    });
    match reload.filter(|_| undone != Undone::Nothing && options.is_live()) {
        Some(command) if options.dry_run => print(&format!("would run: {}\n", command.join(" "))),
        Some(command) => run_command(command)?,
        None => {}
    }
    Ok(())
}

fn run_command(command: [&str; 3]) -> Result<(), SetupError> {
    let [program, arguments @ ..] = command;
    let failed = |cause| SetupError::Command { command: command.join(" "), cause };
    let output = Command::new(program).args(arguments).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(if message.is_empty() { output.status.to_string() } else { message }));
    }
    print(&format!("{}: done\n", command.join(" ")));
    Ok(())
}
