//! Metrics of each zone that this node answers.

use std::{borrow::Cow, time::Duration};

use super::{
    Family,
    family::{Content, Sample, Value},
};

/// Figures of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFigures {
    /// Name of the zone.
    pub zone: String,
    /// SOA serial.
    pub serial: u32,
    /// Number of records.
    pub records: u64,
    /// State of a zone that is copied from a primary; `None` for others.
    pub copy: Option<CopyFigures>,
}

/// Figures of a zone that is copied from a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFigures {
    /// False if no primary has sent the zone, or the copy has expired.
    pub is_answered: bool,
    /// Unix time of the last confirmation by a primary; zero without one.
    pub confirmed: Duration,
}

pub(super) fn families(zones: &[ZoneFigures]) -> Vec<Family> {
    let family = |name, help, value: &dyn Fn(&ZoneFigures) -> Option<u64>| {
        let sample = |zone: &ZoneFigures| {
            let labels = vec![("zone", Cow::Owned(zone.zone.clone()))];
            value(zone).map(|value| Sample { labels, value: Value::Whole(value) })
        };
        Family { name, help, content: Content::Gauge(zones.iter().filter_map(sample).collect()) }
    };
    vec![
        family("muster_served_zone_serial", "SOA serial of a zone", &|zone| Some(zone.serial.into())),
        family("muster_served_zone_records", "Number of records of a zone", &|zone| Some(zone.records)),
        family(
            "muster_secondary_zone_answered",
            "1 if there is a valid copy of a secondary zone, 0 if none was received or it has expired",
            &|zone| Some(zone.copy?.is_answered.into()),
        ),
        family(
            "muster_secondary_zone_confirmed_timestamp_seconds",
            "Unix time at which a primary last sent or confirmed the copy of a secondary zone; 0 if none has",
            &|zone| Some(zone.copy?.confirmed.as_secs()),
        ),
    ]
}
