//! Opening the log: reading every segment, judging its end, and resuming behind it.
//!
//! Invariant: nothing on disk is changed before every segment has been read and found whole.

use std::collections::VecDeque;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use garboard_runtime::random;

use super::LogId;
use super::State;
use super::Vote;
use super::WalEntry;
use super::WalError;
use super::WalOptions;
use super::append::Active;
use super::append::Handle;
use super::log::Log;
use super::log::Slot;
use super::prepare::create_segment;
use super::record::GroupHeader;
use super::record::Placed;
use super::record::Record;
use super::record::parse_group;
use super::segment::FRESH_NAME;
use super::segment::SEGMENT_BYTES_MAX;
use super::segment::SEGMENT_HEADER_BYTES;
use super::segment::SegmentHeader;
use super::segment::SegmentName;
use super::segment::list_segments;
use super::verdict::Verdict;
use super::verdict::judge;
use crate::disk::Disk;
use crate::disk::File;
use crate::disk::Lock;
use crate::disk::OpenOptions;

/// The remains of a write that was never acknowledged, cut at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub path: PathBuf,
    pub offset: u64,
    pub bytes: u64,
}

/// What the log held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub cluster_id: u64,
    pub member_id: u64,
    /// The log was created by this opening.
    pub created: bool,
    pub torn: Option<TornTail>,
}

/// All that the WAL starts from.
pub(crate) struct Start {
    pub log: Log,
    pub handles: Vec<Handle>,
    pub active: Active,
    pub state: State,
    pub recovered: Recovered,
    pub lock: Box<dyn Lock>,
}

pub(crate) fn check_options(options: &WalOptions) -> Result<(), WalError> {
    if !(4096..=SEGMENT_BYTES_MAX).contains(&options.segment_bytes) {
        return Err(WalError::Options(format!("segment size {} is not in 4 KiB..4 GiB", options.segment_bytes)));
    }
    Ok(())
}

/// Cluster and member id of the log in `dir`; `None` when there is no log.
pub fn identity(disk: &dyn Disk, dir: &Path) -> Result<Option<(u64, u64)>, WalError> {
    if !disk.exists(dir).map_err(WalError::io(dir, "look for"))? {
        return Ok(None);
    }
    let (segments, _) = list_segments(disk, dir)?;
    let Some(newest) = segments.last() else { return Ok(None) };
    let path = dir.join(&newest.file_name);
    let file = disk.open(&path, OpenOptions::read()).map_err(WalError::io(&path, "open"))?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let len = file.pread(&mut bytes, 0).map_err(WalError::io(&path, "read"))?;
    let header = SegmentHeader::decode(&bytes[..len])
        .map_err(|(offset, reason)| WalError::corrupt(path, offset as u64, reason))?;
    Ok(Some((header.cluster_id, header.member_id)))
}

pub(crate) fn open(disk: &Arc<dyn Disk>, options: &WalOptions) -> Result<Start, WalError> {
    let dir = &options.dir;
    disk.create_dir_all(dir).map_err(WalError::io(dir, "create"))?;
    let lock_path = dir.join("lock");
    let lock = disk.lock(&lock_path).map_err(WalError::io(&lock_path, "lock"))?;
    let (names, leftovers) = list_segments(&**disk, dir)?;
    let mut replay = Replay::default();
    for (at, name) in names.iter().enumerate() {
        replay.segment(&**disk, options, name, at + 1 == names.len())?;
    }
    replay.check_whole()?;
    // From here on the disk may be changed.
    for name in leftovers {
        let path = dir.join(name);
        disk.remove(&path).map_err(WalError::io(&path, "remove"))?;
    }
    // A process killed between a rename and this sync left a name that a power cut could still take back.
    disk.sync_dir(dir).map_err(WalError::io(dir, "sync"))?;
    let created = names.is_empty();
    let (active, torn) = match replay.end.take() {
        Some(end) => resume(end, options)?,
        None => (create_first(disk, options)?, None),
    };
    if created {
        replay.handles.push(active.handle());
    }
    let state = replay.state;
    let recovered = Recovered {
        vote: state.vote,
        committed: state.committed,
        purged: state.purged,
        last: state.last,
        cluster_id: options.cluster_id,
        member_id: options.member_id,
        created,
        torn,
    };
    let mut log = Log::recovered(state, replay.first, replay.slots, replay.cache);
    log.trim_cache(options.cache_bytes);
    Ok(Start { log, handles: replay.handles, active, state, recovered, lock })
}

