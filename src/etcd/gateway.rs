//! The JSON gateway: requests in JSON become calls of gRPC methods, and their responses JSON.
//!
//! Follows grpc-gateway, which etcd uses: numbers of 64 bits are strings, octets are Base64, fields with default values are left
//! out, and a stream is a line `{"result": …}` for each message.

mod json;
pub(super) mod routes;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::{
    body::Frame,
    http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header, request::Parts},
};
use prost_reflect::MethodDescriptor;
use serde_json::json;
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};

pub(super) use self::json::{decode_messages, encode_message, take_message};
use super::{access::authorize, error::failed, services::Services, version};
use crate::store::{
    query::{Consistency, Query},
    request::StoreError,
};

/// Largest body in octets: the largest request in Base64, with names of fields.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// Time limit for the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Most octets of a body that are read after a refusal, and the time limit for them. Some clients of HTTP/2 (curl 7.88) lose the
/// response if their body is refused while they send it.
const DISCARDED: usize = 64 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit for a report on health: probes wait for seconds at most, and requests wait longer for a leader.
const HEALTH: Duration = Duration::from_secs(1);
/// Headers that may carry a token.
const TOKEN_HEADERS: [HeaderName; 2] = [header::AUTHORIZATION, HeaderName::from_static("token")];

/// Answers a request that is not gRPC.
pub(super) async fn respond(services: &Services, request: Request<Body>) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let response = answer(services, &head, &mut body).await;
    discard(body).await;
    response
}

/// Refuses a request, whatever its body.
pub(super) async fn refuse(request: Request<Body>, status: StatusCode, code: Code, text: &str) -> Response<Body> {
    discard(request.into_body()).await;
    error(status, code, text)
}

/// Reads the rest of a body of an ordinary size.
async fn discard(body: Body) {
    // The response does not depend on it.
    let _ = timeout(DISCARD_TIMEOUT, Limited::new(body, DISCARDED).collect()).await;
}

async fn answer(services: &Services, head: &Parts, body: &mut Body) -> Response<Body> {
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/version") => {
            let versions = json!({"etcdserver": version::SERVER, "etcdcluster": version::CLUSTER});
            response(StatusCode::OK, versions.to_string())
        }
        (&Method::GET, "/health") => health(services, head.uri.query()).await,
        (method, path) => {
            let Some(method_path) = routes::method(path) else {
                return error(StatusCode::NOT_FOUND, Code::NotFound, "Not Found");
            };
            if *method != Method::POST {
                return error(StatusCode::NOT_IMPLEMENTED, Code::Unimplemented, "Method Not Allowed");
            }
            translated(services, method_path, head, body).await.unwrap_or_else(|status| status_response(&status))
        }
    }
}

/// Reports whether the store answers.
async fn health(services: &Services, query: Option<&str>) -> Response<Body> {
    let is_stale = query.is_some_and(|query| query.split('&').any(|pair| pair == "serializable=true"));
    let consistency = if is_stale { Consistency::Stale } else { Consistency::Linearizable };
    let asked = timeout(HEALTH, services.backend.read(Query::Totals, consistency)).await;
    match asked.unwrap_or_else(|_| Err(failed(&StoreError::NoLeader))) {
        Ok(_) => response(StatusCode::OK, json!({"health": "true", "reason": ""}).to_string()),
        Err(status) => {
            let reason = json!({"health": "false", "reason": status.message()});
            response(StatusCode::SERVICE_UNAVAILABLE, reason.to_string())
        }
    }
}

