//! Names whose replies are validated (`resolver.dnssec: validate`), and what validation found.

use super::is_within;
use crate::{
    dns::{dnssec::trust_anchor::TrustAnchor, message::codes::rtype},
    model::name::Name,
};

/// Anchors of validation and their exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationScope {
    /// Trusted keys; at least one.
    pub anchors: Vec<TrustAnchor>,
    /// Suffixes of names that are not validated (negative trust anchors, RFC 7646).
    pub insecure: Vec<Name>,
}

/// Whether a name is validated, with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage<'s> {
    /// It is validated with the keys of this zone.
    Anchor(&'s Name),
    /// It is not: it is at or below this suffix in `resolver.dnssec_insecure`.
    Insecure(&'s Name),
    /// It is not: this route has private names, and no trust anchor.
    Route(&'s Name),
    /// It is not: no trust anchor is above it.
    NoAnchor,
}

/// Security status of a reply (RFC 4035 §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// It was not validated.
    #[default]
    Unvalidated,
    /// Signatures prove all of it.
    Secure,
    /// A part of it is in a zone that is provably not signed, or is not validated.
    Insecure,
    /// It ought to be signed, and is not, or wrongly: the reply of the upstream is withheld.
    Bogus,
    /// The keys above it could not be fetched.
    Indeterminate,
}

impl ValidationScope {
    /// Returns whether the reply to a question is validated. The arguments are those of [`coverage`](Self::coverage). DS records are in
    /// the zone above their name (RFC 4035 §3.1.4.1), and above the root is none.
    pub fn coverage_of<'s>(&'s self, name: &[u8], qtype: u16, route: Option<&'s Name>) -> Coverage<'s> {
        match (qtype, name) {
            (rtype::DS, [0]) => Coverage::NoAnchor,
            (rtype::DS, [len, ..]) => self.coverage(name.get(1 + usize::from(*len)..).unwrap_or(name), route),
            _ => self.coverage(name, route),
        }
    }

    /// Returns whether a name, in wire form and lower case, is validated. `route` is the suffix of its route, other than that of the
    /// root: an upstream of its own serves names that the public tree may not have, so only an anchor within the route counts.
    pub fn coverage<'s>(&'s self, name: &[u8], route: Option<&'s Name>) -> Coverage<'s> {
        let anchor = longest(self.anchors.iter().map(|anchor| &anchor.zone), name);
        let insecure = longest(self.insecure.iter(), name);
        match (anchor, insecure, route) {
            // A closer anchor ends the exception (RFC 7646 §2).
            (Some(anchor), Some(insecure), _) if !is_within(anchor.wire(), insecure.wire()) || anchor == insecure => {
                Coverage::Insecure(insecure)
            }
            (None, Some(insecure), _) => Coverage::Insecure(insecure),
            (Some(anchor), _, Some(route)) if !is_within(anchor.wire(), route.wire()) => Coverage::Route(route),
            (Some(anchor), ..) => Coverage::Anchor(anchor),
            (None, None, _) => Coverage::NoAnchor,
        }
    }
}

/// Returns the longest of the suffixes that a name is at or below.
fn longest<'s>(suffixes: impl Iterator<Item = &'s Name>, name: &[u8]) -> Option<&'s Name> {
    suffixes.filter(|suffix| is_within(name, suffix.wire())).max_by_key(|suffix| suffix.wire().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::dnssec::trust_anchor;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn anchor(zone: &str) -> TrustAnchor {
        TrustAnchor { zone: name(zone), ..trust_anchor::root().remove(0) }
    }

    #[test]
    fn coverage_depends_on_anchors_exceptions_and_routes() {
        let scope = ValidationScope {
            anchors: vec![anchor("."), anchor("corp.example"), anchor("lab.test")],
            insecure: vec![name("test"), name("legacy.example"), name("corp.example.net")],
        };
        let (root, corp, lab) = (name("."), name("corp.example"), name("lab.test"));
        let (test, legacy, intern) = (name("test"), name("legacy.example"), name("intern.example"));
        for (asked, route, expected) in [
            ("example", None, Coverage::Anchor(&root)),
            ("a.corp.example", None, Coverage::Anchor(&corp)),
            ("a.corp.example", Some(&corp), Coverage::Anchor(&corp)),
            ("a.intern.example", Some(&intern), Coverage::Route(&intern)),
            ("legacy.example", None, Coverage::Insecure(&legacy)),
            ("a.legacy.example", Some(&intern), Coverage::Insecure(&legacy)),
            ("a.test", None, Coverage::Insecure(&test)),
            ("a.lab.test", None, Coverage::Anchor(&lab)),
        ] {
            assert_eq!(scope.coverage(name(asked).wire(), route), expected, "{asked} {route:?}");
        }
        for (asked, qtype, route, expected) in [
            ("corp.example", rtype::A, None, Coverage::Anchor(&corp)),
            ("corp.example", rtype::DS, None, Coverage::Anchor(&root)),
            ("corp.example", rtype::DS, Some(&corp), Coverage::Route(&corp)),
            ("a.corp.example", rtype::DS, None, Coverage::Anchor(&corp)),
            ("test", rtype::DS, None, Coverage::Anchor(&root)),
            ("lab.test", rtype::DS, None, Coverage::Insecure(&test)),
            (".", rtype::NS, None, Coverage::Anchor(&root)),
            (".", rtype::DS, None, Coverage::NoAnchor),
        ] {
            assert_eq!(scope.coverage_of(name(asked).wire(), qtype, route), expected, "{asked} {qtype} {route:?}");
        }
        let island = ValidationScope { anchors: vec![anchor("corp.example")], insecure: Vec::new() };
        assert_eq!(island.coverage(name("example").wire(), None), Coverage::NoAnchor);
    }
}
