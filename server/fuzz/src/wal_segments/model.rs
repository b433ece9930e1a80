//! What a log's records say, played back in the simplest way.

use std::collections::BTreeMap;
use std::path::Path;

use garboard_storage::disk::memory::MemoryDisk;
use garboard_storage::wal::Record;
use garboard_storage::wal::State;
use garboard_storage::wal::WalEntry;
use garboard_storage::wal::WalError;
use garboard_storage::wal::dump::Item;
use garboard_storage::wal::dump::dump;

#[derive(Default)]
pub struct Model {
    pub state: State,
    pub entries: BTreeMap<u64, WalEntry>,
}

// === impl Model ===

impl Model {
    pub fn read(disk: &MemoryDisk, dir: &Path) -> Result<Model, WalError> {
        let mut model = Model::default();
        let mut first = true;
        // A folder that is not there is an empty log.
        if disk.content(dir).is_err() && garboard_storage::Disk::list(disk, dir).is_err() {
            return Ok(model);
        }
        for item in dump(disk, dir)? {
            let Item::Record(placed) = item? else { continue };
            match placed.record {
                // Later segments repeat it.
                Record::State(state) if first => model.state = state,
                Record::State(_) => {}
                Record::Entry(entry) => model.entry(entry),
                Record::Vote(vote) => model.state.vote = Some(vote),
                Record::Committed(id) => model.state.committed = Some(id),
                Record::Truncate(after) => {
                    model.entries.retain(|index, _| after.is_some_and(|after| *index <= after.index));
                    model.state.last = after;
                }
                Record::Purge(upto) if model.state.purged.is_some_and(|purged| purged.index >= upto.index) => {}
                Record::Purge(upto) => {
                    model.entries.retain(|index, _| *index > upto.index);
                    model.state.purged = Some(upto);
                    if model.state.last.is_none_or(|last| last.index <= upto.index) {
                        model.state.last = Some(upto);
                    }
                }
            }
            first = false;
        }
        Ok(model)
    }

    pub fn entry(&mut self, entry: WalEntry) {
        self.state.last = Some(entry.log_id);
        self.entries.insert(entry.log_id.index, entry);
    }
}
