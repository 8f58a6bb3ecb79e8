//! Authorization of calls of etcd's API, from gRPC and from the gateway alike: the token of a request, and the keys that it may
//! read and write.

use std::{collections::BTreeSet, sync::Arc};

use hyper::http::{HeaderMap, header};
use tokio::sync::watch::Receiver;
use tonic::Status;

use crate::{
    model::token::{KeyAccess, Permissions, Requirement, Scope, Token, Tokens},
    store::{
        command::{PutLease, Transaction, TransactionRequest},
        key::KeyRange,
        lease::LeaseId,
    },
};

/// Text for a call that the token does not permit.
const DENIED: &str = "etcdserver: permission denied";

/// Returns the permission that a method requires of every token, besides access to the keys of the request; `None`: the method
/// needs no token. Leases are etcd's sessions: they need what Consul's sessions need.
fn required(path: &str) -> Option<Requirement> {
    let (service, method) = path.rsplit_once('/').unwrap_or_default();
    Some(match (service, method) {
        // A client gets its token by them, or learns that it needs none.
        ("/etcdserverpb.Auth", "Authenticate" | "AuthStatus") => return None,
        ("/etcdserverpb.Lease", "LeaseGrant" | "LeaseRevoke" | "LeaseKeepAlive") => Requirement::Sessions,
        ("/etcdserverpb.Lease", "LeaseLeases") => Requirement::Scope(Scope::Read),
        ("/etcdserverpb.Lease", "LeaseTimeToLive")
        | ("/etcdserverpb.Cluster", "MemberList")
        | ("/etcdserverpb.Maintenance", "Alarm" | "Status") => Requirement::Token,
        _ => Requirement::Keys,
    })
}

/// Decides whether a request may call a method. Returns the token of the request; `None` if it needs none.
///
/// # Errors
/// Fails without a valid token, or if no request with the token may call the method.
pub(super) fn authorize(
    tokens: Option<&Receiver<Tokens>>,
    path: &str,
    headers: &HeaderMap,
) -> Result<Option<Token>, Status> {
    let (Some(tokens), Some(required)) = (tokens, required(path)) else { return Ok(None) };
    // etcd's text for a request without a token: its client logs in again and repeats the request.
    let Some(presented) = presented(headers) else {
        return Err(Status::invalid_argument("etcdserver: user name is empty"));
    };
    match tokens.borrow().find(presented.as_bytes()) {
        None => Err(invalid_token()),
        Some(token) if !token.permissions.meet(required) => Err(Status::permission_denied(DENIED)),
        Some(token) => Ok(Some(token.clone())),
    }
}

/// Returns the error for a token that does not exist, or that was revoked during the call.
pub(super) fn invalid_token() -> Status {
    Status::unauthenticated("etcdserver: invalid auth token")
}

/// Waits until a token is revoked or has other permissions, to end what it was presented for.
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

/// Permissions of the token of a call; `None`: no token was needed, and everything is permitted.
#[derive(Clone, Debug)]
pub(super) struct Granted(Option<Arc<Permissions>>);

impl Granted {
    /// All permissions.
    pub(super) const EVERYTHING: Self = Self(None);

    /// Returns the permissions of a token.
    pub(super) fn to(token: &Token) -> Self {
        Self(Some(token.permissions.clone()))
    }

    /// Reports whether all keys of a range may be accessed in this way. One prefix of the token must include the whole range.
    pub(super) fn permits(&self, access: KeyAccess, range: &KeyRange) -> bool {
        self.0.as_ref().is_none_or(|permissions| {
            permissions.prefixes(access).any(|prefix| KeyRange::prefix(prefix.to_owned()).includes(range))
        })
    }

    /// Requires access to all keys of a range.
    ///
    /// # Errors
    /// Fails with etcd's text if the token does not have it.
    pub(super) fn require(&self, access: KeyAccess, range: &KeyRange) -> Result<(), Status> {
        if self.permits(access, range) { Ok(()) } else { Err(Status::permission_denied(DENIED)) }
    }

