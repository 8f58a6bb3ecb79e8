//! The command line: arguments in, an exit code out.

use std::{
    ffi::OsString,
    process::{ExitCode, Termination},
};

use clap::{Parser, Subcommand};

mod address;
mod agent;
mod ask_error;
mod client;
mod drain;
mod explain;
mod generate;
pub mod host_defaults;
pub mod inputs;
mod keyring;
mod members;
mod monitor;
mod setup;
mod status;
mod table;
mod tls;
mod token;
mod validate;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Done,
    /// What was looked at has problems.
    Problems,
    /// The agent that was asked said no.
    Refused,
    /// It could not be done: a wrong argument, a file that is not there, no agent to ask.
    CouldNotRun,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Problems | Self::Refused => 1,
            Self::CouldNotRun => 2,
        })
    }
}

/// Service discovery that is just DNS.
#[derive(Debug, Parser)]
#[command(name = "muster", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node: answer DNS for the services of this host
    Agent(agent::Args),
    /// Check configuration, service files and zone files, and print every problem
    Validate(validate::Args),
    /// Show the nodes of the cluster, as the agent sees them
    Members(members::Args),
    /// Show the services that are known, and how many of their instances are answered
    Services(explain::ServicesArgs),
    /// Show the instances of a service, and why each is answered or not
    Instances(explain::InstancesArgs),
    /// Say what is answered under a name, and what holds the rest back
    Explain(explain::Args),
    /// Take an instance, or the node, out of answers, and wait until it is safe to stop
    Drain(drain::Args),
    /// Give back what was drained or is in maintenance
    Resume(drain::ResumeArgs),
    /// Have the agent read its service and zone files again
    Reload(drain::ReloadArgs),
    /// Have the agent join the clusters of other nodes
    Join(members::JoinArgs),
    /// Have the agent say good-bye to the cluster and stop
    Leave(members::Args),
    /// Show or change the keys that nodes seal their gossip with
    Keyring(keyring::Args),
    /// Show how the agent and its cluster are, and what is not as it should be
    Status(status::Args),
    /// Print what happens as it happens: instances that go up and down, nodes, files
    Monitor(monitor::Args),
    /// Have the programs of this host ask muster: by systemd-resolved, or by resolv.conf
    Setup(setup::Args),
    /// Print a new key for gossip: 32 random octets in base64
    Keygen,
    /// Print what completes these commands in a shell
    Completions(generate::CompletionsArgs),
    /// Write the man pages into a folder: for packages
    #[command(hide = true)]
    Man(generate::ManArgs),
}

/// Runs the program with these arguments, the first of which is its own name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version arrive here too. If nobody reads what is printed, there is nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { Exit::CouldNotRun } else { Exit::Done };
        }
    };
    match arguments.command {
        Command::Agent(args) => agent::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Members(args) => members::run(&args),
        Command::Services(args) => explain::services(&args),
        Command::Instances(args) => explain::instances(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Resume(args) => drain::resume(&args),
        Command::Reload(args) => drain::reload(&args),
        Command::Join(args) => members::join(&args),
        Command::Leave(args) => members::leave(&args),
        Command::Keyring(args) => keyring::run(args),
        Command::Status(args) => status::run(&args),
        Command::Monitor(args) => monitor::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Keygen => keyring::generate(),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
    }
}
