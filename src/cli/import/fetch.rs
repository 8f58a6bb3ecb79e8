//! Reads a running agent of Consul over its HTTP API. Nothing is changed, and no query blocks.

use std::{cell::RefCell, path::PathBuf};

use serde_json::Value as Json;

use super::ImportError;
use crate::{
    cli::{
        address::Address,
        client::{Client, segment},
    },
    import::{AgentResponses, CatalogNode, Conversion, Options, OutputFile, convert, report::Finding},
};

/// Heading of these options in the help.
const HEADING: &str = "Options for URLs";
/// Environment variable with the token, as for the tools of Consul. That of muster is not sent to Consul.
const TOKEN_VARIABLE: &str = "CONSUL_HTTP_TOKEN";

/// Nodes of the catalog.
const NODES: &str = "/v1/catalog/nodes";

/// Options of requests to Consul.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct ConsulArgs {
    /// Read the token for Consul from this file instead of CONSUL_HTTP_TOKEN
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    token_file: Option<PathBuf>,
    /// Trust the certificate authorities in this PEM file instead of the system's
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    ca_file: Option<PathBuf>,
}

impl ConsulArgs {
    /// A client for an agent of Consul.
    fn client(&self, address: &Address) -> Result<Client, ImportError> {
        let (token_file, ca_file) = (self.token_file.as_deref(), self.ca_file.clone());
        Client::at(address.clone(), token_file, TOKEN_VARIABLE, ca_file)
            .map_err(|error| ImportError::Request(error.to_string()))
    }
}

/// Set to `true` if the server left out of a response what the token may not read.
const FILTERED: &str = "X-Consul-Results-Filtered-By-ACLs";
/// Access that a complete response needs, by the beginning of its path.
const ACCESS: &[(&str, &str)] = &[
    ("/v1/agent/self", "agent:read"),
    ("/v1/agent/services", "service:read"),
    ("/v1/agent/checks", "node:read and service:read"),
    ("/v1/catalog/nodes", "node:read"),
    ("/v1/catalog/services", "service:read"),
    ("/v1/catalog/node/", "node:read and service:read"),
    ("/v1/health/service/", "node:read and service:read"),
    ("/v1/health/node/", "node:read and service:read"),
];

/// Requests to one agent of Consul.
pub(super) struct Consul {
    client: Client,
    /// Responses that are incomplete.
    hidden: RefCell<Vec<Finding>>,
}

impl Consul {
    pub(super) fn new(args: &ConsulArgs, address: &Address) -> Result<Self, ImportError> {
        Ok(Self { client: args.client(address)?, hidden: RefCell::default() })
    }

    /// Sends a GET request and parses the response. An incomplete one is remembered.
    pub(super) fn get(&self, path: &str) -> Result<Json, ImportError> {
        let url = format!("{}{path}", self.client.address());
        let response = self.client.query(path).map_err(|error| ImportError::of_request(&error))?;
        let (status, body) = (response.status(), response.body());
        if !status.is_success() {
            return Err(ImportError::of_status(&url, status, &String::from_utf8_lossy(body), access(path)));
        }
        if response.headers().get(FILTERED).is_some_and(|value| value == "true") {
            self.hidden.borrow_mut().push(Finding::hidden(&url, access(path)));
        }
        serde_json::from_slice(body)
            .map_err(|error| ImportError::Request(format!("{url}: not JSON of Consul: {error}")))
    }

    /// The incomplete responses so far.
    pub(super) fn hidden(self) -> Vec<Finding> {
        self.hidden.into_inner()
    }
}

/// Access that a complete response needs.
fn access(path: &str) -> &'static str {
    ACCESS.iter().find(|(start, _)| path.starts_with(start)).map_or("read access", |(_, access)| access)
}

/// Converts the settings and services of one agent.
pub(super) fn agent(args: &ConsulArgs, address: &Address, options: &Options) -> Result<Conversion, ImportError> {
    let consul = Consul::new(args, address)?;
    let responses = AgentResponses {
        address: &address.to_string(),
        description: &consul.get("/v1/agent/self")?,
        services: &consul.get("/v1/agent/services")?,
        checks: &consul.get("/v1/agent/checks")?,
    };
    let sources = responses.sources().map_err(|error| ImportError::Request(error.to_string()))?;
    let mut converted = convert(&sources, options);
    converted.findings.extend(consul.hidden());
    converted.findings.sort();
    Ok(converted)
}

/// Converts all nodes of the catalog, each into a folder.
pub(super) fn catalog(args: &ConsulArgs, address: &Address, options: &Options) -> Result<Conversion, ImportError> {
    let consul = Consul::new(args, address)?;
    let nodes = format!("{address}{NODES}");
    let listed = consul.get(NODES)?;
    let names = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = names.iter().filter_map(|node| node.get("Node")?.as_str()).collect();
    let mut all = Conversion { files: Vec::new(), findings: Vec::new(), services: 0 };
    // A catalog has at least the node of the server. Without a token, Consul does not say that it hides nodes.
    if names.is_empty() {
        all.findings.push(Finding::hidden(&nodes, access(NODES)));
    }
    for name in names {
        let path = segment(name);
        let node = CatalogNode {
            address: &address.to_string(),
            name,
            node: &consul.get(&format!("/v1/catalog/node/{path}"))?,
            checks: &consul.get(&format!("/v1/health/node/{path}"))?,
        };
        let sources = node.sources().map_err(|error| ImportError::Request(error.to_string()))?;
        let own = Options {
            node: node.is_external().then(|| name.to_owned()),
            services_only: options.services_only || node.is_external(),
            ..options.clone()
        };
        let converted = convert(&sources, &own);
        let folder = folder(name);
        if node.is_external() {
            all.findings.push(Finding::external_node(&nodes, name));
        }
        all.files.extend(
            converted.files.into_iter().map(|file| OutputFile { path: format!("{folder}/{}", file.path), ..file }),
        );
        all.findings.extend(converted.findings);
        all.services += converted.services;
    }
    all.findings.extend(consul.hidden());
    all.findings.sort();
    all.findings.dedup();
    Ok(all)
}

/// Name of the folder of a node. Names of nodes are texts of other hosts.
fn folder(node: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let name: String = node.chars().map(plain).collect();
    let name = name.trim_matches('.');
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_nodes_stay_within_the_output() {
        for (node, expected) in [("web-1", "web-1"), ("../../etc", "-..-etc"), ("..", "node"), ("a/b c", "a-b-c")] {
            assert_eq!(folder(node), expected);
        }
    }
}