    /// Requires the access that a transaction needs: to read what it compares and reads, to write what it writes, in both
    /// branches. Returns the leases that it attaches keys to.
    ///
    /// # Errors
    /// Fails with etcd's text if the token does not have it.
    pub(super) fn require_for(&self, transaction: &Transaction) -> Result<BTreeSet<LeaseId>, Status> {
        let mut leases = BTreeSet::new();
        for condition in &transaction.conditions {
            self.require(KeyAccess::Read, &condition.range)?;
        }
        for request in transaction.success.iter().chain(&transaction.failure) {
            match request {
                TransactionRequest::Range(range) => self.require(KeyAccess::Read, &range.range)?,
                TransactionRequest::Put(put) => {
                    self.require(KeyAccess::Write, &KeyRange::Key(put.key.clone()))?;
                    if let PutLease::Attach(lease) = put.lease {
                        leases.insert(lease);
                    }
                }
                TransactionRequest::Delete { range, .. } => self.require(KeyAccess::Write, range)?,
                TransactionRequest::Transact(within) => leases.extend(self.require_for(within)?),
            }
        }
        Ok(leases)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use tonic::Code;

    use super::*;
    use crate::{
        etcd::proto::{
            descriptors,
            etcdserverpb::{
                Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
            },
        },
        model::token::KeyGrant,
    };

    const OPERATE: &str = "correct horse battery";
    const READ: &str = "staple correct horse";
    const READER: &str = "battery staple horse";
    const WRITER: &str = "horse staple battery";

    fn tokens() -> Receiver<Tokens> {
        let keys = |access| Permissions { scope: None, keys: vec![KeyGrant::new("app/", access)] };
        let tokens = vec![
            Token::new("deploy", Scope::Operate, OPERATE),
            Token::new("prometheus", Scope::Read, READ),
            Token::new("reader", keys(KeyAccess::Read), READER),
            Token::new("writer", keys(KeyAccess::Write), WRITER),
        ];
        watch::channel(Tokens::new(tokens)).1
    }

    fn call(path: &str, header: Option<(&'static str, &str)>) -> Result<(), Code> {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, value.parse().unwrap());
        }
        authorize(Some(&tokens()), path, &headers).map(|_| ()).map_err(|status| status.code())
    }

    #[test]
    fn token_is_found_in_any_header() {
        let range = "/etcdserverpb.KV/Range";
        let cases = [
            (range, None, Err(Code::InvalidArgument)),
            (range, Some(("token", OPERATE)), Ok(())),
            (range, Some(("authorization", "bearer correct horse battery")), Ok(())),
            (range, Some(("authorization", "Basic correct")), Err(Code::InvalidArgument)),
            (range, Some(("token", "wrong")), Err(Code::Unauthenticated)),
            (range, Some(("authorization", "wrong")), Err(Code::Unauthenticated)),
            ("/etcdserverpb.Auth/Authenticate", None, Ok(())),
        ];
        for (path, header, expected) in cases {
            assert_eq!(call(path, header), expected, "{path} {header:?}");
            assert!(authorize(None, path, &HeaderMap::new()).is_ok());
        }
    }

    #[test]
    fn method_requires_what_consul_requires() {
        let denied = Err(Code::PermissionDenied);
        // Scope operate, scope read, reader and writer of keys.
        let cases = [
            ("KV/Range", [Ok(()), denied, Ok(()), Ok(())]),
            ("KV/Compact", [Ok(()), denied, Ok(()), Ok(())]),
            ("Watch/Watch", [Ok(()), denied, Ok(()), Ok(())]),
            ("Lease/LeaseGrant", [Ok(()), denied, denied, Ok(())]),
            ("Lease/LeaseKeepAlive", [Ok(()), denied, denied, Ok(())]),
            ("Lease/LeaseLeases", [Ok(()), Ok(()), denied, denied]),
            ("Lease/LeaseTimeToLive", [Ok(()); 4]),
            ("Cluster/MemberList", [Ok(()); 4]),
            ("Maintenance/Status", [Ok(()); 4]),
            ("Maintenance/Snapshot", [Ok(()), denied, Ok(()), Ok(())]),
        ];
        for (method, expected) in cases {
            let found = [OPERATE, READ, READER, WRITER]
                .map(|token| call(&format!("/etcdserverpb.{method}"), Some(("token", token))));
            assert_eq!(found, expected, "{method}");
        }
    }

    #[test]
    fn only_logins_need_no_token() {
        for service in descriptors().services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                assert_eq!(required(&path).is_none(), path.starts_with("/etcdserverpb.Auth/"), "{path}");
            }
        }
    }

    #[test]
    fn transaction_requires_access_to_each_of_its_ranges() {
        let keys = vec![KeyGrant::new("app/", KeyAccess::Write), KeyGrant::new("shared/", KeyAccess::Read)];
        let granted = Granted(Some(Arc::new(Permissions { scope: None, keys })));
        let range = |key: &'static str, end: &'static str| {
            let request = RangeRequest { key: key.into(), range_end: end.into(), ..RangeRequest::default() };
            Request::RequestRange(request)
        };
        let put = |key: &'static str, lease| {
            Request::RequestPut(PutRequest { key: key.into(), lease, ..PutRequest::default() })
        };
        let delete = |key: &'static str, end: &'static str| {
            let request = DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false };
            Request::RequestDeleteRange(request)
        };
        let compare = |key: &'static str| TxnRequest {
            compare: vec![Compare { key: key.into(), ..Compare::default() }],
            ..TxnRequest::default()
        };
        let on = |success: Request| TxnRequest {
            success: vec![RequestOp { request: Some(success) }],
            ..TxnRequest::default()
        };
        let otherwise = |failure: Request| TxnRequest {
            failure: vec![RequestOp { request: Some(failure) }],
            ..TxnRequest::default()
        };
        let cases = [
            (compare("shared/a"), true),
            (compare("other"), false),
            (on(range("shared/a", "")), true),
            (on(range("app/", "app0")), true),
            (on(range("app/", "b")), false),
            (on(range("app/", "\0")), false),
            (on(range("\0", "\0")), false),
            (on(put("app/a", 0)), true),
            (on(put("app", 0)), false),
            (on(put("shared/a", 0)), false),
            (otherwise(put("shared/a", 0)), false),
            (on(delete("app/a", "app/b")), true),
            (on(delete("app/a", "b")), false),
            (on(delete("shared/a", "")), false),
            (on(Request::RequestTxn(on(put("app/a", 0)))), true),
            (on(Request::RequestTxn(on(put("shared/a", 0)))), false),
            (otherwise(Request::RequestTxn(compare("other"))), false),
        ];
        for (request, expected) in cases {
            let name = format!("{request:?}");
            let transaction = crate::etcd::convert::transaction::transaction(request).unwrap();
            let permitted = granted.require_for(&transaction);
            assert_eq!(permitted.is_ok(), expected, "{name}");
            if let Err(status) = permitted {
                assert_eq!((status.code(), status.message()), (Code::PermissionDenied, DENIED));
            }
            assert!(Granted::EVERYTHING.require_for(&transaction).is_ok());
            assert!(Granted(Some(Arc::default())).require_for(&transaction).is_err());
        }
        let within = on(Request::RequestTxn(on(put("app/a", 7))));
        let within = crate::etcd::convert::transaction::transaction(within).unwrap();
        assert_eq!(granted.require_for(&within).unwrap(), BTreeSet::from([LeaseId(7)]));
    }
}
