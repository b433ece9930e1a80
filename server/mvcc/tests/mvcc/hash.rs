//! HashKV. That its bytes are etcd's is shown in `etcd.rs`; here are its rules.

use garboard_mvcc::{Error, Table};
use garboard_proto::raft::command::Op;
use garboard_proto::raft::{ClusterVersion, Downgrade, FormatVersion};

use crate::member::*;

fn filled() -> Member {
    let mut member = Member::new();
    member.put("a", "1");
    member.put("a", "2");
    member.put("b", "1");
    member.delete(delete("b", ""));
    member
}

/// From etcd 3.6.16: `put a 1` into an empty server, HashKV.
#[test]
fn the_first_put_hashes_as_in_etcd() {
    let mut member = Member::new();
    member.put("a", "1");
    let found = member.store.hash_kv(0).unwrap();
    assert_eq!((found.hash, found.compact_revision, found.hash_revision, found.revision), (2587454935, -1, 2, 2));
}

/// From etcd 3.6.16: `edge/a` put, deleted, put; compacted at 4; deleted and put again in one transaction; HashKV.
#[test]
fn where_all_was_deleted_and_put_again_the_hash_is_etcds() {
    let mut member = Member::new();
    member.put("edge/a", "1");
    member.delete(delete("edge/a", ""));
    member.put("edge/a", "2");
    member.compact(4).unwrap();
    member.finish_compaction();
    member.txn(then(vec![delete_op("edge/", "\0"), put_op("edge/a", "3")])).unwrap();
    assert_eq!(member.store.hash_kv(0).unwrap().hash, 1667351362);
}

#[test]
fn the_hash_is_of_one_revision() {
    let mut member = filled();
    let at_3 = member.store.hash_kv(3).unwrap();
    assert_eq!((at_3.hash_revision, at_3.revision), (3, 5));
    assert_ne!(at_3.hash, member.store.hash_kv(4).unwrap().hash);
    member.put("c", "1");
    assert_eq!(member.store.hash_kv(3).unwrap().hash, at_3.hash);
    assert_eq!(member.store.hash_kv(7), Err(Error::FutureRevision));
    member.compact(4).unwrap();
    assert_eq!(member.store.hash_kv(3), Err(Error::Compacted));
    assert_eq!(member.store.hash_kv(4).unwrap().compact_revision, 4);
}

#[test]
fn the_hash_does_not_depend_on_the_progress_of_the_compaction() {
    for at in 2..=5 {
        let mut member = filled();
        member.compact(at).unwrap();
        let scheduled = member.store.hash_kv(0);
        assert_eq!(member.flushed_crash().store.hash_kv(0), scheduled);
        member.finish_compaction();
        assert_eq!(member.store.hash_kv(0), scheduled, "compacted at {at}");
    }
}

#[test]
fn one_changed_byte_shows() {
    let member = filled();
    member.flush();
    let (key, mut row) = member.backend.rows(Table::Revisions).remove(1);
    let sound = member.crash().store.hash_kv(0).unwrap().hash;
    row = row.iter().map(|&byte| if byte == b'2' { b'3' } else { byte }).collect();
    member.backend.set(Table::Revisions, &key, &row);
    assert_ne!(member.crash().store.hash_kv(0).unwrap().hash, sound);
}

#[test]
fn the_hash_over_all_state_has_what_was_agreed_on_of_versions() {
    let mut member = filled();
    let mut seen = vec![member.store.hash().unwrap()];
    for op in [
        Op::ClusterVersion(ClusterVersion { version: "3.6.0".into() }),
        Op::Downgrade(Downgrade { target: "3.5.0".into() }),
        Op::FormatVersion(FormatVersion { version: 2 }),
    ] {
        member.apply(op.clone()).unwrap();
        let hash = member.store.hash().unwrap();
        assert!(!seen.contains(&hash), "{op:?}");
        assert_eq!(member.flushed_crash().store.hash(), Ok(hash), "{op:?}");
        seen.push(hash);
    }
}
