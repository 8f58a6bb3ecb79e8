//! OpenAPI 3.1 description of the API, generated from the endpoint table, and the schemas of request bodies.

use axum::http::StatusCode;
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};

use super::{
    endpoint::{Answer, Body, Endpoint, rest},
    openapi_parameters,
};
use crate::api::kv::KeyValue;

/// Returns the description of these endpoints.
pub(super) fn describe(endpoints: &[Endpoint]) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    for endpoint in endpoints {
        let operation = operation(endpoint, &mut schemas);
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "muster",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Service discovery that is just DNS",
            "description": "Paths, names and JSON follow Consul's v1 API. Additions of muster are below /v1/muster/ or \
                            under the key Muster. JSON keys of requests are case-insensitive.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        // Without tokens, and on the Unix socket, no credentials are needed.
        "security": [{}, {"header": []}, {"bearer": []}, {"query": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "header": {"type": "apiKey", "in": "header", "name": "X-Consul-Token"},
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    })
}

fn operation(endpoint: &Endpoint, schemas: &mut SchemaGenerator) -> Value {
    let Endpoint { method, path, required, summary, query, body, answer, .. } = endpoint;
    let in_path = rest(path).into_iter().map(|(_, name)| {
        let (about, schema) = ("The rest of the path; `/` may be encoded.", json!({"type": "string", "minLength": 1}));
        json!({"name": name, "in": "path", "required": true, "description": about, "schema": schema})
    });
    let in_query = query.iter().copied().flatten().map(|parameter| {
        let (name, about, schema) = (parameter.name, parameter.about, parameter.kind.schema());
        json!({"name": name, "in": "query", "description": about, "schema": schema})
    });
    let words = path.split(['/', '-']).filter(|part| !part.is_empty()).map(|part| part.trim_matches(['{', '}']));
    let folder = path.ends_with('/').then_some("index");
    let id: Vec<&str> = std::iter::once(*method).chain(words).chain(folder).collect();
    let mut operation = json!({
        "operationId": id.join("_").to_ascii_lowercase(),
        "summary": summary,
        "tags": [path.split('/').nth(2).unwrap_or_default()],
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses(endpoint, answer, schemas),
    });
    match required {
        Some(required) => operation["x-muster-scope"] = required.as_str().into(),
        None => operation["security"] = json!([]),
    }
    match body {
        Body::Empty => {}
        Body::Json(schema) => {
            let schema = schema(schemas);
            operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
        }
        Body::Octets => {
            operation["requestBody"] = json!({"content": {"application/octet-stream": {"schema": {"type": "string"}}}});
        }
    }
    operation
}

fn responses(endpoint: &Endpoint, answer: &Answer, schemas: &mut SchemaGenerator) -> Value {
    let text = json!({"text/plain": {"schema": {"type": "string"}}});
    let mut done = json!({"description": "Success."});
    let mut responses = json!({"4XX": {"description": "Refused, with the reason as text.", "content": text}});
    for status in endpoint.errors {
        let about = match *status {
            StatusCode::INSUFFICIENT_STORAGE => "The store is full.",
            _ => "The store has no leader, or there is no such session.",
        };
        responses[status.as_str()] = json!({"description": about, "content": text});
    }
    match answer {
        Answer::Empty => {}
        Answer::Json(schema) => done["content"] = json!({"application/json": {"schema": schema(schemas)}}),
        Answer::JsonOrText(schema) => {
            done["content"] =
                json!({"application/json": {"schema": schema(schemas)}, "text/plain": text["text/plain"]});
            responses["404"] = json!({"description": "There is no such key."});
        }
        Answer::JsonOrConflict(schema) => {
            done["content"] = json!({"application/json": {"schema": schema(schemas)}});
            responses["409"] = json!({"description": "Nothing was applied.", "content": done["content"]});
        }
        Answer::Text(media) => done["content"] = json!({*media: text["text/plain"]}),
        Answer::Redirect(status) => {
            let place = json!({"schema": {"type": "string"}, "required": true});
            return json!({*status: {"description": "Redirect.", "headers": {"Location": place}, "content": text}});
        }
        Answer::Stream => done["content"] = json!({"text/event-stream": text["text/plain"]}),
        Answer::Readiness => {
            done["content"] = text.clone();
            responses["503"] = json!({"description": "Not ready, with the reason.", "content": text});
        }
        Answer::Health(schema) => {
            let content = json!({"application/json": {"schema": schema(schemas)}, "text/plain": text["text/plain"]});
            done = json!({"description": "Passing.", "content": content});
            responses["429"] = json!({"description": "Warning.", "content": content});
            responses["503"] = json!({"description": "Critical.", "content": content});
        }
    }
    if endpoint.query.iter().flat_map(|group| group.iter()).any(|parameter| parameter.name == openapi_parameters::INDEX)
    {
        let about = "Index of the state shown, for `index`.";
        let index = json!({"description": about, "required": true, "schema": {"type": "integer", "minimum": 1}});
        done["headers"] = json!({"X-Consul-Index": index});
    }
    responses["200"] = done;
    responses
}

