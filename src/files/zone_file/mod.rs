//! Zone files: RFC 1035 master files in, static records out, and every fault with its line and column.
//!
//! One file is one zone, and its name names it: `service.local.zone` holds `service.local.`. A bad entry costs one
//! problem and the rest of the file is still read.
//!
//! In reading order: [`entry`] cuts the text into entries and tokens, [`token`] hands them out and reads numbers and
//! times. [`reader`] turns entries into records and keeps what a master file carries from line to line: origin, owner,
//! TTL. [`names`] reads domain names, [`rdata`] the data of a record by the table in [`types`], [`svcb`] service
//! parameters, [`generate`] `$GENERATE`. [`check`] looks at the zone as a whole.
//!
//! The parsers of hickory-proto and domain end at the first fault and misread some of what the tests here list, so this
//! one is our own; the tests compare it with hickory-proto, whose decoder must understand every record made here.

mod check;
mod entry;
mod generate;
mod names;
mod rdata;
mod reader;
mod svcb;
#[cfg(test)]
mod tests;
mod token;
mod types;

use std::path::Path;

use crate::{
    diagnostic::{Diagnostic, Severity},
    model::name::Name,
};

/// The ending of a zone file's name.
pub const EXTENSION: &str = ".zone";
/// The largest zone file, in octets: a million records of usual length. More is no file that belongs on every host.
pub const MAX_ZONE_FILE: usize = 64 << 20;
/// The most records of one zone, duplicates included: some 200 MB of memory. `$GENERATE` makes many of few octets.
pub const MAX_RECORDS: usize = 1_000_000;
/// The most octets of RDATA in one zone, for the same reason.
pub const MAX_RDATA_TOTAL: usize = MAX_ZONE_FILE;
/// The most problems, and the most warnings, that are listed for one file; the rest is counted.
pub const MAX_PROBLEMS: usize = 100;

/// The longest TTL, in seconds (RFC 2181 §8).
pub const MAX_TTL: u32 = (1 << 31) - 1;

/// The records of one zone file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFile {
    /// The zone's name, from the file's name.
    pub origin: Name,
    /// The records, without duplicates (RFC 2181 §5). The RRs of one RRset stand together, in the order of their RDATA,
    /// and have one TTL: the smallest that the file gives any of them (RFC 2181 §5.2).
    pub records: Vec<StaticRecord>,
    /// What is legal and probably not meant, such as a name without its final dot.
    pub warnings: Vec<Diagnostic>,
}

/// One record of class IN, and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRecord {
    /// The owner's absolute name, in the zone.
    pub owner: Name,
    /// The type's number.
    pub rtype: u16,
    /// The time to live, in seconds, at most [`MAX_TTL`].
    pub ttl: u32,
    /// The data in wire form, at most 65,535 octets, valid for its type: names are uncompressed and in lower case.
    pub rdata: Vec<u8>,
    /// The line of the entry, counted from 1.
    pub line: usize,
    /// The column of the entry's first token, counted from 1, in characters.
    pub column: usize,
}

/// Reads the zone file at `path`, whose content is `bytes`.
///
/// A record without a TTL takes that of `$TTL` (RFC 2308 §4); before any `$TTL`, the last one that was written out
/// (RFC 1035 §5.1); before any of those, `default_ttl`, in seconds. The SOA's minimum is only the TTL of negative answers
/// (RFC 2308 §4) and no default.
///
/// # Errors
///
/// Every problem, in the order of the file, at most [`MAX_PROBLEMS`] and then one that counts the rest.
pub fn parse(path: &Path, bytes: &[u8], default_ttl: u32) -> Result<ZoneFile, Vec<Diagnostic>> {
    let origin = origin_of(path).map_err(|problem| vec![problem])?;
    let text = readable(path, bytes).map_err(|problem| vec![problem])?;
    let mut findings = Findings::new(path);
    let records = reader::read(&origin, text, default_ttl, &mut findings);
    let records = check::zone(&origin, records, &mut findings);
    let good = findings.problems.list.is_empty();
    let warnings = findings.warnings.finish(path, Severity::Warning);
    if good {
        return Ok(ZoneFile { origin, records, warnings });
    }
    let mut problems = findings.problems.finish(path, Severity::Error);
    problems.extend(warnings);
    problems.sort();
    Err(problems)
}

/// Where the host name begins in RDATA of this type, if it is fixed fields and one name.
pub fn target_at(rtype: u16) -> Option<usize> {
    match rtype {
        types::NS | types::CNAME | types::PTR => Some(0),
        types::MX => Some(2),
        types::SRV => Some(6),
        _ => None,
    }
}

