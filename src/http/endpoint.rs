//! One endpoint: method, path, required permission, parameters, body and response in one value.

use std::time::Duration;

use axum::{
    handler::Handler,
    http::StatusCode,
    routing::{MethodRouter, delete, get, post, put},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{Api, MAX_BODY_LEN, REQUEST_TIMEOUT, muster::watch::watch, openapi_parameters::Parameter};
use crate::model::token::{Requirement, Scope};

/// Time limit of a change of the store's voters: longer than the store's own, since a new voter receives the whole store first.
pub(super) const CHANGE_OF_VOTERS: Duration = Duration::from_secs(330);
/// Statuses of reads of a store that has no leader.
pub(super) const READS_STORE: &[StatusCode] = &[StatusCode::INTERNAL_SERVER_ERROR];
/// Statuses of writes to a store that has no leader or no space.
pub(super) const WRITES_STORE: &[StatusCode] = &[StatusCode::INTERNAL_SERVER_ERROR, StatusCode::INSUFFICIENT_STORAGE];

/// A method on a path.
pub(super) struct Endpoint {
    /// HTTP method; `GET` includes `HEAD`.
    pub(super) method: &'static str,
    /// Path as documented, such as `/v1/agent/service/{id}`.
    pub(super) path: &'static str,
    /// Path in the router's syntax, such as `/v1/agent/service/{*id}`: a parameter at the end takes the rest of the path,
    /// slashes included, since ids and names of clients may have them, encoded or not.
    pub(super) route_path: String,
    /// Permission that a token must have; `None`: no token is needed.
    pub(super) required: Option<Requirement>,
    /// Summary in one line, for the OpenAPI description.
    pub(super) summary: &'static str,
    /// Groups of query parameters.
    pub(super) query: &'static [&'static [Parameter]],
    /// Request body.
    pub(super) body: Body,
    /// Largest request body, in octets.
    pub(super) max_body: usize,
    /// Time limit of a mutation, including its body.
    pub(super) time_limit: Duration,
    /// Response body of a 200.
    pub(super) answer: Answer,
    /// Statuses from 500 on that are not faults of the agent.
    pub(super) errors: &'static [StatusCode],
    route: MethodRouter<Api>,
}

/// The body of a request.
pub(super) enum Body {
    /// No body.
    Empty,
    /// JSON with this schema.
    Json(SchemaFn),
    /// Arbitrary octets.
    Octets,
}

/// The body of a response.
pub(super) enum Answer {
    /// No body.
    Empty,
    /// JSON with this schema.
    Json(SchemaFn),
    /// JSON with this schema, or text, as a parameter asks for.
    JsonOrText(SchemaFn),
    /// JSON with this schema, also with 409.
    JsonOrConflict(SchemaFn),
    /// JSON with this schema; the status code is the health.
    Health(SchemaFn),
    /// Text of this media type.
    Text(&'static str),
    /// Redirect with this status code.
    Redirect(&'static str),
    /// A line of text; with 503, the reason.
    Readiness,
    /// Event stream (`text/event-stream`).
    Stream,
}

/// Adds a schema and its references to the description.
pub(super) type SchemaFn = fn(&mut SchemaGenerator) -> Schema;

impl Endpoint {
    pub(super) fn get<T: 'static>(
        path: &'static str,
        required: impl Into<Option<Requirement>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self::new("GET", path, required.into(), summary, get(handler))
    }

    /// A stream of the state that another endpoint shows.
    pub(super) fn watch<T: 'static>(path: &'static str, handler: impl Handler<T, Api>) -> Self {
        let summary = "Stream the result of the endpoint without watch/, now and after each change";
        let answer = Answer::Stream;
        Self { answer, ..Self::new("GET", path, Scope::Read.into(), summary, watch(handler)) }
    }

    pub(super) fn put<T: 'static>(
        path: &'static str,
        required: impl Into<Option<Requirement>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self::new("PUT", path, required.into(), summary, put(handler))
    }

    pub(super) fn post<T: 'static>(
        path: &'static str,
        required: impl Into<Option<Requirement>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self::new("POST", path, required.into(), summary, post(handler))
    }

    pub(super) fn delete<T: 'static>(
        path: &'static str,
        required: impl Into<Option<Requirement>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self::new("DELETE", path, required.into(), summary, delete(handler))
    }

    fn new(
        method: &'static str,
        path: &'static str,
        required: Option<Requirement>,
        summary: &'static str,
        route: MethodRouter<Api>,
    ) -> Self {
        let route_path = match rest(path) {
            Some((before, name)) => format!("{before}{{*{name}}}"),
            None => path.to_owned(),
        };
        Self {
            method,
            path,
            route_path,
            required,
            summary,
            query: &[],
            body: Body::Empty,
            max_body: MAX_BODY_LEN,
            time_limit: REQUEST_TIMEOUT,
            answer: Answer::Empty,
            errors: &[],
            route,
        }
    }

    pub(super) fn query(self, query: &'static [&'static [Parameter]]) -> Self {
        Self { query, ..self }
    }

    pub(super) fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    /// Sets the largest request body, in octets.
    pub(super) fn max_body(self, max_body: usize) -> Self {
        Self { max_body, ..self }
    }

    /// Sets the time limit of a mutation that takes longer than others.
    pub(super) fn time_limit(self, time_limit: Duration) -> Self {
        Self { time_limit, ..self }
    }

    /// Sets the statuses from 500 on that are not faults of the agent.
    pub(super) fn errors(self, errors: &'static [StatusCode]) -> Self {
        Self { errors, ..self }
    }

    pub(super) fn json<T: JsonSchema>(self) -> Self {
        Self { answer: Answer::Json(SchemaGenerator::subschema_for::<T>), ..self }
    }

    pub(super) fn answer(self, answer: Answer) -> Self {
        Self { answer, ..self }
    }

    pub(super) fn health<T: JsonSchema>(self) -> Self {
        Self { answer: Answer::Health(SchemaGenerator::subschema_for::<T>), ..self }
    }

    pub(super) fn takes(&self, method: &str) -> bool {
        self.method == method || (self.method == "GET" && method == "HEAD")
    }

    /// Returns the route.
    pub(super) fn route(&self) -> MethodRouter<Api> {
        self.route.clone()
    }

    /// Reports whether the path of a request matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        match rest(self.path) {
            Some((before, _)) => path.strip_prefix(before).is_some_and(|rest| !rest.is_empty()),
            None => path == self.path,
        }
    }

    /// Returns the length of the literal part of the path in octets, if a parameter follows; else the largest number.
    pub(super) fn literal_len(&self) -> usize {
        rest(self.path).map_or(usize::MAX, |(before, _)| before.len())
    }
}

/// Returns the part of a path before its parameter, and the name of the parameter, which takes the rest of the path.
pub(super) fn rest(path: &'static str) -> Option<(&'static str, &'static str)> {
    path.strip_suffix('}')?.split_once('{')
}
