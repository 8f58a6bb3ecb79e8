//! From folders of files to the values that they define.
//!
//! [`contents`] is what a folder holds, and [`last_good`] turns it into values, file by file, such that a file that
//! breaks keeps what it last said well: both are core. [`watch`] keeps the contents up to date from the disk, and
//! [`read`] reads one file: these are adapters.

pub mod contents;
pub mod last_good;
pub mod read;
pub mod watch;
