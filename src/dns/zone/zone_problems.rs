//! Problems of zones: signatures that end and delegations that are missing in a signed parent, which make validators refuse answers;
//! and secondary zones without a copy.

use std::time::Duration;

use thiserror::Error;

use super::{
    Tables,
    rrset::RRset,
    static_names::{StaticNames, Zone},
};
use crate::{
    dns::{
        dnssec::key,
        message::{codes::rtype, query::LookupName},
    },
    model::{date::rfc3339, name::Name, zone::CopyState},
};

/// Time before the end of a signature from which it is reported, in seconds: a day. Signers that work by themselves replace signatures
/// earlier (BIND 5 days before, Knot a tenth of the lifetime and more, PowerDNS a week), so that their zones are not reported.
pub const SOON: i64 = 24 * 3600;

/// A problem of a zone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum ZoneProblem {
    /// No signature is valid any more.
    #[error("all signatures of the zone {zone} have expired, the last one at {at}: validators refuse all its answers")]
    Expired {
        /// The zone.
        zone: Name,
        /// Time of the end.
        at: String,
    },
    /// Some signatures are not valid any more.
    #[error("signatures of the zone {zone} have expired, the first ones at {at}: validators refuse answers with them")]
    PartlyExpired {
        /// The zone.
        zone: Name,
        /// Time of the first end.
        at: String,
    },
    /// Some signatures are not valid yet.
    #[error("signatures of the zone {zone} are not valid before {at}: validators refuse answers with them")]
    NotYetValid {
        /// The zone.
        zone: Name,
        /// Time of the last beginning.
        at: String,
    },
    /// Signatures end within [`SOON`].
    #[error("signatures of the zone {zone} expire soon, at {at}: validators then refuse answers with them")]
    ExpiresSoon {
        /// The zone.
        zone: Name,
        /// Time of the first end.
        at: String,
    },
    /// The signed parent proves that the zone does not exist.
    #[error("the signed zone {parent} does not delegate {zone}: validators refuse all answers of {zone}")]
    NoDelegation {
        /// The zone.
        zone: Name,
        /// The zone above it.
        parent: Name,
        /// True if the zone is signed.
        is_signed: bool,
    },
    /// The signed parent says that the zone is not signed.
    #[error("the signed zone {parent} has no DS record of {zone}: validators treat {zone} as unsigned")]
    NoDs {
        /// The zone.
        zone: Name,
        /// The zone above it.
        parent: Name,
    },
    /// The signed parent says that the zone is signed.
    #[error(
        "the signed zone {parent} has a DS record of {zone}, which is not signed: validators refuse all answers of {zone}"
    )]
    OnlyDs {
        /// The zone.
        zone: Name,
        /// The zone above it.
        parent: Name,
    },
    /// The signed parent names none of the zone's keys.
    #[error(
        "no DS record of {zone} in the signed zone {parent} fits a key of {zone}: validators refuse all answers of {zone}"
    )]
    WrongDs {
        /// The zone.
        zone: Name,
        /// The zone above it.
        parent: Name,
    },
    /// No primary has sent the secondary zone.
    #[error("the secondary zone {zone} is not answered: no primary has sent it")]
    NoCopy {
        /// The zone.
        zone: Name,
    },
    /// The copy of the secondary zone has expired.
    #[error("the secondary zone {zone} is not answered: its copy has expired, and no primary has confirmed it")]
    ExpiredCopy {
        /// The zone.
        zone: Name,
    },
}

impl ZoneProblem {
    /// Returns the zone.
    pub fn zone(&self) -> &Name {
        match self {
            Self::Expired { zone, .. }
            | Self::PartlyExpired { zone, .. }
            | Self::NotYetValid { zone, .. }
            | Self::ExpiresSoon { zone, .. }
            | Self::NoDelegation { zone, .. }
            | Self::NoDs { zone, .. }
            | Self::OnlyDs { zone, .. }
            | Self::WrongDs { zone, .. }
            | Self::NoCopy { zone }
            | Self::ExpiredCopy { zone } => zone,
        }
    }

