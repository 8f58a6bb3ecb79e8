//! `/v1/operator/keyring`: the keys with which nodes seal what they tell each other.
//!
//! Keys come in and never go out: answers name them by their ids, and no message repeats what a client sent.

use axum::{
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};

use crate::{
    api,
    gossip::message::KeyringChange,
    http::{
        Api,
        command::{Command, KEYRING, KeyringReport, give},
        response::{ApiError, json},
    },
    model::keyring::{Key, KeyId},
};

/// Characters of what names a key: base64 needs 44, an id less.
const MAX_NAME: usize = 128;

type Body = Result<Bytes, BytesRejection>;

pub(crate) async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    let report = ask(&api, KeyringChange::List).await?;
    Ok(json(&uri, &[shape(&api, report)]))
}

pub(crate) async fn install(State(api): State<Api>, body: Body) -> Result<Response, ApiError> {
    let key = Key::from_base64(&read(body)?);
    let key = key.map_err(|error| ApiError(StatusCode::BAD_REQUEST, format!("That is no key: {error}.")))?;
    change(&api, KeyringChange::Install(key)).await
}

pub(crate) async fn make_primary(State(api): State<Api>, body: Body) -> Result<Response, ApiError> {
    change(&api, KeyringChange::Use(id(&read(body)?)?)).await
}

pub(crate) async fn remove(State(api): State<Api>, body: Body) -> Result<Response, ApiError> {
    change(&api, KeyringChange::Remove(id(&read(body)?)?)).await
}

async fn ask(api: &Api, change: KeyringChange) -> Result<KeyringReport, ApiError> {
    let what_now = "`muster keyring list` shows which nodes have which keys; the order can be given again.";
    give(&api.orders, |done| Command::Keyring { change, done }, KEYRING, what_now).await
}

/// Done is what all nodes have done: with a key that some of them lack, the cluster would fall apart.
async fn change(api: &Api, change: KeyringChange) -> Result<Response, ApiError> {
    let report = ask(api, change).await?;
    if report.refusals.is_empty() && report.answered >= report.nodes {
        return Ok(StatusCode::OK.into_response());
    }
    let done = report.answered.saturating_sub(report.refusals.len());
    let mut text = format!("{done} of {} nodes have done it.", report.nodes);
    for (node, reason) in &report.refusals {
        text.push_str(&format!("\n{node}: {reason}"));
    }
    if report.answered < report.nodes {
        text.push_str(&format!("\n{} did not answer: `muster members` shows who.", report.nodes - report.answered));
    }
    text.push_str("\nGive the same order again when that is mended.");
    Err(ApiError(StatusCode::INTERNAL_SERVER_ERROR, text))
}

/// A key by its id, or by itself.
fn id(name: &str) -> Result<KeyId, ApiError> {
    let known = KeyId::from_hex(name).or_else(|| Key::from_base64(name).ok().map(|key| key.id()));
    let expected =
        "A key is named by its id, 8 hexadecimal digits as `muster keyring list` shows them, or given in base64.";
    known.ok_or_else(|| ApiError(StatusCode::BAD_REQUEST, expected.to_owned()))
}

fn read(body: Body) -> Result<String, ApiError> {
    let body = body.map_err(|rejection| ApiError(rejection.status(), rejection.body_text()))?;
    // What serde_json says of a wrong text may quote it.
    let key = serde_json::from_slice::<api::Key>(&body).ok().map(|body| body.key);
    let key = key.filter(|key| (1..=MAX_NAME).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()));
    let expected = "The body has to be JSON such as {\"Key\": \"…\"}, with a key in base64 or the id of one.";
    key.ok_or_else(|| ApiError(StatusCode::BAD_REQUEST, expected.to_owned()))
}

fn shape(api: &Api, report: KeyringReport) -> api::Keyring {
    api::Keyring {
        wan: false,
        datacenter: api.agent.datacenter.to_string(),
        segment: String::new(),
        messages: report.refusals.into_iter().collect(),
        keys: report.keys.iter().map(|key| (key.id.to_string(), key.nodes)).collect(),
        primary_keys: report
            .keys
            .iter()
            .filter(|key| key.primary_on > 0)
            .map(|key| (key.id.to_string(), key.primary_on))
            .collect(),
        num_nodes: report.nodes,
        muster: api::Answers { answered: report.answered },
    }
}
