//! Fuzz target for replies of primaries: messages of a transfer, and their signatures.

use std::{convert::Infallible, sync::Arc};

use muster::{
    dns::{
        secondary::{
            content::{self, changed, decode, encode},
            stream::{Asked, Received, Stream, soa_in},
        },
        transfer::tsig::{Algorithm, Key, chain},
        zone::{Settings, Tables},
    },
    model::{
        name::{Label, Name},
        zone::ZoneFile,
    },
};

/// Id of the request.
const ID: u16 = 7;
/// Serial of the copy.
const SERIAL: u32 = 3;

/// Uses the octets as messages, each with its length.
pub fn run(octets: &[u8]) {
    let origin = Name::parse("z").unwrap();
    let (mut messages, mut rest) = (Vec::new(), octets);
    while let Some(([high, low], after)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        messages.push(&after[..len]);
        rest = &after[len..];
    }
    let copy = copy(&origin);
    for asked in [Asked::Whole, Asked::Since(SERIAL)] {
        let mut stream = Stream::new(origin.clone(), ID, asked);
        for message in &messages {
            match stream.take(message) {
                Ok(None) => {}
                Ok(Some(received)) => {
                    check(&origin, &copy, received);
                    assert!(stream.take(message).is_err(), "nothing follows the end");
                    break;
                }
                Err(_) => break,
            }
        }
    }
    let key = Arc::new(Key::new(Name::parse("xfr").unwrap(), Algorithm::Sha256, b"secret"));
    let mut request = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'z', 0, 0, 252, 0, 1];
    let mut verifier = chain::sign(&key, &mut request, ID, 1_800_000_000);
    if let Some(message) = messages.into_iter().next() {
        let _ = soa_in(message, ID, &origin);
        // No input has a valid signature, and the first message needs one.
        assert!(verifier.take(&mut message.to_vec(), 1_800_000_000).is_err());
    }
    let _ = decode(&origin, octets);
}

fn copy(origin: &Name) -> ZoneFile {
    let mut stream = Stream::new(origin.clone(), ID, Asked::Whole);
    let message = include_bytes!("../seeds/transfer/copy");
    let Ok(Some(Received::Whole(records))) = stream.take(&message[2..]) else { panic!("the copy is complete") };
    content::whole(origin, records).unwrap()
}

/// What was received is in the zone, survives the disk, and can be answered and transferred.
fn check(origin: &Name, copy: &ZoneFile, received: Received) {
    let file = match received {
        Received::NoLater(_) => return,
        Received::Whole(records) => content::whole(origin, records),
        Received::Changes(changes) => changed(copy, changes),
    };
    let Ok(file) = file else { return };
    assert!(file.records.iter().all(|record| record.owner.within(origin).is_some()));
    assert_eq!(decode(origin, &encode(&file)).as_ref(), Ok(&file));
    let domain = Name::parse("service.local").unwrap();
    let mut tables = Tables::new(Settings::new(Label::parse("a").unwrap(), Label::parse("dc1").unwrap(), domain));
    let count = file.records.len();
    tables.set_zones(&[Arc::new(file)]);
    let zone = tables.zone_named(origin.wire()).unwrap();
    let mut visited = 1;
    let all = tables.visit_zone(zone, |set| {
        visited += set.rdata.len();
        Ok::<(), Infallible>(())
    });
    all.unwrap();
    // Names below a DNAME or a delegation are not answered, and names that differ in letter case only are one.
    assert!(visited <= count, "{visited} of {count}");
}
