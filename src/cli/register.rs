//! `muster register` and `muster deregister`: services of the local agent, over its API.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use hyper::{Method, body::Bytes};
use serde_json::{Value as Json, json};

use super::{
    Exit,
    client::{self, Client, ClientError, print_json, segment, with},
    host_defaults::environment,
    input_files::{has_extension, read},
    output::{print, print_error},
    table::printable,
};
use crate::{
    config::Config,
    files::service_file::{self, Defaults},
    import::{
        MAX_FILE, Syntax, parse,
        registration::{Bodies, of_consul, of_service_file},
    },
    printable,
    yaml::{Document, tree::Value},
};

/// Options that describe a service, instead of a file.
const FLAGS: [&str; 6] = ["name", "id", "address", "port", "tag", "meta"];
/// Name of standard input.
const STDIN: &str = "-";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Service files of muster (YAML), or service definitions of Consul (JSON, HCL); - reads standard input
    #[arg(value_name = "FILE", required_unless_present_any = FLAGS, conflicts_with_all = FLAGS)]
    files: Vec<String>,
    /// Name of the service, instead of a file
    #[arg(long)]
    name: Option<String>,
    /// Id of the instance [default: the name]
    #[arg(long, requires = "name")]
    id: Option<String>,
    /// Address of the instance [default: that of the node]
    #[arg(long, requires = "name")]
    address: Option<String>,
    /// Port of the instance
    #[arg(long, requires = "name")]
    port: Option<u16>,
    /// Tag of the instance; may be repeated
    #[arg(long, value_name = "TAG", requires = "name")]
    tag: Vec<String>,
    /// Metadata of the instance; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "name", value_parser = pair)]
    meta: Vec<(String, String)>,
    #[command(flatten)]
    client: client::Args,
}

#[derive(Debug, clap::Args)]
pub(super) struct DeregisterArgs {
    /// Ids of the services, as registered
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    client: client::Args,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

/// A service to register.
struct Service {
    /// The file that defines it; `None`: the options.
    file: Option<PathBuf>,
    body: Json,
}

impl Service {
    fn name(&self) -> String {
        text(&self.body, &["Name", "name"])
    }

