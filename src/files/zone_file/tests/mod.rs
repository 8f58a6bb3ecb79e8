//! The behaviour of zone files as tables: text and what becomes of it.

mod faults;
mod hostile;
mod records;
mod reference;
mod whole_zone;

use std::path::Path;

use hickory_proto::{
    rr::Record,
    serialize::binary::{BinDecodable, BinDecoder},
};

use super::{Diagnostic, StaticRecord, ZoneFile, parse};

/// The TTL where the file gives none.
const DEFAULT_TTL: u32 = 5;

/// Reads `text` as the zone `z.test.`.
fn read(text: impl AsRef<[u8]>) -> Result<ZoneFile, Vec<Diagnostic>> {
    parse(Path::new("z.test.zone"), text.as_ref(), DEFAULT_TTL)
}

/// The records of `text`, as `dig` writes them, in the order of the file.
fn records(text: impl AsRef<[u8]>) -> Vec<String> {
    let mut records = read(text).map_err(|problems| lines(&problems)).unwrap().records;
    records.sort_by_key(|record| (record.line, record.column));
    records.iter().map(|record| decode(record).to_string()).collect()
}

/// The data of the one record in `text`.
fn data(text: &str) -> Vec<u8> {
    let mut records = read(text).map_err(|problems| lines(&problems)).unwrap().records;
    assert_eq!(records.len(), 1, "{text}");
    records.remove(0).rdata
}

/// What is wrong with `text`: `line:column: message (hint)`.
fn problems(text: impl AsRef<[u8]>) -> Vec<String> {
    let mut problems = read(text).err().unwrap_or_default();
    problems.retain(Diagnostic::is_error);
    lines(&problems)
}

/// What is merely unlikely in `text`, which has no problems.
fn warnings(text: &str) -> Vec<String> {
    lines(&read(text).map_err(|problems| lines(&problems)).unwrap().warnings)
}

fn lines(problems: &[Diagnostic]) -> Vec<String> {
    let line = |problem: &Diagnostic| {
        let text = problem.to_string().split_once(':').unwrap().1.to_owned();
        if problem.is_error() { text } else { text.replacen("warning: ", "", 1) }
    };
    problems.iter().map(line).collect()
}

/// The whole record in wire form.
fn wire(record: &StaticRecord) -> Vec<u8> {
    let mut wire = record.owner.wire().to_vec();
    wire.extend(record.rtype.to_be_bytes());
    wire.extend(1_u16.to_be_bytes());
    wire.extend(record.ttl.to_be_bytes());
    wire.extend(u16::try_from(record.rdata.len()).unwrap().to_be_bytes());
    wire.extend(&record.rdata);
    wire
}

/// What the reference decoder makes of a record.
fn decode(record: &StaticRecord) -> Record {
    let wire = wire(record);
    let mut decoder = BinDecoder::new(&wire);
    let decoded = Record::read(&mut decoder).unwrap_or_else(|error| panic!("{record:?}: {error}"));
    assert!(decoder.is_empty(), "{record:?}");
    decoded
}