/// Schema of the answers of `GET /v1/kv/{key}`: entries, or with `keys` names.
pub(super) fn keys(schemas: &mut SchemaGenerator) -> Schema {
    let (entries, names) = (schemas.subschema_for::<Vec<KeyValue>>(), schemas.subschema_for::<Vec<String>>());
    json_schema!({"anyOf": [entries, names]})
}

/// Schema of `PUT /v1/agent/service/register`, with the preferred spelling. Other fields of Consul are read, ignored,
/// or refused with a reason.
pub(super) fn registration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["Name"],
        "properties": {
            "Name": {"type": "string", "minLength": 1, "maxLength": 255, "description": "Any text; in DNS if it is a label of letters, digits, hyphens and underscores."},
            "ID": {"type": "string", "description": "Unique on the node; default: the name."},
            "Tags": {"type": ["array", "null"], "items": {"type": "string"}},
            "Meta": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
            "Address": {"type": "string", "description": "IP address, or a host name whose addresses the agent follows; default: the node's."},
            "Port": {"type": "integer", "minimum": 0, "maximum": 65535},
            "Weights": {"type": ["object", "null"], "properties": {"Passing": {"type": "integer", "minimum": 0, "maximum": 65535}}},
            "Check": check_schema(),
            "Checks": {"type": ["array", "null"], "items": check_schema()},
        },
    })
}

/// Schema of `PUT /v1/agent/check/register`.
pub(super) fn check(_: &mut SchemaGenerator) -> Schema {
    let mut schema = check_schema();
    schema["required"] = json!(["Name"]);
    schema["properties"]["ServiceID"] = json!({"type": "string", "description": "Without it, a check of the node."});
    schema.try_into().unwrap_or_default()
}

/// Schema of a check. Exactly one of TTL, HTTP, TCP, UDP, GRPC, H2PING, OSService, Args, AliasService and AliasNode is required.
fn check_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "CheckID": {"type": "string"},
            "Name": {"type": "string"},
            "Notes": {"type": "string"},
            "TTL": {"type": "string", "examples": ["30s"]},
            "HTTP": {"type": "string", "examples": ["http://127.0.0.1:8080/healthz"]},
            "Method": {"type": "string"},
            "Header": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
            "Body": {"type": "string"},
            "DisableRedirects": {"type": "boolean"},
            "TLSSkipVerify": {"type": "boolean"},
            "TLSServerName": {"type": "string"},
            "TCP": {"type": "string", "examples": ["127.0.0.1:8080"]},
            "UDP": {"type": "string", "examples": ["127.0.0.1:514"]},
            "GRPC": {"type": "string", "examples": ["127.0.0.1:9090/my.Service"]},
            "GRPCUseTLS": {"type": "boolean"},
            "H2PING": {"type": "string", "examples": ["127.0.0.1:8443"]},
            "H2PingUseTLS": {"type": "boolean", "default": true},
            "OSService": {"type": "string", "description": "A systemd unit.", "examples": ["nginx.service"]},
            "Args": {"type": "array", "items": {"type": "string"}, "description": "Needs checks.allow_exec: api."},
            "AliasNode": {"type": "string", "description": "This node."},
            "AliasService": {"type": "string"},
            "Interval": {"type": "string", "examples": ["10s"]},
            "Timeout": {"type": "string", "examples": ["2s"]},
            "OutputMaxSize": {"type": "integer", "minimum": 0},
            "Status": {"type": "string", "enum": ["passing", "warning", "critical"]},
            "SuccessBeforePassing": {"type": "integer", "minimum": 0},
            "FailuresBeforeWarning": {"type": "integer", "minimum": 0},
            "FailuresBeforeCritical": {"type": "integer", "minimum": 0},
            "DeregisterCriticalServiceAfter": {"type": "string", "examples": ["10m"]},
        },
    })
}

