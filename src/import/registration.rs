//! Service definitions as bodies of `PUT /v1/agent/service/register`, for `muster register`.
//!
//! A definition of Consul has the fields of a body already, in another spelling, which the API accepts. A muster service file
//! is translated key by key. It may have keys that a registration cannot express: those are errors.

use serde_json::{Map, Value as Json, json};

use super::tree::{Node, Value, is_key};
use crate::yaml::tree::{Entry as YamlEntry, Node as YamlNode, Value as YamlValue};

/// Bodies of registrations, and what they leave out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Bodies {
    /// One body per service.
    pub bodies: Vec<Json>,
    /// Keys that are not sent, each with the reason.
    pub left_out: Vec<String>,
}

/// A service file that cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The file defines no service.
    #[error("the file defines no service: `service` is missing")]
    NoService,
    /// A value has to be computed.
    #[error("`{0}` is an expression of HCL, which is not computed: write the value")]
    Expression(String),
    /// A key of a muster service file has no counterpart in the API.
    #[error("`{0}` cannot be registered over the API: put the file into `services_dir`")]
    Unsupported(String),
}

/// Reads a file of Consul: `service`, `services`, or the body of a registration itself.
///
/// # Errors
/// The file defines no service, or a value of one is an expression.
pub fn of_consul(root: &Node) -> Result<Bodies, RegistrationError> {
    let Value::Table(entries) = &root.value else { return Err(RegistrationError::NoService) };
    let mut out = Bodies::default();
    let has = |key: &str| entries.iter().any(|entry| is_key(&entry.key, key));
    if has("name") && !has("service") && !has("services") {
        out.add(body(root, "")?);
    }
    for entry in entries {
        if is_key(&entry.key, "service") || is_key(&entry.key, "services") {
            for node in entry.value.items() {
                out.add(body(node, &entry.key)?);
            }
        } else if out.bodies.is_empty() || !has("name") {
            out.left_out.push(format!("`{}` is not part of a service", entry.key));
        }
    }
    if out.bodies.is_empty() { Err(RegistrationError::NoService) } else { Ok(out) }
}

impl Bodies {
    /// Adds a body without its token, which the options of the command name.
    fn add(&mut self, mut body: Json) {
        if let Some(fields) = body.as_object_mut() {
            let before = fields.len();
            fields.retain(|key, _| !is_key(key, "token"));
            if fields.len() < before {
                self.left_out.push("`token` is not used: pass it with --token-file or MUSTER_HTTP_TOKEN".to_owned());
            }
        }
        self.bodies.push(body);
    }
}

/// The body of a definition at a path of keys.
fn body(node: &Node, path: &str) -> Result<Json, RegistrationError> {
    match expression(node, path) {
        Some(key) => Err(RegistrationError::Expression(key)),
        None => Ok(json(node)),
    }
}

/// Path of the first expression in a node.
fn expression(node: &Node, path: &str) -> Option<String> {
    match &node.value {
        Value::Expression => Some(path.to_owned()),
        Value::List(items) => items.iter().find_map(|item| expression(item, path)),
        Value::Table(entries) => entries.iter().find_map(|entry| {
            let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            expression(&entry.value, &path)
        }),
        _ => None,
    }
}

/// A node as JSON. Of repeated keys the last one counts.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null | Value::Expression => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Integer(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::List(items) => Json::Array(items.iter().map(json).collect()),
        Value::Table(entries) => Json::Object(
            entries
                .iter()
                .map(|entry| {
                    // Blocks of HCL that occur twice are a list; one alone is a table.
                    let is_list = is_key(&entry.key, "checks") && matches!(entry.value.value, Value::Table(_));
                    let value = json(&entry.value);
                    (entry.key.clone(), if is_list { Json::Array(vec![value]) } else { value })
                })
                .collect(),
        ),
    }
}

/// Keys of a service with their fields in a body.
const SERVICE_FIELDS: &[(&str, &str)] = &[("service", "Name"), ("id", "ID"), ("port", "Port"), ("meta", "Meta")];
/// Keys of a check with their fields in a body.
const CHECK_FIELDS: &[(&str, &str)] = &[
    ("http", "HTTP"),
    ("tcp", "TCP"),
    ("udp", "UDP"),
    ("grpc", "GRPC"),
    ("h2ping", "H2PING"),
    ("systemd", "OSService"),
    ("ttl", "TTL"),
    ("exec", "Args"),
    ("interval", "Interval"),
    ("timeout", "Timeout"),
    ("rise", "SuccessBeforePassing"),
    ("fall", "FailuresBeforeCritical"),
    ("warn_after", "FailuresBeforeWarning"),
    ("initial", "Status"),
    ("method", "Method"),
    ("body", "Body"),
    ("tls_skip_verify", "TLSSkipVerify"),
    ("tls_server_name", "TLSServerName"),
    ("output_max", "OutputMaxSize"),
];

