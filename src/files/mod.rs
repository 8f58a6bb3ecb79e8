//! From folders of files to the values that they define.
//!
//! [`contents`] is what a folder holds, [`watch`] keeps it up to date from the disk (the one module here that does
//! I/O, with [`read`], by which it reads one file), [`last_good`] turns it into values, file by file, such that a file
//! that breaks keeps what it last said well. [`service_file`] and [`zone_file`] read one file's octets;
//! [`definitions`] puts the service files of a folder together.

mod check;
pub mod contents;
pub mod definitions;
pub mod last_good;
pub mod read;
pub mod service_file;
pub mod watch;
pub mod zone_file;
