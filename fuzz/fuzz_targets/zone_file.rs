//! `cargo fuzz run zone_file`: the body is in `src/zone_file.rs`.

#![no_main]

#[path = "../src/zone_file.rs"]
mod zone_file;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| zone_file::run(octets));
