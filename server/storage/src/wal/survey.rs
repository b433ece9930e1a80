//! All that can be read of a log, damaged or not. Reads only; needs no lock and no identity.
//!
//! A start refuses a damaged log as a whole, and rightly; who has to choose among the disks that are left needs to know what stands in front
//! of the damage and behind it. Read is by the rules of recovery; behind damage it goes on with the next whole group, or the next segment.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use super::State;
use super::TornTail;
use super::WalEntry;
use super::WalError;
use super::WalOptions;
use super::log::Slot;
use super::record::GROUP_ALIGN;
use super::record::GroupHeader;
use super::record::Record;
use super::record::parse_group;
use super::record::parse_record;
use super::recover::End;
use super::recover::Replay;
use super::segment::SEGMENT_BYTES_MAX;
use super::segment::SegmentHeader;
use super::segment::SegmentName;
use super::segment::VERSION;
use super::segment::find_segments;
use crate::disk::Disk;
use crate::disk::File;
use crate::disk::OpenOptions;

/// What a disk reads or does not.
const BLOCK_BYTES: usize = 4096;

/// What was found.
#[derive(Default)]
pub struct Survey {
    /// Format version of the segments; `None` when no header could be read.
    pub version: Option<u32>,
    /// What was written last of each, as far as it can be read: behind damage, what is missing there may have been newer.
    pub state: State,
    /// The remains of a write that was never acknowledged; a start cuts them.
    pub torn: Option<TornTail>,
    /// What a start would refuse, in the order of the files.
    pub damage: Vec<WalError>,
    /// Segment files.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    parts: Vec<Part>,
    files: Vec<(u64, PathBuf, Arc<dyn File>)>,
    /// Cluster and member: as the caller knows them, or else as the first segment says.
    identity: Option<(u64, u64)>,
}

/// Entries without a gap.
struct Part {
    first: u64,
    slots: VecDeque<Slot>,
}

// === impl Part ===

impl Part {
    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }
}

/// Reads the log in `dir`, of which `identity` tells the cluster and member that it should be of, if that is known.
///
/// # Errors
/// The directory cannot be listed.
pub fn survey(disk: &dyn Disk, dir: &Path, identity: Option<(u64, u64)>) -> Result<Survey, WalError> {
    let mut survey = Survey { identity, ..Survey::default() };
    let (names, _) = find_segments(disk, dir, &mut survey.damage)?;
    let mut replay = Replay::default();
    let mut before = None;
    for (at, name) in names.iter().enumerate() {
        survey.segments += 1;
        survey.bytes += name.len;
        // What a segment begins with does not follow from what was read of those before when something is missing there.
        if replay.partial || before.is_some_and(|seq: u64| seq + 1 != name.seq) {
            survey.take(std::mem::take(&mut replay));
        }
        if let Err(error) = survey.segment(disk, dir, name, at + 1 == names.len(), &mut replay) {
            survey.damage.push(error);
            survey.take(std::mem::replace(&mut replay, Replay::behind_damage()));
        }
        before = Some(name.seq);
    }
    if survey.damage.is_empty() {
        survey.damage.extend(replay.check_whole().err());
    }
    survey.take(replay);
    Ok(survey)
}

/// Whether anything was ever appended to the log in `dir`. What is damaged counts as that.
///
/// # Errors
/// The directory cannot be listed.
pub fn has_entries(disk: &dyn Disk, dir: &Path) -> Result<bool, WalError> {
    if !disk.exists(dir).map_err(WalError::io(dir, "look for"))? {
        return Ok(false);
    }
    let mut damage = Vec::new();
    let (names, _) = find_segments(disk, dir, &mut damage)?;
    // A second segment follows a first one that is full.
    if names.len() != 1 || !damage.is_empty() {
        return Ok(!names.is_empty() || !damage.is_empty());
    }
    let found = survey(disk, dir, None)?;
    Ok(found.state.last.is_some() || !found.damage.is_empty())
}

// === impl Survey ===

impl Survey {
    fn segment(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        name: &SegmentName,
        is_last: bool,
        replay: &mut Replay,
    ) -> Result<(), WalError> {
        let path = dir.join(&name.file_name);
        if name.len > SEGMENT_BYTES_MAX {
            return Err(WalError::corrupt(path, SEGMENT_BYTES_MAX, "longer than a segment can be"));
        }
        let file: Arc<dyn File> = disk.open(&path, OpenOptions::read()).map_err(WalError::io(&path, "open"))?.into();
        let (bytes, unreadable) = read_blocks(&*file, name.len);
        self.damage
            .extend(unreadable.map(|(offset, source)| WalError::corrupt(path.clone(), offset, source.to_string())));
        let header = SegmentHeader::decode(&bytes)
            .map_err(|(offset, reason)| WalError::corrupt(path.clone(), offset as u64, reason))?;
        self.version = Some(VERSION);
        let (cluster, member) = *self.identity.get_or_insert((header.cluster_id, header.member_id));
        let options = WalOptions { cache_bytes: 0, ..WalOptions::new(dir.to_owned(), cluster, member) };
        if let Err(error) = replay.check_header(&options, &path, name, &header) {
            self.damage.push(error);
            self.take(std::mem::take(replay));
        }
        self.files.push((name.seq, path.clone(), Arc::clone(&file)));
        let mut end = End::begin(path, file, header, name.len);
        while let Err(error) = replay.groups(&options, &bytes, &mut end, is_last) {
            self.damage.push(error);
            self.take(std::mem::replace(replay, Replay::behind_damage()));
            if !skip_damage(&bytes, &mut end) {
                break;
            }
        }
        if let Some(torn_end) = end.torn_end {
            let bytes = (torn_end - end.offset) as u64;
            self.torn = Some(TornTail { path: end.path.clone(), offset: end.offset as u64, bytes });
        }
        replay.close_segment(end, name);
        Ok(())
    }

