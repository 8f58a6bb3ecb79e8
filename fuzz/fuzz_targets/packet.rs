//! `cargo fuzz run packet`: the body is in `src/packet.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::packet::run(octets));
