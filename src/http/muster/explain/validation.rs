//! Note about the validation of names that upstreams resolve.

use std::time::Duration;

use crate::dns::{
    message::{
        codes::{Rcode, rtype},
        query::LookupName,
    },
    recursion::{
        Recursion, Resolution,
        cache::Key,
        upstream_reply::Reply,
        validation::{Coverage, Security},
    },
};

/// Types whose cached replies are shown, in this order.
const TYPES: [u16; 9] =
    [rtype::A, rtype::AAAA, rtype::HTTPS, rtype::MX, rtype::TXT, rtype::SRV, rtype::NS, rtype::PTR, rtype::SOA];

/// Returns the note; `None` if validation is off, or nothing is forwarded. `now` is the Unix time.
pub(super) fn note(
    recursion: &Recursion,
    name: &LookupName,
    resolution: Resolution<'_>,
    now: Duration,
) -> Option<String> {
    Some(match recursion.coverage(name, resolution)? {
        Coverage::Anchor(zone) => {
            let keys = TYPES.into_iter().flat_map(|rtype| [false, true].map(|dnssec_ok| (rtype, dnssec_ok)));
            let cached = keys.into_iter().find_map(|(rtype, dnssec_ok)| {
                let key = Key::of(name, rtype, dnssec_ok, false);
                recursion.cache.fresh(key.as_bytes(), now).map(|entry| (rtype, entry))
            });
            match cached {
                Some((rtype, entry)) => {
                    format!("DNSSEC: the cached {} reply is {}", rtype::name(rtype), status(&entry.reply))
                }
                None => format!(
                    "DNSSEC: replies are validated with the trust anchor of {zone}, and none is cached: query the name, then explain it again."
                ),
            }
        }
        Coverage::Insecure(suffix) => {
            format!("DNSSEC: replies are not validated, since {suffix} is in resolver.dnssec_insecure.")
        }
        Coverage::Route(suffix) => {
            format!(
                "DNSSEC: replies are not validated: the route {suffix} has no anchor within it in resolver.trust_anchors."
            )
        }
        Coverage::NoAnchor => "DNSSEC: replies are not validated: no trust anchor is above the name.".to_owned(),
    })
}

fn status(reply: &Reply) -> String {
    let error =
        || reply.error().map_or_else(String::new, |(code, text)| format!(": {text} (Extended DNS Error {code})"));
    match reply.security() {
        Security::Secure => "secure: signatures prove it.".to_owned(),
        Security::Insecure => {
            "insecure: its zone, or one that it has a CNAME to, is not signed or not validated.".to_owned()
        }
        Security::Bogus => format!("bogus and withheld{}", error()),
        Security::Indeterminate => format!("withheld, since its keys could not be fetched{}", error()),
        Security::Unvalidated if !reply.is_answer() => {
            let rcode =
                Rcode::from_number(reply.rcode()).map_or_else(|| reply.rcode().to_string(), |rcode| rcode.to_string());
            format!("{rcode}, an error without records to validate{}", error())
        }
        Security::Unvalidated => format!("not validated{}", error()),
    }
}
