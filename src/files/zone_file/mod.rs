//! Parser of zone files: RFC 1035 master files in, static records out, and the line and column of every problem.
//!
//! One file holds one zone, named by the file: `service.local.zone` holds `service.local.`. It may include other files, whose texts
//! [`sources`] adds to its own. An invalid entry is one problem; the rest of the file is still read.
//!
//! In reading order: [`lexer`] splits the text into entries and tokens; [`cursor`] iterates over tokens and parses numbers and
//! times. [`reader`] parses directives and records and keeps the state of a master file: origin, owner, TTL. [`names`] parses
//! domain names, [`rdata`] the RDATA by the table in [`types`], with [`svcb`] service parameters, [`loc`] locations and
//! [`dnssec`] fields of signed zones, [`generate`] `$GENERATE`.
//! [`check`] validates the whole zone.
//!
//! The parsers of hickory-proto and domain stop at the first error and misread some inputs that the tests list. The tests
//! compare this parser with hickory-proto, whose decoder must accept every record.

mod check;
mod cursor;
mod dnssec;
mod generate;
mod lexer;
mod loc;
mod names;
mod rdata;
mod reader;
mod sources;
mod svcb;
#[cfg(test)]
mod tests;
mod types;

use std::path::Path;

pub use self::sources::{Collected, collect, included_only};
use self::{lexer::Form, sources::Sources};

use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{
        name::Name,
        zone::{Source, SourceFiles, StaticRecord, ZoneFile, zone_in_file_name},
    },
    printable,
};

/// Largest zone file in octets: a million records of usual length.
pub const MAX_ZONE_FILE: usize = 64 << 20;
/// Maximum records of a zone, including duplicates: some 200 MB of memory. `$GENERATE` makes many records from few octets.
pub const MAX_RECORDS: usize = 1_000_000;
/// Maximum octets of RDATA in a zone, to bound memory.
pub const MAX_RDATA_TOTAL: usize = MAX_ZONE_FILE;
/// Maximum number of errors, and of warnings, that are listed for a file; the rest is counted.
pub const MAX_PROBLEMS: usize = 100;

/// Parses the content `bytes` of the zone file at `path`, with its included files as [`collect`] returns them.
///
/// A record without a TTL has the TTL of `$TTL` (RFC 2308 §4); without `$TTL`, the last explicit TTL (RFC 1035 §5.1). If both
/// are missing at the SOA, the SOA minimum is used as if it were the value of `$TTL`, as in BIND. Records of a file without an
/// SOA have `default_ttl`, in seconds.
///
/// # Errors
///
/// All problems in the order of the file, at most [`MAX_PROBLEMS`], then one that counts the rest. They quote the
/// file if it has a valid record. Otherwise it may be any other file, such as a key to which a link leads, and they describe
/// its content.
pub fn parse(path: &Path, bytes: &[u8], default_ttl: u32) -> Result<ZoneFile, Vec<Diagnostic>> {
    let origin = origin_of(path).map_err(|problem| vec![problem])?;
    let sources = Sources::split(bytes);
    let text = readable(path, sources.text).map_err(|problem| vec![problem])?;
    let sources = Sources { text, ..sources };
    let read = |form| read_as(path, &origin, &sources, default_ttl, form);
    let (mut records, mut findings) = read(Form::Quoted);
    if records.is_empty() {
        (records, findings) = read(Form::Described);
    }
    finish(path, origin, records, findings)
}

/// Reads the entries of a file. Messages have its content in this form.
fn read_as<'p>(
    path: &'p Path,
    origin: &Name,
    sources: &Sources<'_>,
    default_ttl: u32,
    form: Form,
) -> (Vec<StaticRecord>, Findings<'p>) {
    let mut findings = Findings::new(path, SourceFiles::new(&file_name(path)));
    let records = reader::read(origin, sources, default_ttl, form, &mut findings);
    (records, findings)
}