/// Schema of `PUT /v1/agent/check/update/{id}`.
pub(super) fn report(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["Status"],
        "properties": {
            "Status": {"type": "string", "enum": ["passing", "warning", "critical"]},
            "Output": {"type": "string"},
        },
    })
}

/// Schema of `PUT /v1/catalog/register`.
pub(super) fn catalog_registration(_: &mut SchemaGenerator) -> Schema {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let check = json!({
        "type": "object",
        "properties": {
            "Node": {"type": "string", "description": "The node of the registration."},
            "CheckID": {"type": "string", "description": "By default the name."},
            "Name": {"type": "string"},
            "Status": {"type": "string", "enum": ["passing", "warning", "critical"], "default": "critical"},
            "ServiceID": {"type": "string", "description": "Without it, the check is one of the node as a whole."},
            "Notes": {"type": "string"},
            "Output": {"type": "string"},
            "Definition": {"type": "object", "description": "Shown unchanged, for programs that execute the check."},
        },
    });
    json_schema!({
        "type": "object",
        "properties": {
            "Node": {"type": "string", "description": "This node (the default), or an external node."},
            "Address": {"type": "string", "description": "IP address of the external node."},
            "ID": {"type": "string", "format": "uuid"},
            "Datacenter": {"type": "string", "description": "That of this agent."},
            "TaggedAddresses": texts,
            "NodeMeta": texts,
            "SkipNodeUpdate": {"type": "boolean", "description": "Keep the fields of a node that is registered."},
            "Service": {
                "type": "object",
                "required": ["Service"],
                "properties": {
                    "Service": {"type": "string"},
                    "ID": {"type": "string"},
                    "Tags": {"type": "array", "items": {"type": "string"}},
                    "Meta": texts,
                    "Port": {"type": "integer", "minimum": 0, "maximum": 65535},
                    "Address": {"type": "string"},
                    "EnableTagOverride": {"type": "boolean"},
                },
            },
            "Check": check,
            "Checks": {"type": "array", "items": check},
        },
    })
}

/// Schema of `PUT /v1/catalog/deregister`.
pub(super) fn catalog_deregistration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "Node": {"type": "string", "description": "This node (the default), or an external node."},
            "Datacenter": {"type": "string", "description": "That of this agent."},
            "ServiceID": {"type": "string"},
            "CheckID": {"type": "string", "description": "Without it and a ServiceID: the external node as a whole."},
        },
    })
}

/// Schema of a keyring change.
pub(super) fn key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["Key"],
        "properties": {"Key": {"type": "string", "description": "Key in base64, or the id of an installed key."}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_endpoints_document_their_index_header() {
        let document = describe(&ENDPOINTS);
        let mut blocking = 0;
        for (path, operations) in document["paths"].as_object().unwrap() {
            for operation in operations.as_object().unwrap().values() {
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let blocks = parameters.iter().any(|parameter| parameter["name"] == "index");
                let header = &operation["responses"]["200"]["headers"]["X-Consul-Index"];
                assert_eq!(header.is_object(), blocks, "{path}");
                blocking += usize::from(blocks);
            }
        }
        assert!(blocking > 10, "{blocking} blocking endpoints");
    }

    use crate::http::endpoints::{self, ENDPOINTS};

    #[test]
    fn description_covers_exactly_the_endpoint_table() {
        let description = describe(&ENDPOINTS);
        let mut described = Vec::new();
        for (path, operations) in description["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                described.push(format!("{} {path}", method.to_ascii_uppercase()));
                for part in path.split('/').filter(|part| part.starts_with('{')) {
                    let named = |parameter: &&Value| format!("{{{}}}", parameter["name"].as_str().unwrap()) == part;
                    assert!(operation["parameters"].as_array().unwrap().iter().any(|p| named(&p)), "{path}: {part}");
                }
            }
        }
        let mut there: Vec<String> = endpoints::paths()
            .into_iter()
            .flat_map(|(path, methods)| {
                methods.split(", ").map(|method| format!("{method} {path}")).collect::<Vec<_>>()
            })
            .collect();
        described.sort();
        there.sort();
        assert_eq!(described, there);
    }

    #[test]
    fn references_resolve_and_operation_ids_are_unique() {
        let description = describe(&ENDPOINTS);
        let text = description.to_string();
        let targets: Vec<&str> =
            text.split("\"$ref\":\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(targets.len() > 20, "{targets:?}");
        for target in targets {
            assert!(description.pointer(target.strip_prefix('#').unwrap()).is_some(), "{target}");
        }
        let mut ids: Vec<&str> =
            text.split("\"operationId\":\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
    }
}
