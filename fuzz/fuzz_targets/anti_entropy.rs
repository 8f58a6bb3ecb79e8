//! `cargo fuzz run anti_entropy`: the body is in `src/anti_entropy.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::anti_entropy::run(octets));
