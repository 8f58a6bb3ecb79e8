//! The command line: parses the arguments, runs one command and returns its exit code.
//!
//! Each command has a file. Clap's help texts are also the source of the man pages and completions (`generate`).

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::{
    ffi::OsString,
    process::{ExitCode, Termination},
};

use clap::{
    Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

mod address;
mod agent;
mod client;
mod client_tls;
mod client_token;
mod completions_and_man;
mod dnssec;
mod drain;
mod explain;
pub mod host_defaults;
mod import;
pub mod input_files;
mod keyring;
mod kv;
mod local_agent;
mod lock;
mod log;
mod members;
mod monitor;
mod output;
mod register;
mod reload;
mod request_error;
mod setup;
mod signals;
mod status;
mod store;
mod table;
mod validate;
mod zone;

/// Exit status of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done,
    /// The command ran and reports problems.
    Problems,
    /// The agent refused the request.
    Refused,
    /// The command could not run, or its output is incomplete: a usage error, an unreadable file, an unreachable agent.
    CouldNotRun,
    /// Exit code of a program that the command ran.
    Program(u8),
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Problems | Self::Refused => 1,
            Self::CouldNotRun => 2,
            Self::Program(code) => code,
        })
    }
}

/// Exit codes, below the help of the program.
const EXIT_STATUS: &str = "\
Exit status:
  0  Success
  1  Problems found, or the agent refused the request
  2  Usage error, unreadable file, unreachable agent or unwritable output";

/// Service discovery over DNS
#[derive(Debug, Parser)]
#[command(name = "muster", version, after_help = EXIT_STATUS)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent
    Agent(agent::Args),
    /// Check configuration, service and zone files, and token files that a configuration names
    Validate(validate::Args),
    /// Convert Consul's configuration and service definitions, or compare its DNS answers with muster's
    Import(import::Args),
    /// Show cluster members
    Members(members::Args),
    /// List services with their number of answered instances
    Services(explain::ServicesArgs),
    /// List the instances of a service and the reason for the state of each
    Instances(explain::InstancesArgs),
    /// Explain the answer to a name, instance by instance
    Explain(explain::Args),
    /// Withdraw an instance or the node, and wait until it is safe to stop
    Drain(drain::Args),
    /// End a drain or maintenance
    Resume(drain::ResumeArgs),
    /// Register services with the agent, which announces them until they are deregistered
    Register(register::Args),
    /// Deregister services that were registered with the agent
    Deregister(register::DeregisterArgs),
    /// Reload the configuration and all files
    Reload(reload::Args),
    /// Join the clusters of other nodes
    Join(members::JoinArgs),
    /// Leave the cluster and stop the agent
    Leave(members::Args),
    /// Remove a node that never returns from all nodes
    ForceLeave(members::ForceLeaveArgs),
    /// Manage the gossip encryption keys of the cluster
    Keyring(keyring::Args),
    /// Read and write keys of the store
    Kv(kv::Args),
    /// Run a command while holding a lock of the store
    Lock(lock::Args),
    /// Show and change the voters of the store, back up and restore its keys
    Store(store::Args),
    /// List, show and compare zones, and notify their secondaries
    Zone(zone::Args),
    /// Show the state and the problems of the agent and its cluster
    Status(status::Args),
    /// Print events of instances, nodes and files as they occur
    Monitor(monitor::Args),
    /// Point the host's resolver at muster
    Setup(setup::Args),
    /// Generate a gossip encryption key
    Keygen,
    /// Make keys of signed zones, and print their DS records
    Dnssec(dnssec::Args),
    /// Generate shell completions
    Completions(completions_and_man::CompletionsArgs),
    /// Generate the man pages
    #[command(hide = true)]
    Man(completions_and_man::ManArgs),
}

/// Removes users and passwords of addresses from an error of the command line, which shows the value that it refuses.
fn hide_users(error: &mut clap::Error) {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg] {
        if let Some(ContextValue::String(text)) = error.get(kind) {
            let shown = ContextValue::String(address::without_user(text));
            error.insert(kind, shown);
        }
    }
}

/// Runs the program. The first argument is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(mut error) => {
            hide_users(&mut error);
            // Help and version arrive here too.
            let printed = error.print();
            if error.use_stderr() {
                return Exit::CouldNotRun;
            }
            output::keep(printed);
            return output::finish(Exit::Done);
        }
    };
    output::finish(execute(arguments))
}

/// Runs the command of the arguments.
fn execute(arguments: Arguments) -> Exit {
    match arguments.command {
        Command::Agent(args) => agent::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Members(args) => members::run(&args),
        Command::Services(args) => explain::services(&args),
        Command::Instances(args) => explain::instances(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Resume(args) => drain::resume(&args),
        Command::Register(args) => register::register(&args),
        Command::Deregister(args) => register::deregister(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Join(args) => members::join(&args),
        Command::Leave(args) => members::leave(&args),
        Command::ForceLeave(args) => members::force_leave(&args),
        Command::Keyring(args) => keyring::run(args),
        Command::Kv(args) => kv::run(args),
        Command::Lock(args) => lock::run(&args),
        Command::Store(args) => store::run(args),
        Command::Zone(args) => zone::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Monitor(args) => monitor::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Keygen => keyring::generate(),
        Command::Dnssec(args) => dnssec::run(&args),
        Command::Completions(args) => completions_and_man::completions(&args),
        Command::Man(args) => completions_and_man::man(&args),
    }
}
