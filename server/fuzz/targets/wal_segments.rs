//! Fuzzes [`garboard_fuzz::wal_segments`].
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(init: garboard_fuzz::seeds::write("wal_segments"), |input: &[u8]| {
    let _ = garboard_fuzz::wal_segments::run(input);
});
