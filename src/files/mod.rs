//! What users write into files, read into values: text in, value or problems out, no I/O.

pub mod zone_file;
