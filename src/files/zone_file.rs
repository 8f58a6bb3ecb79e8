//! types for now
use crate::model::name::Name;
/// zone
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFile {
    /// o
    pub origin: Name,
    /// r
    pub records: Vec<StaticRecord>,
}
/// rec
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRecord {
    /// o
    pub owner: Name,
    /// o
    pub rtype: u16,
    /// o
    pub ttl: u32,
    /// o
    pub rdata: Vec<u8>,
    /// o
    pub line: usize,
    /// o
    pub column: usize,
}
