//! Checks of the whole zone: CNAMEs, DNAMEs, delegations, glue, RRsets.
//!
//! Severities follow named-checkzone and kzonecheck, but records that the engine can never answer are errors.

use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{HashMap, HashSet},
    path::Path,
};

use super::{
    Diagnostic, Findings,
    names::is_reverse,
    rdata::folded,
    types::{A, AAAA, CNAME, DNAME, DS, MX, NS, NSEC, PTR, RRSIG, SOA, SRV, Type},
};
use crate::{
    diagnostic::Severity,
    model::{
        name::{MAX_NAME, Name},
        zone::{StaticRecord, ZoneFile},
    },
};

/// Maximum octets of an RRset with compressed owner names: the space in a message of 65,535 octets besides its header, the
/// longest question and an OPT record.
const MAX_RRSET: usize = 65_535 - 12 - (MAX_NAME + 4) - 11;
/// Maximum length of a CNAME chain. Resolvers have similar limits.
const MAX_CHAIN: usize = 16;

/// Groups records by RRset, without duplicates and with one TTL per RRset, and adds problems to `findings`.
pub(super) fn zone(origin: &Name, mut records: Vec<StaticRecord>, findings: &mut Findings<'_>) -> Vec<StaticRecord> {
    let key = |record: &StaticRecord| (record.line, record.column);
    records.sort_unstable_by(|a, b| {
        let by_set = a.owner.cmp(&b.owner).then(a.rtype.cmp(&b.rtype));
        by_set.then_with(|| by_rdata(a, b)).then_with(|| key(a).cmp(&key(b)))
    });
    for set in records.chunk_by_mut(|a, b| a.owner == b.owner && a.rtype == b.rtype && covered(a) == covered(b)) {
        let least = set.iter().map(|record| record.ttl).min().unwrap_or_default();
        set.iter_mut().for_each(|record| record.ttl = least);
    }
    records.dedup_by(|a, b| a.owner == b.owner && a.rtype == b.rtype && by_rdata(a, b).is_eq());
    // A missing record may be one with an error.
    let complete = findings.problems.list.is_empty();
    Zone::new(origin, &records).check(complete, findings);
    records
}

/// Compares the RDATA of one type; names compare without letter case (RFC 4343 §3).
fn by_rdata(a: &StaticRecord, b: &StaticRecord) -> Ordering {
    if a.rdata == b.rdata {
        return Ordering::Equal;
    }
    folded(a.rtype, &a.rdata).cmp(&folded(b.rtype, &b.rdata))
}

/// Type that a signature covers. The signatures of each RRset have the TTL of that RRset (RFC 4034 §3).
fn covered(record: &StaticRecord) -> Option<&[u8]> {
    record.rdata.get(..2).filter(|_| record.rtype == RRSIG)
}

/// Implements [`ZoneFile::check_apex`].
pub(super) fn apex(file: &ZoneFile, path: &Path) -> Vec<Diagnostic> {
    let zone = Zone::new(&file.origin, &file.records);
    let mut findings = Findings::new(path, file.files.clone());
    if zone.find(file.origin.wire(), SOA).is_empty() {
        let message = format!("the zone `{}` has no SOA", file.origin);
        let hint = "such as `@ SOA ns hostmaster 1 1h 15m 1w 5m`".to_owned();
        findings.problem((1, 1), message, Some(hint));
    }
    let servers = zone.find(file.origin.wire(), NS);
    if servers.is_empty() {
        let message = format!("the zone `{}` has no name server", file.origin);
        findings.problem((1, 1), message, Some("such as `@ NS ns` and `ns A 10.0.0.7`".to_owned()));
    }
    for server in servers.iter().filter(|server| zone.lacks_address(&folded(NS, &server.rdata))) {
        let message = format!("the name server `{}` has no address", shown(&server.rdata));
        findings.problem(at(server), message, Some("add an A or AAAA record for it".to_owned()));
    }
    findings.problems.finish(path, &findings.files, Severity::Error)
}

/// Implements [`ZoneFile::check_targets`].
pub(super) fn targets(file: &ZoneFile, path: &Path) -> Vec<Diagnostic> {
    let zone = Zone::new(&file.origin, &file.records);
    let mut findings = Findings::new(path, file.files.clone());
    for record in &file.records {
        let apex_server = record.rtype == NS && record.owner == file.origin;
        if let Some(target) = target(record).filter(|target| !apex_server && zone.lacks_address(target)) {
            let (name, rtype) = (shown(&target), Type::from(record.rtype));
            let message = format!("the {rtype} target `{name}` has no address in this zone");
            let hint = "is the final dot missing?".to_owned();
            findings.warning(at(record), message, Some(hint));
        }
    }
    findings.warnings.finish(path, &findings.files, Severity::Warning)
}

