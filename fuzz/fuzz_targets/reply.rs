//! `cargo fuzz run reply`: the body is in `src/reply.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::reply::run(octets));
