//! From a data directory to a running member: lock, identity, database, log, state, consensus, in this order.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use garboard_mvcc::Position;
use garboard_mvcc::Store;
use garboard_mvcc::StoreOptions;
use garboard_runtime::executor::Executor;
use garboard_runtime::spawn;
use garboard_storage::DataDir;
use garboard_storage::Disk;
use garboard_storage::backend::Backend;
use garboard_storage::backend::BackendOptions;
use garboard_storage::wal::Recovered;
use garboard_storage::wal::Wal;
use garboard_storage::wal::WalOptions;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::sync::watch;

use crate::Fatal;
use crate::auto_compaction;
use crate::backend::Database;
use crate::compaction::Compactor;
use crate::compaction::Pace;
use crate::config::NodeConfig;
use crate::consensus::Checkpointed;
use crate::consensus::Consensus;
use crate::consensus::ConsensusConfig;
use crate::consensus::LogStore;
use crate::consensus::MemberNode;
use crate::consensus::StateMachine;
use crate::consensus::decode_stored_membership;
use crate::error::StartError;
use crate::flush::Flusher;
use crate::identity;
use crate::identity::Identity;
use crate::leadership;
use crate::lease::LeaseClock;
use crate::leases;
use crate::metrics::DiskObserver;
use crate::metrics::Metrics;
use crate::node::Inner;
use crate::node::Leadership;
use crate::node::Node;
use crate::observe::Observer;
use crate::propose::Proposer;
use crate::publish;
use crate::read::ReadIndex;
use crate::scrape::Scrape;
use crate::space;
use crate::space::DiskSpace;

/// Threads of the runtime that consensus, proposing and applying run on.
const CONSENSUS_THREADS: usize = 2;
/// Bytes of recent log entries kept in memory.
const WAL_CACHE_BYTES: usize = 16 << 20;
/// Bytes of redb's own page cache; the value cache and the kernel's page cache stand before and behind it.
const BACKEND_CACHE_BYTES: usize = 32 << 20;

/// What was found on disk, opened.
struct Opened {
    data_dir: DataDir,
    identity: Identity,
    backend: Arc<Backend>,
    wal: Arc<Wal>,
    space: Arc<DiskSpace>,
    recovered: Recovered,
}

impl Node {
    /// Starts a member on `disk`, founding its cluster when the data directory is empty. Its metrics go to `registry`.
    ///
    /// # Errors
    /// Everything that makes serving unsafe: a directory in use, files that do not belong together, damage (with file and offset).
    pub async fn start(config: NodeConfig, disk: Arc<dyn Disk>, registry: &Registry) -> Result<Self, StartError> {
        Self::start_with(config, disk, registry, exit_process()).await
    }

    /// As [`Node::start`], with something else than the end of the process for what this member cannot survive. When `fatal`
    /// returns, nothing is acknowledged any more.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_with(
        config: NodeConfig,
        disk: Arc<dyn Disk>,
        registry: &Registry,
        fatal: Fatal,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::register(registry).map_err(|e| StartError::Config(format!("metrics: {e}")))?;
        let executor = Executor::new("consensus", CONSENSUS_THREADS).map_err(|e| io("starting threads", e))?;
        let (setup, observed) = (config.clone(), Arc::clone(&metrics));
        let starting = executor.task(async move {
            let told = Arc::clone(&fatal);
            let opened = spawn::blocking(move || open(&setup, disk, observed, told).map(|o| (setup, o)));
            let (setup, opened) = opened.await.map_err(|e| StartError::Config(e.to_string()))??;
            run(setup, opened, metrics, fatal).await
        });
        let parts = starting.await.map_err(|e| StartError::Consensus(e.to_string()))??;
        let node = Node(Arc::new(parts.into_inner(executor)));
        node.spawn_tasks();
        Scrape::register(registry, &node).map_err(|e| StartError::Config(format!("metrics: {e}")))?;
        Ok(node)
    }

    fn spawn_tasks(&self) {
        let executor = &self.0.executor;
        self.0.tasks.lock().extend([
            executor.task(leases::run_expiry(self.clone())),
            executor.task(leases::run_checkpoints(self.clone())),
            executor.task(auto_compaction::run(self.clone(), self.0.config.auto_compaction)),
            executor.task(publish::run(self.clone())),
            executor.task(space::run(Arc::clone(&self.0.space))),
        ]);
    }
}

fn io(what: &str, source: std::io::Error) -> StartError {
    StartError::Io { what: what.to_owned(), source }
}

fn exit_process() -> Fatal {
    Arc::new(|why| {
        // Of this target the log waits until the line is out.
        tracing::error!(target: "garboard::fatal", reason = why, "the member cannot go on");
        // A member that cannot write what it has applied must not answer anything more.
        std::process::exit(1);
    })
}

