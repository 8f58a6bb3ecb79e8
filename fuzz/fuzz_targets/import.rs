//! `cargo fuzz run import`: the body is in `src/import.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::import::run(octets));
