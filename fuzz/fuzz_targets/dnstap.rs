//! `cargo fuzz run dnstap`: the body is in `src/dnstap.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::dnstap::run(octets));
