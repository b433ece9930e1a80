//! The programs on real folders, with members that are made up.

mod fake;
mod unpack;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::io::Errno;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use self::fake::Fake;
use self::fake::REVISION;
use super::Compared;
use super::Failure;
use super::Folder;
use super::Manifest;
use super::Outcome;
use super::Reason;
use super::compare;
use super::delete::delete;
use super::manifest::Compression;
use super::pack::Packer;
use super::take;
use super::take::Request;
use super::unpack::unpack;

/// A volume, and the backup `b` of the cluster `a` on it.
struct Volume {
    dir: TempDir,
}

// === impl Volume ===

impl Volume {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("a").join(name)
    }

    fn folder(&self) -> Folder {
        Folder::new(self.path(""), "b".to_owned())
    }

    fn request(&self, compression: Compression) -> Request {
        let folder = self.folder();
        let (namespace, cluster, uid) = ("n".to_owned(), "a".to_owned(), "u".to_owned());
        Request { members: Vec::new(), tls: None, folder, namespace, cluster, uid, compression }
    }

    async fn take<const N: usize>(&self, members: [Fake; N]) -> Result<Manifest, Failure> {
        self.take_with(Compression::Zstd, members).await
    }

    async fn take_with<const N: usize>(
        &self,
        compression: Compression,
        members: [Fake; N],
    ) -> Result<Manifest, Failure> {
        let members: Vec<(&str, Fake)> = ["a-1", "a-2", "a-3"].into_iter().zip(members).collect();
        take::of_any(&self.request(compression), &members).await
    }

    /// Names in the folder, sorted.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::create_dir_all(self.path("")).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    /// Changes the manifest as it stands there.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = serde_json::from_slice(&fs::read(self.path("b.json")).unwrap()).unwrap();
        change(&mut manifest);
        self.write("b.json", manifest.to_string().as_bytes());
    }

    fn unpack(&self) -> Result<Vec<u8>, Failure> {
        let to = self.dir.path().join("raw");
        let done = unpack(&self.folder(), &to);
        assert_eq!(to.exists(), done.is_ok(), "half a snapshot is none");
        assert!(!self.dir.path().join("raw.tmp").exists(), "half a snapshot stays");
        done.map(|_| {
            let raw = fs::read(&to).unwrap();
            fs::remove_file(to).unwrap();
            raw
        })
    }
}

fn reason<T: std::fmt::Debug>(done: Result<T, Failure>) -> Reason {
    done.unwrap_err().reason
}

#[tokio::test]
async fn what_was_packed_is_unpacked() {
    for (compression, archive) in [(Compression::Zstd, "b.db.zst"), (Compression::None, "b.db")] {
        let (volume, fake) = (Volume::new(), Fake::new());
        let raw = fake.raw.clone();
        let manifest = volume.take_with(compression, [fake]).await.unwrap();
        assert_eq!(volume.names(), [archive, "b.json"]);
        for name in [archive, "b.json"] {
            assert_eq!(fs::metadata(volume.path(name)).unwrap().permissions().mode() & 0o777, 0o640, "{name}");
        }
        assert_eq!(volume.unpack().unwrap(), raw);
        assert_eq!(Manifest::read(&volume.folder()).unwrap(), manifest);
        assert_eq!((manifest.member.as_str(), manifest.cluster_id.as_str()), ("a-1", "abc"));
        assert_eq!((manifest.revision, manifest.keys, manifest.hash_kv), (REVISION, 5, 77));
        assert_eq!(manifest.raw.bytes, raw.len() as u64);
        let smaller = manifest.archive.sum.bytes < manifest.raw.bytes;
        assert_eq!(smaller, compression == Compression::Zstd, "{} bytes", manifest.archive.sum.bytes);
    }
}

#[tokio::test]
async fn a_damaged_archive_is_refused_by_the_check_that_finds_it() {
    type Harm = fn(&Volume);
    let flip = |volume: &Volume, name: &str| {
        let mut content = fs::read(volume.path(name)).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        volume.write(name, &content);
    };
    let flipped = volume_with(Compression::None).await;
    flip(&flipped, "b.db");
    assert!(flipped.unpack().unwrap_err().message.contains("archive sha256"));
    let flipped = volume_with(Compression::Zstd).await;
    flip(&flipped, "b.db.zst");
    assert!(flipped.unpack().unwrap_err().message.contains("zstd"));

    let harms: [(&str, Harm); 6] = [
        ("archive size", |volume| {
            let content = fs::read(volume.path("b.db.zst")).unwrap();
            volume.write("b.db.zst", &content[..content.len() - 1]);
        }),
        ("manifest", |volume| volume.write("b.json", b"{\"format\": 1, ")),
        ("archive cannot be", |volume| volume.edit(|manifest| manifest["archive"]["file"] = json!("../c.db.zst"))),
        ("raw size", |volume| volume.edit(|manifest| manifest["raw"]["bytes"] = json!(100_033))),
        ("raw size: more than 99 bytes", |volume| volume.edit(|manifest| manifest["raw"]["bytes"] = json!(99))),
        ("raw sha256", |volume| volume.edit(|manifest| manifest["raw"]["sha256"] = json!("00"))),
    ];
    for (check, harm) in harms {
        let volume = volume_with(Compression::Zstd).await;
        volume.unpack().unwrap();
        harm(&volume);
        let failure = volume.unpack().unwrap_err();
        assert!(failure.reason == Reason::Damaged && failure.message.contains(check), "{check}: {failure}");
    }
}