fn create_first(disk: &Arc<dyn Disk>, options: &WalOptions) -> Result<Active, WalError> {
    let header = SegmentHeader {
        cluster_id: options.cluster_id,
        member_id: options.member_id,
        seq: 1,
        first_index: 0,
        previous_last: None,
        previous_end: 0,
        previous_crc: 0,
        first_group: 1,
        salt: new_salt()?,
        segment_bytes: options.segment_bytes as u32,
    };
    let path = options.dir.join(FRESH_NAME);
    let file = disk.open(&path, OpenOptions::create().with_truncate()).map_err(WalError::io(&path, "create"))?;
    file.preallocate(options.segment_bytes).map_err(WalError::io(&path, "allocate"))?;
    create_segment(&**disk, options, &path, file.into(), &header, State::default())
}

/// A new segment's salt.
pub(crate) fn new_salt() -> Result<u64, WalError> {
    random::u64().map_err(|error| WalError::Options(format!("no randomness: {error}")))
}

/// Where writing goes on.
pub(super) struct End {
    pub path: PathBuf,
    file: Arc<dyn File>,
    pub header: SegmentHeader,
    len: u64,
    pub offset: usize,
    pub chain: u32,
    pub number: u64,
    pub torn_end: Option<usize>,
}

// === impl End ===

impl End {
    /// Before the first group of a segment.
    pub(super) fn begin(path: PathBuf, file: Arc<dyn File>, header: SegmentHeader, len: u64) -> Self {
        let (chain, number) = (header.previous_crc, header.first_group);
        Self { path, file, header, len, offset: SEGMENT_HEADER_BYTES, chain, number, torn_end: None }
    }
}

fn resume(end: End, options: &WalOptions) -> Result<(Active, Option<TornTail>), WalError> {
    let mut torn = None;
    if let Some(torn_end) = end.torn_end {
        let bytes = torn_end - end.offset;
        // Zeros again: what stays behind the tail would be judged with the next group.
        end.file.pwrite(&vec![0; bytes], end.offset as u64).map_err(WalError::io(&end.path, "cut"))?;
        end.file.sync_data().map_err(WalError::io(&end.path, "sync"))?;
        tracing::warn!(path = %end.path.display(), offset = end.offset, bytes, "cut a torn write at the end of the WAL");
        torn = Some(TornTail { path: end.path.clone(), offset: end.offset as u64, bytes: bytes as u64 });
    } else if !options.no_fsync {
        // A process that was killed may have written and not synced; what was read is now built upon.
        end.file.sync_data().map_err(WalError::io(&end.path, "sync"))?;
    }
    let active = Active {
        seq: end.header.seq,
        path: end.path,
        file: end.file,
        salt: end.header.group_salt(),
        capacity: end.len,
        offset: end.offset as u64,
        chain: end.chain,
        number: end.number,
    };
    Ok((active, torn))
}

fn index(id: Option<LogId>) -> Option<u64> {
    id.map(|id| id.index)
}

/// The log as the segments read so far left it.
#[derive(Default)]
pub(super) struct Replay {
    pub state: State,
    pub first: u64,
    pub slots: VecDeque<Slot>,
    cache: VecDeque<WalEntry>,
    cache_used: usize,
    handles: Vec<Handle>,
    end: Option<End>,
    oldest: Option<PathBuf>,
    /// It begins behind damage: what stood before is not known.
    pub partial: bool,
}

// === impl Replay ===

impl Replay {
    pub(super) fn behind_damage() -> Self {
        Self { partial: true, ..Self::default() }
    }

    fn segment(
        &mut self,
        disk: &dyn Disk,
        options: &WalOptions,
        name: &SegmentName,
        is_last: bool,
    ) -> Result<(), WalError> {
        let path = options.dir.join(&name.file_name);
        if name.len > SEGMENT_BYTES_MAX {
            return Err(WalError::corrupt(path, SEGMENT_BYTES_MAX, "longer than a segment can be"));
        }
        // The last one is written to, and only that one.
        let mode = if is_last { OpenOptions::write() } else { OpenOptions::read() };
        let file: Arc<dyn File> = disk.open(&path, mode).map_err(WalError::io(&path, "open"))?.into();
        let mut bytes = vec![0; name.len as usize];
        file.pread_exact(&mut bytes, 0).map_err(WalError::io(&path, "read"))?;
        let header = SegmentHeader::decode(&bytes)
            .map_err(|(offset, reason)| WalError::corrupt(path.clone(), offset as u64, reason))?;
        self.check_header(options, &path, name, &header)?;
        let mut end = End::begin(path, file, header, name.len);
        self.groups(options, &bytes, &mut end, is_last)?;
        self.close_segment(end, name);
        Ok(())
    }

