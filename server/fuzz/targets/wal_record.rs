//! Fuzzes [`garboard_fuzz::wal_record`].
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(init: garboard_fuzz::seeds::write("wal_record"), |input: &[u8]| {
    let _ = garboard_fuzz::wal_record::run(input);
});
