//! Calls of gRPC methods, from clients and from the gateway: authorization, then the service.

use std::{convert::Infallible, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyStream, StreamBody};
use hyper::{
    body::{Body as HttpBody, Frame},
    http::{HeaderMap, Request, Response},
};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tokio::time::timeout;
use tonic::{Status, body::Body, codegen::Service};

use super::{
    access::{Granted, authorize, invalid_token, revoked},
    backend::Backend,
    proto::{
        descriptors,
        etcdserverpb::{
            auth_server::{self, AuthServer},
            cluster_server::{self, ClusterServer},
            kv_server::{self, KvServer},
            lease_server::{self, LeaseServer},
            maintenance_server::{self, MaintenanceServer},
            watch_server::{self, WatchServer},
        },
        v3electionpb::election_server::{self, ElectionServer},
        v3lockpb::lock_server::{self, LockServer},
    },
};

/// Time limit for a call without a token where others need one: its client may be anyone.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// All services. tonic's limit of 4 MiB for a message applies; services that write have a lower one.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) backend: Backend,
    descriptors: DescriptorPool,
}

impl Services {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend, descriptors: descriptors() }
    }

    /// Returns the method at a path such as `/etcdserverpb.KV/Range`.
    pub(super) fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        self.descriptors.get_service_by_name(service)?.methods().find(|known| known.name() == method)
    }

    /// Carries out a call. It ends when its token is revoked.
    pub(super) async fn call(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        let Some(method) = self.method(path) else {
            return not_served(path).into_http();
        };
        let Some(tokens) = self.backend.tokens() else {
            return serve(&method, self.backend.clone(), request).await;
        };
        let token = match authorize(Some(tokens), path, request.headers()) {
            Ok(token) => token,
            Err(status) => return status.into_http(),
        };
        let Some(token) = token else {
            let served = timeout(LOGIN_TIMEOUT, serve(&method, self.backend.clone(), request)).await;
            let late = |_| Status::deadline_exceeded("the request did not arrive in time").into_http();
            return served.unwrap_or_else(late);
        };
        let backend = self.backend.with(Granted::to(&token));
        let mut revoked: Revoked = Box::pin(revoked(tokens.clone(), token));
        tokio::select! {
            biased;
            () = &mut revoked => invalid_token().into_http(),
            response = serve(&method, backend, request) => response.map(|body| until_revoked(body, revoked)),
        }
    }
}

/// End of a token.
type Revoked = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ends a stream with its token. etcd's clients start streams again after this error, with the token that they have then.
fn until_revoked(body: Body, revoked: Revoked) -> Body {
    // An error is in the headers, which must be the end of the response.
    if body.is_end_stream() {
        return body;
    }
    let frames = stream::unfold(Some((BodyStream::new(body), revoked)), |state| async {
        let (mut frames, mut revoked) = state?;
        tokio::select! {
            biased;
            () = &mut revoked => Some((Ok(end_of_token()), None)),
            frame = frames.next() => frame.map(|frame| (frame, Some((frames, revoked)))),
        }
    });
    Body::new(StreamBody::new(frames))
}

fn end_of_token() -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    // A text in ASCII always fits a header.
    let _added = Status::unavailable("etcdserver: the token was changed or revoked").add_header(&mut trailers);
    Frame::trailers(trailers)
}

async fn serve(method: &MethodDescriptor, backend: Backend, request: Request<Body>) -> Response<Body> {
    match method.parent_service().full_name() {
        kv_server::SERVICE_NAME => call(KvServer::new(backend), request).await,
        watch_server::SERVICE_NAME => call(WatchServer::new(backend), request).await,
        lease_server::SERVICE_NAME => call(LeaseServer::new(backend), request).await,
        cluster_server::SERVICE_NAME => call(ClusterServer::new(backend), request).await,
        maintenance_server::SERVICE_NAME => call(MaintenanceServer::new(backend), request).await,
        auth_server::SERVICE_NAME => call(AuthServer::new(backend), request).await,
        lock_server::SERVICE_NAME => call(LockServer::new(backend), request).await,
        election_server::SERVICE_NAME => call(ElectionServer::new(backend), request).await,
        _ => not_served(request.uri().path()).into_http(),
    }
}

async fn call<S>(mut service: S, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    match service.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Returns the error for a call that muster refuses, with what to use instead.
fn not_served(path: &str) -> Status {
    let service = path.split('/').nth(1).unwrap_or_default();
    let hint = match service {
        cluster_server::SERVICE_NAME => "change the voters with `muster store add` and `muster store remove`",
        maintenance_server::SERVICE_NAME => "the store elects its leader itself, and has no downgrades",
        auth_server::SERVICE_NAME => "users and roles are tokens in muster's token files",
        _ => "see the documentation of etcd's API in muster",
    };
    Status::unimplemented(format!("etcdserver: muster does not serve {path}: {hint}"))
}
