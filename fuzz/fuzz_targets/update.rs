//! `cargo fuzz run update`: the body is in `src/update.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::update::run(octets));
