//! `muster reload`: makes the agent read its configuration and all files again.

use hyper::{Method, body::Bytes};

use super::{
    Exit,
    client::{self, print_json, with},
    status::describe_problem,
    table::print,
};
use crate::api::Reloaded;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    client: client::Args,
}

/// Exits with 1 if the configuration was refused or a file has an error.
pub(super) fn run(args: &Args) -> Exit {
    let mut exit = Exit::Done;
    let ran = with(&args.client, |client| {
        let answer = client.change(Method::PUT, "/v1/agent/reload", Bytes::new())?;
        let reloaded: Reloaded = client.read(&answer)?;
        if reloaded.problems.iter().any(|problem| problem.severity == "error") {
            exit = Exit::Problems;
        }
        if args.client.json {
            return print_json(client, &answer);
        }
        for problem in &reloaded.problems {
            print(&format!("{}\n", describe_problem(problem)));
        }
        print("reloaded\n");
        Ok(())
    });
    if ran == Exit::Done { exit } else { ran }
}