/// The zone that the file at `path` holds, by its name: `NAME.zone`.
///
/// # Errors
///
/// The name does not end in [`EXTENSION`], or what stands before it is no domain name, or it is the root.
pub fn origin_of(path: &Path) -> Result<Name, Diagnostic> {
    let wrong = |why: &str| {
        let hint = "the file that holds the zone example.org is named `example.org.zone`";
        Diagnostic::whole(path, format!("the name of this zone file {why}")).with_hint(hint)
    };
    let file = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| wrong("is no UTF-8 text"))?;
    let zone = file.strip_suffix(EXTENSION).ok_or_else(|| wrong("does not end in `.zone`"))?;
    if let Some(odd) = zone.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(wrong(&format!("has {odd:?} in it; other scripts are written in their xn-- form")));
    }
    match Name::parse(zone) {
        Ok(name) if name == Name::root() => Err(wrong("names the root, which is no zone of ours")),
        Ok(name) => Ok(name),
        Err(_) if zone.is_empty() => Err(wrong("has no zone in front of `.zone`")),
        Err(error) => Err(wrong(&format!("holds no domain name: {error}"))),
    }
}

impl ZoneFile {
    /// What a zone needs to stand on its own: an SOA, and at its apex an NS whose name has an address.
    ///
    /// For every zone file but that of the discovery zone, whose SOA and NS are generated.
    pub fn check_apex(&self, path: &Path) -> Vec<Diagnostic> {
        check::apex(self, path)
    }

    /// Warnings of targets of NS, MX and SRV that are names of this zone and have no address in it.
    ///
    /// For every zone file but that of the discovery zone, where a live service may have the address.
    pub fn check_targets(&self, path: &Path) -> Vec<Diagnostic> {
        check::targets(self, path)
    }
}

/// The text to read: without a byte-order mark, of a bearable size, and a text at all.
fn readable<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a [u8], Diagnostic> {
    if bytes.len() > MAX_ZONE_FILE {
        let len = bytes.len();
        return Err(Diagnostic::whole(path, format!("the file has {len} octets, a zone file at most {MAX_ZONE_FILE}")));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Diagnostic::whole(path, "the file is written in UTF-16").with_hint("save it as UTF-8"));
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match text.iter().position(|octet| *octet == 0) {
        None => Ok(text),
        Some(at) => {
            let (line, column) = entry::place(text, 1, 0, at);
            Err(Diagnostic { line, column, ..Diagnostic::whole(path, "a zero octet: this is no text file") })
        }
    }
}

/// What is wrong at one place of the text.
#[derive(Debug)]
struct Fault {
    /// The offset of the octet that it is shown at.
    at: usize,
    message: String,
    hint: Option<String>,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// What was found in one file so far.
struct Findings<'a> {
    path: &'a Path,
    problems: Bounded,
    warnings: Bounded,
}

/// Up to [`MAX_PROBLEMS`] problems, and how many more there are.
#[derive(Default)]
struct Bounded {
    list: Vec<Diagnostic>,
    more: usize,
}

impl<'a> Findings<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, problems: Bounded::default(), warnings: Bounded::default() }
    }

    fn problem(&mut self, place: (usize, usize), message: String, hint: Option<String>) {
        self.problems.push(self.path, place, message, hint);
    }

    fn warning(&mut self, place: (usize, usize), message: String, hint: Option<String>) {
        self.warnings.push(self.path, place, message, hint);
    }
}

impl Bounded {
    fn push(&mut self, path: &Path, (line, column): (usize, usize), message: String, hint: Option<String>) {
        if self.list.len() < MAX_PROBLEMS {
            self.list.push(Diagnostic { line, column, hint, ..Diagnostic::whole(path, message) });
        } else {
            self.more += 1;
        }
    }

    /// All of them in the order of the file.
    fn finish(mut self, path: &Path, severity: Severity) -> Vec<Diagnostic> {
        self.list.sort();
        if let (1.., Some(last)) = (self.more, self.list.last()) {
            let what = if severity == Severity::Error { "problem" } else { "warning" };
            let message = format!("and {} more {what}{}", self.more, if self.more == 1 { "" } else { "s" });
            self.list.push(Diagnostic { line: last.line, column: last.column, ..Diagnostic::whole(path, message) });
        }
        self.list.into_iter().map(|problem| Diagnostic { severity, ..problem }).collect()
    }
}
