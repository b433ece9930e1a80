//! `garboard wal dump <directory>`: what stands in a write-ahead log, one record a line. Reads only.

use std::io;
use std::io::Write;
use std::path::Path;

use garboard_storage::disk::Disk;
use garboard_storage::wal::LogId;
use garboard_storage::wal::Record;
use garboard_storage::wal::Vote;
use garboard_storage::wal::WalError;
use garboard_storage::wal::dump::Item;
use garboard_storage::wal::dump::dump;

/// Why a dump ended early.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Writes the log in `dir` to `out`.
///
/// # Errors
/// A segment cannot be read or is damaged, after what stands before that is written; or `out` cannot be written to.
pub fn run(disk: &dyn Disk, dir: &Path, out: &mut dyn Write) -> Result<(), DumpError> {
    for item in dump(disk, dir)? {
        writeln!(out, "{}", line(&item?))?;
    }
    out.flush()?;
    Ok(())
}

fn line(item: &Item) -> String {
    match item {
        Item::Segment { path, header } => format!(
            "segment {} cluster={:x} member={:x} seq={} first_index={} previous_last={}",
            path.display(),
            header.cluster_id,
            header.member_id,
            header.seq,
            header.first_index,
            id(header.previous_last),
        ),
        Item::Group { number, offset, records } => format!("group {number} offset={offset} records={records}"),
        Item::Record(placed) => format!(
            "  {} offset={} bytes={} crc={:08x} {}",
            placed.record.name(),
            placed.offset,
            placed.len,
            placed.crc,
            detail(&placed.record),
        ),
        Item::Torn { path, offset, bytes } => {
            format!("torn {} offset={offset} bytes={bytes}: a write that never completed", path.display())
        }
    }
}

fn detail(record: &Record) -> String {
    match record {
        Record::State(state) => format!(
            "{} committed={} purged={} last={}",
            vote(state.vote),
            id(state.committed),
            id(state.purged),
            id(state.last),
        ),
        Record::Entry(entry) => {
            format!("at={} kind={} payload={}", id(Some(entry.log_id)), entry.kind, entry.payload.len())
        }
        Record::Vote(given) => vote(Some(*given)),
        Record::Committed(at) | Record::Purge(at) => format!("at={}", id(Some(*at))),
        Record::Truncate(after) => format!("after={}", id(*after)),
    }
}

/// `term-index`, as Raft's people write it.
fn id(at: Option<LogId>) -> String {
    at.map_or_else(|| "none".to_owned(), |at| format!("{}-{}", at.term, at.index))
}

fn vote(vote: Option<Vote>) -> String {
    match vote {
        Some(vote) => format!("term={} vote={:x} elected={}", vote.term, vote.node_id, vote.committed),
        None => "vote=none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use garboard_storage::disk::OpenOptions;
    use garboard_storage::disk::RealDisk;
    use garboard_storage::wal::Wal;
    use garboard_storage::wal::WalEntry;
    use garboard_storage::wal::WalOptions;

    use super::*;

    fn text(dir: &Path) -> (String, Result<(), DumpError>) {
        let mut out = Vec::new();
        let result = run(&RealDisk, dir, &mut out);
        (String::from_utf8(out).unwrap(), result)
    }

    /// A log with a vote and two entries, each in a write of its own.
    fn write_log(dir: &Path) {
        let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::new(dir.to_owned(), 0xc1, 0xa1) };
        let (wal, _) = Wal::open(Arc::new(RealDisk), options).unwrap();
        let (done, synced) = mpsc::channel();
        let sender = done.clone();
        let vote = Vote { term: 1, node_id: 0xa1, committed: true };
        wal.save_vote(vote, Box::new(move |result| sender.send(result).unwrap()));
        synced.recv().unwrap().unwrap();
        for index in 1..=2 {
            let entry = WalEntry { log_id: LogId { term: 1, index }, kind: 1, payload: vec![7; 100].into() };
            let sender = done.clone();
            wal.append(vec![entry], Box::new(move |result| sender.send(result).unwrap()));
            synced.recv().unwrap().unwrap();
        }
    }

    #[test]
    fn what_was_written_and_where_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        write_log(dir.path());
        let (before, result) = text(dir.path());
        result.unwrap();
        assert!(before.contains("cluster=c1 member=a1 seq=1"), "{before}");
        assert!(before.contains("term=1 vote=a1 elected=true"), "{before}");
        let first = before.lines().find(|line| line.contains("at=1-1 kind=1 payload=100"));
        let offset = first.and_then(|line| line.split("offset=").nth(1)?.split(' ').next()?.parse::<u64>().ok());
        let offset = offset.unwrap_or_else(|| panic!("{before}")) + 60;
        // A bit of the first entry's payload.
        let segments = RealDisk.list(dir.path()).unwrap();
        let name = &segments.iter().find(|entry| entry.name.ends_with(".wal")).unwrap().name;
        let file = RealDisk.open(&dir.path().join(name), OpenOptions::write()).unwrap();
        let mut byte = [0];
        file.pread_exact(&mut byte, offset).unwrap();
        file.pwrite(&[byte[0] ^ 1], offset).unwrap();
        let (after, result) = text(dir.path());
        let error = result.unwrap_err().to_string();
        assert!(error.contains(name.as_str()), "{error}");
        assert!(after.contains("vote=a1") && !after.contains("at=1-1"), "what stands before is printed: {after}");
    }
}
