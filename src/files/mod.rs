//! What the files of a node say.
//!
//! [`service_file`] reads one service file, [`definitions`] puts the files of a folder together. Both are core: octets
//! in, values and problems out. Who reads the folder, and when, is elsewhere.

mod check;
pub mod definitions;
pub mod service_file;
