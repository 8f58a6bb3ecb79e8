//! `muster store recover`: offline, on the surviving voter.

use std::path::PathBuf;

use serde_json::json;
use tokio::runtime::Builder;

use crate::{
    cli::{
        Exit,
        output::{print, print_error},
        table::printable,
    },
    printable,
    store::node::recovery::{Recovered, recover},
};

/// Name of the store's folder in the data directory.
const FOLDER: &str = "store";

/// Long help of the command.
pub(super) const ABOUT: &str = "\
Make this host's voter the only voter of the store, after a majority of the voters is lost for good.

First, stop the agents of all voters. If several voters survive, run the command on each of them: it prints the term and the index of \
the last log entry. The newest log is that with the greatest term; of equal terms, that with the greatest index. Start the agent of that \
voter only. On every other node that had the store, remove data_dir/store before its agent starts again: otherwise the other former \
voters could elect a leader of their own. Then add them with `muster store add`.

Writes that the lost voters acknowledged and this one did not receive are lost. Writes that were not acknowledged may be kept.";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data_dir of the agent's configuration
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of this node, as in the agent's configuration
    #[arg(long, value_name = "NAME")]
    node: String,
}

pub(super) fn run(args: &Args, json: bool) -> Exit {
    let outcome =
        Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string()).and_then(|runtime| {
            let recovered = runtime.block_on(recover(&args.data_dir.join(FOLDER), &args.node));
            recovered.map_err(|error| error.to_string())
        });
    match outcome {
        Ok(recovered) => {
            print(&if json { report_json(&recovered) } else { report(&recovered, &args.node) });
            Exit::Done
        }
        Err(error) => {
            print_error!("muster: the store was not recovered: {}", printable(&error));
            Exit::CouldNotRun
        }
    }
}

fn report(Recovered { state, former }: &Recovered, node: &str) -> String {
    let node = printable(node);
    let mut text = format!(
        "{node} is the only voter: {} keys at revision {}\nthe last log entry has term {} and index {}\n\
         {} entries of the log were not known to be committed; they are kept\nthe former store is in {}\nstart the agent of {node}\n",
        state.keys,
        state.revision,
        state.last_term,
        state.last_index,
        state.uncommitted,
        printable::path(former),
    );
    for removed in &state.removed {
        let removed = printable(removed);
        text.push_str(&format!(
            "on {removed}: remove data_dir/store before its agent starts, then run `muster store add {removed}`\n"
        ));
    }
    text
}

fn report_json(Recovered { state, former }: &Recovered) -> String {
    let value = json!({
        "Keys": state.keys,
        "Revision": state.revision.0,
        "LastTerm": state.last_term,
        "LastIndex": state.last_index,
        "Uncommitted": state.uncommitted,
        "Removed": state.removed,
        "Former": former.display().to_string(),
    });
    format!("{value:#}\n")
}