    /// Returns the zone above, if the problem is in it.
    pub fn parent(&self) -> Option<&Name> {
        match self {
            Self::NoDelegation { parent, .. }
            | Self::NoDs { parent, .. }
            | Self::OnlyDs { parent, .. }
            | Self::WrongDs { parent, .. } => Some(parent),
            _ => None,
        }
    }

    /// Reports whether the zone is not answered, or signatures are not valid now.
    pub fn is_error(&self) -> bool {
        matches!(
            self,
            Self::Expired { .. }
                | Self::PartlyExpired { .. }
                | Self::NotYetValid { .. }
                | Self::NoCopy { .. }
                | Self::ExpiredCopy { .. }
        )
    }

    /// Returns what to do.
    pub fn hint(&self) -> String {
        match self {
            Self::Expired { .. } | Self::PartlyExpired { .. } | Self::ExpiresSoon { .. } => {
                "sign the zone again, or check its primary".to_owned()
            }
            Self::NotYetValid { .. } => "check the clocks of this host and of the signer".to_owned(),
            Self::NoDelegation { zone, parent, is_signed } => {
                let ds = if *is_signed {
                    format!(", and the output of `muster dnssec ds {zone}` or of its signer")
                } else {
                    String::new()
                };
                format!("add NS records of {zone} to {parent}{ds}")
            }
            Self::NoDs { zone, parent } | Self::WrongDs { zone, parent } => {
                format!("add the output of `muster dnssec ds {zone}`, or of the signer of {zone}, to {parent}")
            }
            Self::OnlyDs { zone, .. } => format!("sign {zone}, or remove the DS record"),
            Self::NoCopy { .. } | Self::ExpiredCopy { .. } => {
                "`muster zone list` has the reason of each primary".to_owned()
            }
        }
    }
}

impl Tables {
    /// Returns the secondary zones that are not answered.
    pub fn copy_problems(&self) -> impl Iterator<Item = ZoneProblem> {
        self.zones().filter_map(|zone| {
            let of = zone.origin.clone();
            match zone.unavailable()? {
                CopyState::Current => None,
                CopyState::Missing => Some(ZoneProblem::NoCopy { zone: of }),
                CopyState::Expired => Some(ZoneProblem::ExpiredCopy { zone: of }),
            }
        })
    }

    /// Returns what makes validators refuse answers of the zones at a Unix time, sorted. `is_signed` reports whether a zone has, or will have, signatures.
    pub fn zone_problems(&self, now: Duration, is_signed: impl Fn(&Zone) -> bool) -> Vec<ZoneProblem> {
        let each = self.zones().flat_map(|zone| {
            let names = zone.presigned().map(|_| &*zone.names);
            names
                .and_then(|names| validity_problem(names, &zone.origin, now))
                .into_iter()
                .chain(self.delegation_problem(zone, &is_signed))
        });
        let mut problems: Vec<ZoneProblem> = each.collect();
        problems.sort();
        problems
    }

    fn delegation_problem(&self, zone: &Zone, is_signed: &impl Fn(&Zone) -> bool) -> Option<ZoneProblem> {
        let parent = self.zone_above(&LookupName::from_wire(zone.origin.wire())?)?;
        if !is_signed(parent) || parent.unavailable().is_some() {
            return None;
        }
        let owner = zone.origin.within(&parent.origin)?;
        let has = |owner: &[u8], rtype| {
            parent.names.at(owner).is_some_and(|rrsets| rrsets.iter().any(|set| set.rtype == rtype))
        };
        let mut above = owner;
        while let Some((len, rest)) = above.split_first() {
            above = rest.get(usize::from(*len)..)?;
            // Another server's zone is between both, and delegates this one.
            if !above.is_empty() && has(above, rtype::NS) {
                return None;
            }
        }
        let (child, above) = (zone.origin.clone(), parent.origin.clone());
        match (has(owner, rtype::NS), has(owner, rtype::DS), is_signed(zone)) {
            // A copy that is missing may be signed.
            (true, ..) if zone.unavailable().is_some() => None,
            (false, _, is_signed) => Some(ZoneProblem::NoDelegation { zone: child, parent: above, is_signed }),
            (true, false, true) => Some(ZoneProblem::NoDs { zone: child, parent: above }),
            (true, true, false) => Some(ZoneProblem::OnlyDs { zone: child, parent: above }),
            (true, true, true) if !fits(zone, parent, owner) => {
                Some(ZoneProblem::WrongDs { zone: child, parent: above })
            }
            (true, false, false) | (true, true, true) => None,
        }
    }
}

