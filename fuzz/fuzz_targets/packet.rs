//! `cargo fuzz run packet`: the body is in `src/packet.rs`.

#![no_main]

#[path = "../src/packet.rs"]
mod packet;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| packet::run(octets));
