//! Query parameters of a request, as Consul's clients send them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
};
use percent_encoding::percent_decode_str;

use super::{
    Api,
    blocking::Source,
    filter::{self, Filter},
    parking::Parkable,
    response::ApiError,
};
use crate::{
    model::{catalog::Catalog, name::Label, nearest::Place, registered_name::RegisteredName},
    registry::registration::go_duration,
};

/// Default wait of a blocking query, as in Consul.
const WAIT: Duration = Duration::from_secs(5 * 60);
/// Longest wait, as in Consul.
const MAX_WAIT: Duration = Duration::from_secs(10 * 60);
/// A random share of up to 1/16 is added to each wait, so that clients do not return in step.
const JITTER: u32 = 16;

/// Place for the source of a response, in the extensions of a stream's requests.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceSlot(pub(super) Arc<OnceLock<Source>>);

/// Parameters in request order, and the node to which `near=_agent` refers.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    parameters: Vec<(String, String)>,
    own_node: Option<Label>,
    /// Set if the connection can wait without the handler.
    pub(super) parkable: Option<Parkable>,
    /// Set if the response belongs to a stream.
    pub(super) source: Option<SourceSlot>,
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let (parkable, source) = (parts.extensions.get().cloned(), parts.extensions.get().cloned());
        Ok(Self { parkable, source, ..Self::parse(parts.uri.query().unwrap_or_default()) })
    }
}

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let split = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        };
        Self { parameters: pairs.map(split).collect(), ..Self::default() }
    }

    /// Returns all values of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.parameters.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the first non-empty value of a parameter.
    pub(super) fn text<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// Reports whether a parameter is present, with any value: Consul's flags of keys.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Reports whether a flag is set. As in Consul, `?passing` and `?passing=1` both set it.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.all(name).next() {
            None => Ok(false),
            Some("" | "1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
            Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
            Some(other) => Err(bad(&format!("{name} must be true or false, got {other:?}"))),
        }
    }

    /// Returns the index that the client has seen; `None`: the query does not block.
    pub(super) fn index(&self) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text("index") else { return Ok(None) };
        let expected = || bad(&format!("index must be an integer from 0 to {}, got {text:?}", u64::MAX));
        let index = text.parse().map_err(|_| expected())?;
        Ok(Some(index).filter(|index| *index > 0))
    }

    /// Returns the wait without jitter.
    pub(super) fn wait(&self) -> Result<Duration, ApiError> {
        let Some(text) = self.text("wait") else { return Ok(WAIT) };
        let expected = || bad(&format!("wait must be a duration such as 30s or 5m, got {text:?}"));
        let span = go_duration(text).ok_or_else(expected)?;
        Ok(if span.is_zero() { WAIT } else { span.min(MAX_WAIT) })
    }

    /// Returns the parsed `filter`.
    pub(super) fn filter(&self) -> Result<Option<Filter>, ApiError> {
        let Some(text) = self.text("filter") else { return Ok(None) };
        filter::parse(text).map(Some).map_err(|error| bad(&format!("filter: {error}")))
    }

    /// Returns the datacenter; `None`: all.
    pub(super) fn datacenter(&self) -> Result<Option<Label>, ApiError> {
        let Some(text) = self.text("dc") else { return Ok(None) };
        Label::parse(text).map(Some).map_err(|_| bad(&format!("dc must be a datacenter's name, got {text:?}")))
    }

    /// Reports whether a node of this datacenter and metadata matches the datacenter and every `node-meta=KEY:VALUE`. No node
    /// belongs to a `peer`: there are no peerings.
    pub(super) fn matches(&self, datacenter: &Label, meta: &BTreeMap<String, String>, dc: Option<&Label>) -> bool {
        self.text("peer").is_none()
            && dc.is_none_or(|dc| datacenter == dc)
            && self.all("node-meta").filter(|pair| !pair.is_empty()).all(|pair| {
                let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
                meta.get(key).is_some_and(|known| known == value)
            })
    }

    /// Returns the cache key: path and parameters, except those that do not affect the response, and the place of the node near
    /// which items come first.
    pub(super) fn cache_key(&self, path: &str, catalog: &Catalog) -> String {
        let mut text = path.to_owned();
        for (key, value) in
            self.parameters.iter().filter(|(key, _)| !["index", "wait", "token"].contains(&key.as_str()))
        {
            // The lengths keep an escaped separator in a value from looking like another parameter.
            for part in [key, value] {
                text.extend(["\n", &part.len().to_string(), " ", part]);
            }
        }
        let near = self.near().ok().flatten();
        if let Some(Place { datacenter, zone }) = near.and_then(|near| catalog.place_of(&near)) {
            text.extend(["\n", datacenter.as_str(), "\n", zone.map_or("", Label::as_str)]);
        }
        text
    }

    /// Sets the node to which `near=_agent` refers.
    pub(super) fn with_agent(mut self, api: &Api) -> Self {
        self.own_node = Some(api.agent.node.clone());
        self
    }

    /// Returns the node near which items come first; `None`: the response is not sorted.
    pub(super) fn near(&self) -> Result<Option<RegisteredName>, ApiError> {
        let Some(near) = self.text("near") else { return Ok(None) };
        if near != "_agent" && near != "_ip" {
            return node_name(near).map(Some);
        }
        self.own_node
            .clone()
            .map(|node| Some(node.into()))
            .ok_or_else(|| bad("near: this endpoint does not sort its response"))
    }

    /// Refuses parameters of Consul that must not be ignored silently.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        for (name, what) in [("ns", "namespaces"), ("partition", "partitions"), ("sg", "sameness groups")] {
            if self.text(name).is_some_and(|value| value != "default") {
                return Err(bad(&format!("{name}: muster has no {what}")));
            }
        }
        Ok(())
    }
}

/// Returns a wait with its jitter.
pub(super) fn with_jitter(wait: Duration) -> Duration {
    wait + (wait / JITTER).mul_f64(fastrand::f64())
}

/// Returns a 400 with this text.
pub(super) fn bad(text: &str) -> ApiError {
    ApiError(StatusCode::BAD_REQUEST, text.to_owned())
}

/// Parses the name of a node or an external node in a request.
pub(super) fn node_name(text: &str) -> Result<RegisteredName, ApiError> {
    RegisteredName::parse(text).map_err(|error| bad(&format!("{text:?} is not a valid node name: {error}")))
}

/// Parses the name of a member in a request.
pub(super) fn label(text: &str) -> Result<Label, ApiError> {
    Label::parse(text).map_err(|error| bad(&format!("{text:?} is not a valid node name: {error}")))
}

/// Parses the name of a service in a request.
pub(super) fn service_name(text: &str) -> Result<RegisteredName, ApiError> {
    RegisteredName::parse(text).map_err(|error| bad(&format!("{text:?} is not a valid service name: {error}")))
}
