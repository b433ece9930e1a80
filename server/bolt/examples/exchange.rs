//! Exchanges files with the real bbolt (`tests/e2e/tools/cmd/bolt`): `exchange read <FILE` prints what a file holds, in the same JSON
//! as `bolt check`; `exchange write SEED` writes a random file to the standard output and what it holds to the standard error
//! output; `exchange copy <FILE` writes the rows of a file anew to the standard output; `exchange fill GIB` writes that many GiB of etcd-like rows to the standard output, to measure memory and speed.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use garboard_bolt::Database;
use garboard_bolt::Measure;
use garboard_bolt::PageSize;
use garboard_bolt::ReadAt;
use garboard_bolt::Writer;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

struct Source(File);

impl ReadAt for Source {
    fn file_len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["read"] => read(),
        ["write", seed] => write(&mut Random(seed.parse()?)),
        ["copy"] => copy(),
        ["fill", gib] => fill(gib.parse()?),
        _ => Err("usage: exchange read <FILE | write SEED | copy <FILE | fill GIB".into()),
    }
}

fn read() -> Result<(), Box<dyn Error>> {
    let source = Source(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    let database = Database::open(&source)?;
    let mut buckets = Vec::new();
    for bucket in database.buckets() {
        let mut rows = database.rows(bucket.name())?;
        let mut sum = Sum::default();
        while let Some(row) = rows.next_row()? {
            sum.add(row.key, row.value);
        }
        buckets.push(sum.json(bucket.name()));
    }
    println!("{}", json!({ "page_size": database.page_size().bytes(), "buckets": buckets }));
    Ok(())
}

fn copy() -> Result<(), Box<dyn Error>> {
    let source = Source(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    let database = Database::open(&source)?;
    let mut measure = Measure::new(database.page_size());
    for bucket in database.buckets() {
        measure.bucket(bucket.name())?;
        let mut rows = database.rows(bucket.name())?;
        while let Some(row) = rows.next_row()? {
            measure.row(row.key.len(), row.value.len())?;
        }
    }
    let mut writer = Writer::new(BufWriter::new(io::stdout().lock()), measure.finish()?)?;
    for bucket in database.buckets() {
        writer.bucket(bucket.name())?;
        let mut rows = database.rows(bucket.name())?;
        while let Some(row) = rows.next_row()? {
            writer.row(row.key, row.value)?;
        }
    }
    writer.finish()?.flush()?;
    Ok(())
}

fn write(random: &mut Random) -> Result<(), Box<dyn Error>> {
    let page_size = PageSize::new(1024 << [2, 0, 4, 6][random.below(4)]).ok_or("page size")?;
    let content: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>> = random.content();
    let mut measure = Measure::new(page_size);
    for (name, rows) in &content {
        measure.bucket(name)?;
        for (key, value) in rows {
            measure.row(key.len(), value.len())?;
        }
    }
    let mut buckets = Vec::new();
    let mut writer = Writer::new(BufWriter::new(io::stdout().lock()), measure.finish()?)?;
    for (name, rows) in &content {
        let mut sum = Sum::default();
        writer.bucket(name)?;
        for (key, value) in rows {
            writer.row(key, value)?;
            sum.add(key, value);
        }
        buckets.push(sum.json(name));
    }
    writer.finish()?.flush()?;
    eprintln!("{}", json!({ "page_size": page_size.bytes(), "buckets": buckets }));
    Ok(())
}

/// Values of 0 to 2 KiB under revisions, as a Kubernetes store has.
fn fill(gib: u64) -> Result<(), Box<dyn Error>> {
    let value = [0x5a; 2048];
    let value_len = |at: u64| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize;
    let rows = (gib << 30) / 1100;
    let key = |at: u64| [&at.to_be_bytes()[..], b"_", &[0; 8]].concat();
    let mut measure = Measure::new(PageSize::DEFAULT);
    measure.bucket(b"key")?;
    for at in 0..rows {
        measure.row(17, value_len(at))?;
    }
    let layout = measure.finish()?;
    eprintln!("{rows} rows, {} bytes", layout.file_len());
    let mut writer = Writer::new(BufWriter::with_capacity(1 << 20, io::stdout().lock()), layout)?;
    writer.bucket(b"key")?;
    for at in 0..rows {
        writer.row(&key(at), &value[..value_len(at)])?;
    }
    writer.finish()?.flush()?;
    Ok(())
}

/// Counts and digests rows as `bolt check` does: each key and value after its length, 4 bytes little endian.
#[derive(Default)]
struct Sum {
    rows: u64,
    hash: Sha256,
}

impl Sum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        for part in [key, value] {
            self.hash.update((part.len() as u32).to_le_bytes());
            self.hash.update(part);
        }
    }

    fn json(self, name: &[u8]) -> serde_json::Value {
        json!({ "name": hex(name), "rows": self.rows, "sha256": hex(&self.hash.finalize()) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SplitMix64: the same content for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn content(&mut self) -> BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>> {
        let names = ["alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "meta"];
        let rows = [0, 1, 3, 30, 0, 30_000, 700, 9, 5];
        names.iter().zip(rows).map(|(name, rows)| (name.as_bytes().to_vec(), self.rows(rows))).collect()
    }

    fn rows(&mut self, rows: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let long_keys = self.below(3) == 0;
        (0..rows)
            .map(|at| {
                let mut key = (at as u64).to_be_bytes().to_vec();
                let longer = if long_keys && self.below(4) == 0 { self.below(3_000) } else { self.below(12) };
                key.resize(8 + longer, at as u8);
                let len = match self.below(200) {
                    0..5 => 0,
                    5..10 => 2_000 + self.below(7_000),
                    10 if rows < 1_000 => self.below(2 << 20),
                    _ => self.below(150),
                };
                (key, vec![at as u8; len])
            })
            .collect()
    }
}
