//! Proof by NSEC that the answer of a wildcard is right (RFC 4035 §5.3.4): no name exists that is closer than the wildcard.
//!
//! The library rejects such proofs if the wildcard is directly above the name, so they are checked here.

use hickory_proto::{
    dnssec::rdata::{DNSSECRData, NSEC},
    op::Message,
    rr::{Name, RData, RecordType},
};

use super::signatures::signature;

/// Reports whether validated NSEC records prove that a wildcard answers for a name; `None` without NSEC records.
pub(super) fn is_proven(name: &Name, message: &Message) -> Option<bool> {
    let nsecs = message.authorities.iter().filter_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::NSEC(nsec)) => Some((&record.name, nsec, record.proof.is_secure())),
        _ => None,
    });
    let nsecs: Vec<_> = nsecs.collect();
    if nsecs.is_empty() {
        return None;
    }
    // The signature that was verified states the labels of the wildcard.
    let verified = message.answers.iter().filter(|record| record.proof.is_secure()).filter_map(signature);
    let labels = verified.map(|signature| usize::from(signature.input().num_labels)).min()?;
    Some(nsecs.iter().any(|(owner, nsec, is_secure)| {
        let encloser = common_labels(name, owner).max(common_labels(name, nsec.next_domain_name()));
        *is_secure && covers(owner, nsec, name) && encloser == labels
    }))
}

/// Reports whether a name is between the two names of an NSEC record, whose owner is no delegation or DNAME above it (RFC 6840 §4.1).
fn covers(owner: &Name, nsec: &NSEC, name: &Name) -> bool {
    let (next, types) = (nsec.next_domain_name(), nsec.type_set());
    let is_cut =
        types.contains(RecordType::NS) && !types.contains(RecordType::SOA) || types.contains(RecordType::DNAME);
    // The last record of a zone leads to its apex.
    let is_before_next = name < next || next <= owner && next.zone_of(name);
    name > owner && is_before_next && !(is_cut && owner.zone_of(name))
}

/// Returns the number of labels that two names have in common, from the root on.
fn common_labels(one: &Name, other: &Name) -> usize {
    let equal = |(one, other): &(&[u8], &[u8])| one.eq_ignore_ascii_case(other);
    one.iter().rev().zip(other.iter().rev()).take_while(equal).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_record_must_leave_the_wildcard_as_closest_name() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        for (owner, next, types, asked, labels) in [
            ("*.w.a.", "x.a.", &[RecordType::A][..], "x.w.a.", Some(2)),
            ("*.w.a.", "x.a.", &[RecordType::A], "x.y.w.a.", Some(2)),
            ("b.y.w.a.", "x.a.", &[RecordType::A], "x.y.w.a.", Some(3)),
            ("w.a.", "a.", &[RecordType::A], "x.w.a.", Some(2)),
            ("w.a.", "a.", &[RecordType::NS], "x.w.a.", None),
            ("w.a.", "a.", &[RecordType::DNAME], "x.w.a.", None),
            ("x.w.a.", "a.", &[RecordType::A], "x.w.a.", None),
            ("y.w.a.", "a.", &[RecordType::A], "x.w.a.", None),
            ("b.a.", "c.a.", &[RecordType::A], "x.w.a.", None),
        ] {
            let (owner, asked) = (name(owner), name(asked));
            let nsec = NSEC::new(name(next), types.iter().copied());
            let encloser = common_labels(&asked, &owner).max(common_labels(&asked, nsec.next_domain_name()));
            assert_eq!(covers(&owner, &nsec, &asked).then_some(encloser), labels, "{owner} {next} {asked}");
        }
    }
}
