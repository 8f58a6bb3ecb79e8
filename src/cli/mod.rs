//! The command line: arguments in, an exit code out.

use std::{
    ffi::OsString,
    process::{ExitCode, Termination},
};

use clap::{Parser, Subcommand};

mod agent;
pub mod environment;
pub mod sources;
mod validate;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Done,
    /// What was looked at has problems.
    Problems,
    /// It could not be done: a wrong argument, a file that is not there.
    CouldNotRun,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Problems => 1,
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
    }
}
