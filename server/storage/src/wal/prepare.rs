//! Segment files made ready ahead of need, and removed when no longer needed, off the writing thread.
//!
//! Invariants: a new segment is filled with zeros before it is written to (what recovery takes for "never written"); it gets its
//! name after its header and state are synced; old ones go oldest first, each removal synced, so that no gap can appear.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use garboard_runtime::clock;
use parking_lot::Condvar;
use parking_lot::Mutex;

use super::State;
use super::WalError;
use super::WalOptions;
use super::append::Active;
use super::append::Handle;
use super::append::dir_of;
use super::record::GroupBuilder;
use super::record::Record;
use super::recover::new_salt;
use super::segment::FRESH_NAME;
use super::segment::SEGMENT_HEADER_BYTES;
use super::segment::SegmentHeader;
use super::segment::list_segments;
use crate::disk::Disk;
use crate::disk::File;
use crate::disk::OpenOptions;

/// Zeros go to the disk in steps, with a pause between, so that a sync of the log never waits behind a whole segment of them.
const FILL_STEP_BYTES: usize = 1 << 20;
const FILL_PAUSE: Duration = Duration::from_millis(2);

/// A file full of zeros.
struct Prepared {
    path: PathBuf,
    file: Arc<dyn File>,
}

#[derive(Default)]
struct Jobs {
    prepare: bool,
    ready: Option<Prepared>,
    /// Each prepared file has a name of its own: the writer may be renaming one while the next is being filled.
    prepared: u64,
    /// Segments below this number are to be removed.
    remove_below: Option<u64>,
    stopping: bool,
}

/// The background half of the WAL.
pub(crate) struct Preparer {
    disk: Arc<dyn Disk>,
    options: WalOptions,
    jobs: Mutex<Jobs>,
    wake: Condvar,
}

// === impl Preparer ===

impl Preparer {
    pub(crate) fn new(disk: Arc<dyn Disk>, options: &WalOptions) -> Arc<Self> {
        Arc::new(Self { disk, options: options.clone(), jobs: Mutex::default(), wake: Condvar::new() })
    }

    /// Asks for the next segment to be made ready.
    pub(crate) fn request(&self) {
        self.jobs.lock().prepare = true;
        self.wake.notify_one();
    }

