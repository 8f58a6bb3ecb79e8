//! `/v1/operator/keyring`: the keys that encrypt gossip.
//!
//! Responses name keys by id, and errors never quote the request, so that no key leaks.

use axum::{
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};

use crate::{
    api,
    gossip::command::{Command, KeyringCommand, KeyringReport},
    http::{
        Api,
        command::{KEYRING, refused, send},
        query::Query,
        response::{ApiError, json},
    },
    model::keyring::{Key, KeyId},
};

/// Longest key or id in a request; base64 needs 44 characters.
const MAX_NAME: usize = 128;

type Body = Result<Bytes, BytesRejection>;

pub(crate) async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    let report = ask(&api, KeyringCommand::List, false).await?;
    Ok(json(&uri, &[keyring_json(&api, &report)]))
}

pub(crate) async fn install(State(api): State<Api>, query: Query, uri: Uri, body: Body) -> Result<Response, ApiError> {
    let key = Key::from_base64(&read(body)?);
    let key = key.map_err(|error| ApiError(StatusCode::BAD_REQUEST, format!("Invalid key: {error}.")))?;
    change(&api, KeyringCommand::Install(key), &query, &uri).await
}

pub(crate) async fn make_primary(
    State(api): State<Api>,
    query: Query,
    uri: Uri,
    body: Body,
) -> Result<Response, ApiError> {
    change(&api, KeyringCommand::Use(id(&read(body)?)?), &query, &uri).await
}

pub(crate) async fn remove(State(api): State<Api>, query: Query, uri: Uri, body: Body) -> Result<Response, ApiError> {
    change(&api, KeyringCommand::Remove(id(&read(body)?)?), &query, &uri).await
}

async fn ask(api: &Api, change: KeyringCommand, force: bool) -> Result<KeyringReport, ApiError> {
    let advice = "See `muster keyring list` for the keys of each node; the request can be repeated.";
    let command = |done| Command::Keyring { change, force, done };
    send(&api.commands.cluster, command, KEYRING, advice).await?.map_err(refused)
}

/// Succeeds only if all members apply the change, or if it is forced and all that answer do. The response of a forced change
/// names the others.
async fn change(api: &Api, change: KeyringCommand, query: &Query, uri: &Uri) -> Result<Response, ApiError> {
    let force = query.flag("force")?;
    let is_removal = matches!(change, KeyringCommand::Remove(_));
    let report = ask(api, change, force).await?;
    if let Some(id) = report.unknown_key {
        let text = format!("No node that answered has the key {id}: see `muster keyring list`.");
        return Err(ApiError(StatusCode::NOT_FOUND, text));
    }
    if report.applied && report.refusals.is_empty() {
        if report.absent.is_empty() {
            return Ok(StatusCode::OK.into_response());
        }
        if force {
            return Ok(json(uri, &[keyring_json(api, &report)]));
        }
    }
    let mut text = if report.applied {
        let done = report.answered.saturating_sub(report.refusals.len());
        format!("{done} of {} nodes applied the change.", report.nodes)
    } else {
        "Refused: no node has changed its keys.".to_owned()
    };
    for (node, reason) in report.refusals.iter().chain(&report.absent) {
        text.push_str(&format!("\n{node}: {reason}"));
    }
    text.push('\n');
    if !report.applied && !report.absent.is_empty() && is_removal {
        text.push_str("A node without a key that stays cannot return by itself. ");
    }
    text.push_str(if report.applied {
        "Fix the failed nodes, then repeat the request."
    } else if report.absent.is_empty() {
        "Fix these nodes, then repeat the request."
    } else {
        "Wait until these nodes are back, remove those that never return with `muster force-leave NODE`, or repeat the \
         request with `force` (--force) to change the other nodes."
    });
    let status = if report.applied { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::CONFLICT };
    Err(ApiError(status, text))
}

/// Parses a key id, or a key in base64.
fn id(name: &str) -> Result<KeyId, ApiError> {
    let known = KeyId::from_hex(name).or_else(|| Key::from_base64(name).ok().map(|key| key.id()));
    let expected =
        "Invalid key: expected a key id (8 hexadecimal digits, see `muster keyring list`) or a key in base64.";
    known.ok_or_else(|| ApiError(StatusCode::BAD_REQUEST, expected.to_owned()))
}

fn read(body: Body) -> Result<String, ApiError> {
    let body = body.map_err(|rejection| ApiError(rejection.status(), rejection.body_text()))?;
    // Errors of serde_json may quote the key.
    let key = serde_json::from_slice::<api::Key>(&body).ok().map(|body| body.key);
    let key = key.filter(|key| (1..=MAX_NAME).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()));
    let expected = "Invalid body: expected {\"Key\": \"…\"} with a key in base64 or a key id.";
    key.ok_or_else(|| ApiError(StatusCode::BAD_REQUEST, expected.to_owned()))
}

fn keyring_json(api: &Api, report: &KeyringReport) -> api::Keyring {
    api::Keyring {
        wan: false,
        datacenter: api.agent.datacenter.to_string(),
        segment: String::new(),
        messages: report.refusals.iter().chain(&report.absent).map(|(node, why)| (node.clone(), why.clone())).collect(),
        keys: report.keys.iter().map(|(id, held)| (id.to_string(), held.nodes)).collect(),
        primary_keys: report
            .keys
            .iter()
            .filter(|(_, held)| held.primary_on > 0)
            .map(|(id, held)| (id.to_string(), held.primary_on))
            .collect(),
        num_nodes: report.nodes,
        muster: api::KeyringResponses { answered: report.answered },
    }
}
