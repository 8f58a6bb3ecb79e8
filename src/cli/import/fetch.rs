//! Reads a running agent of Consul over its HTTP API. Nothing is changed, and no query blocks.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::ImportError;
use crate::{
    cli::{
        address::Address,
        client::{Client, segment},
    },
    import::{AgentResponses, CatalogNode, Conversion, Options, OutputFile, Source, convert, report::Finding},
};

/// Heading of these options in the help.
const HEADING: &str = "Options for URLs";
/// Environment variable with the token, as for the tools of Consul. That of muster is not sent to Consul.
const TOKEN_VARIABLE: &str = "CONSUL_HTTP_TOKEN";

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
    pub(super) fn client(&self, address: &Address) -> Result<Client, ImportError> {
        let (token_file, ca_file) = (self.token_file.as_deref(), self.ca_file.clone());
        Client::at(address.clone(), token_file, TOKEN_VARIABLE, ca_file)
            .map_err(|error| ImportError::Request(error.to_string()))
    }
}

/// Sends a GET request and parses the response.
pub(super) fn get(client: &Client, path: &str) -> Result<Json, ImportError> {
    let body = client.get(path).map_err(|error| ImportError::of_request(&error))?;
    serde_json::from_slice(&body).map_err(|error| ImportError::Request(format!("{path}: not JSON of Consul: {error}")))
}

/// The settings and services of one agent.
pub(super) fn agent(args: &ConsulArgs, address: &Address) -> Result<Vec<Source>, ImportError> {
    let client = args.client(address)?;
    let responses = AgentResponses {
        address: &address.to_string(),
        description: &get(&client, "/v1/agent/self")?,
        services: &get(&client, "/v1/agent/services")?,
        checks: &get(&client, "/v1/agent/checks")?,
    };
    responses.sources().map_err(|error| ImportError::Request(error.to_string()))
}

/// Converts all nodes of the catalog, each into a folder.
pub(super) fn catalog(args: &ConsulArgs, address: &Address, options: &Options) -> Result<Conversion, ImportError> {
    let client = args.client(address)?;
    let listed = get(&client, "/v1/catalog/nodes")?;
    let names = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    let names = names.iter().filter_map(|node| node.get("Node")?.as_str());
    let mut all = Conversion { files: Vec::new(), findings: Vec::new(), services: 0 };
    for name in names {
        let path = segment(name);
        let node = CatalogNode {
            address: &address.to_string(),
            name,
            node: &get(&client, &format!("/v1/catalog/node/{path}"))?,
            checks: &get(&client, &format!("/v1/health/node/{path}"))?,
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
            all.findings.push(Finding::external_node(&format!("{address}/v1/catalog/nodes"), name));
        }
        all.files.extend(
            converted.files.into_iter().map(|file| OutputFile { path: format!("{folder}/{}", file.path), ..file }),
        );
        all.findings.extend(converted.findings);
        all.services += converted.services;
    }
    all.findings.sort();
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
