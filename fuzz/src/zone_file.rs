//! Zone file target: any octets yield records that hickory-proto decodes and the tables accept, or diagnostics with a
//! position.

use std::{path::Path, sync::Arc};

use hickory_proto::{
    rr::Record,
    serialize::binary::{BinDecodable, BinDecoder},
};
use muster::{
    diagnostic::Diagnostic,
    dns::zone::{Settings, Tables},
    files::zone_file::parse,
    model::{
        name::{Label, Name},
        service::MAX_TTL,
        zone::StaticRecord,
    },
};

use super::problems;

/// Parses a zone file.
pub fn run(octets: &[u8]) {
    let path = Path::new("example.org.zone");
    match parse(path, octets, 300) {
        Err(found) => {
            assert!(found.iter().any(Diagnostic::is_error), "rejected without an error: {found:?}");
            problems::check(&found, path, octets);
        }
        Ok(zone) => {
            assert!(
                !zone.warnings.iter().any(Diagnostic::is_error),
                "an error in an accepted file: {:?}",
                zone.warnings
            );
            problems::check(&zone.warnings, path, octets);
            for record in &zone.records {
                assert!(record.owner.within(&zone.origin).is_some(), "out of the zone: {record:?}");
                assert!(record.ttl <= MAX_TTL, "{record:?}");
                decode(record);
            }
            tables().set_zones(&[Arc::new(zone)]);
        }
    }
}

fn tables() -> Tables {
    let label = |text| Label::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let domain = Name::parse("service.local").unwrap_or_else(|error| panic!("{error}"));
    Tables::new(Settings::new(label("host-a"), label("dc1"), domain))
}

fn decode(record: &StaticRecord) {
    let length = u16::try_from(record.rdata.len()).unwrap_or_else(|_| panic!("RDATA too long: {record:?}"));
    let wire = [
        record.owner.wire(),
        &record.rtype.to_be_bytes(),
        &1_u16.to_be_bytes(),
        &record.ttl.to_be_bytes(),
        &length.to_be_bytes(),
        &record.rdata,
    ]
    .concat();
    let mut decoder = BinDecoder::new(&wire);
    match Record::read(&mut decoder) {
        // hickory-proto requires UTF-8 protocol names in SVCB and HTTPS; RFC 9460 §7.1 does not.
        Err(_) if matches!(record.rtype, 64 | 65) => return,
        Err(error) => panic!("hickory-proto cannot decode {record:?}: {error}"),
        Ok(_) => {}
    }
    assert!(decoder.is_empty(), "hickory-proto leaves octets of {record:?}");
}
