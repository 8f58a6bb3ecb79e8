//! `cargo fuzz run transfer`: the body is in `src/transfer.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::transfer::run(octets));