fn open(config: &NodeConfig, disk: Arc<dyn Disk>, metrics: Arc<Metrics>, fatal: Fatal) -> Result<Opened, StartError> {
    let dir = config.data_dir.display().to_string();
    let data_dir = DataDir::open(Arc::clone(&disk), &config.data_dir)
        .map_err(|e| io(&format!("opening the data directory {dir}"), e))?;
    let wal_dir = config.wal_dir.clone().unwrap_or_else(|| data_dir.wal_dir());
    let identity = identify(config, &data_dir, &*disk, &wal_dir)?;
    let observer = Arc::new(DiskObserver(metrics));
    let on_unreadable = Arc::clone(&fatal);
    let backend_options = BackendOptions {
        cache_bytes: BACKEND_CACHE_BYTES,
        no_fsync: config.unsafe_no_fsync,
        observer: observer.clone(),
        on_unreadable: Arc::new(move |error| on_unreadable(&error.to_string())),
    };
    let backend = Backend::open(Arc::clone(&disk), &data_dir.db_path(), backend_options)?;
    let dirs = vec![data_dir.member_dir(), wal_dir.clone()];
    let space = Arc::new(DiskSpace::new(Arc::clone(&disk), dirs, config.wal_segment_bytes));
    let wal_options = WalOptions {
        segment_bytes: config.wal_segment_bytes,
        cache_bytes: WAL_CACHE_BYTES,
        no_fsync: config.unsafe_no_fsync,
        observer,
        on_fatal: Arc::new(move |error| fatal(&error.to_string())),
        ..WalOptions::new(wal_dir, identity.cluster_id, identity.member_id)
    };
    let (wal, recovered) = Wal::open(disk, wal_options)?;
    if let Some(torn) = &recovered.torn {
        tracing::warn!(torn = ?torn, "the log ended in the middle of a write; that write was never acknowledged and is cut off");
    }
    Ok(Opened { data_dir, identity, backend: Arc::new(backend), wal: Arc::new(wal), space, recovered })
}

/// The identity on disk, or the one that a new member gets; written before anything else is.
fn identify(config: &NodeConfig, data_dir: &DataDir, disk: &dyn Disk, wal_dir: &Path) -> Result<Identity, StartError> {
    let dir = data_dir.path().display().to_string();
    if let Some(identity) = identity::read(data_dir).map_err(|e| io(&format!("reading the identity in {dir}"), e))? {
        return Ok(identity);
    }
    let leftover = |path: PathBuf| StartError::Inconsistent {
        dir: dir.clone(),
        why: format!("{} exists, but the file that says which member this is does not", path.display()),
    };
    let segments = if disk.exists(wal_dir).map_err(|e| io("looking for the log", e))? {
        disk.list(wal_dir).map_err(|e| io("looking for the log", e))?
    } else {
        Vec::new()
    };
    if disk.exists(&data_dir.db_path()).map_err(|e| io("looking for the database", e))? {
        return Err(leftover(data_dir.db_path()));
    }
    if segments.iter().any(|entry| entry.name.ends_with(".wal")) {
        return Err(leftover(wal_dir.to_owned()));
    }
    let identity = found(config)?;
    identity::write(data_dir, identity).map_err(|e| io(&format!("writing the identity in {dir}"), e))?;
    Ok(identity)
}

/// The identity of a founding member, by etcd's formulas over `--initial-cluster`.
pub(crate) fn found(config: &NodeConfig) -> Result<Identity, StartError> {
    let mut members: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, url) in &config.initial_cluster {
        members.entry(name).or_default().push(url.clone());
    }
    let id = |urls: &Vec<String>| identity::member_id(urls, &config.initial_cluster_token, None);
    let Some(own) = members.get(config.name.as_str()) else {
        return Err(StartError::Config(format!(
            "couldn't find local name {:?} in the initial cluster configuration",
            config.name
        )));
    };
    let ids: Vec<u64> = members.values().map(id).collect();
    Ok(Identity { cluster_id: identity::cluster_id(&ids), member_id: id(own) })
}

/// Refuses a database and a log that cannot belong together: a member that lost its log must not act as if it had voted for nothing.
fn check_together(config: &NodeConfig, applied: Position, recovered: &Recovered) -> Result<(), StartError> {
    let refuse = |why: String| Err(StartError::Inconsistent { dir: config.data_dir.display().to_string(), why });
    let last = recovered.last.map_or(0, |id| id.index);
    let purged = recovered.purged.map_or(0, |id| id.index);
    if applied.index > last {
        return refuse(format!(
            "the database has applied entry {}, the log ends at {last}: the log has lost entries, or is another one",
            applied.index
        ));
    }
    if applied.index < purged {
        return refuse(format!(
            "the database ends at entry {}, the log begins behind {purged}: the database is an older one",
            applied.index
        ));
    }
    Ok(())
}