/// Records of a zone, indexed by owner.
struct Zone<'a> {
    origin: &'a Name,
    records: &'a [StaticRecord],
    /// Records of each owner, by its name in wire form.
    owners: HashMap<&'a [u8], &'a [StaticRecord], foldhash::fast::RandomState>,
    /// True if a name below the apex has NS records.
    has_cuts: bool,
    /// True if a name has a DNAME.
    has_redirects: bool,
}

impl<'a> Zone<'a> {
    /// Indexes `records`, which are grouped like [`ZoneFile::records`].
    fn new(origin: &'a Name, records: &'a [StaticRecord]) -> Self {
        let groups = records.chunk_by(|a, b| a.owner == b.owner);
        let owners = groups.map(|group| (group[0].owner.wire(), group)).collect();
        let has_cuts = records.iter().any(|record| record.rtype == NS && record.owner != *origin);
        let has_redirects = records.iter().any(|record| record.rtype == DNAME);
        Self { origin, records, owners, has_cuts, has_redirects }
    }

    /// RRset of a name in wire form, possibly empty.
    fn find(&self, name: &[u8], rtype: u16) -> &'a [StaticRecord] {
        let records = self.owners.get(name).copied().unwrap_or_default();
        let start = records.partition_point(|record| record.rtype < rtype);
        let end = records.partition_point(|record| record.rtype <= rtype);
        &records[start..end]
    }

    fn has_address(&self, name: &[u8]) -> bool {
        !self.find(name, A).is_empty() || !self.find(name, AAAA).is_empty()
    }

    /// Reports whether a name is a delegation. A wildcard does not delegate (RFC 4592 §4.2).
    fn is_cut(&self, name: &[u8]) -> bool {
        name != self.origin.wire() && !name.starts_with(b"\x01*") && !self.find(name, NS).is_empty()
    }

    /// Topmost delegation at or above a name in the zone.
    fn cut<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        if !self.has_cuts {
            return None;
        }
        ancestors(name, self.origin).filter(|name| self.is_cut(name)).last()
    }

    /// Topmost DNAME above a name in the zone.
    fn redirect(&self, name: &[u8]) -> Option<&'a StaticRecord> {
        if !self.has_redirects {
            return None;
        }
        ancestors(name, self.origin).skip(1).filter_map(|name| self.find(name, DNAME).first()).last()
    }

    /// Reports whether a query for the address of a name in the zone, in lower case, gets an empty answer.
    fn lacks_address(&self, name: &[u8]) -> bool {
        let wildcard = |ancestor: &[u8]| self.has_address(&[b"\x01*", ancestor].concat());
        is_within(name, self.origin)
            && !self.has_address(name)
            && self.find(name, CNAME).is_empty()
            && self.cut(name).is_none()
            && self.redirect(name).is_none()
            && (self.owners.contains_key(name) || !ancestors(name, self.origin).skip(1).any(wildcard))
    }

    fn check(&self, complete: bool, findings: &mut Findings<'_>) {
        // Name servers may have glue below a delegation.
        let servers = self.records.iter().filter(|record| record.rtype == NS);
        let servers: HashSet<Cow<'_, [u8]>> = servers.map(|record| folded(NS, &record.rdata)).collect();
        for records in self.records.chunk_by(|a, b| a.owner == b.owner) {
            let owner = &records[0].owner;
            self.check_alias(owner, records, findings);
            self.check_redirect(owner, records, findings);
            let cut = self.cut(owner.wire());
            for set in records.chunk_by(|a, b| a.rtype == b.rtype) {
                let size: usize = set.iter().map(|record| 12 + record.rdata.len()).sum();
                if size > MAX_RRSET {
                    let rtype = Type::from(set[0].rtype);
                    let message =
                        format!("the {rtype} RRset of `{owner}` has {size} octets, too many for a DNS message");
                    findings.problem(at(first(set)), message, None);
                }
                match cut {
                    Some(cut) => check_below(cut, set, servers.contains(owner.wire()), findings),
                    None => self.check_set(owner, set, findings),
                }
                if set[0].rtype == NS && cut == Some(owner.wire()) && complete {
                    self.check_glue(owner, set, findings);
                }
            }
        }
        for record in self.records {
            self.check_target(record, findings);
        }
    }

    /// Checks that a CNAME is the only record of its owner (RFC 1034 §3.6.2, RFC 2181 §10.1) and is not in a loop.
    fn check_alias(&self, owner: &Name, records: &[StaticRecord], findings: &mut Findings<'_>) {
        let aliases = self.find(owner.wire(), CNAME);
        let Some(alias) = aliases.iter().min_by_key(|record| at(record)) else { return };
        if let Some(second) = aliases.iter().filter(|record| *record != alias).min_by_key(|record| at(record)) {
            let message = format!("`{owner}` has a second CNAME; the first is in line {}", findings.line(alias.line));
            findings.problem(at(second), message, Some("a name can have only one CNAME".to_owned()));
        }
        // A signed CNAME has signatures and a proof beside it (RFC 4034 §3, §4).
        let is_other = |record: &&StaticRecord| ![CNAME, RRSIG, NSEC].contains(&record.rtype);
        if let Some(other) = records.iter().filter(is_other).min_by_key(|record| at(record)) {
            let rtype = Type::from(other.rtype);
            let message = format!(
                "`{owner}` has a CNAME in addition to its {rtype} record in line {}",
                findings.line(other.line)
            );
            let hint = "a name with a CNAME can have no other records (RFC 1034 §3.6.2)".to_owned();
            findings.problem(at(alias), message, Some(hint));
        } else if owner == self.origin {
            let message = "a CNAME at the apex conflicts with the zone's SOA and NS".to_owned();
            findings.problem(at(alias), message, Some("write A and AAAA records here".to_owned()));
        }
        let mut name = Cow::Borrowed(owner.wire());
        for _ in 0..=MAX_CHAIN {
            match self.find(&name, CNAME) {
                [next, ..] if *folded(CNAME, &next.rdata) != *owner.wire() => name = folded(CNAME, &next.rdata),
                [_, ..] => {
                    let message = format!("CNAME loop: `{owner}` leads back to itself");
                    return findings.problem(at(alias), message, None);
                }
                [] => return,
            }
        }
        findings.warning(at(alias), format!("the CNAME chain of `{owner}` is longer than {MAX_CHAIN}"), None);
    }

    /// Checks that a DNAME is the only one of its owner, that no other record redirects the owner, and that there are no names
    /// below it (RFC 6672 §2.3, §2.4).
    fn check_redirect(&self, owner: &Name, records: &[StaticRecord], findings: &mut Findings<'_>) {
        if let Some(above) = self.redirect(owner.wire()) {
            let place = first(records);
            let message = format!(
                "`{owner}` is below the DNAME of `{}` in line {} and is never answered",
                above.owner,
                findings.line(above.line)
            );
            let hint = "remove it: a DNAME redirects all names below its owner (RFC 6672 §2.4)".to_owned();
            findings.problem(at(place), message, Some(hint));
        }
        let redirects = self.find(owner.wire(), DNAME);
        let Some(redirect) = redirects.iter().min_by_key(|record| at(record)) else { return };
        if let Some(second) = redirects.iter().filter(|record| *record != redirect).min_by_key(|record| at(record)) {
            let message =
                format!("`{owner}` has a second DNAME; the first is in line {}", findings.line(redirect.line));
            findings.problem(at(second), message, Some("a name can have only one DNAME".to_owned()));
        }
        if owner != self.origin && !self.find(owner.wire(), NS).is_empty() {
            let message = format!("`{owner}` has a DNAME and NS records (RFC 6672 §2.3)");
            findings.problem(at(redirect), message, Some("delegate the name or redirect it".to_owned()));
        }
        if owner.wire().starts_with(b"\x01*") {
            let message = format!("the DNAME of the wildcard `{owner}` redirects no names (RFC 6672 §3.3)");
            findings.warning(at(redirect), message, Some("write it without `*.`".to_owned()));
        }
    }

    /// Checks types that are valid at certain names only.
    fn check_set(&self, owner: &Name, set: &[StaticRecord], findings: &mut Findings<'_>) {
        let first = first(set);
        match first.rtype {
            SOA if owner != self.origin => {
                let message = format!("an SOA belongs to the apex `{}`, not to `{owner}`", self.origin);
                findings.problem(at(first), message, Some("use `@` as its owner".to_owned()));
            }
            SOA => {
                if let Some(second) = set.iter().filter(|record| *record != first).min_by_key(|record| at(record)) {
                    let message = format!("second SOA; the first is in line {}", findings.line(first.line));
                    findings.problem(at(second), message, Some("a zone has one SOA".to_owned()));
                }
            }
            DS if owner == self.origin => {
                let hint = "it belongs to the parent zone (RFC 4035 §2.4)".to_owned();
                findings.problem(at(first), "DS at the apex of the zone".to_owned(), Some(hint));
            }
            DS => {
                let message = format!("`{owner}` has a DS but no NS: it is not a delegation (RFC 4035 §2.4)");
                findings.warning(at(first), message, None);
            }
            _ => {}
        }
    }

    /// Checks that name servers inside the delegated zone have glue (RFC 1034 §4.2.1).
    fn check_glue(&self, owner: &Name, servers: &[StaticRecord], findings: &mut Findings<'_>) {
        for server in servers {
            let target = folded(NS, &server.rdata);
            if is_within(&target, owner) && !self.has_address(&target) {
                let name = shown(&target);
                let message = format!("missing glue: `{owner}` is delegated to `{name}`, a name in the delegated zone");
                findings.problem(at(server), message, Some(format!("add `{name} A ADDRESS`")));
            }
        }
    }

    /// Checks that targets of NS, MX and SRV are not CNAMEs (RFC 2181 §10.3, RFC 2782), and that PTRs leave the reverse zone.
    fn check_target(&self, record: &StaticRecord, findings: &mut Findings<'_>) {
        if record.rtype == PTR && is_reverse(self.origin) && is_within(&folded(PTR, &record.rdata), self.origin) {
            let message =
                format!("`{}` points to `{}`, a name in the reverse zone", record.owner, shown(&record.rdata));
            findings.warning(at(record), message, Some("is the final dot missing?".to_owned()));
        }
        let Some(target) = target(record).filter(|target| !self.find(target, CNAME).is_empty()) else { return };
        let (name, rtype) = (shown(&target), Type::from(record.rtype));
        let message = format!("the {rtype} target `{name}` is the owner of a CNAME (RFC 2181 §10.3)");
        let hint = Some("write the canonical name".to_owned());
        // A delegation to a CNAME fails; mail and services mostly work.
        if record.rtype == NS {
            findings.problem(at(record), message, hint);
        } else {
            findings.warning(at(record), message, hint);
        }
    }
}