    /// Removes segments that hold nothing needed; the record of the purge must be synced.
    pub(crate) fn remove(&self, handles: Vec<Handle>) {
        if let Some(last) = handles.last() {
            self.jobs.lock().remove_below = Some(last.seq + 1);
            self.wake.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        self.jobs.lock().stopping = true;
        self.wake.notify_one();
    }

    pub(crate) fn run(&self) {
        loop {
            let (prepare, remove_below) = {
                let mut jobs = self.jobs.lock();
                while !jobs.prepare && jobs.remove_below.is_none() && !jobs.stopping {
                    self.wake.wait(&mut jobs);
                }
                let wanted = std::mem::take(&mut jobs.prepare) && !jobs.stopping && jobs.ready.is_none();
                (wanted, jobs.remove_below.take())
            };
            // Neither is needed for the log's word: a failure costs speed or space, and is tried again with the next segment.
            if let Some(below) = remove_below
                && let Err(error) = remove_below_seq(&*self.disk, &self.options.dir, below)
            {
                tracing::warn!(%error, "cannot remove old WAL segments");
            }
            if prepare {
                match self.fill_or_remove() {
                    Ok(ready) => self.jobs.lock().ready = ready,
                    Err(error) => tracing::warn!(%error, "cannot prepare the next WAL segment"),
                }
            }
            let jobs = self.jobs.lock();
            if jobs.stopping && jobs.remove_below.is_none() {
                return;
            }
        }
    }

    /// A file that could not be filled gives its space back.
    fn fill_or_remove(&self) -> Result<Option<Prepared>, WalError> {
        let number = {
            let mut jobs = self.jobs.lock();
            jobs.prepared += 1;
            jobs.prepared
        };
        let path = self.options.dir.join(format!("next-{number}.tmp"));
        let filled = self.fill(path.clone());
        if filled.is_err() && matches!(self.disk.exists(&path), Ok(true)) {
            self.disk.remove(&path).map_err(WalError::io(&path, "remove"))?;
        }
        filled
    }

    fn fill(&self, path: PathBuf) -> Result<Option<Prepared>, WalError> {
        let error = |action| WalError::io(&path, action);
        let file: Arc<dyn File> = self.disk.open(&path, OpenOptions::create_new()).map_err(error("create"))?.into();
        file.preallocate(self.options.segment_bytes).map_err(error("allocate"))?;
        let zeros = vec![0; FILL_STEP_BYTES];
        let mut offset = 0;
        while offset < self.options.segment_bytes {
            if self.jobs.lock().stopping {
                return Ok(None);
            }
            let step = zeros.len().min((self.options.segment_bytes - offset) as usize);
            file.pwrite(&zeros[..step], offset).map_err(error("fill"))?;
            file.sync_data().map_err(error("sync"))?;
            offset += step as u64;
            if offset < self.options.segment_bytes {
                clock::pause_thread(FILL_PAUSE);
            }
        }
        Ok(Some(Prepared { path, file }))
    }

    /// The segment behind `before`, of at least `capacity` bytes: the prepared one, or one made now.
    pub(crate) fn next_segment(
        &self,
        disk: &dyn Disk,
        before: &Active,
        state: State,
        capacity: u64,
    ) -> Result<Active, WalError> {
        let ready = self.jobs.lock().ready.take();
        let (path, file) = match ready {
            Some(ready) if capacity == self.options.segment_bytes => (ready.path, ready.file),
            // A larger one is needed, or writing was faster than filling. What was prepared is removed at the next start.
            _ => {
                let path = self.options.dir.join(FRESH_NAME);
                let file =
                    disk.open(&path, OpenOptions::create().with_truncate()).map_err(WalError::io(&path, "create"))?;
                file.preallocate(capacity).map_err(WalError::io(&path, "allocate"))?;
                (path, file.into())
            }
        };
        let header = SegmentHeader {
            cluster_id: self.options.cluster_id,
            member_id: self.options.member_id,
            seq: before.seq + 1,
            first_index: state.last.map_or(0, |last| last.index + 1),
            previous_last: state.last,
            previous_end: before.offset,
            previous_crc: before.chain,
            first_group: before.number,
            salt: new_salt()?,
            segment_bytes: capacity as u32,
        };
        create_segment(disk, &self.options, &path, file, &header, state)
    }
}

/// Turns the zero-filled `file` at `path` into the segment that `header` describes.
pub(crate) fn create_segment(
    disk: &dyn Disk,
    options: &WalOptions,
    path: &Path,
    file: Arc<dyn File>,
    header: &SegmentHeader,
    state: State,
) -> Result<Active, WalError> {
    let salt = header.group_salt();
    let mut group = GroupBuilder::new(Vec::new(), SEGMENT_HEADER_BYTES, header.previous_crc);
    group.push(&Record::State(state));
    let (group, chain) = group.finish(header.first_group, salt, header.previous_crc);
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&group);
    file.pwrite(&bytes, 0).map_err(WalError::io(path, "write"))?;
    let named: PathBuf = dir_of(path).join(header.file_name());
    // Also without fsync: the rule that a named segment has its header should not depend on it.
    file.sync_data().map_err(WalError::io(path, "sync"))?;
    disk.rename(path, &named).map_err(WalError::io(path, "rename"))?;
    disk.sync_dir(&options.dir).map_err(WalError::io(&options.dir, "sync"))?;
    Ok(Active {
        seq: header.seq,
        path: named,
        file,
        salt,
        capacity: u64::from(header.segment_bytes),
        offset: bytes.len() as u64,
        chain,
        number: header.first_group + 1,
    })
}

/// Unlinks the segments below number `below`, oldest first.
fn remove_below_seq(disk: &dyn Disk, dir: &Path, below: u64) -> Result<(), WalError> {
    for segment in list_segments(disk, dir)?.0 {
        if segment.seq >= below {
            break;
        }
        let path = dir.join(&segment.file_name);
        disk.remove(&path).map_err(WalError::io(&path, "remove"))?;
        disk.sync_dir(dir).map_err(WalError::io(dir, "sync"))?;
    }
    Ok(())
}
