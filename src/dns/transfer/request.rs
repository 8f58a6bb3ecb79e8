//! Requests for a transfer, and the records of the reply.

use super::{
    journal::{Differences, Journal},
    messages::{Aborted, MessageWriter, ZoneRecord, soa},
};
use crate::dns::{
    answer::contents::ZoneRrset,
    message::{
        codes::rtype,
        query::{HEADER, LookupName},
    },
    zone::{Tables, static_names::Zone},
};
use std::ops::ControlFlow;

/// Octets of the numbers of an SOA record (RFC 1035 §3.3.13), the first of which is the serial.
const SOA_NUMBERS: usize = 20;

/// Part of the zone that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The whole zone (AXFR).
    Zone,
    /// The changes since a serial (IXFR).
    Since(u32),
}

impl Wanted {
    /// Reads the part from a message with one question of this type, whose name is `origin`; `None` if the message is malformed
    /// (RFC 1995 §3: the authority section has the SOA of the client's version).
    pub fn parse(message: &[u8], origin: &LookupName, qtype: u16) -> Option<Self> {
        if qtype != rtype::IXFR {
            return Some(Self::Zone);
        }
        let count = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        if count(6)? != 0 || count(8)? != 1 {
            return None;
        }
        let mut rest = message.get(HEADER + origin.wire().len() + 4..)?;
        loop {
            match rest.split_first()? {
                (0, tail) => {
                    rest = tail;
                    break;
                }
                (len @ 1..=0x3f, tail) => rest = tail.get(usize::from(*len)..)?,
                (0xc0..=0xff, tail) => {
                    rest = tail.get(1..)?;
                    break;
                }
                _ => return None,
            }
        }
        let [t0, t1, _, _, _, _, _, _, l0, l1, rest @ ..] = rest else { return None };
        let rdata = rest.get(..usize::from(u16::from_be_bytes([*l0, *l1])))?;
        if u16::from_be_bytes([*t0, *t1]) != rtype::SOA {
            return None;
        }
        let serial = rdata.get(rdata.len().checked_sub(SOA_NUMBERS)?..)?;
        Some(Self::Since(u32::from_be_bytes([serial[0], serial[1], serial[2], serial[3]])))
    }
}

/// Form of a reply, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The client has the newest version: the SOA alone.
    Current,
    /// The whole zone.
    Whole,
    /// Differences.
    Incremental,
}

/// The reply to a request: what it sends, decided before its first record.
#[derive(Debug)]
pub struct Reply<'t> {
    tables: &'t Tables,
    zone: &'t Zone,
    differences: Option<Differences>,
    /// Form of the reply.
    pub form: Form,
}

impl<'t> Reply<'t> {
    /// Returns the reply for a zone.
    pub fn new(tables: &'t Tables, zone: &'t Zone, journal: &Journal, wanted: Wanted) -> Self {
        let current = tables.serial_of(zone);
        let (differences, form) = match wanted {
            Wanted::Zone => (None, Form::Whole),
            // RFC 1995 §2: a client whose version is not older receives the SOA.
            Wanted::Since(serial) if !crate::dns::zone::serial::is_later(current, serial) => (None, Form::Current),
            Wanted::Since(serial) => match journal.differences(tables, zone, serial) {
                Some(differences) => (Some(differences), Form::Incremental),
                None => (None, Form::Whole),
            },
        };
        Self { tables, zone, differences, form }
    }

    /// Writes all records.
    ///
    /// # Errors
    /// The receiver is gone.
    pub fn write<S>(&self, mut writer: MessageWriter<'_, S>) -> Result<(), Aborted>
    where
        S: FnMut(Vec<u8>) -> ControlFlow<()>,
    {
        let (ttl, rdata) = self.tables.soa_rdata(self.zone);
        let current = soa(ttl, &rdata);
        writer.push(current)?;
        match (&self.differences, self.form) {
            (Some(Differences { old_soa: (old_ttl, old_rdata), removed, added }), _) => {
                // RFC 1995 §4, condensed to one difference.
                writer.push(soa(*old_ttl, old_rdata))?;
                removed.iter().try_for_each(|set| push_all(&mut writer, set))?;
                writer.push(current)?;
                added.iter().try_for_each(|set| push_all(&mut writer, set))?;
                writer.push(current)?;
            }
            (None, Form::Current) => {}
            (None, _) => {
                let visited = self.tables.visit_zone(self.zone, |set| match push_all(&mut writer, &set) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(aborted) => ControlFlow::Break(aborted),
                });
                if let ControlFlow::Break(aborted) = visited {
                    return Err(aborted);
                }
                writer.push(current)?;
            }
        }
        writer.finish()
    }
}

fn push_all<S>(writer: &mut MessageWriter<'_, S>, set: &ZoneRrset) -> Result<(), Aborted>
where
    S: FnMut(Vec<u8>) -> ControlFlow<()>,
{
    set.rdata
        .iter()
        .try_for_each(|rdata| writer.push(ZoneRecord { owner: &set.owner, rtype: set.rtype, ttl: set.ttl, rdata }))
}
