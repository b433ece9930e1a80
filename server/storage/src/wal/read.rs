//! Reading entries back: from memory, else from the segments by the index of offsets.
//!
//! Invariant: what comes from disk is checked again, crc and log index both, before anyone sees it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::WalEntry;
use super::WalError;
use super::append::Handle;
use super::append::Shared;
use super::log::Slot;
use super::record::Record;
use super::record::parse_record;

/// One read from disk covers at most this much.
const RUN_BYTES_MAX: u64 = 4 << 20;

/// Entries adjacent in one segment, fetched by one read.
struct Run {
    seq: u32,
    start: u64,
    end: u64,
    /// (index, byte offset, crc of the record before)
    records: Vec<(u64, u64, u32)>,
}

enum Piece {
    Cached(WalEntry),
    Run(Run),
}

pub(crate) fn read(shared: &Shared, range: Range<u64>, max_bytes: usize) -> Result<Vec<WalEntry>, WalError> {
    let pieces = plan(shared, &range, max_bytes)?;
    let mut handles: BTreeMap<u32, Handle> = BTreeMap::new();
    let mut entries = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Cached(entry) => entries.push(entry),
            Piece::Run(run) => {
                let handle = match handles.get(&run.seq) {
                    Some(handle) => handle.clone(),
                    None => match shared.handle(u64::from(run.seq)) {
                        Some(handle) => handles.entry(run.seq).or_insert(handle).clone(),
                        // Purged between the look at the index and now.
                        None => return Err(purged(shared, run.records.first().map_or(0, |record| record.0))),
                    },
                };
                read_run(&handle, &run, &mut entries)?;
            }
        }
    }
    Ok(entries)
}

fn purged(shared: &Shared, wanted: u64) -> WalError {
    let purged = shared.state().purged.map_or(0, |id| id.index);
    WalError::Purged { wanted, purged }
}

/// Looks up the range under the lock; the disk is read without it.
fn plan(shared: &Shared, range: &Range<u64>, max_bytes: usize) -> Result<Vec<Piece>, WalError> {
    shared.with_log(|log| {
        if range.start < log.first() && !range.is_empty() && log.state.last.is_some() {
            let purged = log.state.purged.map_or(0, |id| id.index);
            return Err(WalError::Purged { wanted: range.start, purged });
        }
        let (mut pieces, mut used) = (Vec::new(), 0usize);
        for index in range.start..range.end.min(log.next()) {
            let cached = log.cached(index);
            let bytes = match (cached, log.slot(index)) {
                (Some(entry), _) => entry.payload.len(),
                (None, Some(Slot::Written { len, .. })) => len as usize,
                (None, _) => unreachable!("entry {index} is neither in memory nor on disk"),
            };
            if used > 0 && used.saturating_add(bytes) > max_bytes {
                break;
            }
            used = used.saturating_add(bytes).max(1);
            match (cached, log.slot(index)) {
                (Some(entry), _) => pieces.push(Piece::Cached(entry.clone())),
                (None, Some(slot)) => extend(&mut pieces, index, slot),
                (None, None) => {}
            }
        }
        Ok(pieces)
    })
}

fn extend(pieces: &mut Vec<Piece>, index: u64, slot: Slot) {
    let Slot::Written { seq, offset, len, previous_crc } = slot else { return };
    let (start, end) = (u64::from(offset), u64::from(offset) + u64::from(len));
    // Between two groups lie only a trailer and a header; anything further apart is another read.
    if let Some(Piece::Run(run)) = pieces.last_mut()
        && run.seq == seq
        && start >= run.end
        && start - run.end <= 4096
        && end - run.start <= RUN_BYTES_MAX
    {
        run.end = end;
        run.records.push((index, start, previous_crc));
        return;
    }
    pieces.push(Piece::Run(Run { seq, start, end, records: vec![(index, start, previous_crc)] }));
}

fn read_run(handle: &Handle, run: &Run, entries: &mut Vec<WalEntry>) -> Result<(), WalError> {
    let path = || handle.path.clone();
    let mut bytes = vec![0; (run.end - run.start) as usize];
    handle.file.pread_exact(&mut bytes, run.start).map_err(|source| WalError::Io {
        path: path(),
        action: "read",
        source,
    })?;
    for (index, offset, previous_crc) in &run.records {
        let at = (offset - run.start) as usize;
        let entry = match parse_record(&bytes[at..], *previous_crc) {
            Ok((Record::Entry(entry), _, _)) if entry.log_id.index == *index => entry,
            Ok(_) => return Err(WalError::corrupt(path(), *offset, format!("not the record of entry {index}"))),
            Err(reason) => return Err(WalError::corrupt(path(), *offset, reason)),
        };
        entries.push(entry);
    }
    Ok(())
}
