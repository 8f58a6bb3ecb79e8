//! `cargo fuzz run etcd`: the body is in `src/etcd.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::etcd::run(octets));
