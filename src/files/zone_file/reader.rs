//! Reader of entries: directives, and records with the owner, TTL and origin of previous lines (RFC 1035 §5.1, RFC 2308 §4).

use std::net::IpAddr;

use super::{
    Fault, Findings, MAX_RDATA_TOTAL, MAX_RECORDS,
    cursor::{self, Cursor},
    generate,
    lexer::{self, Entries, Form, Token},
    names::Names,
    rdata,
    types::{SOA, Type},
};
use crate::model::{name::Name, service::MAX_TTL, zone::StaticRecord};

/// Reads every entry of `text` and returns the valid records in the order of the file.
pub(super) fn read(
    zone: &Name,
    text: &[u8],
    default_ttl: u32,
    form: Form,
    findings: &mut Findings<'_>,
) -> Vec<StaticRecord> {
    let mut reader = Reader {
        zone,
        origin: zone.clone(),
        owner: Owner::Missing,
        directive_ttl: None,
        last_ttl: None,
        default_ttl: default_ttl.min(MAX_TTL),
        suspect: None,
        wire: Vec::new(),
        octets: 0,
        records: Vec::new(),
    };
    let mut entries = Entries::new(text, form);
    let mut tokens = Vec::new();
    while let Some((entry, cut)) = entries.next(&mut tokens) {
        let place = |at| lexer::place(text, entry.line, entry.line_start, at);
        let outcome = match tokens.first() {
            _ if cut.is_err() => {
                // Its owner is uncertain, so continuation lines are checked and dropped.
                reader.owner = Owner::Unusable;
                cut
            }
            None => Ok(()),
            Some(first) if !entry.blank && !first.quoted && first.raw.starts_with(b"$") => {
                reader.directive(&tokens, || place(first.at))
            }
            Some(first) => reader.record(entry.blank, &tokens, || place(first.at)),
        };
        if let Some(fault) = reader.suspect.take() {
            findings.warning(place(fault.at), fault.message, fault.hint);
        }
        if let Err(fault) = outcome {
            findings.problem(place(fault.at), fault.message, fault.hint);
        }
        if reader.is_full() {
            break;
        }
    }
    reader.records
}

/// State of a master file between entries.
struct Reader<'z> {
    zone: &'z Name,
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
}

/// Owner of lines that begin with a blank.
#[derive(Clone)]
enum Owner {
    Missing,
    /// An invalid owner, already reported: continuation lines are checked and dropped.
    Unusable,
    Known(Name),
}

impl Reader<'_> {
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
            b"$INCLUDE" => {
                let fault = Fault::new(keyword.at, "$INCLUDE is not supported: each zone is one file");
                Err(fault.hint("put the records into this file"))
            }
            _ => {
                let fault = Fault::new(keyword.at, format!("unknown directive {}", keyword.shown()));
                Err(fault
                    .hint("directives are $ORIGIN, $TTL and $GENERATE; a name that begins with `$` is written `\\$`"))
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
