//! `muster reload`: makes the agent read its configuration and all files again.

use hyper::{Method, body::Bytes};

use super::{
    Exit,
    client::{self, print_json, with_exit},
    output::print,
    status::describe_problem,
};
use crate::api::Reloaded;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    client: client::Args,
}

/// Exits with 1 if the configuration was refused or a file has an error.
pub(super) fn run(args: &Args) -> Exit {
    with_exit(&args.client, |client| {
        let answer = client.change(Method::PUT, "/v1/agent/reload", Bytes::new())?;
        let reloaded: Reloaded = client.read(&answer)?;
        if args.client.json {
            print_json(client, &answer)?;
        } else {
            for problem in &reloaded.problems {
                print(&format!("{}\n", describe_problem(problem)));
            }
            print("reloaded\n");
        }
        let has_error = reloaded.problems.iter().any(|problem| problem.severity == "error");
        Ok(if has_error { Exit::Problems } else { Exit::Done })
    })
}