    /// A segment has been read.
    pub(super) fn close_segment(&mut self, end: End, name: &SegmentName) {
        let (path, file) = (end.path.clone(), Arc::clone(&end.file));
        self.handles.push(Handle { seq: name.seq, path, file, len: name.len });
        self.oldest.get_or_insert_with(|| end.path.clone());
        self.end = Some(end);
    }

    pub(super) fn check_header(
        &self,
        options: &WalOptions,
        path: &Path,
        name: &SegmentName,
        header: &SegmentHeader,
    ) -> Result<(), WalError> {
        if (header.cluster_id, header.member_id) != (options.cluster_id, options.member_id) {
            return Err(WalError::Identity {
                path: path.to_owned(),
                found_cluster: header.cluster_id,
                found_member: header.member_id,
                cluster: options.cluster_id,
                member: options.member_id,
            });
        }
        let corrupt = |offset, reason: &str| Err(WalError::corrupt(path.to_owned(), offset, reason));
        if (header.seq, header.first_index) != (name.seq, name.first_index) {
            return corrupt(32, "header and file name differ");
        }
        if u64::from(header.segment_bytes) != name.len {
            let reason = format!("the file has {} bytes, its header says {}", name.len, header.segment_bytes);
            return corrupt(name.len.min(header.segment_bytes.into()), &reason);
        }
        let Some(before) = &self.end else { return Ok(()) };
        // The segment before was closed at a place that this one knows: whatever is missing there was synced once.
        let expected = (before.offset as u64, before.chain, before.number);
        if (header.previous_end, header.previous_crc, header.first_group) != expected {
            let reason = format!(
                "ends before byte {}, where the next segment says it does: a synced group is damaged or missing",
                header.previous_end
            );
            return Err(WalError::corrupt(before.path.clone(), before.offset as u64, reason));
        }
        if header.previous_last != self.state.last {
            return corrupt(48, "the last entry before this segment is not the one it says");
        }
        Ok(())
    }

    /// Reads group after group into the state, from where `end` stands, which moves along.
    pub(super) fn groups(
        &mut self,
        options: &WalOptions,
        bytes: &[u8],
        end: &mut End,
        is_last: bool,
    ) -> Result<(), WalError> {
        let salt = end.header.group_salt();
        let mut records = Vec::new();
        loop {
            let at = end.offset;
            let header = bytes.get(at..).and_then(|rest| GroupHeader::parse(rest, salt)).filter(|header| {
                header.number == end.number
                    && header.previous_crc == end.chain
                    && header.total_bytes() <= bytes.len() - at
            });
            records.clear();
            let fault = match header.map(|header| (header, parse_group(bytes, at, &header, &mut records))) {
                Some((header, Ok(chain))) => {
                    self.apply(end, &records, options)?;
                    end.offset += header.total_bytes();
                    end.chain = chain;
                    end.number += 1;
                    continue;
                }
                Some((_, Err(fault))) => Some(fault),
                None => None,
            };
            let first = at == SEGMENT_HEADER_BYTES;
            let verdict =
                if at < bytes.len() { judge(bytes, at, salt, end.number, end.chain, first) } else { Verdict::Clean };
            match verdict {
                Verdict::Clean => {}
                Verdict::Torn { end: torn_end } if is_last => end.torn_end = Some(torn_end),
                // Only the last segment can have been being written.
                Verdict::Torn { .. } | Verdict::Corrupt { .. } => {
                    let reason = match verdict {
                        Verdict::Corrupt { reason } => reason,
                        _ => "damaged, and a later segment follows",
                    };
                    let offset = fault.map_or(at, |fault| fault.offset) as u64;
                    let detail = fault.map_or(String::new(), |fault| format!(" ({})", fault.reason));
                    return Err(WalError::corrupt(end.path.clone(), offset, format!("{reason}{detail}")));
                }
            }
            return Ok(());
        }
    }

