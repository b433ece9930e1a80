//! A reader of any bytes whatever ends, in time in proportion to their number, with rows or an error.

use std::sync::LazyLock;

use garboard_bolt::Measure;
use garboard_bolt::PageSize;
use garboard_bolt::Summary;
use garboard_bolt::Writer;
use garboard_bolt::read_all;
use proptest::prelude::*;

/// Two buckets in 27 pages of 1 KiB: a tree of three heights, overflow pages, an empty leaf.
fn file() -> Vec<u8> {
    let long = |at: u32| [at.to_be_bytes().to_vec(), vec![b'k'; 300]].concat();
    let mut rows: Vec<_> = (0..12).map(|at| (long(at), vec![b'v'; 200])).collect();
    rows.push((b"overflow".to_vec(), vec![b'o'; 2_500]));
    rows.push((b"zero".to_vec(), Vec::new()));
    let mut measure = Measure::new(PageSize::new(1024).unwrap());
    measure.bucket(b"empty").unwrap();
    measure.bucket(b"full").unwrap();
    rows.iter().for_each(|(key, value)| measure.row(key.len(), value.len()).unwrap());
    let mut writer = Writer::new(Vec::new(), measure.finish().unwrap()).unwrap();
    writer.bucket(b"empty").unwrap();
    writer.bucket(b"full").unwrap();
    rows.iter().for_each(|(key, value)| writer.row(key, value).unwrap());
    let file = writer.finish().unwrap();
    assert_eq!(file.len(), 27 * 1024);
    assert_eq!(read_all(&file).unwrap(), Summary { buckets: 2, rows: 14, bytes: 12 * 504 + 2_508 + 4 });
    file
}

#[test]
fn every_byte_may_be_flipped() {
    let mut file = file();
    let (mut read, mut refused) = (0_u32, 0_u32);
    for at in 0..file.len() {
        for flip in [0x01, 0xff] {
            file[at] ^= flip;
            match read_all(&file) {
                Ok(summary) => {
                    assert!(summary.bytes <= file.len() as u64 * 2, "{summary:?} after byte {at} was flipped");
                    read += 1;
                }
                Err(_) => refused += 1,
            }
            file[at] ^= flip;
        }
    }
    // Values, keys within their bounds and padding carry no check.
    assert!(refused > 1_000 && read > refused, "{read} read, {refused} refused");
}

#[test]
fn every_truncation_is_refused() {
    let file = file();
    for len in 0..file.len() {
        assert!(read_all(&file[..len]).is_err(), "{len} bytes of {}", file.len());
    }
}

#[test]
fn every_page_may_take_the_place_of_another() {
    let file = file();
    let pages = file.len() / 1024;
    for from in 0..pages {
        for to in 2..pages {
            let mut damaged = file.clone();
            damaged.copy_within(from * 1024..(from + 1) * 1024, to * 1024);
            let _ = read_all(&damaged);
            // With the number that is expected there, it gets past the first check.
            damaged[to * 1024..to * 1024 + 8].copy_from_slice(&(to as u64).to_le_bytes());
            let _ = read_all(&damaged);
        }
    }
}

static FILE: LazyLock<Vec<u8>> = LazyLock::new(file);

/// A number that bounds are likely to be near.
fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..40,
        (0_u32..64).prop_map(|shift| 1 << shift),
        (0_u32..64).prop_map(|shift| (1 << shift) - 1),
        any::<u64>(),
    ]
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn numbers_may_be_overwritten(
        changes in prop::collection::vec((2_usize..27, 0_usize..64, 1_usize..=8, numbers()), 1..6),
    ) {
        let mut file = FILE.clone();
        for (page, field, width, number) in changes {
            let at = page * 1024 + field * 4;
            file[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        }
        let _ = read_all(&file);
    }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..5_000)) {
        prop_assert!(read_all(&noise).is_err());
    }
}
