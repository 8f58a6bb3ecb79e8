//! `muster import`: converts the configuration and definitions of another system, and compares both systems.

mod compare;
mod dns_query;
mod fetch;
mod read;
mod write;

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use hyper::StatusCode;

use self::{fetch::ConsulArgs, write::Written};
use super::{
    Exit,
    address::{Address, AddressError, is_url, without_user},
    client::ClientError,
    host_defaults::environment,
    output::{print, print_error},
};
use crate::{
    import::{
        Conversion, Options, Privacy, convert,
        report::{self, FindingKind},
    },
    printable::{self, escaped_json},
};

/// Maximum length of the reason in a response, in characters: a proxy may answer with a page.
const MAX_REASON: usize = 200;
/// Note on an agent or a catalog without services.
const NO_SERVICES: &str = "Consul listed no services. It hides those that a token may not read (service:read).";
/// Exit codes, below the help of the command.
const EXIT_STATUS: &str = "\
Exit status:
  0  Everything was converted; --check: both systems answer alike
  1  Something was not converted: the report lists it, the files are complete otherwise; files of an earlier import are left;
     --check: answers differ, or nothing was compared
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
    /// Write the files to this folder instead of printing them with all values of checks
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
    /// An argument is no valid URL.
    #[error("{}: {error}", without_user(url))]
    Url {
        /// The argument.
        url: String,
        /// Its error.
        error: AddressError,
    },
    /// The URL of an agent among other arguments.
    #[error("a URL is the only argument: import one agent, or files")]
    SeveralUrls,
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
        Self::Request(error.to_string().lines().next().unwrap_or_default().to_owned())
    }

    /// The error of a response with another status than success.
    fn of_status(url: &str, status: StatusCode, body: &str, access: &str) -> Self {
        let reason: String = body.lines().next().unwrap_or_default().trim().chars().take(MAX_REASON).collect();
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let hint = if matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) {
            format!("\nSet a token with {access}, with --token-file or CONSUL_HTTP_TOKEN.")
        } else {
            String::new()
        };
        Self::Request(format!("{url} answered {status}{reason}{hint}"))
    }
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Exit {
    let System::Consul = args.system;
    match import(args) {
        Ok(exit) => exit,
        Err(error) => {
            for (at, line) in error.to_string().lines().enumerate() {
                print_error!("{}{}", if at == 0 { "muster: " } else { "" }, super::table::printable(line));
            }
            Exit::CouldNotRun
        }
    }
}

/// Files in the output folder.
struct InFolder {
    files: Vec<Written>,
    /// Service files of an earlier import that this one did not write.
    left: Vec<PathBuf>,
}

fn import(args: &Args) -> Result<Exit, ImportError> {
    let url = url(&args.from)?;
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
        Some(address) => fetch::agent(&args.consul, &address, &options)?,
        None if args.catalog => return Err(ImportError::NeedsUrl("catalog")),
        None => convert(&read::sources(&args.from)?, &options),
    };
    let written = match &args.output {
        Some(folder) => {
            let files = write::write(folder, &conversion.files, args.force)?;
            Some(InFolder { left: write::left(folder, &files), files })
        }
        None => None,
    };
    let is_complete = !conversion.findings.iter().any(|finding| finding.kind == FindingKind::NotConverted)
        && written.as_ref().is_none_or(|written| written.left.is_empty());
    show(args, &conversion, written.as_ref());
    Ok(if is_complete { Exit::Done } else { Exit::Problems })
}

/// The address of an agent, if the argument is a URL. A URL is never taken for a path, which an error would show.
fn url(from: &[String]) -> Result<Option<Address>, ImportError> {
    let Some(url) = from.iter().find(|text| is_url(text)) else { return Ok(None) };
    if from.len() > 1 {
        return Err(ImportError::SeveralUrls);
    }
    Address::from_str(url).map(Some).map_err(|error| ImportError::Url { url: url.clone(), error })
}

/// Prints files that were not written, and the report.
fn show(args: &Args, conversion: &Conversion, written: Option<&InFolder>) {
    if args.json {
        let files: Vec<_> = conversion
            .files
            .iter()
            .map(|file| {
                let is_secret = file.privacy == Privacy::Secret;
                let text = (!is_secret && written.is_none()).then_some(&file.text);
                serde_json::json!({"Path": file.path, "Secret": is_secret, "Text": text})
            })
            .collect();
        let left = written.map(|written| &*written.left).unwrap_or_default();
        let value = serde_json::json!({
            "Files": files, "Services": conversion.services, "Findings": conversion.findings, "Left": left,
        });
        return print(&escaped_json(&format!("{value:#}\n")));
    }
    let mut text = String::new();
    match written {
        Some(InFolder { files, left }) => {
            for file in files {
                let private = if file.is_private {
                    ", readable by this user only: the agent's group needs it, too (chgrp muster, chmod 640)"
                } else {
                    ""
                };
                text.push_str(&format!("wrote {}{private}\n", printable::path(&file.path)));
            }
            for path in left {
                let path = printable::path(path);
                text.push_str(&format!(
                    "left {path}, which an earlier import wrote: remove it if Consul has it no more\n"
                ));
            }
        }
        None => {
            for file in &conversion.files {
                let content =
                    if file.privacy == Privacy::Secret { "# a secret, which is not shown\n" } else { &file.text };
                text.push_str(&format!("==> {} <==\n{content}\n", file.path));
            }
        }
    }
    let plural = if conversion.services == 1 { "" } else { "s" };
    text.push_str(&format!("{} service{plural} converted\n", conversion.services));
    if conversion.services == 0 && args.from.iter().any(|from| is_url(from)) {
        text.push_str(&format!("{NO_SERVICES}\n"));
    }
    text.push_str(&report::to_text(&conversion.findings));
    print(&text);
}
