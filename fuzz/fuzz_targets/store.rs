//! `cargo fuzz run store`: the body is in `src/store.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::store::run(octets));
