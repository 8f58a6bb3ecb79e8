//! From folders of files to the values that they define.
//!
//! [`contents`] is what a folder holds, [`watch`] keeps it up to date from the disk (the one module here that does
//! I/O, with [`read`], by which it reads one file), [`last_good`] turns it into values, file by file, such that a file
//! that breaks keeps what it last said well.

pub mod contents;
pub mod last_good;
pub mod read;
pub mod watch;
pub mod zone_file;
