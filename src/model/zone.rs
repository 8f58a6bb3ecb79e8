//! Records of a static zone, as parsed from a zone file.

use std::path::Path;

use super::name::Name;
use crate::diagnostic::Diagnostic;

// Type numbers of the IANA registry of DNS resource record types.
const NS: u16 = 2;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const MX: u16 = 15;
const SRV: u16 = 33;
const DNAME: u16 = 39;

/// Suffixes of names of zone files.
const SUFFIXES: [&str; 2] = [".zone", ".db"];
/// Prefix of names of zone files.
const PREFIX: &str = "db.";
/// Ends of names with that prefix that are no zones: files that BIND writes beside a zone file, and other formats.
const NO_ZONES: [&str; 8] = ["jnl", "jbk", "json", "lock", "raw", "signed", "yaml", "yml"];

/// Returns the zone in the name of a zone file, which is `NAME.zone`, `NAME.db` or `db.NAME`. `None` for names of other files.
pub fn zone_in_file_name(name: &str) -> Option<&str> {
    let suffixed = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
    let last = name.rsplit('.').next().unwrap_or_default();
    suffixed.or_else(|| name.strip_prefix(PREFIX).filter(|_| !NO_ZONES.contains(&last)))
}

/// Files of a zone. The lines of an included file follow those of all files before it, so that the number of a line is unique in the
/// zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFiles {
    /// Number of the lines before each file, in ascending order, and its path below the folder.
    files: Vec<(usize, Box<str>)>,
}

impl SourceFiles {
    /// Returns the zone file of this name, without included files.
    pub fn new(name: &str) -> Self {
        Self { files: vec![(0, name.into())] }
    }

    /// Adds an included file after `before` lines of others.
    pub fn include(&mut self, before: usize, path: &str) {
        self.files.push((before, path.into()));
    }

    /// Returns the number of files.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Removes the files after the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.files.truncate(count);
    }

    /// Returns the zone file; empty if there is none.
    pub fn main(&self) -> &str {
        self.files.first().map_or("", |(_, name)| name)
    }

    /// Returns the file of a line, and the number of the line in the file.
    pub fn place(&self, line: usize) -> (&str, usize) {
        let after = self.files.partition_point(|(before, _)| *before < line.max(1));
        let file = after.checked_sub(1).and_then(|at| self.files.get(at));
        file.map_or(("", line), |(before, name)| (name, line - before.min(&line)))
    }

    /// Returns a diagnostic with the file and line that its line stands for. Its path is that of the zone file.
    pub fn located(&self, problem: Diagnostic) -> Diagnostic {
        let (file, line) = self.place(problem.line);
        // A file may include the zone file, too.
        if file == self.main() {
            return Diagnostic { line, ..problem };
        }
        let folder = problem.path.parent().unwrap_or(Path::new(""));
        Diagnostic { path: folder.join(file), line, ..problem }
    }
}

/// Content of a zone from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFile {
    /// Name of the zone; that of a zone file is in the file's name.
    pub origin: Name,
    /// Records without duplicates (RFC 2181 §5). The records of an RRset are adjacent, sorted by RDATA in canonical form
    /// (RFC 4034 §6.3), and share the
    /// smallest TTL of the file for that RRset (RFC 2181 §5.2).
    pub records: Vec<StaticRecord>,
    /// The zone file and the files that it includes; none of other sources.
    pub files: SourceFiles,
    /// Warnings about records that are valid and probably not intended, such as a name without final dot.
    pub warnings: Vec<Diagnostic>,
    /// Where the records come from.
    pub source: Source,
}

/// A zone with an SOA record only.
#[cfg(test)]
pub(crate) fn with_serial(origin: &str, serial: u32, source: Source) -> ZoneFile {
    let origin = Name::parse(origin).unwrap();
    let mut rdata = origin.wire().repeat(2);
    rdata.extend([serial, 60, 60, 60, 60].iter().flat_map(|number| number.to_be_bytes()));
    let soa = StaticRecord { owner: origin.clone(), rtype: 6, ttl: 300, rdata, line: 1, column: 1 };
    ZoneFile { origin, records: vec![soa], warnings: Vec::new(), files: SourceFiles::default(), source }
}

/// Source of the records of a zone, besides those that are generated from services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Zone files.
    #[default]
    Files,
    /// Updates (RFC 2136).
    Updates,
    /// A primary, of which this is a copy in this state.
    Primary(CopyState),
}

/// State of a zone that is copied from a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// The copy is answered.
    Current,
    /// No primary has sent the zone yet.
    Missing,
    /// No primary has confirmed the copy for the time that its SOA allows.
    Expired,
}

/// One record of class IN with its position in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRecord {
    /// Absolute owner name, within the zone.
    pub owner: Name,
    /// Type number.
    pub rtype: u16,
    /// TTL in seconds, at most [`MAX_TTL`](super::service::MAX_TTL).
    pub ttl: u32,
    /// RDATA in wire form, at most 65,535 octets, valid for its type; names are uncompressed and in the
    /// letter case of the file.
    pub rdata: Vec<u8>,
    /// Line of the entry in the files of the zone, counted from 1 ([`SourceFiles::place`]); 0 in a copied zone.
    pub line: usize,
    /// Column of the first token of the entry in characters, counted from 1; 0 in a copied zone.
    pub column: usize,
}

/// Returns the offset of the host name in RDATA of this type, if the RDATA is fixed fields followed by one name.
pub fn target_at(rtype: u16) -> Option<usize> {
    match rtype {
        NS | CNAME | PTR | DNAME => Some(0),
        MX => Some(2),
        SRV => Some(6),
        _ => None,
    }
}
