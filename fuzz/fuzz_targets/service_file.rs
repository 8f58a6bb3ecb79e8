//! `cargo fuzz run service_file`: the body is in `src/service_file.rs`.

#![no_main]

#[path = "../src/service_file.rs"]
mod service_file;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| service_file::run(octets));
