//! Parking: a blocking query that must wait, or a stream, leaves hyper and its buffers.
//!
//! The server marks each request that may park with [`Parkable`]. The handler parks a query by its topic and index, or a
//! stream by its frames, and never completes; the connection then drops hyper, and waits with a [`Parked`] alone.

use std::{
    convert::Infallible,
    fmt::{self, Debug, Formatter},
    future::pending,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Bytes,
    extract::Request,
    http::{Method, Version, header},
};
use futures_util::Stream;

use super::blocking::Source;

/// Path prefix of streams of states, in place of `/v1/`.
pub(super) const WATCH: &str = "/v1/watch/";
/// Path of the stream of events.
const EVENTS: &str = "/v1/muster/events";

/// Access of a request whose token may be revoked; none: no token is needed.
#[derive(Clone, Default)]
pub(super) struct Access(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Access {
    /// Returns the access that lasts while `is_valid` returns true.
    pub(super) fn while_valid(is_valid: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_valid)))
    }

    /// Reports whether the token is still valid.
    pub(super) fn is_valid(&self) -> bool {
        self.0.as_ref().is_none_or(|is_valid| is_valid())
    }
}

impl Debug for Access {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "Access(token)" } else { "Access(open)" })
    }
}

/// A request that waits.
#[derive(Debug)]
pub(super) enum Parked {
    /// A blocking query.
    Query(Box<ParkedQuery>),
    /// A stream.
    Stream(ParkedStream),
}

/// A stream's frames, each in three parts.
pub(super) type Frames = Pin<Box<dyn Stream<Item = [Bytes; 3]> + Send>>;

/// A stream whose head was not sent.
pub(super) struct ParkedStream {
    /// Status line and header lines, without the transfer coding, the date and the empty line.
    pub(super) head: Bytes,
    /// Frames; the stream ends with them.
    pub(super) frames: Frames,
    /// Path of the route, for metrics.
    pub(super) endpoint: &'static str,
}

impl Debug for ParkedStream {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ParkedStream").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A blocking query that waits.
#[derive(Debug)]
pub(super) struct ParkedQuery {
    /// Part of the state that the query waits for, and the key of its response.
    pub(super) source: Source,
    /// Index that the client has seen.
    pub(super) seen: u64,
    /// Longest wait, without jitter.
    pub(super) wait: Duration,
    /// Access of the request, and of its repetitions.
    pub(super) access: Access,
    /// Path of the route, for metrics.
    pub(super) endpoint: &'static str,
    /// Head of the request.
    pub(super) head: Bytes,
}

impl ParkedQuery {
    /// Returns the index in a request that differs from this one at most in its index; `None`: another request. Such a
    /// request is not parsed again.
    pub(super) fn repeated(&self, request: &[u8]) -> Option<u64> {
        let (start, end) = index_value(&self.head)?;
        let rest = request.strip_prefix(&self.head[..start])?;
        let index = rest.strip_suffix(&self.head[end..])?;
        let is_repetition = number(&self.head[start..end]) == Some(self.seen);
        is_repetition.then(|| number(index)).flatten()
    }
}

/// Returns the place of the value of `index` in the head of a request. Escapes in names of parameters before it are not
/// decoded: `None`.
fn index_value(head: &[u8]) -> Option<(usize, usize)> {
    const NAME: &[u8] = b"index=";
    let line = head.split(|octet| *octet == b'\r').next()?;
    let query = line.iter().position(|octet| *octet == b'?')? + 1;
    let at = query + line[query..].windows(NAME.len()).position(|window| window == NAME)?;
    let mut before = line[query..at].split(|octet| *octet == b'&');
    // The parameter begins after a separator.
    if before.next_back().is_some_and(|part| !part.is_empty()) || before.any(has_escaped_name) {
        return None;
    }
    let start = at + NAME.len();
    let digits = line[start..].iter().take_while(|octet| octet.is_ascii_digit()).count();
    Some((start, start + digits))
}

fn has_escaped_name(parameter: &[u8]) -> bool {
    parameter.iter().take_while(|octet| **octet != b'=').any(|octet| matches!(octet, b'%' | b'+'))
}

/// Parses an index above 0.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok().filter(|index| *index > 0)
}

/// Place of a parked query between the handler and its connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot(Arc<State>);

#[derive(Debug, Default)]
struct State {
    parked: Mutex<Option<Parked>>,
    requests: AtomicU32,
    unflushed: AtomicBool,
}

impl Slot {
    /// Marks a request that may park. `is_resumed`: the first request has already waited.
    pub(super) fn mark<B>(&self, request: &mut Request<B>, is_resumed: bool) {
        let is_first = self.0.requests.fetch_add(1, Ordering::Relaxed) == 0;
        let has_index = request.uri().query().is_some_and(|query| query.contains("index"));
        if !(has_index || is_stream(request)) || !may_park(request) {
            return;
        }
        let parkable = Parkable {
            slot: self.clone(),
            is_resumed: is_first && is_resumed,
            endpoint: "none",
            access: Access::default(),
            head: head_of(request),
        };
        request.extensions_mut().insert(parkable);
    }

    /// Reports whether the connection has received one request.
    pub(super) fn is_first(&self) -> bool {
        self.0.requests.load(Ordering::Relaxed) == 1
    }

    /// Sets whether octets of an earlier response may be in hyper's buffer.
    pub(super) fn set_unflushed(&self, unflushed: bool) {
        self.0.unflushed.store(unflushed, Ordering::Relaxed);
    }

