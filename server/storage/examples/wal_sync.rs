//! How long one durable append takes: fdatasync against O_DSYNC, on a segment of allocated space, of zeros, and of neither.
//!
//! `cargo run --release -p garboard-storage --example wal_sync -- <directory>`
#![forbid(unsafe_code)]

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use garboard_runtime::clock;
use garboard_storage::Disk;
use garboard_storage::RealDisk;
use garboard_storage::disk::File;
use garboard_storage::disk::OpenOptions;

const SEGMENT_BYTES: u64 = 64 << 20;
const APPENDS: u64 = 100;
/// The ways take turns, since a shared disk changes its mind from second to second.
const ROUNDS: usize = 20;

#[derive(Clone, Copy, Debug)]
enum Space {
    Sparse,
    Allocated,
    Zeros,
}

fn prepare(disk: &RealDisk, path: &Path, space: Space) -> io::Result<()> {
    let file = disk.open(path, OpenOptions::create().with_truncate())?;
    match space {
        Space::Sparse => file.set_len(SEGMENT_BYTES)?,
        Space::Allocated => file.preallocate(SEGMENT_BYTES)?,
        Space::Zeros => {
            let zeros = vec![0; 1 << 20];
            for offset in (0..SEGMENT_BYTES).step_by(1 << 20) {
                file.pwrite(&zeros, offset)?;
            }
        }
    }
    file.sync_all()
}

struct Way {
    name: String,
    file: Box<dyn File>,
    dsync: bool,
    offset: u64,
    times: Vec<Duration>,
}

impl Way {
    fn appends(&mut self, content: &[u8]) -> io::Result<()> {
        for _ in 0..APPENDS {
            let started = clock::now();
            self.file.pwrite(content, self.offset)?;
            if !self.dsync {
                self.file.sync_data()?;
            }
            self.offset += content.len() as u64;
            self.times.push(clock::now().saturating_duration_since(started));
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let dir = std::env::args().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let disk = RealDisk;
    for bytes in [600, 16 << 10] {
        let mut ways = Vec::new();
        for space in [Space::Sparse, Space::Allocated, Space::Zeros] {
            for dsync in [false, true] {
                let path = dir.join(format!("wal_sync-{space:?}-{dsync}.tmp"));
                prepare(&disk, &path, space)?;
                let options = OpenOptions::write();
                let file = disk.open(&path, if dsync { options.with_dsync() } else { options })?;
                disk.remove(&path)?;
                let name = format!("{space:?}, {}", if dsync { "O_DSYNC" } else { "fdatasync" });
                ways.push(Way { name, file, dsync, offset: 0, times: Vec::new() });
            }
        }
        let content = vec![7; bytes];
        for _ in 0..ROUNDS {
            for way in &mut ways {
                way.appends(&content)?;
            }
        }
        for Way { name, mut times, .. } in ways {
            times.sort();
            let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
            let mean = times.iter().sum::<Duration>() / times.len() as u32;
            println!("{bytes:>6} bytes, {name}: p50 {p50:?}, p99 {p99:?}, mean {mean:?}");
        }
    }
    Ok(())
}