/// Reads a muster service file, which is valid.
///
/// # Errors
/// A key has no counterpart in the API.
pub fn of_service_file(root: &YamlNode<'_>) -> Result<Bodies, RegistrationError> {
    let YamlValue::Table(entries) = &root.value else { return Err(RegistrationError::NoService) };
    let services = entries.iter().find(|entry| entry.key == "services").map(|entry| &entry.value.value);
    let bodies = match services {
        Some(YamlValue::List(items)) => items.iter().map(service).collect::<Result<Vec<_>, _>>()?,
        _ => vec![service(root)?],
    };
    if bodies.is_empty() { Err(RegistrationError::NoService) } else { Ok(Bodies { bodies, left_out: Vec::new() }) }
}

fn entries<'n, 't>(node: &'n YamlNode<'t>) -> &'n [YamlEntry<'t>] {
    match &node.value {
        YamlValue::Table(entries) => entries,
        _ => &[],
    }
}

fn service(node: &YamlNode<'_>) -> Result<Json, RegistrationError> {
    let mut body = Map::new();
    for entry in entries(node) {
        let value = yaml_json(&entry.value);
        match &*entry.key {
            "address" => addresses(&entry.value, &mut body),
            "tags" => drop(body.insert("Tags".to_owned(), Json::Array(list(&entry.value)))),
            "weight" => drop(body.insert("Weights".to_owned(), json!({"Passing": value, "Warning": 1}))),
            "checks" => {
                let checks: Result<Vec<_>, _> = items(&entry.value).iter().map(check).collect();
                body.insert("Checks".to_owned(), Json::Array(checks?));
            }
            // The values of the API.
            "protocol" if value == json!("tcp") => {}
            "enabled" if value == json!(true) => {}
            key => match SERVICE_FIELDS.iter().find(|(known, _)| *known == key) {
                Some((_, field)) => drop(body.insert((*field).to_owned(), value)),
                None => return Err(RegistrationError::Unsupported(key.to_owned())),
            },
        }
    }
    Ok(Json::Object(body))
}

/// The first address, and all of them by their families.
fn addresses(node: &YamlNode<'_>, body: &mut Map<String, Json>) {
    let all = list(node);
    let Some(first) = all.first() else { return };
    body.insert("Address".to_owned(), first.clone());
    let mut tagged = Map::new();
    for address in &all[1..] {
        let family = if address.as_str().is_some_and(|text| text.contains(':')) { "lan_ipv6" } else { "lan_ipv4" };
        tagged.insert(family.to_owned(), json!({"Address": address}));
    }
    if !tagged.is_empty() {
        body.insert("TaggedAddresses".to_owned(), Json::Object(tagged));
    }
}

fn check(node: &YamlNode<'_>) -> Result<Json, RegistrationError> {
    let mut body = Map::new();
    for entry in entries(node) {
        let value = yaml_json(&entry.value);
        match &*entry.key {
            "headers" => {
                let headers = entries(&entry.value).iter();
                let headers = headers.map(|header| (header.key.to_string(), json!([yaml_json(&header.value)])));
                body.insert("Header".to_owned(), Json::Object(headers.collect()));
            }
            // The API always warns at this status.
            "warn_status" if items(&entry.value).len() == 1 && list(&entry.value)[0] == json!(429) => {}
            // Either form is an id or a service's name in the API.
            "alias" => {
                let id =
                    entries(&entry.value).iter().find(|entry| entry.key == "id").map(|entry| yaml_json(&entry.value));
                body.insert("AliasService".to_owned(), id.unwrap_or(value));
            }
            "follow_redirects" => drop(body.insert("DisableRedirects".to_owned(), json!(value != json!(true)))),
            "tls" => {
                let has = |key: &str| entries(node).iter().any(|entry| entry.key == key);
                let field = match () {
                    () if has("grpc") => "GRPCUseTLS",
                    () if has("h2ping") => "H2PingUseTLS",
                    () => "TCPUseTLS",
                };
                body.insert(field.to_owned(), value);
            }
            key => match CHECK_FIELDS.iter().find(|(known, _)| *known == key) {
                Some((_, field)) => drop(body.insert((*field).to_owned(), value)),
                None => return Err(RegistrationError::Unsupported(format!("checks.{key}"))),
            },
        }
    }
    // The defaults of a service file, where those of the API differ.
    let is_probed = !body.contains_key("TTL") && !body.contains_key("AliasService");
    if is_probed {
        body.entry("FailuresBeforeCritical").or_insert(json!(crate::model::service::DEFAULT_FALL));
        if body.contains_key("HTTP") {
            body.entry("DisableRedirects").or_insert(json!(true));
        }
    }
    Ok(Json::Object(body))
}

