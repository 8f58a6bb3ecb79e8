//! Requests for a transfer, and the records of the reply.

use super::{
    journal::{Differences, Journal},
    messages::{MessageWriter, TransferError, ZoneRecord, soa},
};
use crate::dns::{
    answer::contents::ZoneRrset,
    message::{
        codes::rtype,
        query::{HEADER, LookupName},
        reader::Reader,
    },
    zone::{Tables, serial::is_later, static_names::Zone},
};

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
        let mut reader = Reader::new(message.get(HEADER + origin.wire().len() + 4..)?);
        reader.skip_name()?;
        let rtype = reader.u16()?;
        // Class and TTL.
        reader.take(6)?;
        let len = reader.u16()?;
        let rdata = reader.take(len.into())?;
        if rtype != rtype::SOA {
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
    content: Content,
}

#[derive(Debug)]
enum Content {
    Current,
    Whole,
    Incremental(Differences),
}

impl<'t> Reply<'t> {
    /// Returns the reply for a zone.
    pub fn new(tables: &'t Tables, zone: &'t Zone, journal: &Journal, wanted: Wanted) -> Self {
        let content = match wanted {
            Wanted::Zone => Content::Whole,
            // RFC 1995 §2: a client whose version is not older receives the SOA.
            Wanted::Since(serial) if !is_later(tables.serial_of(zone), serial) => Content::Current,
            Wanted::Since(serial) => {
                journal.differences(tables, zone, serial).map_or(Content::Whole, Content::Incremental)
            }
        };
        Self { tables, zone, content }
    }

    /// Returns the SOA alone.
    pub fn soa(tables: &'t Tables, zone: &'t Zone) -> Self {
        Self { tables, zone, content: Content::Current }
    }

    /// Returns the form of the reply.
    pub fn form(&self) -> Form {
        match self.content {
            Content::Current => Form::Current,
            Content::Whole => Form::Whole,
            Content::Incremental(_) => Form::Incremental,
        }
    }

    /// Writes all records.
    ///
    /// # Errors
    /// The receiver is gone, or a record is too long.
    pub fn write<S>(&self, mut writer: MessageWriter<'_, S>) -> Result<(), TransferError>
    where
        S: FnMut(Vec<u8>) -> Result<(), TransferError>,
    {
        let (ttl, rdata) = self.tables.soa_rdata(self.zone);
        let current = soa(ttl, &rdata);
        writer.push(current)?;
        match &self.content {
            Content::Current => {}
            Content::Whole => {
                self.tables.visit_zone(self.zone, |set| push_all(&mut writer, &set))?;
                writer.push(current)?;
            }
            Content::Incremental(Differences { old_soa: (old_ttl, old_rdata), removed, added }) => {
                // RFC 1995 §4, condensed to one difference.
                writer.push(soa(*old_ttl, old_rdata))?;
                removed.iter().try_for_each(|set| push_all(&mut writer, set))?;
                writer.push(current)?;
                added.iter().try_for_each(|set| push_all(&mut writer, set))?;
                writer.push(current)?;
            }
        }
        writer.finish()
    }
}

fn push_all<S>(writer: &mut MessageWriter<'_, S>, set: &ZoneRrset) -> Result<(), TransferError>
where
    S: FnMut(Vec<u8>) -> Result<(), TransferError>,
{
    set.rdata
        .iter()
        .try_for_each(|rdata| writer.push(ZoneRecord { owner: &set.owner, rtype: set.rtype, ttl: set.ttl, rdata }))
}