async fn volume_with(compression: Compression) -> Volume {
    let volume = Volume::new();
    volume.take_with(compression, [Fake::new()]).await.unwrap();
    volume
}

#[tokio::test]
async fn what_is_of_another_cluster_or_backup_or_format_is_refused() {
    let volume = volume_with(Compression::Zstd).await;
    for (field, value) in [("format", json!(2)), ("backup", json!("c")), ("cluster", json!("other"))] {
        let before = fs::read(volume.path("b.json")).unwrap();
        volume.edit(|manifest| manifest[field] = value);
        assert_eq!(reason(volume.unpack()), Reason::Foreign, "{field}");
        volume.write("b.json", &before);
    }
    // A later release may say more in the same format.
    volume.edit(|manifest| manifest["more"] = json!(1));
    volume.unpack().unwrap();
    assert_eq!(reason(unpack(&Folder::new(volume.path(""), "none".to_owned()), &volume.path("raw"))), Reason::Missing);
    fs::remove_file(volume.path("b.db.zst")).unwrap();
    assert_eq!(reason(volume.unpack()), Reason::Missing);
}

#[tokio::test]
async fn a_name_that_is_taken_stays_as_it_is() {
    let volume = Volume::new();
    for name in ["b.db", "b.db.zst", "b.json"] {
        volume.write(name, b"somebody's");
        assert_eq!(reason(volume.take([Fake::new()]).await), Reason::NameTaken, "{name}");
        assert_eq!(
            (volume.names(), fs::read(volume.path(name)).unwrap()),
            (vec![name.to_owned()], b"somebody's".into())
        );
        fs::remove_file(volume.path(name)).unwrap();
    }
    volume.take([Fake::new()]).await.unwrap();
    volume.edit(|manifest| manifest["uid"] = json!("another"));
    assert_eq!(reason(volume.take([Fake::new()]).await), Reason::NameTaken);
    volume.edit(|manifest| (manifest["uid"], manifest["archive"]["bytes"]) = (json!("u"), json!(1)));
    assert_eq!(reason(volume.take([Fake::new()]).await), Reason::NameTaken);

    // One that is taken while the snapshot comes.
    for name in ["b.db.zst", "b.json"] {
        let volume = Volume::new();
        let taken = volume.path(name);
        let take = move || fs::write(&taken, b"somebody's").unwrap();
        let fake = Fake { when_asked: Some(Box::new(take)), ..Fake::new() };
        assert_eq!(reason(volume.take([fake]).await), Reason::NameTaken, "{name}");
        assert_eq!(
            (volume.names(), fs::read(volume.path(name)).unwrap()),
            (vec![name.to_owned()], b"somebody's".into())
        );
    }
}

#[tokio::test]
async fn a_try_that_was_killed_leaves_nothing_that_matters() {
    let volume = Volume::new();
    volume.write(".b.bcdfg.tmp", b"half an archive");
    volume.write(".b.c.bcdfg.tmp", b"of the backup b.c");
    let manifest = volume.take([Fake::new()]).await.unwrap();
    assert_eq!(volume.names(), [".b.c.bcdfg.tmp", "b.db.zst", "b.json"]);

    // Killed at its end: the backup is there, and no member is asked.
    assert_eq!(volume.take([Fake::silent()]).await.unwrap(), manifest);
    // Killed between its two renames.
    fs::rename(volume.path("b.json"), volume.path(".b.bcdfg.tmp")).unwrap();
    assert_eq!(volume.take([Fake::silent()]).await.unwrap(), manifest);
    assert_eq!(volume.names(), [".b.c.bcdfg.tmp", "b.db.zst", "b.json"]);
    // The same, but the archive is another one.
    fs::rename(volume.path("b.json"), volume.path(".b.bcdfg.tmp")).unwrap();
    volume.write("b.db.zst", b"another");
    assert_eq!(reason(volume.take([Fake::silent()]).await), Reason::NameTaken);
    assert_eq!(volume.names(), [".b.c.bcdfg.tmp", "b.db.zst"]);
}

