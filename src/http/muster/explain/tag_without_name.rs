//! Tags that DNS has no names for: they are in the catalog and the HTTP API only.

use super::Explainer;
use crate::{
    api::explain::Explained,
    model::{
        catalog::Catalog,
        registered_name::{NoDnsName, RegisteredName},
    },
};

/// A tag without DNS names, of a service with one.
pub(super) struct TagWithoutName {
    service: RegisteredName,
    /// In ASCII lower case.
    tag: RegisteredName,
    reason: NoDnsName,
}

impl TagWithoutName {
    /// Finds the tag that a text in front of a zone denotes: `TAG.SERVICE` or `_SERVICE._TAG`, and in the scheme of Consul
    /// `service` and a datacenter behind it.
    pub(super) fn find(catalog: &Catalog, text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        catalog.services().filter(|(name, _)| text.contains(name.as_str())).find_map(|(service, known)| {
            let entries = known.entries().map(|entry| &entry.announcement.instance);
            let tags =
                entries.flat_map(|instance| instance.tags.iter()).filter_map(|tag| RegisteredName::parse(tag).ok());
            let is_denoted = |tag: &RegisteredName| {
                let forms = [format!("{tag}.{service}"), format!("_{service}._{tag}")];
                let rests = forms.iter().filter_map(|form| text.strip_prefix(form.as_str()));
                rests.into_iter().any(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let mut nameless = tags.filter_map(|tag| tag.tag_label().err().map(|reason| (tag, reason)));
            let (tag, reason) = nameless.find(|(tag, _)| is_denoted(tag))?;
            Some(Self { service: service.clone(), tag, reason })
        })
    }

    /// Returns the reason why there is no name.
    pub(super) fn summary(&self) -> String {
        format!("DNS has no name for the tag {:?} of the service {}: {}", self.tag.as_str(), self.service, self.reason)
    }

    /// Returns a note on where the tag is.
    pub(super) fn note(&self) -> String {
        format!(
            "The HTTP API has the tag: /v1/health/service/{}?tag={}. A tag of letters, digits, hyphens and underscores has a name.",
            self.service, self.tag
        )
    }
}

impl Explainer<'_> {
    /// Explains a tag without DNS names.
    pub(super) fn tag_without_name(&self, text: &str, found: &TagWithoutName) -> Explained {
        Explained {
            name: text.to_owned(),
            kind: "unknown".to_owned(),
            source: "catalog".to_owned(),
            summary: found.summary(),
            notes: vec![found.note()],
            ..Explained::default()
        }
    }
}
