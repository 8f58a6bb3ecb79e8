//! Files on disk: what they say, and noticing when they change.

pub mod zone_file;