#[tokio::test]
async fn a_snapshot_that_does_not_come_whole_is_none() {
    let harms: [(&str, Fake); 5] = [
        ("it breaks", Fake { breaks_at: Some(50_000), ..Fake::new() }),
        ("it ends early", Fake { ends_at: Some(50_000), ..Fake::new() }),
        ("its hash is another", Fake { raw: vec![7; 70_000], ..Fake::new() }),
        ("more was to come", Fake { says_remaining: Some(5), ..Fake::new() }),
        ("it ends before its hash", Fake { ends_at: Some(100_000), ..Fake::new() }),
    ];
    for (what, fake) in harms {
        let volume = Volume::new();
        assert_eq!(reason(volume.take([fake]).await), Reason::Interrupted, "{what}");
        assert_eq!(volume.names(), [""; 0], "{what}");
    }
    let broken = Fake { breaks_at: Some(50_000), ..Fake::new() };
    assert_eq!(Volume::new().take([broken, Fake::new()]).await.unwrap().member, "a-2");
}

#[tokio::test]
async fn members_are_tried_in_order() {
    let old = || Fake { header: None, ..Fake::new() };
    let taken = Volume::new().take([Fake::silent(), old(), Fake::new()]).await;
    assert_eq!(taken.unwrap().member, "a-3");
    let failure = Volume::new().take([Fake::silent(), Fake::silent()]).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Unreachable);
    assert!(failure.message.contains("a-1: ") && failure.message.contains("; a-2: "), "{failure}");
    assert_eq!(reason(Volume::new().take([old(), Fake::silent()]).await), Reason::MemberTooOld);
    assert!(!Reason::MemberTooOld.is_passing() && Reason::Unreachable.is_passing());
}

#[tokio::test]
async fn a_snapshot_that_is_compacted_meanwhile_is_taken_anew_three_times() {
    let volume = Volume::new();
    let taken = volume.take([Fake { compactions: 3.into(), ..Fake::new() }]).await.unwrap();
    assert_eq!(taken.revision, REVISION + 3);
    assert_eq!(volume.names(), ["b.db.zst", "b.json"]);
    let volume = Volume::new();
    assert_eq!(reason(volume.take([Fake { compactions: 4.into(), ..Fake::new() }]).await), Reason::Interrupted);
    assert_eq!(volume.names(), [""; 0]);
}

#[tokio::test]
async fn a_disk_without_space_says_how_much_there_is() {
    // A device that is always full.
    let full = PathBuf::from("/dev/full");
    for compression in Compression::ALL {
        let file = fs::File::options().write(true).open(&full).unwrap();
        let mut packer = Packer::new(file, compression).unwrap();
        let packed = packer.add(&[7; 1000]).and_then(|()| packer.finish().map(drop));
        let failure = Failure::writing(&full, 1000, &packed.unwrap_err());
        assert_eq!(failure.reason, Reason::NoSpace);
        assert!(failure.message.contains("bytes are free, the snapshot has 1000"), "{failure}");
    }
    let of = |errno: Errno| Failure::io(&full, &io::Error::from(errno)).reason;
    assert_eq!((of(Errno::DQUOT), of(Errno::ROFS), of(Errno::IO)), (Reason::NoSpace, Reason::ReadOnly, Reason::Io));

    let volume = Volume::new();
    let huge = Fake { says_remaining: Some(u64::MAX), ..Fake::new() };
    let failure = volume.take([huge]).await.unwrap_err();
    assert!(failure.reason == Reason::NoSpace && failure.message.contains("are needed at least"), "{failure}");
    assert_eq!(volume.names(), [""; 0]);
    let free = super::folder::free(&volume.path("")).unwrap();
    assert!(volume.folder().has_room(free.saturating_mul(2), Compression::Zstd).is_ok());
    assert!(volume.folder().has_room(free.saturating_mul(2), Compression::None).is_err());
}