    fn apply(&mut self, end: &End, records: &[Placed], options: &WalOptions) -> Result<(), WalError> {
        for placed in records {
            let first_record = placed.offset as usize == SEGMENT_HEADER_BYTES + super::record::GROUP_HEADER_BYTES;
            let fail = |reason: &str| Err(WalError::corrupt(end.path.clone(), placed.offset, reason));
            match &placed.record {
                Record::State(_) if !first_record => return fail("state record that is not the segment's first"),
                record if first_record && !matches!(record, Record::State(_)) => {
                    return fail("segment does not begin with the state");
                }
                Record::State(state) if self.end.is_none() => {
                    let begins = *state == State::default() || end.header.seq > 1;
                    if !begins || index(state.purged) > index(state.last) {
                        return fail("state that no log begins with");
                    }
                    self.state = *state;
                    self.first = state.last.map_or(0, |last| last.index + 1);
                }
                Record::State(state) if *state != self.state => {
                    return fail("state differs from what the segments before say");
                }
                Record::State(_) => {}
                Record::Vote(vote) => self.state.vote = Some(*vote),
                Record::Committed(id) => self.state.committed = Some(*id),
                Record::Truncate(after) if self.partial && self.slots.is_empty() => self.state.last = *after,
                Record::Truncate(after)
                    if index(*after) > index(self.state.last) || index(*after) < index(self.state.purged) =>
                {
                    return fail("truncation behind the last entry, or of purged ones");
                }
                Record::Truncate(after) => self.truncate(*after),
                Record::Purge(upto) => self.purge(*upto),
                Record::Entry(entry) => {
                    if let Some(last) = self.state.last
                        && (entry.log_id.index != last.index + 1 || entry.log_id.term < last.term)
                    {
                        return fail("entry does not follow the one before");
                    }
                    self.entry(end, placed, entry, options.cache_bytes)?;
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, end: &End, placed: &Placed, entry: &WalEntry, cache_bytes: usize) -> Result<(), WalError> {
        if self.state.last.is_none() {
            self.first = entry.log_id.index;
        }
        self.state.last = Some(entry.log_id);
        let seq = u32::try_from(end.header.seq)
            .map_err(|_| WalError::corrupt(end.path.clone(), 32, "segment number out of range"))?;
        let offset = placed.offset as u32;
        self.slots.push_back(Slot::Written { seq, offset, len: placed.len, previous_crc: placed.previous_crc });
        self.cache_used += entry.memory_bytes();
        self.cache.push_back(entry.clone());
        while self.cache_used > cache_bytes
            && let Some(oldest) = self.cache.pop_front()
        {
            self.cache_used -= oldest.memory_bytes();
        }
        Ok(())
    }

    fn truncate(&mut self, after: Option<LogId>) {
        let keep_below = after.map_or(0, |id| id.index + 1);
        if keep_below < self.first {
            // Those entries stood in segments that are gone: below purged, as `check_whole` will see.
            self.first = keep_below;
            self.slots.clear();
        } else {
            self.slots.truncate(usize::try_from(keep_below - self.first).unwrap_or(usize::MAX));
        }
        while self.cache.back().is_some_and(|entry| entry.log_id.index >= keep_below) {
            self.cache_used -= self.cache.pop_back().map_or(0, |entry| entry.memory_bytes());
        }
        self.state.last = after;
    }

    fn purge(&mut self, upto: LogId) {
        if self.state.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        if self.state.last.is_none_or(|last| last.index <= upto.index) {
            self.slots.clear();
            self.cache.clear();
            self.cache_used = 0;
            self.state.last = Some(upto);
            self.first = upto.index + 1;
        } else if upto.index >= self.first {
            let gone = usize::try_from(upto.index + 1 - self.first).unwrap_or(usize::MAX);
            self.slots.drain(..gone.min(self.slots.len()));
            self.first = upto.index + 1;
            while self.cache.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
                self.cache_used -= self.cache.pop_front().map_or(0, |entry| entry.memory_bytes());
            }
        }
        self.state.purged = Some(upto);
    }

    /// Every entry behind purged has been found.
    pub(super) fn check_whole(&self) -> Result<(), WalError> {
        let Some(oldest) = &self.oldest else { return Ok(()) };
        let live = self.state.purged.map_or(0, |purged| purged.index + 1);
        if self.state.purged.is_some() && self.first > live {
            let reason = format!("entries {live}..{} are missing: an older segment is gone", self.first);
            return Err(WalError::corrupt(oldest.clone(), 0, reason));
        }
        let sequence_gap = self.state.purged.is_none() && self.handles.first().is_some_and(|handle| handle.seq != 1);
        if sequence_gap {
            return Err(WalError::corrupt(oldest.clone(), 0, "nothing is purged, and older segments are gone"));
        }
        Ok(())
    }
}
