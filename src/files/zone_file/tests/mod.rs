//! Table tests of the zone file parser.

mod faults;
mod hostile;
mod included;
mod records;
mod reference;
mod whole_zone;

use std::path::Path;

use hickory_proto::{
    rr::Record,
    serialize::binary::{BinDecodable, BinDecoder},
};

use super::{Diagnostic, finish, lexer::Form, parse, read_as, readable, sources::Sources};
use crate::model::{
    name::Name,
    zone::{StaticRecord, ZoneFile},
};

/// TTL of records in files without a TTL.
const DEFAULT_TTL: u32 = 5;

/// Parses `text` as the zone `z.test.`.
fn read(text: impl AsRef<[u8]>) -> Result<ZoneFile, Vec<Diagnostic>> {
    parse(Path::new("z.test.zone"), text.as_ref(), DEFAULT_TTL)
}

/// Records of `text` in the format of `dig`, in the order of the file.
fn records(text: impl AsRef<[u8]>) -> Vec<String> {
    let mut records = read(text).map_err(|problems| lines(&problems)).unwrap().records;
    records.sort_by_key(|record| (record.line, record.column));
    records.iter().map(|record| decode(record).to_string()).collect()
}

/// RDATA of the only record in `text`.
fn data(text: &str) -> Vec<u8> {
    let mut records = read(text).map_err(|problems| lines(&problems)).unwrap().records;
    assert_eq!(records.len(), 1, "{text}");
    records.remove(0).rdata
}

/// Errors in `text`: `line:column: message (hint)`, with the content of the text as in a file with a valid record.
fn problems(text: impl AsRef<[u8]>) -> Vec<String> {
    let (path, origin) = (Path::new("z.test.zone"), Name::parse("z.test").unwrap());
    let quoted = |text| {
        let (records, findings) = read_as(path, &origin, &Sources::split(text), DEFAULT_TTL, Form::Quoted);
        finish(path, origin.clone(), records, findings)
    };
    let mut problems =
        readable(path, text.as_ref()).map_err(|problem| vec![problem]).and_then(quoted).err().unwrap_or_default();
    problems.retain(Diagnostic::is_error);
    lines(&problems)
}

/// Warnings about a valid `text`.
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

/// Record in wire form.
fn wire(record: &StaticRecord) -> Vec<u8> {
    let mut wire = record.owner.wire().to_vec();
    wire.extend(record.rtype.to_be_bytes());
    wire.extend(1_u16.to_be_bytes());
    wire.extend(record.ttl.to_be_bytes());
    wire.extend(u16::try_from(record.rdata.len()).unwrap().to_be_bytes());
    wire.extend(&record.rdata);
    wire
}

/// Decodes a record with the reference decoder.
fn decode(record: &StaticRecord) -> Record {
    let wire = wire(record);
    let mut decoder = BinDecoder::new(&wire);
    let decoded = Record::read(&mut decoder).unwrap_or_else(|error| panic!("{record:?}: {error}"));
    assert!(decoder.is_empty(), "{record:?}");
    decoded
}