/// Calls the method with the messages of the body, and returns its responses in JSON.
async fn translated(
    services: &Services,
    path: &'static str,
    head: &Parts,
    body: &mut Body,
) -> Result<Response<Body>, Status> {
    let unknown = || Status::unimplemented(format!("etcdserver: no method {path}"));
    let method = services.method(path).ok_or_else(unknown)?;
    // Only a client with a token may send a body for as long as it takes.
    authorize(services.backend.tokens(), path, &head.headers)?;
    let collected = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let body = collected.map_err(|_| Status::deadline_exceeded("the body of the request did not arrive in time"))?;
    let body = body.map_err(|error| Status::invalid_argument(format!("cannot read the body: {error}")))?.to_bytes();
    let messages = decode_messages(&method.input(), method.is_client_streaming(), &body)?;
    let response = services.call(grpc_request(path, &head.headers, messages)).await;
    if let Some(status) = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok) {
        return Err(status);
    }
    if method.is_server_streaming() {
        Ok(streamed(&method, response.into_body()).await)
    } else {
        single(&method, response).await
    }
}

fn grpc_request(path: &'static str, headers: &HeaderMap, messages: Bytes) -> Request<Body> {
    let mut request = Request::new(Body::new(Full::new(messages)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = hyper::Uri::from_static(path);
    request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
    for name in TOKEN_HEADERS {
        if let Some(value) = headers.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    request
}

/// Returns the one message of a response.
async fn single(method: &MethodDescriptor, grpc: Response<Body>) -> Result<Response<Body>, Status> {
    let collected = grpc.into_body().collect().await?;
    let status = collected.trailers().and_then(Status::from_header_map);
    if let Some(status) = status.filter(|status| status.code() != Code::Ok) {
        return Err(status);
    }
    let mut octets = BytesMut::from(collected.to_bytes());
    let message = take_message(&mut octets).unwrap_or_default();
    Ok(response(StatusCode::OK, encode_message(&method.output(), message)?.to_string()))
}

/// Returns a response with a line for each message of a stream. Waits for the first one, as grpc-gateway does: a client that has the
/// head of the response relies on its watch.
async fn streamed(method: &MethodDescriptor, body: Body) -> Response<Body> {
    let lines = stream::unfold((Some(body), BytesMut::new(), method.output()), |(body, mut octets, output)| async {
        let mut body = body?;
        loop {
            if let Some(message) = take_message(&mut octets) {
                let line = match encode_message(&output, message) {
                    Ok(message) => json!({ "result": message }),
                    Err(status) => return Some((line(&stream_error(&status)), (None, octets, output))),
                };
                return Some((self::line(&line), (Some(body), octets, output)));
            }
            let status = match body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => {
                        octets.extend_from_slice(&data);
                        continue;
                    }
                    Err(frame) => frame.trailers_ref().and_then(Status::from_header_map)?,
                },
                Err(status) => status,
            };
            let error = (status.code() != Code::Ok).then(|| line(&stream_error(&status)))?;
            return Some((error, (None, octets, output)));
        }
    });
    let mut lines = Box::pin(lines);
    let first = lines.next().await;
    let mut response = Response::new(Body::new(StreamBody::new(stream::iter(first).chain(lines))));
    set_json(response.headers_mut());
    response
}

fn line(value: &serde_json::Value) -> Result<Frame<Bytes>, Status> {
    Ok(Frame::data(format!("{value}\n").into()))
}

/// Returns an error within a stream, as grpc-gateway writes it.
fn stream_error(status: &Status) -> serde_json::Value {
    let http = http_status(status.code());
    json!({"error": {
        "grpc_code": status.code() as i32,
        "http_code": http.as_u16(),
        "message": status.message(),
        "http_status": http.canonical_reason().unwrap_or_default(),
    }})
}

fn status_response(status: &Status) -> Response<Body> {
    error(http_status(status.code()), status.code(), status.message())
}

/// Returns an error, as grpc-gateway writes it.
fn error(status: StatusCode, code: Code, text: &str) -> Response<Body> {
    response(status, json!({"error": text, "code": code as i32, "message": text}).to_string())
}

fn response(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    set_json(response.headers_mut());
    response
}

fn set_json(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
}

/// Returns the HTTP status of an error, as grpc-gateway has them.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
