//! Files that somebody names.

use std::fs::File;
use std::io::Read as _;

use super::super::unpack::discard;
use super::super::unpack::unpack_file;
use super::*;

#[tokio::test]
async fn a_file_is_an_archive_with_its_manifest_or_a_snapshot() {
    let volume = volume_with(Compression::Zstd).await;
    let (raw, to) = (Fake::new().raw, volume.dir.path().join("raw"));
    let moved = volume.dir.path().join("moved");
    fs::rename(volume.path(""), &moved).unwrap();
    let unpacked = |name: &str| {
        let done = unpack_file(&moved.join(name), &to);
        done.map(|manifest| (manifest.map(|manifest| manifest.revision), fs::read(&to).unwrap()))
    };
    assert_eq!(unpacked("b.db.zst").unwrap(), (Some(REVISION), raw.clone()));
    // Beside the archive, by zstd alone.
    fs::write(moved.join("b.db"), b"unpacked").unwrap();
    assert_eq!(unpacked("b.db").unwrap(), (None, b"unpacked".to_vec()));
    fs::remove_file(moved.join("b.json")).unwrap();
    assert_eq!(reason(unpacked("b.db.zst")), Reason::Missing);
    assert_eq!(unpacked("b.db").unwrap(), (None, b"unpacked".to_vec()));
    fs::write(moved.join("of.etcd"), b"etcd").unwrap();
    assert_eq!(unpacked("of.etcd").unwrap(), (None, b"etcd".to_vec()));
    assert_eq!(reason(unpacked("absent")), Reason::Missing);
    assert_eq!(reason(unpacked("absent.db")), Reason::Missing);
    assert!(!to.exists(), "what was unpacked before stays");
}

/// A restore of a Pod that was given up may still be at it.
#[tokio::test]
async fn a_file_that_is_read_stays_as_it_is() {
    let volume = volume_with(Compression::None).await;
    let to = volume.dir.path().join("raw");
    fs::write(volume.path("other"), b"other").unwrap();
    unpack_file(&volume.path("b.db"), &to).unwrap();
    let mut reader = File::open(&to).unwrap();
    unpack_file(&volume.path("other"), &to).unwrap();
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert!(read == Fake::new().raw, "{} bytes", read.len());
    assert_eq!(fs::read(&to).unwrap(), b"other");
}

#[test]
fn what_was_unpacked_is_discarded_with_what_was_not_finished() {
    let dir = TempDir::new().unwrap();
    for name in ["raw", "raw.tmp", "rare"] {
        fs::write(dir.path().join(name), b"").unwrap();
    }
    for _ in 0..2 {
        discard(&dir.path().join("raw")).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["rare"]);
    }
}
