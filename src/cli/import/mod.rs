//! `muster import`: converts the configuration and definitions of another system, and compares both systems.

mod compare;
mod dns_query;
mod fetch;
mod read;
mod write;

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use self::{fetch::ConsulArgs, write::Written};
use super::{Exit, address::Address, client::ClientError, host_defaults::environment, table::print};
use crate::{
    import::{
        Conversion, Options, convert,
        report::{self, FindingKind},
    },
    printable::escaped_json,
};

/// Exit codes, below the help of the command.
const EXIT_STATUS: &str = "\
Exit status:
  0  Everything was converted; --check: both systems answer alike
  1  Something was not converted: the report lists it, the files are complete otherwise; --check: answers differ
  2  Usage error, unreadable input, or output that exists";

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Args {
    /// System to convert from
    #[arg(value_enum)]
    system: System,
    /// Files and folders with *.json and *.hcl, or the URL of an agent: http://HOST:PORT, https://HOST:PORT or unix:///PATH
    #[arg(value_name = "PATH|URL", required = true)]
    from: Vec<String>,
    /// Write the files to this folder instead of printing them
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    output: Option<PathBuf>,
    /// Overwrite files that exist
    #[arg(long, requires = "output")]
    force: bool,
    /// Convert service files only, without a configuration
    #[arg(long)]
    services_only: bool,
    /// Name of the node, which ids have [default: `node_name` of the files, else the name of this host]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["catalog", "check"])]
    node: Option<String>,
    /// Convert all nodes of the catalog at URL, each into a folder of its own, instead of the agent's own services
    #[arg(long)]
    catalog: bool,
    /// Compare the DNS answers of both systems for every service in the catalog at URL
    #[arg(long, conflicts_with = "catalog")]
    check: bool,
    /// DNS server of the other system, for --check
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8600", requires = "check")]
    dns: SocketAddr,
    /// DNS server of muster, for --check
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:53", requires = "check")]
    muster_dns: SocketAddr,
    /// Domain of the names to compare [default: that of the agent at URL, else consul]
    #[arg(long, value_name = "NAME", requires = "check")]
    domain: Option<String>,
    #[command(flatten)]
    consul: ConsulArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// System to convert from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum System {
    /// Consul
    Consul,
}

/// Failure of an import.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    /// A request to the agent failed.
    #[error("{0}")]
    Request(String),
    /// An option needs the URL of an agent.
    #[error("--{0} needs one URL of an agent, such as http://127.0.0.1:8500")]
    NeedsUrl(&'static str),
    /// Files could not be read; the text has a line per problem.
    #[error("{0}")]
    Unreadable(String),
    /// Files exist.
    #[error("{0}\nRemove them, or overwrite them with --force.")]
    Exists(String),
    /// A file could not be written.
    #[error("cannot write {}: {error}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
}

impl ImportError {
    /// The error of a request, without the advice for requests to muster.
    fn of_request(error: &ClientError) -> Self {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let hint = if first.contains("ermission denied") || first.contains("ACL") || first.contains("403") {
            "\nSet a token that may read nodes, services and the agent, with --token-file or CONSUL_HTTP_TOKEN."
        } else {
            ""
        };
        Self::Request(format!("{first}{hint}"))
    }
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Exit {
    let System::Consul = args.system;
    match import(args) {
        Ok(exit) => exit,
        Err(error) => {
            for (at, line) in error.to_string().lines().enumerate() {
                eprintln!("{}{}", if at == 0 { "muster: " } else { "" }, super::table::printable(line));
            }
            Exit::CouldNotRun
        }
    }
}

fn import(args: &Args) -> Result<Exit, ImportError> {
    let url = url(&args.from);
    if args.check {
        return compare::run(args, url.as_ref().ok_or(ImportError::NeedsUrl("check"))?);
    }
    let options = Options {
        node: args.node.clone(),
        host_name: Some(environment().host_name),
        services_only: args.services_only,
    };
    let conversion = match url {
        Some(address) if args.catalog => fetch::catalog(&args.consul, &address, &options)?,
        Some(address) => convert(&fetch::agent(&args.consul, &address)?, &options),
        None if args.catalog => return Err(ImportError::NeedsUrl("catalog")),
        None => convert(&read::sources(&args.from)?, &options),
    };
    let written = match &args.output {
        Some(folder) => Some(write::write(folder, &conversion.files, args.force)?),
        None => None,
    };
    show(args, &conversion, written.as_deref());
    let lost = conversion.findings.iter().any(|finding| finding.kind == FindingKind::NotConverted);
    Ok(if lost { Exit::Problems } else { Exit::Done })
}

/// The address of an agent, if it is the only argument and a URL.
fn url(from: &[String]) -> Option<Address> {
    let [only] = from else { return None };
    let is_url = ["http://", "https://", "unix://"].iter().any(|scheme| only.starts_with(scheme));
    Address::from_str(only).ok().filter(|_| is_url)
}

/// Prints files that were not written, and the report.
fn show(args: &Args, conversion: &Conversion, written: Option<&[Written]>) {
    if args.json {
        let files: Vec<_> = conversion
            .files
            .iter()
            .map(|file| {
                let text = (!file.is_secret && written.is_none()).then_some(&file.text);
                serde_json::json!({"Path": file.path, "Secret": file.is_secret, "Text": text})
            })
            .collect();
        let value = serde_json::json!({
            "Files": files, "Services": conversion.services, "Findings": conversion.findings,
        });
        return print(&escaped_json(&format!("{value:#}\n")));
    }
    let mut text = String::new();
    match written {
        Some(files) => {
            for file in files {
                let private = if file.is_private {
                    ", readable by this user only: the agent's group needs it, too (chgrp muster, chmod 640)"
                } else {
                    ""
                };
                text.push_str(&format!("wrote {}{private}\n", crate::printable::path(&file.path)));
            }
        }
        None => {
            for file in &conversion.files {
                let content = if file.is_secret { "# a secret, which is not shown\n" } else { &file.text };
                text.push_str(&format!("==> {} <==\n{content}\n", file.path));
            }
        }
    }
    let plural = if conversion.services == 1 { "" } else { "s" };
    text.push_str(&format!("{} service{plural} converted\n", conversion.services));
    text.push_str(&report::to_text(&conversion.findings));
    print(&text);
}
