//! `cargo fuzz run consul`: the body is in `src/consul.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::consul::run(octets));
