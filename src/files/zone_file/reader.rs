//! Reader of entries: directives, and records with the owner, TTL and origin of previous lines (RFC 1035 §5.1, RFC 2308 §4).

use std::{net::IpAddr, path::Path};

use super::{
    Fault, Findings, MAX_RDATA_TOTAL, MAX_RECORDS,
    cursor::{self, Cursor},
    generate,
    lexer::{self, Entries, Form, Token},
    names::Names,
    rdata, readable,
    sources::{self, Sources},
    types::{SOA, Type},
};
use crate::model::{name::Name, service::MAX_TTL, zone::StaticRecord};

/// Maximum depth of inclusion, as in NSD.
const MAX_DEPTH: usize = 10;
/// Maximum number of inclusions. A file may be included with several origins.
const MAX_INCLUSIONS: usize = 1000;

/// Reads every entry of the zone file and its included files, and returns the valid records in their order.
pub(super) fn read(
    zone: &Name,
    sources: &Sources<'_>,
    default_ttl: u32,
    form: Form,
    findings: &mut Findings<'_>,
) -> Vec<StaticRecord> {
    let mut reader = Reader {
        zone,
        sources,
        origin: zone.clone(),
        owner: Owner::Missing,
        directive_ttl: None,
        last_ttl: None,
        default_ttl: default_ttl.min(MAX_TTL),
        suspect: None,
        wire: Vec::new(),
        octets: 0,
        records: Vec::new(),
        depth: 0,
        inclusions: 0,
        lines: 0,
        base: 0,
    };
    reader.read(sources.text, form, findings);
    reader.records
}

/// State of a master file between entries.
struct Reader<'z, 's> {
    zone: &'z Name,
    sources: &'z Sources<'s>,
    origin: Name,
    owner: Owner,
    /// TTL of the last `$TTL`, or the minimum of an SOA that no TTL precedes.
    directive_ttl: Option<u32>,
    /// Last explicit TTL of a record.
    last_ttl: Option<u32>,
    default_ttl: u32,
    /// Warning about a name of the current entry.
    suspect: Option<Fault>,
    /// Buffer for the RDATA of a record.
    wire: Vec<u8>,
    /// Total octets of RDATA.
    octets: usize,
    records: Vec<StaticRecord>,
    /// Number of files that are being read, without the zone file.
    depth: usize,
    /// Number of inclusions so far.
    inclusions: usize,
    /// Number of lines of all files so far; 0 before the first inclusion.
    lines: usize,
    /// Number of lines before the current file.
    base: usize,
}

/// Owner of lines that begin with a blank.
#[derive(Clone)]
enum Owner {
    Missing,
    /// An invalid owner, already reported: continuation lines are checked and dropped.
    Unusable,
    Known(Name),
}

impl Reader<'_, '_> {
    /// Reads every entry of a text.
    fn read(&mut self, text: &[u8], form: Form, findings: &mut Findings<'_>) {
        let mut entries = Entries::new(text, form);
        let mut tokens = Vec::new();
        while let Some((entry, cut)) = entries.next(&mut tokens) {
            let base = self.base;
            let place = |at| {
                let (line, column) = lexer::place(text, entry.line, entry.line_start, at);
                (base + line, column)
            };
            let outcome = match tokens.first() {
                _ if cut.is_err() => {
                    // Its owner is uncertain, so continuation lines are checked and dropped.
                    self.owner = Owner::Unusable;
                    cut
                }
                None => Ok(()),
                Some(first) if sources::is_include(entry.blank, first) => self.include(&tokens, text, findings),
                Some(first) if !entry.blank && !first.quoted && first.raw.starts_with(b"$") => {
                    self.directive(&tokens, || place(first.at))
                }
                Some(first) => self.record(entry.blank, &tokens, || place(first.at)),
            };
            if let Some(fault) = self.suspect.take() {
                findings.warning(place(fault.at), fault.message, fault.hint);
            }
            if let Err(fault) = outcome {
                findings.problem(place(fault.at), fault.message, fault.hint);
            }
            if self.is_full() {
                break;
            }
        }
    }