/// Checks that only NS, DS, their signatures and glue are at or below a delegation (RFC 1034 §4.2.1).
fn check_below(cut: &[u8], set: &[StaticRecord], is_glue: bool, findings: &mut Findings<'_>) {
    let first = first(set);
    let (owner, rtype, cut_name) = (&first.owner, Type::from(first.rtype), shown(cut));
    let at_cut = owner.wire() == cut;
    match first.rtype {
        NS | DS | RRSIG | NSEC if at_cut => {}
        A | AAAA if is_glue => {}
        A | AAAA => {
            let message =
                format!("`{owner}` is below the delegation of `{cut_name}` and is not glue: it is never answered");
            findings.warning(at(first), message, Some("move it to the delegated zone".to_owned()));
        }
        _ => {
            let message = format!("the {rtype} of `{owner}` is occluded by the delegation of `{cut_name}`");
            findings.problem(at(first), message, Some("move it to the delegated zone".to_owned()));
        }
    }
}

/// Target host of a record in wire form and lower case; `None` for the root, which means no host (RFC 7505).
fn target(record: &StaticRecord) -> Option<Cow<'_, [u8]>> {
    let start = match record.rtype {
        NS => 0,
        MX => 2,
        SRV => 6,
        _ => return None,
    };
    let target = match folded(record.rtype, &record.rdata) {
        Cow::Borrowed(rdata) => Cow::Borrowed(rdata.get(start..)?),
        Cow::Owned(rdata) => Cow::Owned(rdata.get(start..)?.to_vec()),
    };
    Some(target).filter(|name| name.len() > 1)
}

