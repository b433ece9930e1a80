//! Files that bbolt 1.4.3 made, and what it says is in them (`tests/e2e/tools/cmd/bolt`: `write` with 240 rows, seeds 11 and 20).
//! One has pages of 1 KiB and a freelist; the other pages of 4 KiB and none, as etcd's. Both have inline buckets, overflow
//! pages, and pages that deleted rows left behind.

use garboard_bolt::Database;
use garboard_bolt::Measure;
use garboard_bolt::Writer;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

const GOLDEN: [(&[u8], &str); 2] = [
    (include_bytes!("../golden/bbolt-1024.db"), include_str!("../golden/bbolt-1024.json")),
    (include_bytes!("../golden/bbolt-4096.db"), include_str!("../golden/bbolt-4096.json")),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn summary(file: &[u8]) -> Value {
    let database = Database::open(&file).unwrap();
    let buckets = database.buckets().iter().map(|bucket| {
        let mut rows = database.rows(bucket.name()).unwrap();
        let (mut count, mut hash) = (0_u64, Sha256::new());
        while let Some(row) = rows.next_row().unwrap() {
            for part in [row.key, row.value] {
                hash.update(u32::try_from(part.len()).unwrap().to_le_bytes());
                hash.update(part);
            }
            count += 1;
        }
        json!({ "name": hex(bucket.name()), "rows": count, "sha256": hex(&hash.finalize()) })
    });
    let buckets: Vec<Value> = buckets.collect();
    json!({ "page_size": database.page_size().bytes(), "buckets": buckets })
}

/// The rows of `file`, written anew: two walks, as a snapshot does.
fn rewritten(file: &[u8]) -> Vec<u8> {
    let database = Database::open(&file).unwrap();
    let mut measure = Measure::new(database.page_size());
    for bucket in database.buckets() {
        measure.bucket(bucket.name()).unwrap();
        let mut rows = database.rows(bucket.name()).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            measure.row(row.key.len(), row.value.len()).unwrap();
        }
    }
    let mut writer = Writer::new(Vec::new(), measure.finish().unwrap()).unwrap();
    for bucket in database.buckets() {
        writer.bucket(bucket.name()).unwrap();
        let mut rows = database.rows(bucket.name()).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            writer.row(row.key, row.value).unwrap();
        }
    }
    writer.finish().unwrap()
}

#[test]
fn files_of_bbolt_hold_what_bbolt_says() {
    for (file, expected) in GOLDEN {
        assert_eq!(summary(file), serde_json::from_str::<Value>(expected).unwrap());
    }
}

#[test]
fn a_file_written_anew_holds_the_same() {
    for (file, expected) in GOLDEN {
        let rewritten = rewritten(file);
        assert!(rewritten.len() < file.len(), "nothing is free in a file that was just written");
        assert_eq!(summary(&rewritten), serde_json::from_str::<Value>(expected).unwrap());
    }
}

/// A change of the bytes that are written is made on purpose, after bbolt has accepted the new ones.
#[test]
fn the_bytes_that_are_written_stay_the_same() {
    let digests = GOLDEN.map(|(file, _)| hex(&Sha256::digest(rewritten(file))));
    assert_eq!(
        digests,
        [
            "583b50847e364029a1f1a7046dee94809b1964781e50fe017fa0b1f8de0d0c13",
            "83340e7ad4b0163359e343e0efc18e34470030cae531e3267f8735af22073d08"
        ]
    );
}
