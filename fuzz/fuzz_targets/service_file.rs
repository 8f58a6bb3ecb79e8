//! `cargo fuzz run service_file`: the body is in `src/service_file.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::service_file::run(octets));
