//! Responses of Consul's HTTP API as the files that an agent could have been started with.
//!
//! The API does not tell the targets of checks, except of those that were registered with `catalog/register`.

use serde_json::Value as Json;

use super::{
    Source,
    tree::{Entry, FileNumber, Node, Position, Value},
};

/// A response that is not Consul's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not a response of Consul: {problem}")]
pub struct Unreadable {
    /// Address of the request.
    pub address: String,
    /// Description.
    pub problem: &'static str,
}

/// Responses of one agent about itself.
#[derive(Debug)]
pub struct AgentResponses<'a> {
    /// Address of the agent.
    pub address: &'a str,
    /// `/v1/agent/self`
    pub description: &'a Json,
    /// `/v1/agent/services`
    pub services: &'a Json,
    /// `/v1/agent/checks`
    pub checks: &'a Json,
}

/// Responses of the catalog about one node.
#[derive(Debug)]
pub struct CatalogNode<'a> {
    /// Address of the agent.
    pub address: &'a str,
    /// Name of the node.
    pub name: &'a str,
    /// `/v1/catalog/node/NAME`
    pub node: &'a Json,
    /// `/v1/health/node/NAME`
    pub checks: &'a Json,
}

/// Settings of `DebugConfig`, with their keys in files.
const SETTINGS: &[(&str, &[&str])] = &[
    ("DNSDomain", &["domain"]),
    ("DNSAltDomain", &["alt_domain"]),
    ("DNSOnlyPassing", &["dns_config", "only_passing"]),
    ("DNSServiceTTL", &["dns_config", "service_ttl"]),
    ("DNSNodeTTL", &["dns_config", "node_ttl"]),
    ("DNSRecursors", &["recursors"]),
    ("DNSPort", &["ports", "dns"]),
    ("HTTPPort", &["ports", "http"]),
    ("HTTPSPort", &["ports", "https"]),
    ("ClientAddrs", &["client_addr"]),
    ("EnableLocalScriptChecks", &["enable_local_script_checks"]),
    ("EnableRemoteScriptChecks", &["enable_script_checks"]),
    ("EncryptKey", &["encrypt"]),
    ("NodeMeta", &["node_meta"]),
    ("RetryJoinLAN", &["retry_join"]),
    ("RetryJoinWAN", &["retry_join_wan"]),
    ("StartJoinAddrsLAN", &["start_join"]),
    ("StartJoinAddrsWAN", &["start_join_wan"]),
    ("ServerMode", &["server"]),
    ("ACLsEnabled", &["acl", "enabled"]),
    ("Watches", &["watches"]),
];

/// Fields of a service that the API adds to its definition.
const OF_THE_API: &[&str] = &["ContentHash", "CreateIndex", "Datacenter", "ModifyIndex", "PeerName"];

impl AgentResponses<'_> {
    /// The files that the agent could have been started with: its settings, then one per service.
    ///
    /// # Errors
    /// A response has another shape than Consul's.
    pub fn sources(&self) -> Result<Vec<Source>, Unreadable> {
        let path = "/v1/agent/self";
        let config =
            self.description.get("Config").ok_or_else(|| unreadable(self.address, path, "`Config` is missing"))?;
        let mut settings = Vec::new();
        for (name, key) in [("NodeName", "node_name"), ("Datacenter", "datacenter")] {
            if let Some(value) = config.get(name) {
                put(&mut settings, &[key], node(value, 0));
            }
        }
        for (name, path) in SETTINGS {
            let Some(value) = self.description.get("DebugConfig").and_then(|all| all.get(name)) else { continue };
            let value = match (*name, value) {
                ("ClientAddrs", Json::Array(addresses)) => {
                    let texts: Vec<&str> = addresses.iter().filter_map(Json::as_str).collect();
                    Node { value: Value::Text(texts.join(" ")), at: Position::default() }
                }
                _ => node(value, 0),
            };
            put(&mut settings, path, value);
        }
        let settings = Node { value: Value::Table(settings), at: Position::default() };
        let mut sources = vec![source(self.address, path, "agent", settings)];
        let services = self.services.as_object();
        let services = services.ok_or_else(|| unreadable(self.address, "/v1/agent/services", "expected an object"))?;
        let checks = self.checks.as_object();
        let checks = checks.ok_or_else(|| unreadable(self.address, "/v1/agent/checks", "expected an object"))?;
        let checks: Vec<&Json> = checks.values().collect();
        add_services(&mut sources, self.address, "/v1/agent/services", services.values(), &checks, None);
        Ok(sources)
    }
}

