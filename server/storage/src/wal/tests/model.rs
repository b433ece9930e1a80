//! Random calls, crashes and restarts against a log that is a plain vector.

use proptest::prelude::*;

use super::*;
use crate::disk::memory::Survives;

#[derive(Clone, Debug)]
enum Call {
    Append {
        count: u8,
        len: u16,
        newer_term: bool,
        wait: bool,
    },
    Vote,
    Truncate {
        back: u8,
        wait: bool,
    },
    Purge {
        back: u8,
    },
    PurgeAhead {
        by: u8,
    },
    Commit {
        back: u8,
    },
    Reopen,
    /// Appends that nobody waits for, then a crash.
    Crash {
        unwaited: u8,
        len: u16,
        survives: u8,
        seed: u64,
    },
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        6 => (1u8..5, 0u16..1500, any::<bool>(), any::<bool>())
            .prop_map(|(count, len, newer_term, wait)| Call::Append { count, len, newer_term, wait }),
        1 => Just(Call::Vote),
        2 => (0u8..6, any::<bool>()).prop_map(|(back, wait)| Call::Truncate { back, wait }),
        1 => (0u8..10).prop_map(|back| Call::Purge { back }),
        1 => (0u8..10).prop_map(|by| Call::PurgeAhead { by }),
        1 => (0u8..6).prop_map(|back| Call::Commit { back }),
        1 => Just(Call::Reopen),
        2 => (0u8..5, 0u16..1500, 0u8..4, any::<u64>())
            .prop_map(|(unwaited, len, survives, seed)| Call::Crash { unwaited, len, survives, seed }),
    ]
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: u64,
    entries: Vec<WalEntry>,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.log_id).or(self.purged)
    }

    fn next(&self) -> u64 {
        self.last().map_or(1, |last| last.index + 1)
    }

    fn make(&self, count: u8, len: u16, newer_term: bool) -> Vec<WalEntry> {
        let term = self.last().map_or(1, |last| last.term) + u64::from(newer_term);
        (0..u64::from(count)).map(|at| entry(term, self.next() + at, usize::from(len))).collect()
    }

    /// The id `back` entries before the last, not below purged.
    fn back(&self, back: u8) -> Option<LogId> {
        let keep = self.entries.len().saturating_sub(usize::from(back));
        self.entries[..keep].last().map(|entry| entry.log_id).or(self.purged)
    }

    fn purge(&mut self, upto: LogId) {
        self.entries.retain(|entry| entry.log_id.index > upto.index);
        self.purged = self.purged.max(Some(upto));
    }

    fn check(&self, wal: &Wal, what: &str) {
        let state = wal.state();
        assert_eq!((state.vote, state.purged, state.last), (self.vote, self.purged, self.last()), "{what}");
        let first = self.purged.map_or(1, |purged| purged.index + 1);
        assert_eq!(read_all(wal, first..first + 10_000), self.entries, "{what}");
    }
}

fn run(calls: Vec<Call>, cache_bytes: usize) {
    let mut disk = MemoryDisk::new();
    let options = WalOptions { cache_bytes, ..options(4096) };
    let (mut wal, _) = open(&disk, &options).unwrap();
    let mut model = Model::default();
    // Calls whose callback nobody has waited for yet.
    let mut unwaited_for: Vec<mpsc::Receiver<io::Result<()>>> = Vec::new();
    let settle = |results: &mut Vec<mpsc::Receiver<io::Result<()>>>| {
        results.drain(..).for_each(|result| result.recv().unwrap().unwrap());
    };
    for (at, call) in calls.iter().enumerate() {
        let (callback, result) = done();
        match call.clone() {
            Call::Append { count, len, newer_term, wait } => {
                let entries = model.make(count, len, newer_term);
                model.entries.extend(entries.clone());
                wal.append(entries, callback);
                unwaited_for.push(result);
                if wait {
                    settle(&mut unwaited_for);
                }
            }
            Call::Vote => {
                let vote = Vote { term: at as u64, node_id: 5, committed: at % 2 == 0 };
                model.vote = Some(vote);
                wal.save_vote(vote, callback);
                result.recv().unwrap().unwrap();
            }
            Call::Truncate { back, wait } => {
                let after = model.back(back);
                if after.map_or(0, |id| id.index) < model.committed {
                    continue;
                }
                model.entries.retain(|entry| Some(entry.log_id) <= after);
                wal.truncate_after(after, callback);
                unwaited_for.push(result);
                if wait {
                    settle(&mut unwaited_for);
                }
            }
            Call::Purge { back } => {
                if let Some(upto) = model.back(back) {
                    model.purge(upto);
                    wal.purge(upto);
                }
            }
            Call::PurgeAhead { by } => {
                let last = model.last().unwrap_or_default();
                let upto = LogId { term: last.term + 1, index: last.index + u64::from(by) + 1 };
                model.purge(upto);
                wal.purge(upto);
            }
            Call::Commit { back } => {
                if let Some(id) = model.back(back) {
                    model.committed = model.committed.max(id.index);
                    wal.save_committed(id);
                }
            }
            Call::Reopen => {
                wal.close();
                wal = open(&disk, &options).unwrap().0;
            }
            Call::Crash { unwaited, len, survives, seed } => {
                settle(&mut unwaited_for);
                (disk, wal, model) = crash((disk, wal, model), &options, (unwaited, len), (survives, seed));
            }
        }
        model.check(&wal, &format!("after call {at} {call:?}"));
    }
}

/// Queues appends, crashes in the middle of them, and takes what is found for the model, if it may be found.
fn crash(
    (disk, wal, model): (MemoryDisk, Wal, Model),
    options: &WalOptions,
    (unwaited, len): (u8, u16),
    (survives, seed): (u8, u64),
) -> (MemoryDisk, Wal, Model) {
    let (sender, results) = mpsc::channel();
    let mut full = model.clone();
    for _ in 0..unwaited {
        let entries = full.make(1, len, false);
        full.entries.extend(entries.clone());
        let sender = sender.clone();
        wal.append(entries, Box::new(move |result| sender.send(result.is_ok()).unwrap_or_default()));
    }
    let survives = match survives {
        0 => Survives::Nothing,
        1 => Survives::Everything,
        _ => Survives::Some(seed),
    };
    let next = disk.crash(survives);
    drop(wal);
    drop(sender);
    let acknowledged = results.iter().take_while(|ok| *ok).count();
    let (wal, recovered) = open(&next, options).unwrap();
    // A purge is not waited for: the crash may have kept it or not, and entries with it.
    let mut found = full.clone();
    if recovered.purged != model.purged {
        assert!(recovered.purged < model.purged, "purged {:?} of {:?}", recovered.purged, model.purged);
        let first = recovered.purged.map_or(1, |purged| purged.index + 1);
        found = Model {
            vote: model.vote,
            purged: recovered.purged,
            committed: model.committed,
            entries: read_all(&wal, first.max(wal.read(1..2, 1).map_or(first, |_| 1))..u64::MAX),
        };
        assert!(acknowledged == 0 || recovered.last >= full.entries.get(acknowledged - 1).map(|e| e.log_id));
        return (next, wal, found);
    }
    let keep = recovered.last.map_or(0, |last| last.index);
    found.entries.retain(|entry| entry.log_id.index <= keep);
    assert!(found.entries.len() >= model.entries.len() + acknowledged, "{survives:?} lost what was acknowledged");
    (next, wal, found)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_vector(calls in prop::collection::vec(call(), 1..40), cache in prop_oneof![Just(0), Just(3000)]) {
        run(calls, cache);
    }
}