/// One value or a list of them.
fn items<'n, 't>(node: &'n YamlNode<'t>) -> &'n [YamlNode<'t>] {
    match &node.value {
        YamlValue::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

fn list(node: &YamlNode<'_>) -> Vec<Json> {
    items(node).iter().map(yaml_json).collect()
}

fn yaml_json(node: &YamlNode<'_>) -> Json {
    match &node.value {
        YamlValue::Null | YamlValue::Float => Json::Null,
        YamlValue::Bool(flag) => json!(flag),
        YamlValue::Integer(number) => json!(number),
        YamlValue::Text(text) => json!(text),
        YamlValue::List(items) => Json::Array(items.iter().map(yaml_json).collect()),
        YamlValue::Table(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.to_string(), yaml_json(&entry.value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        import::{Syntax, parse},
        yaml::Document,
    };

    fn of_yaml(text: &str) -> Result<Bodies, RegistrationError> {
        of_service_file(Document::read(Path::new("x.yaml"), text.as_bytes(), 0).unwrap().root())
    }

    #[test]
    fn a_service_file_becomes_a_body() {
        let text = "service: web\naddress: [10.0.0.7, 'fd00::7']\nport: 80\ntags: v1\nweight: 7\nmeta: {a: b}\nprotocol: tcp\nchecks:\n- \
                    http: http://127.0.0.1/\n  headers: {Host: x}\n  interval: 5s\n- ttl: 30s\n- grpc: 127.0.0.1:1\n  tls: true\n  fall: 1\n- \
                    alias: {id: db-1}\n- alias: db\n";
        let expected = json!({
            "Name": "web", "Address": "10.0.0.7", "TaggedAddresses": {"lan_ipv6": {"Address": "fd00::7"}}, "Port": 80,
            "Tags": ["v1"], "Weights": {"Passing": 7, "Warning": 1}, "Meta": {"a": "b"},
            "Checks": [
                {"HTTP": "http://127.0.0.1/", "Header": {"Host": ["x"]}, "Interval": "5s", "FailuresBeforeCritical": 2,
                 "DisableRedirects": true},
                {"TTL": "30s"},
                {"GRPC": "127.0.0.1:1", "GRPCUseTLS": true, "FailuresBeforeCritical": 1},
                {"AliasService": "db-1"}, {"AliasService": "db"},
            ],
        });
        assert_eq!(of_yaml(text).unwrap().bodies, [expected]);
        assert_eq!(of_yaml("services: [{service: a}, {service: b}]").unwrap().bodies.len(), 2);
    }

    #[test]
    fn keys_without_a_field_are_errors() {
        for (text, key) in [
            ("service: web\nttl: 5s\n", "ttl"),
            ("service: web\nports: {http: 80}\n", "ports"),
            ("service: web\nprotocol: udp\n", "protocol"),
            ("service: web\nenabled: false\n", "enabled"),
            ("service: web\nchecks: [{http: 'http://a/', expect_status: 204}]\n", "checks.expect_status"),
        ] {
            assert_eq!(of_yaml(text), Err(RegistrationError::Unsupported(key.to_owned())), "{text}");
        }
        assert_eq!(of_yaml("services: []"), Err(RegistrationError::NoService));
    }

    #[test]
    fn definitions_of_consul_are_sent_without_tokens() {
        let bodies = |text: &str| of_consul(&parse(Path::new("x"), text.as_bytes(), Syntax::of_text(text), 0).unwrap());
        let cases = [
            (
                "{\"service\": {\"name\": \"web\", \"token\": \"secret\", \"port\": 80}}",
                json!([{"name": "web", "port": 80}]),
                1,
            ),
            ("{\"Name\": \"web\", \"ID\": \"web1\"}", json!([{"Name": "web", "ID": "web1"}]), 0),
            ("services {\n name = \"a\"\n}\nservices {\n name = \"b\"\n}\n", json!([{"name": "a"}, {"name": "b"}]), 0),
            (
                "service {\n name = \"a\"\n checks {\n ttl = \"5s\"\n }\n}\n",
                json!([{"name": "a", "checks": [{"ttl": "5s"}]}]),
                0,
            ),
            ("datacenter = \"x\"\nservice {\n name = \"a\"\n}\n", json!([{"name": "a"}]), 1),
        ];
        for (text, expected, left_out) in cases {
            let found = bodies(text).unwrap();
            assert_eq!(Json::Array(found.bodies.clone()), expected, "{text}");
            assert_eq!(found.left_out.len(), left_out, "{found:?}");
            assert!(!format!("{found:?}").contains("secret"), "{found:?}");
        }
        let computed = bodies("service {\n name = \"a\"\n port = var.port\n}\n");
        assert_eq!(computed, Err(RegistrationError::Expression("service.port".to_owned())));
        assert_eq!(bodies("{\"datacenter\": \"x\"}"), Err(RegistrationError::NoService));
    }
}
