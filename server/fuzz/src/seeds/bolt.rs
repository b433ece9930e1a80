//! Files with etcd's buckets in small pages.

use garboard_bolt::Measure;
use garboard_bolt::PageSize;
use garboard_bolt::Writer;
use garboard_mvcc::Revision;
use garboard_mvcc::RowKey;
use garboard_mvcc::RowView;
use garboard_proto::raft::LeaseRecord;
use prost::Message as _;

use crate::bolt_read::pack;

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

pub fn files() -> Vec<(&'static str, Vec<u8>)> {
    let small: Vec<_> = store(4, 4).into_iter().filter(|(name, _)| ["key", "lease", "meta"].contains(name)).collect();
    let raw = [&[0][..], &file(&small)].concat();
    vec![
        ("small", pack(&file(&small))),
        ("raw", raw),
        ("store", pack(&file(&store(6, 40)))),
        ("overflow", pack(&file(&store(3, 1_500)))),
        ("branches", pack(&file(&store(60, 30)))),
        ("empty", pack(&file(&[("key", Vec::new()), ("meta", Vec::new())]))),
        ("foreign", pack(&file(&[("other", vec![(b"k".to_vec(), b"v".to_vec())])]))),
    ]
}

fn file(buckets: &[(&str, Rows)]) -> Vec<u8> {
    let mut measure = Measure::new(PageSize::new(1024).expect("a power of two"));
    for (name, rows) in buckets {
        measure.bucket(name.as_bytes()).expect("names ascend");
        rows.iter().for_each(|(key, value)| measure.row(key.len(), value.len()).expect("keys are short"));
    }
    let mut writer = Writer::new(Vec::new(), measure.finish().expect("a small file")).expect("memory takes it");
    for (name, rows) in buckets {
        writer.bucket(name.as_bytes()).expect("as measured");
        rows.iter().for_each(|(key, value)| writer.row(key, value).expect("as measured"));
    }
    writer.finish().expect("as measured")
}

/// A history of `puts` over three keys, the second one leased and at last deleted.
fn store(puts: i64, value_len: usize) -> Vec<(&'static str, Rows)> {
    let mut history = Rows::new();
    for at in 0..puts {
        let (key, main) = ([b'a' + (at % 3) as u8], at + 2);
        let row = RowView {
            key: &key,
            create_revision: at % 3 + 2,
            mod_revision: main,
            version: at / 3 + 1,
            value: &vec![b'v'; value_len],
            lease: if key == *b"b" { 7 } else { 0 },
        };
        history.push((RowKey::new(Revision::new(main, 0), false).as_bytes().to_vec(), row.encode().to_vec()));
    }
    let deleted = RowView { key: b"b", ..RowView::default() }.encode();
    history.push((RowKey::new(Revision::new(puts + 2, 0), true).as_bytes().to_vec(), deleted.to_vec()));
    let lease = LeaseRecord { id: 7, ttl_s: 60, remaining_ttl_s: 30 };
    let compacted = RowKey::new(Revision::new(2, 0), false).as_bytes().to_vec();
    let meta = vec![
        (b"confState".to_vec(), br#"{"voters":[1],"auto_leave":false}"#.to_vec()),
        (b"consistent_index".to_vec(), 9_u64.to_be_bytes().to_vec()),
        (b"finishedCompactRev".to_vec(), compacted.clone()),
        (b"scheduledCompactRev".to_vec(), compacted),
        (b"storageVersion".to_vec(), b"3.6.0".to_vec()),
        (b"term".to_vec(), 2_u64.to_be_bytes().to_vec()),
    ];
    vec![
        ("alarm", vec![(vec![0x08, 0x01, 0x10, 0x01], Vec::new())]),
        ("auth", vec![(b"authEnabled".to_vec(), vec![0])]),
        ("authRoles", Rows::new()),
        ("authUsers", Rows::new()),
        ("cluster", vec![(b"clusterVersion".to_vec(), b"3.6.0".to_vec())]),
        ("key", history),
        ("lease", vec![(7_i64.to_be_bytes().to_vec(), lease.encode_to_vec())]),
        ("members", vec![(b"1".to_vec(), br#"{"id":1,"peerURLs":["http://h:1"],"name":"a"}"#.to_vec())]),
        ("meta", meta),
    ]
}
