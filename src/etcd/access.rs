//! Authorization of requests to etcd's API, from gRPC and from the gateway alike.

use hyper::http::{HeaderMap, header};
use tokio::sync::watch::Receiver;
use tonic::Status;

use crate::model::token::{Requirement, Scope, Token, Tokens};

/// Calls that need no token: a client gets its token by them, or learns that it needs none.
const OPEN: &[&str] = &["/etcdserverpb.Auth/Authenticate", "/etcdserverpb.Auth/AuthStatus"];

/// Decides whether a request may call a method of a service. Keys have no permissions of their own yet: every call needs the scope
/// `operate`. Returns the token of the request; `None` if it needs none.
pub(super) fn authorize(
    tokens: Option<&Receiver<Tokens>>,
    path: &str,
    headers: &HeaderMap,
) -> Result<Option<Token>, Status> {
    let Some(tokens) = tokens.filter(|_| !OPEN.contains(&path)) else { return Ok(None) };
    // etcd's text for a request without a token: its client logs in again and repeats the request.
    let Some(presented) = presented(headers) else {
        return Err(Status::invalid_argument("etcdserver: user name is empty"));
    };
    match tokens.borrow().find(presented.as_bytes()) {
        None => Err(Status::unauthenticated("etcdserver: invalid auth token")),
        Some(token) if !token.permissions.meet(Requirement::Scope(Scope::Operate)) => {
            Err(Status::permission_denied("etcdserver: permission denied"))
        }
        Some(token) => Ok(Some(token.clone())),
    }
}

/// Waits until a token is revoked, to end what it was presented for.
pub(super) async fn revoked(mut tokens: Receiver<Tokens>, token: Token) {
    // Without a sender the tokens stay as they are.
    if tokens.wait_for(|tokens| !tokens.has(&token)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Returns the token of a request: etcd's metadata `token`, or `authorization` with or without the scheme `Bearer`.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let token = text("token").filter(|token| !token.is_empty());
    token.or_else(|| {
        let value = text(header::AUTHORIZATION.as_str())?;
        match value.split_once(' ') {
            Some((scheme, token)) => scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()),
            None => Some(value).filter(|value| !value.is_empty()),
        }
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use tonic::Code;

    use super::*;

    #[test]
    fn request_needs_a_token_of_scope_operate() {
        let operate = Token::new("deploy", Scope::Operate, "correct horse battery");
        let read = Token::new("prometheus", Scope::Read, "staple correct horse");
        let (_sender, tokens) = watch::channel(Tokens::new(vec![operate, read]));
        let range = "/etcdserverpb.KV/Range";
        let cases = [
            (range, None, Err(Code::InvalidArgument)),
            (range, Some(("token", "correct horse battery")), Ok(())),
            (range, Some(("authorization", "bearer correct horse battery")), Ok(())),
            (range, Some(("authorization", "Basic correct")), Err(Code::InvalidArgument)),
            (range, Some(("token", "staple correct horse")), Err(Code::PermissionDenied)),
            (range, Some(("token", "wrong")), Err(Code::Unauthenticated)),
            (range, Some(("authorization", "wrong")), Err(Code::Unauthenticated)),
            ("/etcdserverpb.Auth/Authenticate", None, Ok(())),
        ];
        for (path, header, expected) in cases {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(name, value.parse().unwrap());
            }
            let allowed = authorize(Some(&tokens), path, &headers).map(|_| ()).map_err(|status| status.code());
            assert_eq!(allowed, expected, "{path} {header:?}");
            assert!(authorize(None, path, &headers).is_ok());
        }
    }
}
