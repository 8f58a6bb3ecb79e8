//! Calls of gRPC methods, from clients and from the gateway: authorization, then the service.

use std::{convert::Infallible, sync::Arc};

use futures_util::StreamExt;
use http_body_util::{BodyStream, StreamBody};
use hyper::http::{Request, Response};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tonic::{Status, body::Body, codegen::Service};

use super::{
    access::{authorize, revoked},
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

/// All services. tonic's limit of 4 MiB for a message applies; services that write have a lower one.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) backend: Arc<Backend>,
    descriptors: DescriptorPool,
}

impl Services {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend: Arc::new(backend), descriptors: descriptors() }
    }

    /// Returns the method at a path such as `/etcdserverpb.KV/Range`.
    pub(super) fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        self.descriptors.get_service_by_name(service)?.methods().find(|known| known.name() == method)
    }

    /// Carries out a call.
    pub(super) async fn call(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        let Some(method) = self.method(path) else {
            return not_served(path).into_http();
        };
        let tokens = self.backend.tokens.as_ref();
        let token = match authorize(tokens, path, request.headers()) {
            Ok(token) => token,
            Err(status) => return status.into_http(),
        };
        let response = self.served(&method, request).await;
        match tokens.zip(token) {
            // Watches last: they end with the token.
            Some((tokens, token)) => response.map(|body| {
                let revoked = Box::pin(revoked(tokens.clone(), token));
                Body::new(StreamBody::new(BodyStream::new(body).take_until(revoked)))
            }),
            None => response,
        }
    }

    async fn served(&self, method: &MethodDescriptor, request: Request<Body>) -> Response<Body> {
        let backend = self.backend.clone();
        match method.parent_service().full_name() {
            kv_server::SERVICE_NAME => call(KvServer::from_arc(backend), request).await,
            watch_server::SERVICE_NAME => call(WatchServer::from_arc(backend), request).await,
            lease_server::SERVICE_NAME => call(LeaseServer::from_arc(backend), request).await,
            cluster_server::SERVICE_NAME => call(ClusterServer::from_arc(backend), request).await,
            maintenance_server::SERVICE_NAME => call(MaintenanceServer::from_arc(backend), request).await,
            auth_server::SERVICE_NAME => call(AuthServer::from_arc(backend), request).await,
            lock_server::SERVICE_NAME => call(LockServer::from_arc(backend), request).await,
            election_server::SERVICE_NAME => call(ElectionServer::from_arc(backend), request).await,
            _ => not_served(request.uri().path()).into_http(),
        }
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