/// Checks the whole zone.
fn finish(
    path: &Path,
    origin: Name,
    records: Vec<StaticRecord>,
    mut findings: Findings<'_>,
) -> Result<ZoneFile, Vec<Diagnostic>> {
    let records = check::zone(&origin, records, &mut findings);
    let good = findings.problems.list.is_empty();
    let warnings = findings.warnings.finish(path, &findings.files, Severity::Warning);
    if good {
        return Ok(ZoneFile { origin, records, files: findings.files, warnings, source: Source::Files });
    }
    let mut problems = findings.problems.finish(path, &findings.files, Severity::Error);
    problems.extend(warnings);
    problems.sort();
    Err(problems)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the zone of the file `NAME.zone`, `NAME.db` or `db.NAME` at `path`.
///
/// # Errors
///
/// The name is none of these, or its part is not the name of a zone that muster serves.
pub fn origin_of(path: &Path) -> Result<Name, Diagnostic> {
    let invalid = |why: &str| {
        let hint = "the file that holds the zone example.org is named `example.org.zone`";
        Diagnostic::whole(path, format!("the name of this zone file {why}")).with_hint(hint)
    };
    let file = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| invalid("is not UTF-8"))?;
    let zone = zone_in_file_name(file).ok_or_else(|| invalid("is not `NAME.zone`, `NAME.db` or `db.NAME`"))?;
    if let Some(c) = zone.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(invalid(&format!("contains {c:?}; write internationalized names in xn-- form")));
    }
    match Name::parse(zone) {
        Ok(name) if name == Name::root() => Err(invalid("names the root zone, which is not supported")),
        // BIND's configuration says which zone `db.127` is; here the name does.
        Ok(name) if name.labels().last().is_some_and(|label| label.iter().all(u8::is_ascii_digit)) => {
            Err(invalid("is not that of a zone: the file of a reverse zone is named such as `10.in-addr.arpa.zone`"))
        }
        Ok(name) => Ok(name),
        Err(_) if zone.is_empty() => Err(invalid("has no zone")),
        Err(error) => Err(invalid(&format!("is not a domain name: {error}"))),
    }
}

impl ZoneFile {
    /// Checks that the apex has an SOA, and an NS whose target has an address.
    ///
    /// Callers skip the discovery zone, whose SOA and NS are generated.
    pub fn check_apex(&self, path: &Path) -> Vec<Diagnostic> {
        check::apex(self, path)
    }

    /// Warns about targets of NS, MX and SRV that are in this zone and have no address.
    ///
    /// Callers skip the discovery zone, where a service may have the address.
    pub fn check_targets(&self, path: &Path) -> Vec<Diagnostic> {
        check::targets(self, path)
    }
}

/// Checks size and encoding, and strips a byte-order mark.
fn readable<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a [u8], Diagnostic> {
    if bytes.len() > MAX_ZONE_FILE {
        let len = bytes.len();
        return Err(Diagnostic::whole(
            path,
            format!("the file has {len} octets; a zone file has at most {MAX_ZONE_FILE}"),
        ));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Diagnostic::whole(path, "the file is written in UTF-16").with_hint("save it as UTF-8"));
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match text.iter().position(|octet| *octet == 0) {
        None => Ok(text),
        Some(at) => {
            let (line, column) = lexer::place(text, 1, 0, at);
            Err(Diagnostic { line, column, ..Diagnostic::whole(path, "NUL octet: this is not a text file") })
        }
    }
}

/// Error or warning at an offset of the text.
#[derive(Debug)]
struct Fault {
    /// Offset in octets.
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

/// Errors and warnings of a file so far.
struct Findings<'a> {
    path: &'a Path,
    files: SourceFiles,
    problems: Bounded,
    warnings: Bounded,
}

/// Number of findings at some point.
struct Mark {
    problems: (usize, usize),
    warnings: (usize, usize),
    files: usize,
}

/// Up to [`MAX_PROBLEMS`] diagnostics, and the number of others.
#[derive(Default)]
struct Bounded {
    list: Vec<Diagnostic>,
    more: usize,
}

impl<'a> Findings<'a> {
    fn new(path: &'a Path, files: SourceFiles) -> Self {
        Self { path, files, problems: Bounded::default(), warnings: Bounded::default() }
    }

    fn problem(&mut self, place: (usize, usize), message: String, hint: Option<String>) {
        self.problems.push(self.path, place, message, hint);
    }

    /// Returns the number of problems, warnings and files so far.
    fn mark(&self) -> Mark {
        let count = |bounded: &Bounded| (bounded.list.len(), bounded.more);
        Mark { problems: count(&self.problems), warnings: count(&self.warnings), files: self.files.count() }
    }

    /// Removes what was added since a mark.
    fn reset(&mut self, mark: &Mark) {
        for (bounded, (len, more)) in [(&mut self.problems, mark.problems), (&mut self.warnings, mark.warnings)] {
            bounded.list.truncate(len);
            bounded.more = more;
        }
        self.files.truncate(mark.files);
    }

    /// Formats the number of a line, with its file unless that is the zone file.
    fn line(&self, line: usize) -> String {
        let (file, line) = self.files.place(line);
        if file == self.files.main() {
            line.to_string()
        } else {
            format!("{line} of {}", printable::path(Path::new(file)))
        }
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

    /// Returns the diagnostics in the order of the file.
    fn finish(mut self, path: &Path, files: &SourceFiles, severity: Severity) -> Vec<Diagnostic> {
        self.list.sort();
        if let (1.., Some(last)) = (self.more, self.list.last()) {
            let what = if severity == Severity::Error { "problem" } else { "warning" };
            let message = format!("and {} more {what}{}", self.more, if self.more == 1 { "" } else { "s" });
            self.list.push(Diagnostic { line: last.line, column: last.column, ..Diagnostic::whole(path, message) });
        }
        self.list.into_iter().map(|problem| files.located(Diagnostic { severity, ..problem })).collect()
    }
}