/// Iterates from a name up to the origin, in wire form; empty for a name outside the zone.
fn ancestors<'n>(name: &'n [u8], origin: &Name) -> impl Iterator<Item = &'n [u8]> {
    let mut rest = is_within(name, origin).then_some(name);
    let apex = origin.wire().len();
    std::iter::from_fn(move || {
        let name = rest?;
        rest = (name.len() > apex).then(|| &name[1 + usize::from(name[0])..]);
        Some(name)
    })
}

fn is_within(name: &[u8], zone: &Name) -> bool {
    let mut rest = name;
    while rest.len() > zone.wire().len() {
        rest = &rest[1 + usize::from(rest[0])..];
    }
    rest == zone.wire()
}

fn at(record: &StaticRecord) -> (usize, usize) {
    (record.line, record.column)
}

/// First record of a non-empty set in the order of the file.
fn first(set: &[StaticRecord]) -> &StaticRecord {
    set.iter().min_by_key(|record| at(record)).unwrap_or(&set[0])
}

/// Formats a name in wire form.
fn shown(name: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = name;
    while let [len @ 1..=255, tail @ ..] = rest {
        let (label, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        labels.push(label);
        rest = tail;
    }
    Name::from_labels(labels).map_or_else(|error| error.to_string(), |name| name.to_string())
}
