//! `cargo fuzz run gossip`: the body is in `src/gossip.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::gossip::run(octets));
