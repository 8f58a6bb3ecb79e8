//! `cargo fuzz run saved_state`: the body is in `src/saved_state.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| muster_fuzz::saved_state::run(octets));
