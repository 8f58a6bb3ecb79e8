//! `cargo fuzz run zone_file`: the body is in `src/zone_file.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::zone_file::run(octets));
