//! Space on the disks: what would add data is refused while little is left, so that a full disk is an answer and not an end.
//!
//! Without room for its log or its checkpoint a member has to stop. It keeps a reserve for both: while the reserve is touched, requests
//! that add data get NOSPACE; reads, deletions and compactions go on. There is no alarm to lower: with space, service returns.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use garboard_runtime::clock;
use garboard_runtime::spawn;
use garboard_storage::Disk;

/// How often it looks. What is written in between must fit into the reserve.
const INTERVAL: Duration = Duration::from_millis(500);
/// Kept for checkpoints and for what is written between two looks, besides two segments of the log.
const RESERVE_BYTES: u64 = 64 << 20;

/// Watches the file systems of database and log.
pub(crate) struct DiskSpace {
    disk: Arc<dyn Disk>,
    dirs: Vec<PathBuf>,
    reserve_bytes: u64,
    low: AtomicBool,
}

impl DiskSpace {
    pub(crate) fn new(disk: Arc<dyn Disk>, dirs: Vec<PathBuf>, segment_bytes: u64) -> Self {
        let reserve_bytes = RESERVE_BYTES.saturating_add(segment_bytes.saturating_mul(2));
        Self { disk, dirs, reserve_bytes, low: AtomicBool::new(false) }
    }

    /// Whether the reserve is touched.
    pub(crate) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// What Status says while it is.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.is_low().then(|| format!("less than {} bytes of disk space are free", self.reserve_bytes))
    }

    fn look(&self) -> io::Result<()> {
        let mut low = None;
        for dir in &self.dirs {
            let free = self.disk.free_bytes(dir)?;
            if free < self.reserve_bytes {
                low = Some((dir.display(), free));
                break;
            }
        }
        let before = self.low.swap(low.is_some(), Ordering::Relaxed);
        match (low, before) {
            (Some((dir, free)), false) => {
                let reserve = self.reserve_bytes;
                tracing::error!(%dir, free, reserve, "little disk space is left: requests that add data are refused");
            }
            (None, true) => tracing::warn!("there is disk space again: requests that add data are taken"),
            _ => {}
        }
        Ok(())
    }
}

/// Looks until the member stops.
pub(crate) async fn run(space: Arc<DiskSpace>) {
    let mut warned = false;
    loop {
        let looking = Arc::clone(&space);
        if let Ok(Err(error)) = spawn::blocking(move || looking.look()).await
            && !std::mem::replace(&mut warned, true)
        {
            tracing::warn!(%error, "the free disk space is not known");
        }
        clock::sleep(INTERVAL).await;
    }
}
