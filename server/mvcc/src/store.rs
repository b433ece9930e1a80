//! The store: the state that apply changes and everybody else reads.
//!
//! How a write becomes visible: its rows go into the overlay, its keys into the index, then the revision is published,
//! then the watch hub gets the events, then the reply. A reader fixes its revision first; rows it then looks for are in
//! the overlay, the cache or the backend, and in the backend for sure once they are in neither of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use bytes::Bytes;
use garboard_proto::etcdserverpb::{AlarmMember, AlarmType};
use parking_lot::{Mutex, RwLock};

use crate::alarm::AlarmTable;
use crate::apply::Applier;
use crate::backend::{Backend, Position};
use crate::cache::ValueCache;
use crate::checkpoint::Pending;
use crate::compaction::Compaction;
use crate::counters::{Counters, Tally};
use crate::error::Error;
use crate::index::Index;
use crate::lease::{LeaseTable, LeaseView};
use crate::overlay::Overlay;
use crate::watch;

mod restore;
mod rows;

pub(crate) use rows::View;

/// Bounds, all in bytes but for the last.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Rows kept of those that are in the backend.
    pub cache_bytes: usize,
    /// What may be applied and not yet in the backend before apply has to wait ([`Store::is_overlay_full`]).
    pub overlay_bytes: usize,
    pub watch: watch::HubOptions,
    /// Rows that compaction may hand to the next checkpoints before it has to wait.
    pub compaction_rows_pending: usize,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            cache_bytes: 256 << 20,
            overlay_bytes: 64 << 20,
            watch: watch::HubOptions::default(),
            compaction_rows_pending: 20_000,
        }
    }
}

pub struct Store {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) options: StoreOptions,
    pub(crate) index: RwLock<IndexState>,
    /// The published revision. Loaded before the rows and keys it promises are looked for.
    pub(crate) revision: AtomicI64,
    pub(crate) overlay: RwLock<Overlay>,
    pub(crate) cache: ValueCache,
    pub(crate) leases: RwLock<LeaseTable>,
    pub(crate) cluster: RwLock<ClusterState>,
    pub(crate) pending: Mutex<Pending>,
    pub(crate) pending_bytes: AtomicUsize,
    pub(crate) compaction: Mutex<Compaction>,
    pub(crate) hub: Arc<watch::Hub>,
    pub(crate) tally: Tally,
}

/// The index, and what readers have to know with it.
pub(crate) struct IndexState {
    pub keys: Index,
    /// Reads below are refused; -1 until the first compaction, as in etcd.
    pub compact_revision: i64,
    /// Held by readers. Each compaction begins a new one, and drops nothing while somebody holds an older one: no
    /// reader loses a revision that it was granted.
    pub epoch: Arc<()>,
    /// How often a snapshot has taken the place of all state.
    pub replaced: u64,
}

pub(crate) struct ClusterState {
    pub alarms: AlarmTable,
    pub version: Option<String>,
    pub format: u32,
    pub downgrade: Option<String>,
}

/// The format of a cluster that has agreed on no later one.
pub const FIRST_FORMAT: u32 = 1;

impl Store {
    /// Rebuilds the state from the tables. The log has to be replayed from behind [`Store::applied`].
    pub fn open(backend: Arc<dyn Backend>, options: StoreOptions) -> Result<(Arc<Store>, Applier), Error> {
        let restored = restore::restore(&*backend)?;
        let store = Arc::new(Store {
            cache: ValueCache::new(options.cache_bytes),
            hub: watch::Hub::new(options.watch),
            backend,
            options,
            index: RwLock::new(IndexState {
                keys: restored.index,
                compact_revision: restored.scheduled_compaction,
                epoch: Arc::default(),
                replaced: 0,
            }),
            revision: AtomicI64::new(restored.revision),
            overlay: RwLock::default(),
            leases: RwLock::new(restored.leases),
            cluster: RwLock::new(restored.cluster),
            pending: Mutex::new(Pending::restored(restored.applied, restored.revision, restored.membership)),
            pending_bytes: AtomicUsize::new(0),
            compaction: Mutex::new(Compaction::restored(restored.scheduled_compaction, restored.finished_compaction)),
            tally: Tally::default(),
        });
        let history: Arc<dyn watch::History> = store.clone();
        store.hub.attach(Arc::downgrade(&history));
        let applier = Applier::new(store.clone());
        Ok((store, applier))
    }

    /// Takes over what the tables hold now: a snapshot from another member. Watchers catch up from it, reads under way are refused with
    /// [`Error::Replaced`]. Nothing may be applied and no checkpoint be under way meanwhile.
    ///
    /// # Errors
    /// The tables cannot be read; the state is as before, but no longer that of the tables.
    pub fn reload(self: &Arc<Store>) -> Result<(), Error> {
        let restored = restore::restore(&*self.backend)?;
        {
            let mut compaction = self.compaction.lock();
            let mut pending = self.pending.lock();
            let mut index = self.index.write();
            *compaction = Compaction::restored(restored.scheduled_compaction, restored.finished_compaction);
            *pending = Pending::restored(restored.applied, restored.revision, restored.membership);
            *self.overlay.write() = Overlay::default();
            *self.leases.write() = restored.leases;
            *self.cluster.write() = restored.cluster;
            self.pending_bytes.store(0, Ordering::Relaxed);
            index.keys = restored.index;
            index.compact_revision = restored.scheduled_compaction;
            index.epoch = Arc::default();
            index.replaced += 1;
            self.revision.store(restored.revision, Ordering::Release);
        }
        let history: Arc<dyn watch::History> = self.clone();
        self.hub.attach(Arc::downgrade(&history));
        Ok(())
    }

    /// The last finished entry.
    pub fn applied(&self) -> Position {
        self.pending.lock().position
    }

    /// The membership as last given to [`Applier::finish_entry`].
    pub fn membership(&self) -> Option<Bytes> {
        self.pending.lock().membership.clone()
    }

    /// The revision that reads see; 1 in an empty store.
    pub fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Reads below it are refused; -1 until the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.index.read().compact_revision
    }

    pub fn lease(&self, id: i64) -> Option<LeaseView> {
        self.leases.read().view(id)
    }

    /// All leases by id, without their keys.
    pub fn leases(&self) -> Vec<LeaseView> {
        self.leases.read().views()
    }

    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.cluster.read().alarms.list(AlarmType::None as i32)
    }

    pub fn has_alarm(&self, alarm: AlarmType) -> bool {
        self.cluster.read().alarms.has(alarm)
    }

    pub fn cluster_version(&self) -> Option<String> {
        self.cluster.read().version.clone()
    }

    /// The format that the members agreed to write.
    pub fn format_version(&self) -> u32 {
        self.cluster.read().format
    }

    /// The version that the downgrade under way is to reach.
    pub fn downgrade_target(&self) -> Option<String> {
        self.cluster.read().downgrade.clone()
    }

    pub fn watch_hub(&self) -> &Arc<watch::Hub> {
        &self.hub
    }

    /// Keys that exist now.
    pub fn keys(&self) -> usize {
        self.index.read().keys.live()
    }

    pub fn counters(&self) -> Counters {
        let (keys, indexed_keys) = {
            let index = self.index.read();
            (index.keys.live() as u64, index.keys.len() as u64)
        };
        let (leases, leased_keys) = {
            let leases = self.leases.read();
            (leases.len() as u64, leases.attached_keys() as u64)
        };
        Counters {
            keys,
            indexed_keys,
            leases,
            leased_keys,
            cache_bytes: self.cache.bytes() as u64,
            pending_bytes: self.pending_bytes() as u64,
            ..self.tally.read()
        }
    }
}