impl CatalogNode<'_> {
    /// Reports whether the node runs no agent of Consul: then no agent of its own can announce its services.
    pub fn is_external(&self) -> bool {
        let checks = self.checks.as_array().map(Vec::as_slice).unwrap_or_default();
        !checks.iter().any(|check| check.get("CheckID").and_then(Json::as_str) == Some("serfHealth"))
    }

    /// The files that the node's agent could have been started with.
    ///
    /// # Errors
    /// A response has another shape than Consul's.
    pub fn sources(&self) -> Result<Vec<Source>, Unreadable> {
        let path = format!("/v1/catalog/node/{}", self.name);
        let found = self.node.get("Node").ok_or_else(|| unreadable(self.address, &path, "`Node` is missing"))?;
        let services = self.node.get("Services").and_then(Json::as_object);
        let services = services.ok_or_else(|| unreadable(self.address, &path, "`Services` is missing"))?;
        let mut settings = Vec::new();
        for (name, key) in [("Node", "node_name"), ("Datacenter", "datacenter"), ("Meta", "node_meta")] {
            if let Some(value) = found.get(name).filter(|value| !value.is_null()) {
                put(&mut settings, &[key], node(value, 0));
            }
        }
        if let Some(Value::Table(meta)) =
            settings.iter_mut().find(|entry| entry.key == "node_meta").map(|e| &mut e.value.value)
        {
            // Consul's own metadata: its version and network segment.
            meta.retain(|entry| !entry.key.starts_with("consul-"));
        }
        if self.is_external() {
            // Settings of a node without an agent configure none.
            settings.clear();
        }
        let settings = Node { value: Value::Table(settings), at: Position::default() };
        let mut sources = vec![source(self.address, &path, "agent", settings)];
        let checks: Vec<&Json> = self.checks.as_array().map(|checks| checks.iter().collect()).unwrap_or_default();
        let address = found.get("Address").and_then(Json::as_str).filter(|_| self.is_external());
        add_services(&mut sources, self.address, &path, services.values(), &checks, address);
        Ok(sources)
    }
}

fn unreadable(address: &str, path: &str, problem: &'static str) -> Unreadable {
    Unreadable { address: format!("{address}{path}"), problem }
}

fn source(address: &str, path: &str, stem: &str, root: Node) -> Source {
    // The API may need a token.
    Source { name: format!("{address}{path}"), stem: stem.to_owned(), root, is_public: false }
}

/// Adds one source per service name, with the checks of each instance. `address`: the default of all.
fn add_services<'a>(
    sources: &mut Vec<Source>,
    agent: &str,
    path: &str,
    services: impl Iterator<Item = &'a Json>,
    checks: &[&Json],
    address: Option<&str>,
) {
    for service in services {
        let text = |key| service.get(key).and_then(Json::as_str).unwrap_or_default();
        let (name, id) = (text("Service"), text("ID"));
        // Consul's servers are a service of the catalog.
        if name == "consul" {
            continue;
        }
        let at = sources.iter().position(|source| source.stem == name && source.name.starts_with(agent));
        let number = at.unwrap_or(sources.len());
        let Ok(file) = FileNumber::try_from(number) else { return };
        let mut definition = node(service, file);
        if let Value::Table(entries) = &mut definition.value {
            entries.retain(|entry| !OF_THE_API.contains(&entry.key.as_str()));
            let own = checks.iter().filter(|check| check.get("ServiceID").and_then(Json::as_str) == Some(id));
            let own: Vec<Node> = own.map(|check| check_node(check, file)).collect();
            let at = Position { file, line: 0 };
            entries.push(Entry { key: "checks".to_owned(), value: Node { value: Value::List(own), at } });
            if let Some(address) = address.filter(|_| text("Address").is_empty()) {
                entries.retain(|entry| entry.key != "Address");
                let value = Node { value: Value::Text(address.to_owned()), at };
                entries.push(Entry { key: "Address".to_owned(), value });
            }
        }
        match at.and_then(|at| sources.get_mut(at)) {
            Some(Source { root: Node { value: Value::Table(entries), .. }, .. }) => {
                if let Some(Entry { value: Node { value: Value::List(items), .. }, .. }) = entries.first_mut() {
                    items.push(definition);
                }
            }
            _ => {
                let list = Node { value: Value::List(vec![definition]), at: Position { file, line: 0 } };
                let mut entries = Vec::new();
                put(&mut entries, &["services"], list);
                let root = Node { value: Value::Table(entries), at: Position { file, line: 0 } };
                sources.push(source(agent, path, name, root));
            }
        }
    }
}

/// A check as a definition: `Definition` of a check that was registered with the catalog, else only its kind.
fn check_node(check: &Json, file: FileNumber) -> Node {
    let mut entries = match node(check.get("Definition").unwrap_or(&Json::Null), file).value {
        Value::Table(entries) => entries,
        _ => Vec::new(),
    };
    let is_duplicate = |key: &str| key.ends_with("Duration");
    entries.retain(|entry| !is_duplicate(&entry.key));
    for key in ["CheckID", "Name", "Notes", "Type", "Interval", "Timeout"] {
        let known = entries.iter().any(|entry| entry.key == key);
        if let Some(value) = check.get(key).filter(|_| !known) {
            entries.push(Entry { key: key.to_owned(), value: node(value, file) });
        }
    }
    Node { value: Value::Table(entries), at: Position { file, line: 0 } }
}

/// Puts a value at a path of keys.
fn put(entries: &mut Vec<Entry>, path: &[&str], value: Node) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        entries.push(Entry { key: (*first).to_owned(), value });
        return;
    }
    let at = value.at;
    if !entries.iter().any(|entry| entry.key == *first) {
        let table = Node { value: Value::Table(Vec::new()), at };
        entries.push(Entry { key: (*first).to_owned(), value: table });
    }
    if let Some(Entry { value: Node { value: Value::Table(inner), .. }, .. }) =
        entries.iter_mut().find(|e| e.key == *first)
    {
        put(inner, rest, value);
    }
}

/// JSON as a node without a line. serde_json bounds the nesting.
fn node(json: &Json, file: FileNumber) -> Node {
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Float(number.as_f64().unwrap_or(f64::MAX)),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(|item| node(item, file)).collect()),
        Json::Object(members) => {
            let entry = |(key, value): (&String, &Json)| Entry { key: key.clone(), value: node(value, file) };
            Value::Table(members.iter().map(entry).collect())
        }
    };
    Node { value, at: Position { file, line: 0 } }
}
