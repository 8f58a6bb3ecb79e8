//! One endpoint: all that there is to know of it, in one value.

use axum::{
    handler::Handler,
    routing::{MethodRouter, delete, get, post, put},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{Api, muster::watch::watch, parameter::Parameter};
use crate::model::token::Scope;

/// A method on a path.
pub(super) struct Endpoint {
    /// `GET` stands for `HEAD` too.
    pub(super) method: &'static str,
    /// As the router has it: `/v1/agent/service/{id}`.
    pub(super) path: &'static str,
    /// What a token has to allow; `None`: nobody is asked for one.
    pub(super) scope: Option<Scope>,
    /// What it shows or does, in one line.
    pub(super) summary: &'static str,
    /// What its query may have.
    pub(super) query: &'static [&'static [Parameter]],
    /// What is sent to it.
    pub(super) body: Body,
    /// What it answers with 200.
    pub(super) answer: Answer,
    route: MethodRouter<Api>,
}

/// The body of a request.
pub(super) enum Body {
    /// There is none.
    Nothing,
    /// JSON of this shape.
    Json(Shape),
    /// Whatever it is.
    Octets,
}

/// The body of an answer.
pub(super) enum Answer {
    /// There is none.
    Nothing,
    /// JSON of this shape.
    Json(Shape),
    /// The same; the status code says how it stands.
    Health(Shape),
    /// Text of this media type.
    Text(&'static str),
    /// Another address.
    Elsewhere,
    /// A line of text; with 503 it says why not.
    Ready,
    /// Events as they happen (`text/event-stream`).
    Stream,
}

/// Writes a shape, and all that it refers to, into the description.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Schema;

impl Endpoint {
    pub(super) fn get<T: 'static>(
        path: &'static str,
        scope: impl Into<Option<Scope>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self::new("GET", path, scope.into(), summary, get(handler))
    }

    /// A stream of what another endpoint shows.
    pub(super) fn watch<T: 'static>(path: &'static str, handler: impl Handler<T, Api>) -> Self {
        let summary = "What the endpoint without watch/ shows, now and whenever that changes, as a stream of events";
        let answer = Answer::Stream;
        Self { answer, ..Self::new("GET", path, Some(Scope::Read), summary, watch(handler)) }
    }

    pub(super) fn put<T: 'static>(
        path: &'static str,
        scope: impl Into<Option<Scope>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self::new("PUT", path, scope.into(), summary, put(handler))
    }

    pub(super) fn post<T: 'static>(
        path: &'static str,
        scope: impl Into<Option<Scope>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self::new("POST", path, scope.into(), summary, post(handler))
    }

    pub(super) fn delete<T: 'static>(
        path: &'static str,
        scope: impl Into<Option<Scope>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self::new("DELETE", path, scope.into(), summary, delete(handler))
    }

    fn new(
        method: &'static str,
        path: &'static str,
        scope: Option<Scope>,
        summary: &'static str,
        route: MethodRouter<Api>,
    ) -> Self {
        Self { method, path, scope, summary, query: &[], body: Body::Nothing, answer: Answer::Nothing, route }
    }

    pub(super) fn query(self, query: &'static [&'static [Parameter]]) -> Self {
        Self { query, ..self }
    }

    pub(super) fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    pub(super) fn answers<T: JsonSchema>(self) -> Self {
        Self { answer: Answer::Json(SchemaGenerator::subschema_for::<T>), ..self }
    }

    pub(super) fn says(self, answer: Answer) -> Self {
        Self { answer, ..self }
    }

    pub(super) fn tells_health<T: JsonSchema>(self) -> Self {
        Self { answer: Answer::Health(SchemaGenerator::subschema_for::<T>), ..self }
    }

    pub(super) fn takes(&self, method: &str) -> bool {
        self.method == method || (self.method == "GET" && method == "HEAD")
    }

    /// Its part of the router.
    pub(super) fn route(&self) -> MethodRouter<Api> {
        self.route.clone()
    }
}
