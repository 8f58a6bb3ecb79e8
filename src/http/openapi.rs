//! The API's description (OpenAPI 3.1), made of the endpoints and the shapes of their answers; and the shapes of what is sent.

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};

use super::{
    endpoint::{Answer, Body, Endpoint},
    parameter,
};

/// The description of these endpoints.
pub(super) fn describe(endpoints: &[Endpoint]) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut shapes = settings.into_generator();
    let mut paths = Map::new();
    for endpoint in endpoints {
        let operation = operation(endpoint, &mut shapes);
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "muster",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Service discovery that is just DNS",
            "description": "Paths, names and shapes are those of Consul's v1 API; what only muster has stands under \
                            /v1/muster/ or under the key Muster. JSON keys of requests are read whatever their case.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        // Where the agent has no tokens, and on its Unix socket, nothing is asked for.
        "security": [{}, {"header": []}, {"bearer": []}, {"query": []}],
        "paths": paths,
        "components": {
            "schemas": shapes.take_definitions(true),
            "securitySchemes": {
                "header": {"type": "apiKey", "in": "header", "name": "X-Consul-Token"},
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    })
}

fn operation(endpoint: &Endpoint, shapes: &mut SchemaGenerator) -> Value {
    let Endpoint { method, path, scope, summary, query, body, answer, .. } = endpoint;
    let name = |part: &'static str| part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let in_path = path.split('/').filter_map(name).map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}),
    );
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
        "responses": responses(endpoint, answer, shapes),
    });
    match scope {
        Some(scope) => operation["x-muster-scope"] = scope.as_str().into(),
        None => operation["security"] = json!([]),
    }
    match body {
        Body::Nothing => {}
        Body::Json(shape) => {
            let schema = shape(shapes);
            operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
        }
        Body::Octets => {
            operation["requestBody"] = json!({"content": {"application/octet-stream": {"schema": {"type": "string"}}}});
        }
    }
    operation
}

fn responses(endpoint: &Endpoint, answer: &Answer, shapes: &mut SchemaGenerator) -> Value {
    let text = json!({"text/plain": {"schema": {"type": "string"}}});
    let mut done = json!({"description": "It is so, or is done."});
    let mut responses = json!({"4XX": {"description": "It is refused; why, in one line or more.", "content": text}});
    match answer {
        Answer::Nothing => {}
        Answer::Json(shape) => done["content"] = json!({"application/json": {"schema": shape(shapes)}}),
        Answer::Text(media) => done["content"] = json!({*media: text["text/plain"]}),
        Answer::Elsewhere => {
            let place = json!({"schema": {"type": "string"}, "required": true});
            return json!({"307": {"description": "It is elsewhere.", "headers": {"Location": place}, "content": text}});
        }
        Answer::Stream => done["content"] = json!({"text/event-stream": text["text/plain"]}),
        Answer::Ready => {
            done["content"] = text.clone();
            responses["503"] = json!({"description": "It is not so, and why.", "content": text});
        }
        Answer::Health(shape) => {
            let content = json!({"application/json": {"schema": shape(shapes)}, "text/plain": text["text/plain"]});
            done = json!({"description": "It passes.", "content": content});
            responses["429"] = json!({"description": "It warns.", "content": content});
            responses["503"] = json!({"description": "It is critical.", "content": content});
        }
    }
    if endpoint.query.iter().any(|group| std::ptr::eq(*group, parameter::WAIT)) {
        let about = "For `index`: changes when the answer does.";
        let index = json!({"description": about, "required": true, "schema": {"type": "integer", "minimum": 1}});
        done["headers"] = json!({"X-Consul-Index": index});
    }
    responses["200"] = done;
    responses
}

/// The body of `PUT /v1/agent/service/register`, as it is best written. Other fields of Consul's are read, passed over, or
/// refused with a reason.
pub(super) fn registration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["Name"],
        "properties": {
            "Name": {"type": "string", "description": "A label of the DNS."},
            "ID": {"type": "string", "description": "Unique on the node; the name where there is none."},
            "Tags": {"type": ["array", "null"], "items": {"type": "string"}},
            "Meta": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
            "Address": {"type": "string", "description": "An IP address; the node's where there is none."},
            "Port": {"type": "integer", "minimum": 0, "maximum": 65535},
            "Weights": {"type": ["object", "null"], "properties": {"Passing": {"type": "integer", "minimum": 0, "maximum": 65535}}},
            "Check": check_schema(),
            "Checks": {"type": ["array", "null"], "items": check_schema()},
        },
    })
}

/// The body of `PUT /v1/agent/check/register`.
pub(super) fn check(_: &mut SchemaGenerator) -> Schema {
    let mut schema = check_schema();
    schema["required"] = json!(["Name", "ServiceID"]);
    schema["properties"]["ServiceID"] = json!({"type": "string"});
    schema.try_into().unwrap_or_default()
}

/// A check asks in one way: TTL, HTTP, TCP, GRPC or AliasService.
fn check_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "CheckID": {"type": "string"},
            "Name": {"type": "string"},
            "TTL": {"type": "string", "examples": ["30s"]},
            "HTTP": {"type": "string", "examples": ["http://127.0.0.1:8080/healthz"]},
            "Method": {"type": "string"},
            "Header": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
            "Body": {"type": "string"},
            "TLSSkipVerify": {"type": "boolean"},
            "TCP": {"type": "string", "examples": ["127.0.0.1:8080"]},
            "GRPC": {"type": "string", "examples": ["127.0.0.1:9090/my.Service"]},
            "AliasService": {"type": "string"},
            "Interval": {"type": "string", "examples": ["10s"]},
            "Timeout": {"type": "string", "examples": ["2s"]},
            "Status": {"type": "string", "enum": ["passing", "warning", "critical"]},
            "SuccessBeforePassing": {"type": "integer", "minimum": 0},
            "FailuresBeforeCritical": {"type": "integer", "minimum": 0},
            "DeregisterCriticalServiceAfter": {"type": "string", "examples": ["10m"]},
        },
    })
}

/// The body of `PUT /v1/agent/check/update/{id}`.
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

/// The body of `PUT /v1/catalog/register`: of this node alone.
pub(super) fn catalog_registration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["Service"],
        "properties": {
            "Node": {"type": "string", "description": "The node that is asked."},
            "Service": {
                "type": "object",
                "required": ["Service"],
                "properties": {
                    "Service": {"type": "string"},
                    "ID": {"type": "string"},
                    "Tags": {"type": "array", "items": {"type": "string"}},
                    "Port": {"type": "integer", "minimum": 0, "maximum": 65535},
                    "Address": {"type": "string"},
                },
            },
        },
    })
}

/// The body of `PUT /v1/catalog/deregister`: of this node alone.
pub(super) fn catalog_deregistration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "Node": {"type": "string", "description": "The node that is asked."},
            "ServiceID": {"type": "string"},
            "CheckID": {"type": "string"},
        },
    })
}

/// The body of changes of the keyring.
pub(super) fn key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["Key"],
        "properties": {"Key": {"type": "string", "description": "A key in base64 or, where it is known already, its id."}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::endpoints::{self, ENDPOINTS};

    #[test]
    fn every_endpoint_is_described_and_nothing_else_is() {
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
    fn references_lead_somewhere_and_ids_are_unique() {
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
