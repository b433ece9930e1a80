//! One record of the log: decoded after its checksum was made right, and what was decoded comes back from its own encoding.

use garboard_storage::wal::Record;
use garboard_storage::wal::forge;

/// Returns the record, if the bytes are one.
pub fn run(input: &[u8]) -> Option<Record> {
    let (record, len) = forge::decode_record(input).ok()?;
    assert!(len <= input.len(), "a record of {len} bytes in {}", input.len());
    let encoded = forge::encode_record(&record);
    let again = forge::decode_record(&encoded).expect("what was encoded is a record");
    assert_eq!(again, (record.clone(), encoded.len()), "a record changes on its way through its encoding");
    Some(record)
}
