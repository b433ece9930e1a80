//! What the writer wrote, the reader reads: the same buckets with the same rows, for any rows and page size.

use std::collections::BTreeMap;

use garboard_bolt::Database;
use garboard_bolt::Layout;
use garboard_bolt::Limits;
use garboard_bolt::Measure;
use garboard_bolt::PageSize;
use garboard_bolt::ReadError;
use garboard_bolt::Writer;
use proptest::prelude::*;

type Bucket = BTreeMap<Vec<u8>, Vec<u8>>;
type Content = BTreeMap<Vec<u8>, Bucket>;

fn measure(page_size: PageSize, content: &Content) -> Layout {
    let mut measure = Measure::new(page_size);
    for (name, rows) in content {
        measure.bucket(name).unwrap();
        for (key, value) in rows {
            measure.row(key.len(), value.len()).unwrap();
        }
    }
    measure.finish().unwrap()
}

fn write(page_size: PageSize, content: &Content) -> Vec<u8> {
    let layout = measure(page_size, content);
    let file_len = layout.file_len();
    let mut writer = Writer::new(Vec::new(), layout).unwrap();
    for (name, rows) in content {
        writer.bucket(name).unwrap();
        for (key, value) in rows {
            writer.row(key, value).unwrap();
        }
    }
    let file = writer.finish().unwrap();
    assert_eq!(file.len() as u64, file_len);
    file
}

fn read(file: &[u8]) -> Content {
    let database = Database::open(&file).unwrap();
    let names = database.buckets().iter().map(|bucket| bucket.name().to_vec());
    names.map(|name| (name.clone(), read_rows(&database, &name))).collect()
}

fn read_rows(database: &Database<'_>, name: &[u8]) -> Bucket {
    let mut rows = database.rows(name).unwrap();
    let mut bucket = Bucket::new();
    let mut last = Vec::new();
    while let Some(row) = rows.next_row().unwrap() {
        assert!(last.as_slice() < row.key, "rows come in order");
        last = row.key.to_vec();
        bucket.insert(last.clone(), row.value.to_vec());
    }
    assert!(rows.next_row().unwrap().is_none(), "the end stays the end");
    bucket
}

fn round_trip(page_size: PageSize, content: &Content) {
    let file = write(page_size, content);
    let database =
        Database::open(&file.as_slice()).map(|database| (database.page_size(), database.file_len())).unwrap();
    assert_eq!(database, (page_size, file.len() as u64));
    assert!(read(&file) == *content, "the rows differ");
    // An etcd snapshot carries 32 more bytes, the checksum.
    assert!(read(&[file.as_slice(), &[0xff; 32]].concat()) == *content, "bytes behind the last page matter");
}

fn page_sizes() -> impl Strategy<Value = PageSize> {
    (10_u32..=16).prop_map(|shift| PageSize::new(1 << shift).unwrap())
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => prop::collection::vec(any::<u8>(), 1..40),
        3 => prop::collection::vec(any::<u8>(), 200..900),
        1 => (any::<u8>(), prop_oneof![Just(32_768_usize), 5_000..20_000_usize]).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(Vec::new()),
        20 => prop::collection::vec(any::<u8>(), 0..100),
        5 => (any::<u8>(), 500_usize..5_000).prop_map(|(byte, len)| vec![byte; len]),
        1 => (any::<u8>(), 5_000_usize..300_000).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn contents() -> impl Strategy<Value = Content> {
    let rows = prop_oneof![
        2 => prop::collection::btree_map(keys(), values(), 0..4),
        3 => prop::collection::btree_map(keys(), values(), 0..250),
    ];
    prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..60), rows, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_content_comes_back(page_size in page_sizes(), content in contents()) {
        round_trip(page_size, &content);
    }
}

/// A revision as etcd stores it.
fn revision(main: u64) -> Vec<u8> {
    [&main.to_be_bytes()[..], b"_", &0_u64.to_be_bytes()].concat()
}

#[test]
fn a_hundred_thousand_revisions_come_back() {
    let rows = (0..100_000_u64).map(|main| (revision(main), vec![main as u8; (main * 7919 % 350) as usize])).collect();
    let content = Content::from([(b"key".to_vec(), rows), (b"meta".to_vec(), Bucket::new())]);
    for page_size in [1024, 4096] {
        round_trip(PageSize::new(page_size).unwrap(), &content);
    }
}

#[test]
fn the_longest_keys_come_back_from_a_deep_tree() {
    let rows = (0..300_u32).map(|at| ([vec![0; 32_764], at.to_be_bytes().to_vec()].concat(), Vec::new())).collect();
    round_trip(PageSize::DEFAULT, &Content::from([(b"deep".to_vec(), rows)]));
}

#[test]
fn a_value_of_many_pages_comes_back_alone_and_among_others() {
    let huge = vec![0xa5; 6 << 20];
    let one = Bucket::from([(b"k".to_vec(), huge.clone())]);
    let mut many: Bucket = (0..500_u32).map(|at| (at.to_be_bytes().to_vec(), vec![1; 50])).collect();
    many.insert(250_u32.to_be_bytes().to_vec(), huge);
    round_trip(PageSize::DEFAULT, &Content::from([(b"many".to_vec(), many), (b"one".to_vec(), one)]));
}

#[test]
fn as_many_buckets_as_allowed_come_back() {
    let bucket = |at: usize| (format!("{at:0>30}").into_bytes(), Bucket::from([(b"k".to_vec(), vec![at as u8])]));
    round_trip(PageSize::new(1024).unwrap(), &(0..garboard_bolt::BUCKETS_MAX).map(bucket).collect());
}

#[test]
fn a_value_above_the_limit_is_refused() {
    let rows = Bucket::from([(b"a".to_vec(), vec![0; 1000]), (b"b".to_vec(), vec![0; 1001])]);
    let file = write(PageSize::DEFAULT, &Content::from([(b"b".to_vec(), rows)]));
    let file = file.as_slice();
    let database = Database::open_within(&file, Limits { value_len_max: 1000 }).unwrap();
    let mut rows = database.rows(b"b").unwrap();
    assert_eq!(rows.next_row().unwrap().map(|row| row.value.len()), Some(1000));
    let error = rows.next_row().unwrap_err();
    assert_eq!(error.to_string(), "page 3 at offset 12320: element 1: value of 1001 bytes, 1000 are allowed");
    assert!(rows.next_row().unwrap().is_none());
    assert!(matches!(database.rows(b"c"), Err(ReadError::NoBucket(name)) if name == "c"));
}