/// Reports whether a DS record at `owner` in the parent may name a key of the zone. So does any if the keys are not known.
fn fits(zone: &Zone, parent: &Zone, owner: &[u8]) -> bool {
    let in_file = rdata(zone.names.at(&[]), rtype::DNSKEY).map(Vec::from);
    let online = zone.keys.iter().filter_map(|keys| keys.rrset(rtype::DNSKEY)).flat_map(|set| set.records.clone());
    let keys: Vec<Vec<u8>> = in_file.chain(online).collect();
    let mut names = rdata(parent.names.at(owner), rtype::DS);
    keys.is_empty() || names.any(|ds| keys.iter().any(|key| key::may_name(&zone.origin, ds, key)))
}

/// Returns the RDATA of the records of this type, which contain no names.
fn rdata(sets: Option<&[RRset]>, rtype: u16) -> impl Iterator<Item = &[u8]> {
    let of_type = sets.unwrap_or_default().iter().filter(move |set| set.rtype == rtype);
    of_type.flat_map(|set| &set.records).map(|record| &*record.octets)
}

fn validity_problem(names: &StaticNames, zone: &Name, now: Duration) -> Option<ZoneProblem> {
    let validity = names.validity()?;
    let seconds = now.as_secs();
    // Times are compared by serial number arithmetic (RFC 1982).
    let left = |time: u32| i64::from(time.wrapping_sub(seconds as u32) as i32);
    let shown = |time: u32| rfc3339(Duration::from_secs(seconds.saturating_add_signed(left(time))));
    let zone = zone.clone();
    if left(validity.last) <= 0 {
        Some(ZoneProblem::Expired { zone, at: shown(validity.last) })
    } else if left(validity.until) <= 0 {
        Some(ZoneProblem::PartlyExpired { zone, at: shown(validity.until) })
    } else if left(validity.from) > 0 {
        Some(ZoneProblem::NotYetValid { zone, at: shown(validity.from) })
    } else {
        (left(validity.until) <= SOON).then(|| ZoneProblem::ExpiresSoon { zone, at: shown(validity.until) })
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::{
        dns::zone::Settings,
        files::zone_file,
        model::{
            name::label,
            zone::{Source, ZoneFile},
        },
    };

    const NOW: u64 = 1_800_000_000;
    /// The key of RFC 6605 §6.1, its tag, and its digest as a key of child.parent.test, made with another program.
    const KEY: &str = "GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==";
    const TAG: u16 = 55648;
    const DIGEST: &str = "4f1d4a72f3ad63c57b7a2c814183412d74756be9a798aa393417509df19aed16";

    fn zone(name: &str, records: &str) -> Arc<ZoneFile> {
        let text = format!("$TTL 60\n@ SOA ns h 1 1 1 1 1\n@ NS ns.other.test.\n{records}");
        Arc::new(zone_file::parse(Path::new(&format!("{name}.zone")), text.as_bytes(), 60).unwrap())
    }

    fn problems(files: &[Arc<ZoneFile>], signed: &[&str]) -> Vec<String> {
        let mut tables = Tables::new(Settings::new(label("a"), label("dc1"), Name::parse("service.local").unwrap()));
        tables.set_zones(files);
        let is_signed =
            |zone: &Zone| zone.signer().is_some() || signed.iter().any(|name| zone.origin.to_string() == *name);
        tables.zone_problems(Duration::from_secs(NOW), is_signed).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn secondary_zones_without_a_copy_are_errors() {
        let mut tables = Tables::new(Settings::new(label("a"), label("dc1"), Name::parse("service.local").unwrap()));
        let copy = |name: &str, state| {
            let file = zone(name, "");
            let records = if state == CopyState::Current { file.records.clone() } else { Vec::new() };
            Arc::new(ZoneFile { source: Source::Primary(state), records, ..ZoneFile::clone(&file) })
        };
        tables.set_zones(&[
            copy("a.test", CopyState::Current),
            copy("b.test", CopyState::Missing),
            copy("c.test", CopyState::Expired),
            zone("d.test", ""),
        ]);
        let mut found: Vec<ZoneProblem> = tables.copy_problems().collect();
        found.sort();
        let name = |text| Name::parse(text).unwrap();
        assert_eq!(
            found,
            [ZoneProblem::NoCopy { zone: name("b.test") }, ZoneProblem::ExpiredCopy { zone: name("c.test") }]
        );
        assert!(found.iter().all(ZoneProblem::is_error));
    }

    fn signed(ends: [u64; 2]) -> Arc<ZoneFile> {
        let signature = |of: &str, end: u64| {
            format!("@ RRSIG {of} 13 2 60 {} {} 1 test.test. AAAA\n", NOW + end - 8 * 86_400, NOW - 9 * 86_400)
        };
        let [soa, ns] = ends;
        let records = "@ DNSKEY 257 3 13 AAAA\n@ NSEC @ NS SOA RRSIG NSEC DNSKEY\n";
        let signatures: String =
            [("SOA", soa), ("NS", ns), ("DNSKEY", ns), ("NSEC", ns)].map(|(of, end)| signature(of, end)).concat();
        zone("test.test", &format!("{records}{signatures}"))
    }

    #[test]
    fn ends_of_signatures_are_reported_a_day_before() {
        // Relative to eight days before now.
        let day = 86_400;
        let cases = [
            ([7 * day, 7 * day], "all signatures of the zone test.test. have expired"),
            ([7 * day, 20 * day], "signatures of the zone test.test. have expired, the first ones"),
            ([8 * day + 3_600, 20 * day], "signatures of the zone test.test. expire soon"),
            ([9 * day + 3_600, 20 * day], ""),
        ];
        for (ends, expected) in cases {
            let found = problems(&[signed(ends)], &[]);
            assert_eq!(found.len(), usize::from(!expected.is_empty()), "{found:?}");
            assert!(found.iter().all(|found| found.starts_with(expected)), "{found:?}");
        }
    }

    #[test]
    fn zones_below_a_signed_zone_need_a_delegation() {
        let child = || zone("child.parent.test", "");
        let parent = |records: &str| zone("parent.test", records);
        let (ns, ds) =
            ("child NS ns.other.test.\n", format!("child NS ns.other.test.\nchild DS 1 13 2 {}\n", "ab".repeat(32)));
        let (above, below) = ("parent.test.", "child.parent.test.");
        let none = "the signed zone parent.test. does not delegate";
        let cases: [(&str, &[&str], &str); 8] = [
            ("", &[], ""),
            ("", &[below], ""),
            ("", &[above], none),
            ("", &[above, below], none),
            (ns, &[above], ""),
            (ns, &[above, below], "the signed zone parent.test. has no DS record"),
            (&ds, &[above], "the signed zone parent.test. has a DS record"),
            (&ds, &[above, below], ""),
        ];
        for (records, signed, expected) in cases {
            let found = problems(&[parent(records), child()], signed);
            assert_eq!(found.len(), usize::from(!expected.is_empty()), "{records} {signed:?} {found:?}");
            assert!(found.iter().all(|found| found.starts_with(expected)), "{found:?}");
        }
        for (digest, expected) in [(DIGEST, 0), (&"ab".repeat(32), 1)] {
            let key = format!("@ DNSKEY 257 3 13 {KEY}\n");
            let ds = format!("child NS ns.other.test.\nchild DS {TAG} 13 2 {digest}\n");
            let found = problems(&[parent(&ds), zone("child.parent.test", &key)], &[above, below]);
            assert_eq!(found.len(), expected, "{found:?}");
            assert!(found.iter().all(|found| found.starts_with("no DS record of child.parent.test.")), "{found:?}");
        }
        let deep = zone("a.child.parent.test", "");
        assert_eq!(
            problems(&[parent(ns), deep], &[above]),
            <[String; 0]>::default(),
            "another server delegates the zone"
        );
        let discovered = problems(&[zone("dyn.service.local", "")], &["service.local."]);
        assert_eq!(discovered.len(), 1, "{discovered:?}");
    }
}