    /// Reads `$INCLUDE FILE [ORIGIN]`. Afterwards origin and owner are as before, the TTL is that of the included file, as in BIND.
    fn include(&mut self, tokens: &[Token<'_>], text: &[u8], findings: &mut Findings<'_>) -> Result<(), Fault> {
        let Some(file) = tokens.get(1) else {
            let at = tokens.first().map_or(0, |keyword| keyword.at);
            return Err(Fault::new(at, "$INCLUDE needs a file").hint("such as `$INCLUDE common.inc`"));
        };
        let hint = "included files are in the folder of the zone files or below it; paths are relative to that folder";
        let fault = |what: &str| Fault::new(file.at, format!("{} {what}", file.shown())).hint(hint);
        let folder = findings.path.parent().unwrap_or(Path::new(""));
        let path = sources::path(folder, file.raw).map_err(fault)?;
        let origin = match tokens.get(2) {
            Some(token) => {
                let mut names = Names::new(self.zone, &self.origin);
                let origin = names.read(*token)?;
                self.suspect = names.suspect;
                origin
            }
            None => self.origin.clone(),
        };
        if let Some(extra) = tokens.get(3) {
            return Err(Fault::new(extra.at, format!("unexpected {}", extra.shown())));
        }
        self.inclusions += 1;
        if self.depth == MAX_DEPTH || self.inclusions > MAX_INCLUSIONS {
            let message =
                format!("$INCLUDE is nested deeper than {MAX_DEPTH}, or used more than {MAX_INCLUSIONS} times");
            return Err(Fault::new(file.at, message).hint("does a file include itself?"));
        }
        let text_of = |octets| readable(&path, octets).map_err(|problem| problem.message);
        let included = match self.sources.included.get(&*path) {
            // An editor may have emptied the file and be about to write it.
            Some(Ok([])) => Err("the file is empty; to withdraw its records, remove this line".to_owned()),
            Some(Ok(octets)) => text_of(octets),
            Some(Err(reason)) => Err((*reason).to_owned()),
            None => Err(format!("it is not read: a zone file includes at most {} files", sources::MAX_INCLUDED)),
        };
        let included = included
            .map_err(|reason| Fault::new(file.at, format!("cannot include {}: {reason}", file.shown())).hint(hint))?;
        let form = file.form;
        if self.lines == 0 {
            self.lines = lexer::lines(text);
        }
        let before = (
            std::mem::replace(&mut self.origin, origin),
            std::mem::replace(&mut self.owner, Owner::Missing),
            self.base,
        );
        let suspect = self.suspect.take();
        let (start, lines, count) = (findings.mark(), self.lines, self.records.len());
        self.depth += 1;
        self.read_included(&path, included, form, findings);
        // It may be any other file, such as a key to which a link leads: describe its content then.
        if form == Form::Quoted && self.records.len() == count {
            findings.reset(&start);
            self.lines = lines;
            (self.origin, self.owner) = (before.0.clone(), Owner::Missing);
            self.read_included(&path, included, Form::Described, findings);
        }
        self.depth -= 1;
        (self.origin, self.owner, self.base) = before;
        self.suspect = suspect;
        Ok(())
    }

    fn read_included(&mut self, path: &Path, text: &[u8], form: Form, findings: &mut Findings<'_>) {
        findings.files.include(self.lines, &path.to_string_lossy());
        self.base = self.lines;
        self.lines += lexer::lines(text);
        self.read(text, form, findings);
    }

    /// Reads a record: `[OWNER] [TTL] [CLASS] TYPE RDATA`, with TTL and class in either order.
    fn record(
        &mut self,
        blank: bool,
        tokens: &[Token<'_>],
        place: impl FnOnce() -> (usize, usize),
    ) -> Result<(), Fault> {
        let mut cursor = Cursor::new(tokens);
        let mut names = Names::new(self.zone, &self.origin);
        if !blank {
            let read = cursor.take().map_or(Ok(Owner::Missing), |token| owner(token, &mut names));
            match read {
                Ok(owner) => self.owner = owner,
                Err(fault) => {
                    self.owner = Owner::Unusable;
                    return Err(fault);
                }
            }
        } else if matches!(self.owner, Owner::Missing) {
            let at = tokens.first().map_or(0, |token| token.at);
            let fault = Fault::new(at, "the line begins with a blank, but no owner precedes it");
            return Err(fault.hint("begin the line with a name, or with `@` for the origin"));
        }
        let (ttl, rtype) = header(blank, &mut cursor)?;
        self.last_ttl = ttl.or(self.last_ttl);
        rdata::read(rtype, &mut cursor, &mut names, &mut self.wire)?;
        self.suspect = names.suspect;

        let minimum = self.wire.last_chunk().map(|octets| u32::from_be_bytes(*octets));
        if rtype.number() == SOA && self.directive_ttl.is_none() && self.last_ttl.is_none() {
            self.directive_ttl = minimum.map(|minimum| minimum.min(MAX_TTL));
        }

        let Owner::Known(owner) = &self.owner else { return Ok(()) };
        self.octets += self.wire.len();
        let (line, column) = place();
        self.records.push(StaticRecord {
            owner: owner.clone(),
            rtype: rtype.number(),
            ttl: ttl.or(self.directive_ttl).or(self.last_ttl).unwrap_or(self.default_ttl),
            rdata: self.wire.as_slice().into(),
            line,
            column,
        });
        if self.is_full() {
            let message = format!(
                "the zone is too large: it has more than {MAX_RECORDS} records or {MAX_RDATA_TOTAL} octets of RDATA"
            );
            return Err(Fault::new(tokens.first().map_or(0, |token| token.at), message));
        }
        Ok(())
    }

    /// Reports whether the zone exceeds its limits.
    fn is_full(&self) -> bool {
        self.records.len() > MAX_RECORDS || self.octets > MAX_RDATA_TOTAL
    }

    fn directive(&mut self, tokens: &[Token<'_>], place: impl FnOnce() -> (usize, usize)) -> Result<(), Fault> {
        let mut cursor = Cursor::new(tokens);
        let Some(keyword) = cursor.take() else { return Ok(()) };
        let argument = || {
            let missing = || Fault::new(keyword.at, format!("{} needs a value", keyword.shown()));
            tokens.get(1).copied().ok_or_else(missing)
        };
        let alone = || match tokens.get(2) {
            Some(extra) => Err(Fault::new(extra.at, format!("unexpected {}", extra.shown()))),
            None => Ok(()),
        };
        match keyword.raw.to_ascii_uppercase().as_slice() {
            b"$ORIGIN" => {
                let mut names = Names::new(self.zone, &self.origin);
                let origin = names.read(argument()?)?;
                self.suspect = names.suspect;
                self.origin = origin;
                alone()
            }
            b"$TTL" => {
                self.directive_ttl = Some(time_to_live(argument()?)?);
                alone()
            }
            b"$GENERATE" => {
                argument()?;
                self.generate(&tokens[1..], place())
            }
            _ => {
                let fault = Fault::new(keyword.at, format!("unknown directive {}", keyword.shown()));
                Err(fault
                    .hint("directives are $ORIGIN, $TTL, $INCLUDE and $GENERATE; a name that begins with `$` is written `\\$`"))
            }
        }
    }

    /// Reads `$GENERATE RANGE` and a record, once for each number of the range until the first error.
    fn generate(&mut self, tokens: &[Token<'_>], place: (usize, usize)) -> Result<(), Fault> {
        let Some((range, template)) = tokens.split_first() else { return Ok(()) };
        let range = generate::range(*range)?;
        if template.is_empty() {
            let fault = Fault::new(tokens[0].at, "$GENERATE has no record");
            return Err(fault.hint("such as `$GENERATE 1-9 host-$ A 10.0.0.$`"));
        }
        let owner = self.owner.clone();
        let varies: Vec<bool> = template.iter().map(|token| token.raw.contains(&b'$')).collect();
        let mut texts: Vec<Vec<u8>> = vec![Vec::new(); template.len()];
        let mut suspect = None;
        let mut outcome = Ok(());
        for number in range {
            for ((token, varies), text) in template.iter().zip(&varies).zip(&mut texts) {
                text.clear();
                if *varies && generate::expand(token.raw, number, text).is_none() {
                    let fault = Fault::new(token.at, format!("invalid template {}", token.shown()));
                    outcome = Err(
                        fault.hint("`$` may be followed by `{OFFSET,WIDTH,BASE}`; the result must not be negative")
                    );
                    break;
                }
            }
            let filled: Vec<Token<'_>> = template
                .iter()
                .zip(&varies)
                .zip(&texts)
                .map(|((token, varies), text)| if *varies { Token { raw: text, ..*token } } else { *token })
                .collect();
            outcome = outcome.and_then(|()| self.record(false, &filled, || place));
            suspect = suspect.or(self.suspect.take());
            if let Err(fault) = &mut outcome {
                fault.message = format!("for `$` = {number}: {}", fault.message);
                break;
            }
        }
        self.owner = owner;
        self.suspect = suspect;
        outcome
    }
}

/// Reads the owner at the beginning of a line: a name in the zone.
fn owner(token: Token<'_>, names: &mut Names<'_>) -> Result<Owner, Fault> {
    let name = names.read(token)?;
    if name.within(names.zone).is_some() {
        return Ok(Owner::Known(name));
    }
    let shown = if token.form == Form::Quoted { format!("`{name}`") } else { token.shown() };
    let fault = Fault::new(token.at, format!("{shown} is not in the zone `{}`", names.zone));
    Err(fault.hint("the zone is the file's name; a name without a final dot is relative to the origin"))
}

/// Reads the optional TTL and class, and the type.
fn header(blank: bool, cursor: &mut Cursor<'_, '_>) -> Result<(Option<u32>, Type), Fault> {
    let mut ttl = None;
    let mut class = false;
    while let Some(token) = cursor.take() {
        let text = std::str::from_utf8(token.raw).unwrap_or_default();
        if token.quoted {
            let fault = Fault::new(token.at, format!("quoted {} is not a record type", token.shown()));
            return Err(fault.hint("write the type without quotes, before the data"));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            let rtype = if address.is_ipv4() { "A" } else { "AAAA" };
            let fault = Fault::new(token.at, format!("the record type is missing before {}", token.shown()));
            let address = if token.form == Form::Quoted { text } else { "ADDRESS" };
            return Err(fault.hint(format!("write `{rtype} {address}`")));
        }
        if ttl.is_none() && text.starts_with(|first: char| first.is_ascii_digit()) {
            ttl = Some(time_to_live(token)?);
        } else if !class && is_class(text) {
            class = true;
            if !text.eq_ignore_ascii_case("IN") && !text.eq_ignore_ascii_case("CLASS1") {
                return Err(Fault::new(token.at, format!("class {}: only class IN is supported", token.shown())));
            }
        } else {
            return match Type::read(token) {
                Ok(rtype) => Ok((ttl, rtype)),
                Err(fault) if blank && fault.hint.is_none() && cursor.peek().is_some() => Err(fault
                    .hint("a line that begins with a blank has the previous owner; begin the line with a new owner")),
                Err(fault) => Err(fault),
            };
        }
    }
    let fault = Fault::new(cursor.at(), "the record has no type");
    Err(fault.hint("a record is `[NAME] [TTL] [IN] TYPE DATA`"))
}

/// Matches a known class, or `CLASSnnn` (RFC 3597 §5).
fn is_class(text: &str) -> bool {
    let generic = text.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("CLASS"));
    generic || ["IN", "CH", "HS", "CS"].iter().any(|class| class.eq_ignore_ascii_case(text))
}

fn time_to_live(token: Token<'_>) -> Result<u32, Fault> {
    let text = if token.quoted { "" } else { std::str::from_utf8(token.raw).unwrap_or_default() };
    match cursor::seconds(text) {
        Some(seconds) if seconds <= u64::from(MAX_TTL) => Ok(seconds as u32),
        Some(_) => {
            Err(Fault::new(token.at, format!("the TTL {} exceeds {MAX_TTL} seconds (RFC 2181 §8)", token.shown())))
        }
        None => {
            let fault = Fault::new(token.at, format!("{} is not a TTL", token.shown()));
            Err(fault.hint("a TTL is a number of seconds, or has units: 3600, 1h, 1h30m, 2d"))
        }
    }
}