#[tokio::test]
async fn a_restored_member_is_held_against_the_manifest() {
    let volume = Volume::new();
    let taken = Fake { compacted_at: 40.into(), ..Fake::new() };
    let manifest = volume.take([taken]).await.unwrap();
    assert_eq!(manifest.compact_revision, 40);

    // The snapshot was taken before the compaction.
    let restored = Fake { compacted_at: 30.into(), ..Fake::new() };
    let same = Compared { revision: REVISION, hash_kv: manifest.hash_kv, keys: 5 };
    assert_eq!(compare::hold(&manifest, &restored).await.unwrap(), same);
    assert_eq!(restored.compacted_at.get(), 40);
    // Its leases have ended.
    let later = Fake { compacted_at: 40.into(), ahead: 2, ..Fake::new() };
    assert_eq!(compare::hold(&manifest, &later).await.unwrap(), same);

    for (what, other) in [
        ("behind", Fake { compacted_at: 40.into(), ahead: -1, ..Fake::new() }),
        ("another hash", Fake { compacted_at: 40.into(), hash: 78, ..Fake::new() }),
        ("keys", Fake { compacted_at: 40.into(), keys: 4, ..Fake::new() }),
        ("more compacted", Fake { compacted_at: 41.into(), ..Fake::new() }),
        ("no such revision", Fake { compactions: 1.into(), ..Fake::new() }),
    ] {
        assert_eq!(reason(compare::hold(&manifest, &other).await), Reason::Mismatch, "{what}");
    }
    assert_eq!(reason(compare::hold(&manifest, &Fake::silent()).await), Reason::Unreachable);
}

#[tokio::test]
async fn what_is_deleted_is_gone_whatever_was_left() {
    let volume = Volume::new();
    delete(&volume.folder(), None).unwrap();
    volume.take([Fake::new()]).await.unwrap();
    volume.write(".b.bcdfg.tmp", b"half an archive");
    volume.write("c.json", b"another");
    assert_eq!(reason(delete(&volume.folder(), Some("another"))), Reason::Foreign);
    assert_eq!(volume.names(), [".b.bcdfg.tmp", "b.db.zst", "b.json", "c.json"]);
    delete(&volume.folder(), Some("u")).unwrap();
    assert_eq!(volume.names(), ["c.json"]);
    delete(&volume.folder(), Some("u")).unwrap();
    // A manifest that nobody can read.
    volume.write("b.db", b"an archive");
    volume.write("b.json", b"");
    delete(&volume.folder(), Some("u")).unwrap();
    assert_eq!(volume.names(), ["c.json"]);
}

#[tokio::test]
async fn an_archive_that_nobody_knows_stays_unless_a_try_was_about_to_name_it() {
    let volume = Volume::new();
    volume.take([Fake::new()]).await.unwrap();
    let manifest = fs::read(volume.path("b.json")).unwrap();
    fs::remove_file(volume.path("b.json")).unwrap();
    delete(&volume.folder(), Some("u")).unwrap();
    assert_eq!(volume.names(), ["b.db.zst"]);
    volume.write(".b.bcdfg.tmp", &manifest);
    delete(&volume.folder(), Some("another")).unwrap();
    assert_eq!(volume.names(), ["b.db.zst"]);
    volume.write(".b.bcdfg.tmp", &manifest);
    delete(&volume.folder(), Some("u")).unwrap();
    assert!(volume.names().is_empty());
}

/// A manifest of format 1. What it has is read by every later release.
const FIRST: &str = r#"{"format":1,"namespace":"n","cluster":"a","clusterID":"cdf818194e3a8c32","backup":"b",
    "uid":"0b0ba0f8-8c8c-4c39-ae2f-3a0b6e6e2d0c","member":"a-x7k2p","takenAt":"2026-03-01T02:00:00Z","revision":4711,
    "compactRevision":-1,"hashKV":4294967295,"keys":12,"raw":{"bytes":20512,"sha256":"aa"},
    "archive":{"file":"b.db.zst","bytes":3011,"sha256":"bb","compression":"zstd"},
    "serverVersion":"3.6.5","operatorVersion":"0.1.0"}"#;

#[test]
fn outcomes_and_manifests_stay_readable() {
    let volume = Volume::new();
    volume.write("b.json", FIRST.as_bytes());
    let manifest = Manifest::read(&volume.folder()).unwrap();
    assert_eq!(serde_json::to_value(&manifest).unwrap(), serde_json::from_str::<Value>(FIRST).unwrap());

    let compared = Compared { revision: 1, hash_kv: 2, keys: 3 };
    let failed = Failure::new(Reason::NoSpace, "é".repeat(600));
    assert!(failed.message.len() <= 1024);
    for (outcome, text) in [
        (Outcome::Manifest(Box::new(manifest)), format!("{{\"manifest\":{FIRST}}}")),
        (Outcome::Compared(compared), r#"{"compared":{"revision":1,"hashKV":2,"keys":3}}"#.to_owned()),
        (Outcome::Failed(failed.clone()), json!({"reason": "NoSpace", "message": failed.message}).to_string()),
    ] {
        let told = serde_json::to_string(&outcome).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome);
    }
}