/// Everything but the runtime it runs on.
struct Parts {
    config: NodeConfig,
    identity: Identity,
    store: Arc<Store>,
    consensus: Consensus,
    proposer: Proposer,
    reads: ReadIndex,
    flusher: Arc<Flusher>,
    compactor: Arc<Compactor>,
    leases: Arc<LeaseClock>,
    leadership: watch::Receiver<Leadership>,
    backend: Arc<Backend>,
    wal: Arc<Wal>,
    space: Arc<DiskSpace>,
    metrics: Arc<Metrics>,
    stopping: Arc<AtomicBool>,
    threads: Vec<spawn::ThreadHandle<()>>,
    data_dir: DataDir,
}

impl Parts {
    fn into_inner(self, executor: Executor) -> Inner {
        Inner {
            config: self.config,
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            store: self.store,
            consensus: self.consensus,
            proposer: self.proposer,
            reads: self.reads,
            flusher: self.flusher,
            compactor: self.compactor,
            leases: self.leases,
            leadership: self.leadership,
            backend: self.backend,
            wal: self.wal,
            space: self.space,
            metrics: self.metrics,
            threads: Mutex::new(self.threads),
            stopping: self.stopping,
            defragmenting: tokio::sync::Mutex::new(()),
            executor,
            data_dir: Mutex::new(Some(self.data_dir)),
            tasks: Mutex::new(Vec::new()),
        }
    }
}

async fn run(config: NodeConfig, opened: Opened, metrics: Arc<Metrics>, fatal: Fatal) -> Result<Parts, StartError> {
    let Opened { data_dir, identity, backend, wal, space, recovered } = opened;
    let database = Arc::new(Database(Arc::clone(&backend)));
    let options = StoreOptions { cache_bytes: config.cache_bytes, ..StoreOptions::default() };
    let opening = spawn::blocking(move || Store::open(database, options)).await;
    let (store, applier) = opening.map_err(|e| StartError::Config(e.to_string()))??;
    check_together(&config, store.applied(), &recovered)?;
    let checkpointed = checkpointed(&config, &store)?;

    let threads_failed = |e| io("starting a thread", e);
    let wait = config.backend_batch_interval;
    let (flusher, flush_thread) = Flusher::start(
        Arc::clone(&store),
        Arc::clone(&wal),
        Arc::clone(&backend),
        checkpointed.clone(),
        wait,
        Arc::clone(&fatal),
    )
    .map_err(threads_failed)?;
    let pace = Pace { rows_per_step: config.compaction_batch_limit, pause: config.compaction_sleep_interval };
    let (compactor, compaction_thread) =
        Compactor::start(Arc::clone(&store), pace, Arc::clone(&fatal)).map_err(threads_failed)?;
    let leases = Arc::new(LeaseClock::default());
    let observer = Arc::new(Observer {
        flusher: Arc::clone(&flusher),
        compactor: Arc::clone(&compactor),
        leases: Arc::clone(&leases),
        metrics: Arc::clone(&metrics),
        warning_apply_duration: config.warning_apply_duration,
        fatal: Arc::clone(&fatal),
        compaction: AtomicBool::new(false),
    });

    let consensus_config = ConsensusConfig {
        member_id: identity.member_id,
        cluster_name: format!("{:016x}", identity.cluster_id),
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        snapshot_count: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
    };
    let state_machine = StateMachine::new(applier, checkpointed, observer);
    let failed = |e: crate::consensus::ConsensusError| StartError::Consensus(e.to_string());
    let consensus =
        Consensus::start(consensus_config, LogStore::new(Arc::clone(&wal)), state_machine).await.map_err(failed)?;
    consensus.initialize(BTreeMap::from([(identity.member_id, own_node(&config))])).await.map_err(failed)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let expected = Arc::clone(&stopping);
    let ended = move || {
        if !expected.load(Ordering::Acquire) {
            fatal("consensus has stopped by itself");
        }
    };
    let leadership = leadership::follow(&consensus, &store, &leases, &metrics, config.election_timeout, ended);
    let timeout = config.request_timeout();
    Ok(Parts {
        identity,
        proposer: Proposer::start(consensus.clone(), Arc::clone(&metrics), timeout),
        reads: ReadIndex::start(consensus.clone(), Arc::clone(&metrics), timeout),
        config,
        store,
        consensus,
        flusher,
        compactor,
        leases,
        leadership,
        backend,
        wal,
        space,
        metrics,
        stopping,
        threads: vec![flush_thread, compaction_thread],
        data_dir,
    })
}

fn checkpointed(config: &NodeConfig, store: &Store) -> Result<Checkpointed, StartError> {
    let position = Some(store.applied()).filter(|p| p.index > 0);
    let membership = match store.membership() {
        Some(bytes) => decode_stored_membership(&bytes)
            .map_err(|e| StartError::Inconsistent { dir: config.data_dir.display().to_string(), why: e.to_string() })?,
        None => Default::default(),
    };
    Ok(Checkpointed { position, membership })
}

/// What the membership is to say of this member.
pub(crate) fn own_node(config: &NodeConfig) -> MemberNode {
    MemberNode {
        name: config.name.clone(),
        peer_urls: config.initial_advertise_peer_urls.clone(),
        client_urls: config.advertise_client_urls.clone(),
        is_learner: false,
    }
}
