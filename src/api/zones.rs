//! JSON of `/v1/muster/zones`: the zones that a node answers, and their records.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Element of `GET /v1/muster/zones`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ServedZone")]
#[serde(rename_all = "PascalCase", default)]
pub struct Zone {
    /// Name of the zone, with its final dot.
    pub zone: String,
    /// `discovery`, `consul` (alias domain with the names of Consul), `file`, `secondary` or `dynamic`.
    pub kind: String,
    /// SOA serial.
    pub serial: u32,
    /// Number of records, the SOA included, as a transfer of this serial has them; 0 without a copy.
    pub records: u64,
    /// Name of the zone file; empty if there is none.
    pub file: String,
    /// State of the copy of a secondary zone; null for others.
    pub copy: Option<Copy>,
    /// Secondaries that receive NOTIFY of the zone.
    pub secondaries: Vec<Secondary>,
}

/// A problem of a zone: it is not answered, or validators refuse answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ZoneProblem {
    /// Name of the zone, with its final dot.
    pub zone: String,
    /// `error` (the zone is not answered, or signatures are not valid) or `warning`.
    pub severity: String,
    /// Description.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Copy of a secondary zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ZoneCopy")]
#[serde(rename_all = "PascalCase", default)]
pub struct Copy {
    /// `current`, `missing` (no primary has sent the zone) or `expired`.
    pub state: String,
    /// Addresses of the primaries, in the order in which they are asked.
    pub primaries: Vec<String>,
    /// Primary that sent or confirmed the copy; empty if none has since the start.
    pub primary: String,
    /// Time of the last confirmation (RFC 3339); empty without one.
    pub confirmed: String,
    /// Time at which the copy expires unless it is confirmed (RFC 3339); empty without a copy.
    pub expires: String,
    /// Reason of the last failure of each primary; empty if one has helped since.
    pub problem: String,
}

/// Secondary that receives NOTIFY.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ZoneSecondary")]
#[serde(rename_all = "PascalCase", default)]
pub struct Secondary {
    /// Address.
    pub address: String,
    /// Serial of the last NOTIFY that it acknowledged; null: none since the start of the agent.
    pub acknowledged: Option<u32>,
    /// Serial that it answered when it was last asked, some seconds after a NOTIFY; null: it was not asked, or did not answer.
    pub serial: Option<u32>,
}

/// `GET /v1/muster/zones/{zone}`: all records of a zone, the SOA first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ZoneRecords")]
#[serde(rename_all = "PascalCase", default)]
pub struct Records {
    /// Name of the zone, with its final dot.
    pub zone: String,
    /// SOA serial.
    pub serial: u32,
    /// Records.
    pub records: Vec<Record>,
}

/// A record of a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ZoneRecord")]
#[serde(rename_all = "PascalCase", default)]
pub struct Record {
    /// Owner name.
    pub name: String,
    /// Type, such as `MX` or `TYPE65400`.
    #[serde(rename = "Type")]
    pub rtype: String,
    /// TTL in seconds.
    #[serde(rename = "TTLSeconds")]
    pub ttl: u32,
    /// Data in the form of a master file.
    pub data: String,
}

/// `PUT /v1/muster/notify/{zone}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ZoneNotified")]
#[serde(rename_all = "PascalCase", default)]
pub struct Notified {
    /// Number of secondaries to which a message is sent.
    pub secondaries: usize,
}