    /// Adds what was read without a gap.
    fn take(&mut self, replay: Replay) {
        let Replay { state, first, slots, .. } = replay;
        let begin = if slots.is_empty() { state.last.map(|last| last.index + 1) } else { Some(first) };
        let live = state.purged.map_or(0, |purged| purged.index + 1);
        for part in &mut self.parts {
            // What was written later counts.
            let keep = begin.unwrap_or(u64::MAX).saturating_sub(part.first);
            part.slots.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
            let purged = usize::try_from(live.saturating_sub(part.first)).unwrap_or(usize::MAX).min(part.slots.len());
            part.slots.drain(..purged);
            part.first += purged as u64;
        }
        if !slots.is_empty() {
            self.parts.push(Part { first, slots });
        }
        self.parts.retain(|part| !part.slots.is_empty());
        let newest = &mut self.state;
        newest.vote = state.vote.or(newest.vote);
        newest.committed = state.committed.or(newest.committed);
        newest.purged = state.purged.or(newest.purged);
        newest.last = state.last.or(newest.last);
    }

    /// The entries that can be read, as ranges (first, last) in order; one range when nothing is missing.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        self.parts.iter().map(|part| (part.first, part.next() - 1)).collect()
    }

    /// The entry at `index`; `None` when there is none, or damage in its place.
    ///
    /// # Errors
    /// It cannot be read again.
    pub fn entry(&self, index: u64) -> Result<Option<WalEntry>, WalError> {
        let part = self.parts.iter().find(|part| (part.first..part.next()).contains(&index));
        let slot = part.and_then(|part| part.slots.get(usize::try_from(index - part.first).ok()?));
        let Some(Slot::Written { seq, offset, len, previous_crc }) = slot else { return Ok(None) };
        let Some((_, path, file)) = self.files.iter().find(|(number, ..)| *number == u64::from(*seq)) else {
            return Ok(None);
        };
        let offset = u64::from(*offset);
        let mut bytes = vec![0; *len as usize];
        file.pread_exact(&mut bytes, offset).map_err(WalError::io(path, "read"))?;
        match parse_record(&bytes, *previous_crc) {
            Ok((Record::Entry(entry), ..)) if entry.log_id.index == index => Ok(Some(entry)),
            Ok(_) => Err(WalError::corrupt(path.clone(), offset, format!("not the record of entry {index}"))),
            Err(reason) => Err(WalError::corrupt(path.clone(), offset, reason)),
        }
    }
}

/// The file's bytes, zeros where the disk does not give them; the first place where it does not, and why.
fn read_blocks(file: &dyn File, len: u64) -> (Vec<u8>, Option<(u64, io::Error)>) {
    let mut bytes = vec![0; len as usize];
    if file.pread_exact(&mut bytes, 0).is_ok() {
        return (bytes, None);
    }
    bytes.fill(0);
    let mut unreadable = None;
    for (block, out) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
        let offset = (block * BLOCK_BYTES) as u64;
        if let Err(error) = file.pread_exact(out, offset) {
            out.fill(0);
            unreadable.get_or_insert((offset, error));
        }
    }
    (bytes, unreadable)
}