    fn id(&self) -> String {
        Some(text(&self.body, &["ID", "id", "Id"])).filter(|id| !id.is_empty()).unwrap_or_else(|| self.name())
    }
}

/// Registers all services of the files. All files are read before the first registration.
pub(super) fn register(args: &Args) -> Exit {
    with(&args.client, |client| {
        let services = services(args)?;
        let mut registered = Vec::new();
        for service in &services {
            let body = Bytes::from(service.body.to_string());
            client.change(Method::PUT, "/v1/agent/service/register", body).map_err(|error| {
                let file = service.file.as_ref().map_or(String::new(), |file| format!("{}: ", printable::path(file)));
                at_item(error, &format!("{file}cannot register {}", service.name()), "registered", &registered)
            })?;
            if !args.client.json {
                print(&format!("registered {} (id {})\n", printable(&service.name()), printable(&service.id())));
            }
            registered.push(service.id());
        }
        done(args.client.json, client, "Registered", &registered)
    })
}

/// Names the item of an error, and the ids before it, whose change stays.
fn at_item(error: ClientError, item: &str, change: &str, before: &[String]) -> ClientError {
    let before = match before {
        [] => format!("nothing was {change}"),
        ids => format!("{change} before it: {}", ids.join(", ")),
    };
    let name = |text: String| format!("{item}: {text}\n{before}");
    match error {
        ClientError::Refused(text) => ClientError::Refused(name(text)),
        ClientError::Failed(text) => ClientError::Failed(name(text)),
    }
}

/// Deregisters services.
pub(super) fn deregister(args: &DeregisterArgs) -> Exit {
    with(&args.client, |client| {
        for (number, id) in args.ids.iter().enumerate() {
            let path = format!("/v1/agent/service/deregister/{}", segment(id));
            client.change(Method::PUT, &path, Bytes::new()).map_err(|error| {
                at_item(error, &format!("cannot deregister {id}"), "deregistered", &args.ids[..number])
            })?;
            if !args.client.json {
                print(&format!("deregistered {}\n", printable(id)));
            }
        }
        done(args.client.json, client, "Deregistered", &args.ids)
    })
}

fn done(json: bool, client: &Client, key: &str, ids: &[String]) -> Result<(), ClientError> {
    if json { print_json(client, json!({key: ids}).to_string().as_bytes()) } else { Ok(()) }
}

fn text(body: &Json, keys: &[&str]) -> String {
    let found = keys.iter().find_map(|key| body.get(key)?.as_str());
    found.unwrap_or_default().to_owned()
}

fn services(args: &Args) -> Result<Vec<Service>, ClientError> {
    if let Some(name) = &args.name {
        let meta: serde_json::Map<String, Json> =
            args.meta.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let mut body = json!({"Name": name, "Tags": args.tag, "Meta": meta});
        for (field, value) in [
            ("ID", args.id.clone().map(Json::from)),
            ("Address", args.address.clone().map(Json::from)),
            ("Port", args.port.map(Json::from)),
        ] {
            if let Some(value) = value {
                body[field] = value;
            }
        }
        return Ok(vec![Service { file: None, body }]);
    }
    let mut all = Vec::new();
    for file in &args.files {
        let (path, bytes) = input(file)?;
        let Bodies { bodies, left_out } = read_bodies(&path, &bytes)?;
        for problem in left_out {
            print_error!("muster: warning: {}: {}", printable::path(&path), printable(&problem));
        }
        all.extend(bodies.into_iter().map(|body| Service { file: Some(path.clone()), body }));
    }
    Ok(all)
}

fn input(file: &str) -> Result<(PathBuf, Vec<u8>), ClientError> {
    if file == STDIN {
        let mut bytes = Vec::new();
        let read = std::io::stdin().take(MAX_FILE as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| ClientError::Failed(format!("cannot read standard input: {error}")))?;
        return Ok((PathBuf::from("(standard input)"), bytes));
    }
    let path = PathBuf::from(file);
    match read(&path, MAX_FILE) {
        Ok(text) => Ok((path, text.bytes)),
        Err(error) => Err(ClientError::Failed(format!("cannot read {}: {error}", printable::path(&path)))),
    }
}

/// Reads a file of muster or of Consul, by its name, else by its content.
fn read_bodies(path: &Path, bytes: &[u8]) -> Result<Bodies, ClientError> {
    let found = if is_service_file(path, bytes) {
        check_service_file(path, bytes)?;
        let document = Document::read(path, bytes, 0).map_err(|problem| ClientError::Failed(problem.to_string()))?;
        of_service_file(document.root())
    } else {
        let syntax = Syntax::of_name(path).unwrap_or_else(|| Syntax::of_text(&String::from_utf8_lossy(bytes)));
        let root = parse(path, bytes, syntax, 0).map_err(|problem| ClientError::Failed(problem.to_string()))?;
        of_consul(&root)
    };
    found.map_err(|error| ClientError::Failed(format!("{}: {error}", printable::path(path))))
}

/// Reports whether a file is a service file of muster.
fn is_service_file(path: &Path, bytes: &[u8]) -> bool {
    if has_extension(path, "yaml") || has_extension(path, "yml") {
        return true;
    }
    let is_json = bytes.trim_ascii_start().starts_with(b"{");
    if is_json || Syntax::of_name(path).is_some() {
        return false;
    }
    let Ok(document) = Document::read(path, bytes, 0) else { return false };
    matches!(&document.root().value, Value::Table(entries) if entries.iter().any(|entry| entry.key == "service" || entry.key == "services"))
}

/// Checks a service file by the rules of `muster validate`.
fn check_service_file(path: &Path, bytes: &[u8]) -> Result<(), ClientError> {
    let lines = |problems: Vec<crate::diagnostic::Diagnostic>| {
        ClientError::Failed(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    let config = Config::dev(Path::new(""), &environment()).map_err(lines)?;
    let defaults = Defaults { node: &config.node, addresses: config.advertise.addresses(), allow_exec: true };
    service_file::parse(path, bytes, &defaults).map(drop).map_err(lines)
}