    /// Takes the parked query when all earlier responses are written.
    pub(super) fn take(&self) -> Option<Parked> {
        if self.0.unflushed.load(Ordering::Relaxed) {
            return None;
        }
        self.0.parked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Marks a request that may park.
#[derive(Clone, Debug)]
pub(super) struct Parkable {
    slot: Slot,
    /// True if the request has already waited: it is answered at once.
    pub(super) is_resumed: bool,
    /// Path of the route, for metrics. The router sets it.
    pub(super) endpoint: &'static str,
    /// Access of the request. The authorization sets it.
    pub(super) access: Access,
    head: Bytes,
}

impl Parkable {
    /// Returns the head of the request.
    pub(super) fn head(&self) -> Bytes {
        self.head.clone()
    }

    /// Parks the request. The connection drops this future.
    pub(super) async fn park(&self, parked: Parked) -> Infallible {
        *self.slot.0.parked.lock().unwrap_or_else(PoisonError::into_inner) = Some(parked);
        pending().await
    }
}

fn is_stream<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    path.starts_with(WATCH) || path == EVENTS
}

/// Reports whether the connection stays open after the response and the request has no body.
fn may_park<B>(request: &Request<B>) -> bool {
    let unfit = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::EXPECT];
    // Browsers send `keep-alive`, which is the default.
    let mut options = request.headers().get_all(header::CONNECTION).iter();
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && options.all(|option| option.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
        && !unfit.iter().any(|name| request.headers().contains_key(name))
}

/// Returns a head that is parsed as the request, no longer than the client's: a longer one might exceed the server's limit.
fn head_of<B>(request: &Request<B>) -> Bytes {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let mut head = format!("GET {target} HTTP/1.1\r\n").into_bytes();
    for (name, value) in request.headers() {
        for part in [name.as_str().as_bytes(), b":", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    Bytes::from(head.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::blocking::Topic;

    fn parked(head: &str, seen: u64) -> ParkedQuery {
        let source = Source { topic: Topic::All, cache_key: None };
        let (wait, access, head) = (Duration::from_secs(1), Access::default(), Bytes::copy_from_slice(head.as_bytes()));
        ParkedQuery { source, seen, wait, access, endpoint: "none", head }
    }

    #[test]
    fn request_repeats_if_only_its_index_differs() {
        let head = "GET /v1/x?index=7&wait=1m HTTP/1.1\r\nhost: a\r\n\r\n";
        let cases = [
            (head, Some(7)),
            ("GET /v1/x?index=12&wait=1m HTTP/1.1\r\nhost: a\r\n\r\n", Some(12)),
            ("GET /v1/x?index=0&wait=1m HTTP/1.1\r\nhost: a\r\n\r\n", None),
            ("GET /v1/x?index=&wait=1m HTTP/1.1\r\nhost: a\r\n\r\n", None),
            ("GET /v1/x?index=+9&wait=1m HTTP/1.1\r\nhost: a\r\n\r\n", None),
            ("GET /v1/x?index=99999999999999999999&wait=1m HTTP/1.1\r\nhost: a\r\n\r\n", None),
            ("GET /v1/x?index=12&wait=2m HTTP/1.1\r\nhost: a\r\n\r\n", None),
            ("GET /v1/x?index=12&wait=1m HTTP/1.1\r\nhost: b\r\n\r\n", None),
            ("GET /v1/x?index=12&wait=1m HTTP/1.1\r\nhost: a\r\n\r\nGET", None),
            ("GET /v1/x?index=12&wait=1m HTTP/1.1\r\nhost: a\r\n", None),
        ];
        for (request, expected) in cases {
            assert_eq!(parked(head, 7).repeated(request.as_bytes()), expected, "{request:?}");
        }
    }

    #[test]
    fn requests_that_keep_the_connection_may_park() {
        let request = |name: &str, value: &str| Request::get("/").header(name, value).body(()).unwrap();
        for (name, value, expected) in [
            ("host", "a", true),
            ("connection", "keep-alive", true),
            ("connection", "Keep-Alive", true),
            ("connection", "close", false),
            ("connection", "keep-alive, upgrade", false),
            ("content-length", "2", false),
            ("transfer-encoding", "chunked", false),
            ("expect", "100-continue", false),
        ] {
            assert_eq!(may_park(&request(name, value)), expected, "{name}: {value}");
        }
        let mut old = request("connection", "keep-alive");
        *old.version_mut() = Version::HTTP_10;
        assert!(!may_park(&old));
        assert!(!may_park(&Request::post("/").body(()).unwrap()));
    }

    #[test]
    fn escaped_values_before_the_index_are_compared() {
        let request = |index: u64| format!("GET /v1/x?filter=A+%3D%3D+80&near=_agent&index={index} HTTP/1.1\r\n\r\n");
        assert_eq!(parked(&request(7), 7).repeated(request(12).as_bytes()), Some(12));
    }

    #[test]
    fn ambiguous_index_is_parsed_again() {
        for head in [
            "GET /v1/x?%69ndex=7&index=7 HTTP/1.1\r\n\r\n",
            "GET /v1/x?a=%26&%69ndex=7&index=7 HTTP/1.1\r\n\r\n",
            "GET /v1/x&index=7?a=1 HTTP/1.1\r\n\r\n",
            "GET /v1/x?myindex=7&index=7 HTTP/1.1\r\n\r\n",
            "GET /v1/x?index=8&index=7 HTTP/1.1\r\n\r\n",
            "GET /v1/x?index=&index=7 HTTP/1.1\r\n\r\n",
            "GET /v1/x HTTP/1.1\r\nreferer: /?index=7\r\n\r\n",
        ] {
            assert_eq!(parked(head, 7).repeated(head.as_bytes()), None, "{head:?}");
        }
    }
}
