//! Parts that the endpoints of keys, sessions and transactions share: consistency and waits of reads, ids of sessions, and the
//! errors of the store in Consul's words.

use std::fmt::Display;

use axum::{
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use uuid::Uuid;

use crate::{
    http::{
        Api,
        blocking_response::{ensure_known, index_headers, set_contact},
        query::{Query, bad, with_jitter},
        response::ApiError,
    },
    store::{
        command::{Command, Done, Refusal},
        query::{self, Consistency, Content, Wait},
        request::{Store, StoreError},
        session::SessionId,
    },
};

/// Content of the store, with the headers of its response.
pub(crate) struct Found {
    pub(crate) content: Content,
    pub(crate) headers: HeaderMap,
}

impl Found {
    /// Returns the response for a missing key or prefix: without a body, with the index to wait at.
    pub(crate) fn missing(mut self) -> Response {
        self.headers.remove(CONTENT_TYPE);
        (StatusCode::NOT_FOUND, self.headers).into_response()
    }

    /// Returns the response for a missing key with a text, for endpoints that Consul does not have.
    pub(crate) fn not_found(mut self, text: &str) -> Response {
        self.headers.remove(CONTENT_TYPE);
        (self.headers, ApiError(StatusCode::NOT_FOUND, text.to_owned())).into_response()
    }
}

/// Returns the store.
pub(crate) fn store(api: &Api) -> Result<&Store, ApiError> {
    api.commands.store.as_ref().ok_or_else(|| store_error(&StoreError::NotConfigured))
}

/// Checks the parameters that all requests have. Any datacenter of the cluster may be named: all share one store.
pub(super) fn check(api: &Api, query: &Query) -> Result<(), ApiError> {
    query.check()?;
    query.datacenter()?.map_or(Ok(()), |datacenter| ensure_known(&datacenter, &api.queries.snapshot().catalog))
}

/// Reads from the store. With an index in the query, waits for a change of what is read. The wait ends when the client
/// disconnects, which drops the request, and when a reload or a stop ends this server.
pub(crate) async fn read(api: &Api, query: &Query, wanted: query::Query) -> Result<Found, ApiError> {
    check(api, query)?;
    let (consistency, name) = match (query.has("stale"), query.has("consistent")) {
        (true, true) => return Err(bad("Cannot specify ?stale with ?consistent, conflicting semantics.")),
        (true, false) => (Consistency::Stale, "stale"),
        (false, true) => (Consistency::Linearizable, "consistent"),
        (false, false) => (Consistency::Linearizable, "leader"),
    };
    let limit = with_jitter(query.wait()?);
    let wait = query.index()?.map(|index| Wait { index, limit });
    let _waiting = wait.is_some().then(|| api.metrics.waiting());
    let store = store(api)?;
    let answer = match wait {
        None => store.read(wanted, consistency, None).await,
        Some(_) => tokio::select! {
            answer = store.read(wanted.clone(), consistency, wait) => answer,
            // The client gets what is there, as at the end of its wait.
            () = api.queries.shutting_down() => store.read(wanted, consistency, None).await,
        },
    };
    let answer = answer.map_err(|error| store_error(&error))?;
    let mut headers = index_headers(answer.index, name);
    set_contact(&mut headers, answer.contact);
    Ok(Found { content: answer.content, headers })
}

/// Applies a command.
pub(super) async fn write(api: &Api, command: Command) -> Result<Done, ApiError> {
    let outcome = store(api)?.write(command).await.map_err(|error| store_error(&error))?;
    outcome.result.map_err(|refusal| {
        let status = match refusal {
            Refusal::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError(status, refusal.to_string())
    })
}

/// Returns the id of a session; `None`: there can be no such session.
pub(super) fn session_id(text: &str) -> Option<SessionId> {
    /// Length of a UUID with hyphens, the only form that clients receive.
    const LEN: usize = 36;
    Uuid::try_parse(text).ok().filter(|_| text.len() == LEN).map(SessionId)
}

/// The error for a lock of a session that does not exist. Clients recognize its text, and create another session.
pub(super) fn invalid_session(id: impl Display) -> ApiError {
    failed(format!("invalid session \"{id}\""))
}

/// A 500 with this text: Consul's status for most refusals.
pub(super) fn failed(text: String) -> ApiError {
    ApiError(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// The error for an answer of the store of another kind than the request: a voter of another version.
pub(crate) fn unexpected() -> ApiError {
    failed("The store answered with unexpected content: are the voters of the same version?".to_owned())
}

/// Returns the response for an error of the store.
pub(crate) fn store_error(error: &StoreError) -> ApiError {
    match error {
        // 400: clients interpret 404 as a missing key, and repeat requests after 5xx.
        StoreError::NotConfigured => bad(&format!("{error}.")),
        // Clients recognize the first words.
        StoreError::NoLeader | StoreError::Unreachable => failed(format!("No cluster leader: {error}.")),
        StoreError::Stopping => ApiError(StatusCode::SERVICE_UNAVAILABLE, "The agent is shutting down.".to_owned()),
        StoreError::Membership(reason) => ApiError(StatusCode::CONFLICT, reason.clone()),
        StoreError::TooManyAnswers => ApiError(StatusCode::SERVICE_UNAVAILABLE, format!("Overloaded: {error}.")),
        StoreError::Refused(Refusal::TooLarge) => {
            ApiError(StatusCode::PAYLOAD_TOO_LARGE, format!("{}.", Refusal::TooLarge))
        }
        StoreError::Refused(refusal) => failed(refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_recognize_errors_of_the_store() {
        let cases = [
            (StoreError::NotConfigured, 400, "this cluster has no store: set store.voters"),
            (StoreError::NoLeader, 500, "No cluster leader"),
            (StoreError::Unreachable, 500, "No cluster leader"),
            (StoreError::Membership("host-b is no member".to_owned()), 409, "host-b is no member"),
            (StoreError::Stopping, 503, "The agent is shutting down"),
            (StoreError::TooManyAnswers, 503, "Overloaded: this node holds 256 MiB of answers"),
            (StoreError::Refused(Refusal::TooLarge), 413, "the results of the transaction exceed 4 MiB"),
        ];
        for (error, status, text) in cases {
            let ApiError(found, body) = store_error(&error);
            assert!(found.as_u16() == status && body.starts_with(text), "{error:?}: {found} {body}");
        }
    }

    #[test]
    fn session_ids_are_hyphenated_uuids() {
        let cases = [
            ("adf4238a-882b-9ddc-4a9d-5b6758e4159e", true),
            ("adf4238a882b9ddc4a9d5b6758e4159e", false),
            ("{adf4238a-882b-9ddc-4a9d-5b6758e4159e}", false),
            ("", false),
            ("x", false),
        ];
        for (text, expected) in cases {
            assert_eq!(session_id(text).is_some(), expected, "{text:?}");
        }
    }
}
