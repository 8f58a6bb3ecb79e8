//! Names outside our zones: clients that may query them, and the sources of their answers.

pub mod cache;
pub mod loop_detection;
pub mod rebinding;
pub mod special_use;
pub mod upstream_query;
pub mod upstream_reply;
pub mod validation;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use self::{
    cache::{Cache, Hit, Key},
    loop_detection::LoopDetector,
    rebinding::RebindProtection,
    special_use::SpecialUse,
    validation::{Coverage, ValidationScope},
};
use super::message::query::{LookupName, Query};
use crate::model::{name::Name, recursion_access::ClientRange, upstream_address::UpstreamAddress};

/// Resolution of names outside our zones.
pub struct Recursion {
    /// Clients that may use recursion.
    pub allow: Vec<ClientRange>,
    /// Suffixes with upstreams of their own.
    pub routes: Vec<(Name, Vec<UpstreamAddress>)>,
    /// Names whose replies must not have private addresses; `None`: no names.
    pub rebind_protection: Option<RebindProtection>,
    /// Names whose replies are validated; `None`: no names.
    pub validation: Option<Arc<ValidationScope>>,
    /// Replies of upstreams.
    pub cache: Arc<Cache>,
    /// Detects our own questions that come back.
    pub loop_detector: Arc<LoopDetector>,
}

/// Source of the answer to a name outside our zones.
#[derive(Clone, Copy, Debug)]
pub enum Resolution<'r> {
    /// Nothing: the client may not use recursion.
    Prohibited,
    /// Nothing: the question is one of our own that an upstream sent back. Holds its number.
    Loop(u64),
    /// This server: the name is a special-use name, which is never forwarded.
    SpecialUse(SpecialUse),
    /// The upstreams of this route.
    Route(&'r (Name, Vec<UpstreamAddress>)),
    /// The default upstreams.
    Upstream,
}

impl Resolution<'_> {
    /// Reports whether upstreams for public names resolve the name.
    pub fn is_public(&self) -> bool {
        match self {
            Self::Route(route) => is_public(Some(route)),
            Self::Upstream => true,
            Self::Prohibited | Self::Loop(_) | Self::SpecialUse(_) => false,
        }
    }
}

impl Recursion {
    /// Returns the source of the answer to `name` for this client.
    pub fn resolution(&self, name: &LookupName, client: Option<IpAddr>) -> Resolution<'_> {
        if !client.is_some_and(|client| self.allows(client)) {
            return Resolution::Prohibited;
        }
        let route = route(&self.routes, name.wire());
        if let Some(local) = SpecialUse::find(name).filter(|_| is_public(route)) {
            return Resolution::SpecialUse(local);
        }
        match (self.loop_detector.number(name), route) {
            (Some(number), _) => Resolution::Loop(number),
            (None, Some(route)) => Resolution::Route(route),
            (None, None) => Resolution::Upstream,
        }
    }

    /// Reports whether this client may use recursion.
    pub fn allows(&self, client: IpAddr) -> bool {
        self.allow.iter().any(|allow| allow.matches(client))
    }

    /// Reports whether rebinding protection covers a name that is resolved so: a public one without an exception.
    pub fn is_protected(&self, name: &LookupName, resolution: Resolution<'_>) -> bool {
        resolution.is_public()
            && self.rebind_protection.as_ref().is_some_and(|protection| protection.covers(name.wire()))
    }

    /// Returns whether the reply for a name that is resolved so is validated; `None` if validation is off, or nothing is forwarded.
    pub fn coverage<'r>(&'r self, name: &LookupName, resolution: Resolution<'r>) -> Option<Coverage<'r>> {
        let route = match resolution {
            Resolution::Route(route) => Some(route),
            Resolution::Upstream => None,
            Resolution::Prohibited | Resolution::Loop(_) | Resolution::SpecialUse(_) => return None,
        };
        Some(self.validation.as_deref()?.coverage(name.wire(), private_suffix(route)))
    }

    /// Returns the cached reply for `name` and the type and flags of `query`; `now` is the Unix time. `None` if an upstream must be
    /// queried, which includes a stale reply without a failed refresh.
    pub fn cached(&self, query: &Query<'_>, name: &LookupName, now: Duration) -> Option<Hit> {
        if query.edns.is_some_and(|edns| edns.others) {
            return None;
        }
        let hit = self.cache.get(Key::new(query, name).as_bytes(), now)?;
        (!matches!(hit, Hit::Stale { tried: false, .. })).then_some(hit)
    }
}

impl fmt::Debug for Recursion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allow, routes, .. } = self;
        f.debug_struct("Recursion").field("allow", allow).field("routes", routes).finish_non_exhaustive()
    }
}

/// Returns the route of a name, which is in wire form and lower case: the one with the longest suffix.
pub fn route<'r, T>(routes: &'r [(Name, T)], name: &[u8]) -> Option<&'r (Name, T)> {
    let fitting = routes.iter().filter(|(suffix, _)| is_within(name, suffix.wire()));
    fitting.max_by_key(|(suffix, _)| suffix.wire().len())
}

/// Reports whether names with this route, or without one, are public: those of the default upstreams, which a route for the root
/// replaces.
pub fn is_public<T>(route: Option<&(Name, T)>) -> bool {
    private_suffix(route).is_none()
}

/// Returns the suffix of a route for names that are not public.
pub(crate) fn private_suffix<T>(route: Option<&(Name, T)>) -> Option<&Name> {
    route.map(|(suffix, _)| suffix).filter(|suffix| **suffix != Name::root())
}

/// Reports whether a name is at or below a suffix, both in wire form and lower case.
pub(crate) fn is_within(name: &[u8], suffix: &[u8]) -> bool {
    let mut rest = name;
    loop {
        if rest == suffix {
            return true;
        }
        match rest.split_first() {
            Some((len @ 1.., labels)) => rest = labels.get(usize::from(*len)..).unwrap_or_default(),
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_route_is_selected() {
        let name = |text: &str| if text == "." { Name::root() } else { Name::parse(text).unwrap() };
        let routes = ["example", "corp.example", "."].map(|suffix| (name(suffix), suffix));
        for (asked, expected) in [
            ("corp.example", "corp.example"),
            ("a.corp.example", "corp.example"),
            ("notcorp.example", "example"),
            ("example", "example"),
            ("example.org", "."),
        ] {
            assert_eq!(route(&routes, name(asked).wire()).map(|(_, found)| *found), Some(expected), "{asked}");
        }
        assert!(route(&routes[..2], name("example.org").wire()).is_none());
    }
}
