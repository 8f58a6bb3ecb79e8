//! Resolution of user input to a DNS name.
//!
//! Besides DNS names, users may enter `SERVICE`, `SERVICE/ID`, an instance id or a node. Each form yields candidate names; the
//! lookup in the tables decides which one exists.

use super::{tag_without_name::TagWithoutName, without_dns_name::WithoutDnsName};
use crate::{
    dns::{
        answer::provenance::Match,
        message::query::LookupName,
        recursion::{Recursion, is_public, route, special_use::SpecialUse},
        zone::Tables,
    },
    model::{
        catalog::Catalog,
        name::{Label, Name},
        registered_name::{RESERVED_SERVICE, RegisteredName},
        service::InstanceKey,
    },
};

/// Query type of the lookups. The match of a name depends on the type only at a delegation.
const TYPE: u16 = crate::dns::message::codes::rtype::A;

/// The subject of an explanation.
pub(super) enum Subject<'a> {
    /// A DNS name.
    Name(Name),
    /// A service or an instance that DNS has no name for.
    Service(WithoutDnsName<'a>),
    /// A tag that DNS has no names for.
    Tag(TagWithoutName),
}

/// Sources that candidate names are looked up in.
pub(super) struct Names<'a> {
    pub(super) tables: &'a Tables,
    pub(super) catalog: &'a Catalog,
    pub(super) recursion: Option<&'a Recursion>,
}

impl Names<'_> {
    /// Returns the name or service that `text` denotes; `None` if it is neither.
    ///
    /// A text with a final dot, or in the discovery zone, is an absolute name. Other texts are first tried relative to the
    /// discovery zone: as a service or node, then as an id, then as a static name. Then follow services without a DNS name,
    /// their ids, and tags without one. Otherwise, a single label without an answer is relative to the discovery zone, and any other text is absolute.
    pub(super) fn resolve(&self, text: &str) -> Option<Subject<'_>> {
        let name = Name::parse(text).ok();
        let domain = &self.tables.domain()?.origin;
        if let Some(name) = &name
            && (text.ends_with('.') || self.is_in_discovery_zone(name))
        {
            return Some(Subject::Name(name.clone()));
        }
        let below = name.as_ref().and_then(|name| domain.prepend(name.labels()).ok());
        let live = |name: &Name| self.find(name).is_some_and(|found| found.is_live());
        let in_file = |name: &Name| matches!(self.find(name), Some(Match::Static { wildcard: None, .. }));
        let ids = self.ids(text, domain);
        let candidates = below.iter().cloned().chain(ids);
        if let Some(found) = candidates.into_iter().find(live).or_else(|| below.clone().filter(in_file)) {
            return Some(Subject::Name(found));
        }
        if let Some(found) = WithoutDnsName::find(self.catalog, text) {
            return Some(Subject::Service(found));
        }
        let is_absolute = name.as_ref().is_some_and(|name| self.has_absolute_answer(name));
        if let Some(found) = TagWithoutName::find(self.catalog, text).filter(|_| !is_absolute) {
            return Some(Subject::Tag(found));
        }
        let name = name?;
        let is_relative = name.labels().count() == 1 && !self.has_absolute_answer(&name);
        if is_relative { below } else { Some(name) }.map(Subject::Name)
    }

    /// Returns the names of instances and nodes whose id the text may be.
    fn ids(&self, text: &str, domain: &Name) -> Vec<Name> {
        let instance = |key: &InstanceKey| domain.prepend([key.id.as_bytes(), key.service.as_bytes()]).ok();
        let mut names = Vec::new();
        if let Ok(node) = RegisteredName::parse(text)
            && let Ok(label) = node.dns_label()
        {
            names.extend(domain.prepend([label, RESERVED_SERVICE.as_bytes()]).ok());
        }
        let announced = || self.catalog.view().values().flat_map(|view| view.announcements.iter());
        if let Ok(label) = Label::parse(text) {
            names.extend(announced().find(|(key, _)| key.id == label).and_then(|(key, _)| instance(key)));
        }
        let named = || announced().filter(|(key, _)| key.service.dns_label().is_ok());
        let registered = named().find(|(_, announcement)| announcement.instance.api_id() == text);
        let registered = registered.or_else(|| named().find(|(_, announcement)| announcement.instance.is_called(text)));
        names.extend(registered.and_then(|(key, _)| instance(key)));
        names
    }

    fn is_in_discovery_zone(&self, name: &Name) -> bool {
        self.tables.discovery_zones().any(|zone| name.within(zone).is_some())
    }

    /// Reports whether the absolute name has an answer: a route, a special-use zone or a zone of ours.
    fn has_absolute_answer(&self, name: &Name) -> bool {
        let Some(lookup) = LookupName::from_wire(name.wire()) else { return false };
        let routes = self.recursion.map_or(&[][..], |recursion| &recursion.routes);
        !is_public(route(routes, name.wire()))
            || SpecialUse::find(&lookup).is_some()
            || !matches!(self.tables.find(&lookup, TYPE).found, Match::Outside)
    }

    fn find(&self, name: &Name) -> Option<Match<'_>> {
        LookupName::from_wire(name.wire()).map(|name| self.tables.find(&name, TYPE).found)
    }
}