/// Moves `end` to the next whole group behind where it stands; false when there is none.
fn skip_damage(bytes: &[u8], end: &mut End) -> bool {
    let salt = end.header.group_salt();
    let from = (end.offset + GROUP_ALIGN).min(bytes.len());
    for at in (from..bytes.len()).step_by(GROUP_ALIGN) {
        let header = GroupHeader::parse(&bytes[at..], salt)
            .filter(|group| group.number > end.number && group.total_bytes() <= bytes.len() - at);
        if let Some(header) = header
            && parse_group(bytes, at, &header, &mut Vec::new()).is_ok()
        {
            (end.offset, end.chain, end.number) = (at, header.previous_crc, header.number);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::LogId;
    use super::super::tests::CLUSTER;
    use super::super::tests::MEMBER;
    use super::super::tests::append;
    use super::super::tests::dir;
    use super::super::tests::entry;
    use super::super::tests::open;
    use super::super::tests::options;
    use super::super::tests::segments;
    use super::*;
    use crate::disk::memory::MemoryDisk;
    use crate::disk::memory::Survives;
    use crate::wal::Vote;
    use crate::wal::tests::done;

    /// Entries in several segments, some of them replaced by those of a later term.
    fn written() -> MemoryDisk {
        let disk = MemoryDisk::new();
        let (wal, _) = open(&disk, &options(4096)).unwrap();
        (1..=9).for_each(|index| append(&wal, vec![entry(1, index, 900)]));
        let (callback, result) = done();
        wal.truncate_after(Some(LogId { term: 1, index: 7 }), callback);
        result.recv().unwrap().unwrap();
        (8..=12).for_each(|index| append(&wal, vec![entry(2, index, 900)]));
        let (callback, result) = done();
        wal.save_vote(Vote { term: 3, node_id: 9, committed: false }, callback);
        result.recv().unwrap().unwrap();
        wal.save_committed(LogId { term: 2, index: 10 });
        wal.close();
        disk.crash(Survives::Everything)
    }

    fn look(disk: &MemoryDisk) -> Survey {
        survey(disk, &dir(), Some((CLUSTER, MEMBER))).unwrap()
    }

    #[test]
    fn a_whole_log_is_what_a_start_finds() {
        let disk = written();
        let calls = disk.calls();
        let found = look(&disk);
        assert_eq!(disk.calls(), calls, "nothing is changed");
        assert!(found.damage.is_empty(), "{:?}", found.damage);
        assert_eq!(found.ranges(), [(1, 12)]);
        for index in 1..=12 {
            let term = if index < 8 { 1 } else { 2 };
            assert_eq!(found.entry(index).unwrap(), Some(entry(term, index, 900)));
        }
        assert_eq!(found.entry(13).unwrap(), None);
        let (wal, _) = open(&disk, &options(4096)).unwrap();
        assert_eq!(found.state, wal.state());
    }

    /// One byte of each kilobyte: what stands in front of the damage and behind it is read, and never another entry than was written.
    #[test]
    fn around_damage_everything_else_is_read() {
        let disk = written();
        let whole = look(&disk);
        let (mut both_sides, mut tried) = (0, 0);
        for path in segments(&disk) {
            let content = disk.content(&path).unwrap();
            let used = content.iter().rposition(|byte| *byte != 0).unwrap();
            for at in (0..used).step_by(211) {
                let damaged = disk.duplicate();
                damaged.flip(&path, at * 8 + 2).unwrap();
                let found = look(&damaged);
                if let Err(error) = open(&damaged, &options(4096)) {
                    assert_eq!(found.damage[0].to_string(), error.to_string(), "byte {at}");
                }
                let mut readable = 0;
                for index in 1..=12 {
                    let Some(read) = found.entry(index).unwrap() else { continue };
                    readable += 1;
                    let was = [whole.entry(index).unwrap(), Some(entry(1, index, 900))];
                    assert!(was.contains(&Some(read)), "byte {at}: another entry {index}");
                }
                tried += 1;
                both_sides += usize::from(found.ranges().len() > 1);
                // A group has one entry here; a segment's header takes all of it along.
                assert!(readable >= 12 - 4, "byte {at} of {}: {:?}", path.display(), found.ranges());
            }
        }
        assert!(tried > 40 && both_sides > 10, "{tried} {both_sides}");
    }

    #[test]
    fn a_missing_segment_is_named_and_the_others_are_read() {
        let disk = written();
        let paths = segments(&disk);
        disk.remove(&paths[1]).unwrap();
        let found = look(&disk);
        assert!(matches!(&found.damage[0], WalError::Corrupt { path, .. } if *path == paths[2]), "{:?}", found.damage);
        assert_eq!(found.ranges().len(), 2);
        assert_eq!(found.state.vote, Some(Vote { term: 3, node_id: 9, committed: false }));
    }

    #[test]
    fn a_log_without_entries_is_told_from_one_with() {
        let disk = MemoryDisk::new();
        assert!(!has_entries(&disk, &dir()).unwrap());
        let (wal, _) = open(&disk, &options(4096)).unwrap();
        assert!(!has_entries(&disk, &dir()).unwrap());
        append(&wal, vec![entry(1, 0, 10)]);
        assert!(has_entries(&disk, &dir()).unwrap());
        wal.close();
        assert!(has_entries(&written(), &dir()).unwrap());
    }

    #[test]
    fn a_torn_tail_is_no_damage() {
        let disk = written();
        let path = segments(&disk).pop().unwrap();
        let content = disk.content(&path).unwrap();
        let used = content.iter().rposition(|byte| *byte != 0).unwrap();
        let file = disk.open(&path, OpenOptions::write()).unwrap();
        file.pwrite(&[0], used as u64).unwrap();
        let found = look(&disk);
        assert!(found.damage.is_empty(), "{:?}", found.damage);
        assert_eq!(found.torn.as_ref().map(|torn| &torn.path), Some(&path));
    }
}
