//! From a data directory to a running member: lock, identity, database, log, state, consensus, in this order.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use garboard_mvcc::Position;
use garboard_mvcc::Store;
use garboard_mvcc::StoreOptions;
use garboard_mvcc::meta;
use garboard_runtime::clock;
use garboard_runtime::executor::Executor;
use garboard_runtime::spawn;
use garboard_storage::DataDir;
use garboard_storage::Disk;
use garboard_storage::MemberFiles;
use garboard_storage::backend::Backend;
use garboard_storage::backend::BackendError;
use garboard_storage::backend::BackendOptions;
use garboard_storage::backend::Table;
use garboard_storage::wal::LogId;
use garboard_storage::wal::Recovered;
use garboard_storage::wal::Wal;
use garboard_storage::wal::WalOptions;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::sync::watch;

use crate::EXIT_OUTDATED;
use crate::EXIT_REMOVED;
use crate::EXIT_WIPED;
use crate::Fatal;
use crate::auto_compaction;
use crate::backend::Database;
use crate::compaction::Compactor;
use crate::compaction::Pace;
use crate::config::InitialClusterState;
use crate::config::NodeConfig;
use crate::consensus::Checkpointed;
use crate::consensus::Consensus;
use crate::consensus::ConsensusConfig;
use crate::consensus::Force;
use crate::consensus::ForceError;
use crate::consensus::LogStore;
use crate::consensus::StateMachine;
use crate::consensus::StoredMembership;
use crate::corrupt;
use crate::error::StartError;
use crate::flush::Flusher;
use crate::forward::Waiting;
use crate::identity;
use crate::identity::Identity;
use crate::identity::Record;
use crate::install;
use crate::install::Installer;
use crate::install::META_INSTALLED;
use crate::install::Receiver;
use crate::join;
use crate::leadership;
use crate::lease::LeaseClock;
use crate::leases;
use crate::members;
use crate::members::founders;
use crate::metrics::DiskObserver;
use crate::metrics::Metrics;
use crate::node::Inner;
use crate::node::Leadership;
use crate::node::Node;
use crate::observe::Observer;
use crate::peers::Links;
use crate::peers::LinksConfig;
use crate::peers::OnRefused;
use crate::peers::PeerMetrics;
use crate::peers::Refusal;
use crate::peers::Roster;
use crate::propose::Proposer;
use crate::propose::Way;
use crate::publish;
use crate::read::Ground;
use crate::read::ReadIndex;
use crate::release::Release;
use crate::scrape::Scrape;
use crate::snapshot::RESTORING;
use crate::space;
use crate::space::DiskSpace;
use crate::versions;

/// Threads of the runtime that consensus, proposing and applying run on.
const CONSENSUS_THREADS: usize = 2;
/// Bytes of recent log entries kept in memory.
const WAL_CACHE_BYTES: usize = 16 << 20;
/// Bytes of redb's own page cache; the value cache and the kernel's page cache stand before and behind it.
const BACKEND_CACHE_BYTES: usize = 32 << 20;

/// How long a member that the others refuse for good goes on: for answers under way.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What to do when the member cannot go on.
#[derive(Clone)]
struct Ends {
    fatal: Fatal,
    /// With an exit code of its own.
    refused: Arc<dyn Fn(u8, &str) + Send + Sync>,
}

/// What was found on disk, opened.
struct Opened {
    disk: Arc<dyn Disk>,
    data_dir: DataDir,
    record: Record,
    pins: BTreeMap<u64, u64>,
    backend_options: BackendOptions,
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
        let ends = Ends { fatal: exit_process(), refused: Arc::new(exit_refused) };
        Self::start_ending(config, disk, registry, ends).await
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
        let told = Arc::clone(&fatal);
        let ends = Ends { fatal, refused: Arc::new(move |_, why| told(why)) };
        Self::start_ending(config, disk, registry, ends).await
    }

    /// The only member of a cluster in memory, elected: for tests.
    #[cfg(test)]
    pub(crate) async fn alone(release: Release) -> Self {
        let config = NodeConfig { data_dir: "/data".into(), release, ..NodeConfig::default() };
        let disk = Arc::new(garboard_storage::disk::memory::MemoryDisk::new());
        let node = Self::start_with(config, disk, &Registry::new(), Arc::new(|_| {})).await.expect("a member");
        node.ready().await.expect("a leader");
        node
    }

    async fn start_ending(
        config: NodeConfig,
        disk: Arc<dyn Disk>,
        registry: &Registry,
        ends: Ends,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::register(registry).map_err(|e| StartError::Config(format!("metrics: {e}")))?;
        let executor = Executor::new("consensus", CONSENSUS_THREADS).map_err(|e| io("starting threads", e))?;
        let (setup, observed, peer_registry) = (config.clone(), Arc::clone(&metrics), registry.clone());
        let starting = executor.task(async move {
            let has_data = disk.exists(&config_dir(&setup)).map_err(|e| io("looking for the data directory", e))?;
            if setup.force_new_cluster && !has_data {
                return Err(nothing_to_force(&setup.data_dir));
            }
            let joining =
                !has_data && (setup.initial_cluster_state == InitialClusterState::Existing || !setup.join.is_empty());
            let joined = if joining { Some(join::find_identity(&setup).await?) } else { None };
            let told = Arc::clone(&ends.fatal);
            let opened = spawn::blocking(move || open(&setup, disk, observed, joined, told).map(|o| (setup, o)));
            let (setup, opened) = opened.await.map_err(|e| StartError::Config(e.to_string()))??;
            let peer_metrics = PeerMetrics::register(&peer_registry, opened.record.identity.member_id)
                .map_err(|e| StartError::Config(format!("metrics: {e}")))?;
            run(setup, opened, metrics, peer_metrics, ends).await
        });
        let parts = starting.await.map_err(|e| StartError::Consensus(e.to_string()))??;
        let node = Node(Arc::new(parts.into_inner(executor)));
        let compared = node.clone();
        let comparing = node.0.executor.task(async move { corrupt::check_at_start(&compared).await });
        comparing.await.map_err(|e| StartError::Consensus(e.to_string()))??;
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
            executor.task(versions::run(self.clone())),
            executor.task(space::run(Arc::clone(&self.0.space))),
            executor.task(members::run_promotions(self.clone())),
            executor.task(leadership::run_watchdog(self.clone())),
            executor.task(corrupt::run_periodic(self.clone())),
            executor.task(corrupt::run_compacted(self.clone())),
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

/// The same, for a member that the others will not have.
fn exit_refused(code: u8, why: &str) {
    tracing::error!(target: "garboard::fatal", reason = why, "the member cannot go on");
    std::process::exit(i32::from(code));
}

/// A cluster of nothing would pass for the one that was meant.
fn nothing_to_force(dir: &Path) -> StartError {
    StartError::NotForced { dir: dir.display().to_string(), why: "there is no member in it".to_owned() }
}

fn config_dir(config: &NodeConfig) -> PathBuf {
    config.data_dir.join("member")
}

fn open(
    config: &NodeConfig,
    disk: Arc<dyn Disk>,
    metrics: Arc<Metrics>,
    joined: Option<Record>,
    fatal: Fatal,
) -> Result<Opened, StartError> {
    let dir = config.data_dir.display().to_string();
    let data_dir = DataDir::open(Arc::clone(&disk), &config.data_dir)
        .map_err(|e| io(&format!("opening the data directory {dir}"), e))?;
    let wal_dir = config.wal_dir.clone().unwrap_or_else(|| data_dir.wal_dir());
    let record = identify(config, &data_dir, &*disk, &wal_dir, joined)?;
    let identity = record.identity;
    if record.removed {
        return Err(StartError::Removed { dir, member_id: identity.member_id });
    }
    let pins =
        identity::read_pins(&data_dir.files()).map_err(|e| io(&format!("reading who the peers are in {dir}"), e))?;
    install::clear(&*disk, &data_dir.db_path()).map_err(|e| io("removing an unfinished snapshot", e))?;
    let observer = Arc::new(DiskObserver(metrics));
    let on_unreadable = Arc::clone(&fatal);
    let backend_options = BackendOptions {
        cache_bytes: BACKEND_CACHE_BYTES,
        no_fsync: config.unsafe_no_fsync,
        observer: observer.clone(),
        on_unreadable: Arc::new(move |error| on_unreadable(&error.to_string())),
    };
    let backend = Backend::open(Arc::clone(&disk), &data_dir.db_path(), backend_options.clone())?;
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
    let (wal, recovered) = Wal::open(Arc::clone(&disk), wal_options)?;
    if let Some(torn) = &recovered.torn {
        tracing::warn!(torn = ?torn, "the log ended in the middle of a write; that write was never acknowledged and is cut off");
    }
    let (backend, wal) = (Arc::new(backend), Arc::new(wal));
    Ok(Opened { disk, data_dir, record, pins, backend_options, backend, wal, space, recovered })
}

/// The identity on disk, or the one that a new member gets; written before anything else is.
fn identify(
    config: &NodeConfig,
    data_dir: &DataDir,
    disk: &dyn Disk,
    wal_dir: &Path,
    joined: Option<Record>,
) -> Result<Record, StartError> {
    let dir = data_dir.path().display().to_string();
    if let Some(record) =
        identity::read(&data_dir.files()).map_err(|e| io(&format!("reading the identity in {dir}"), e))?
    {
        return Ok(record);
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
    let restoring = data_dir.path().join(RESTORING);
    if disk.exists(&restoring).map_err(|e| io("looking for half a restore", e))? {
        return Err(leftover(restoring));
    }
    if disk.exists(&data_dir.db_path()).map_err(|e| io("looking for the database", e))? {
        return Err(leftover(data_dir.db_path()));
    }
    if segments.iter().any(|entry| entry.name.ends_with(".wal")) {
        return Err(leftover(wal_dir.to_owned()));
    }
    if config.force_new_cluster {
        return Err(nothing_to_force(data_dir.path()));
    }
    let record = match joined {
        Some(record) => record,
        None => found(config)?,
    };
    identity::write(&data_dir.files(), &record).map_err(|e| io(&format!("writing the identity in {dir}"), e))?;
    Ok(record)
}

/// The identity of a founding member, by etcd's formulas over `--initial-cluster`.
pub(crate) fn found(config: &NodeConfig) -> Result<Record, StartError> {
    let members = founders(config);
    let Some((member_id, _)) = members.iter().find(|(_, node)| node.name == config.name) else {
        return Err(StartError::Config(format!(
            "couldn't find local name {:?} in the initial cluster configuration",
            config.name
        )));
    };
    let ids: Vec<u64> = members.keys().copied().collect();
    let incarnation = identity::draw_incarnation().map_err(|e| io("drawing a number", e))?;
    let identity = Identity { cluster_id: identity::cluster_id(&ids), member_id: *member_id, incarnation };
    Ok(Record { identity, joined: false, removed: false, forced: false })
}

/// Refuses a database and a log that cannot belong together: a member that lost its log must not act as if it had voted for nothing.
pub(crate) fn check_together(
    dir: &Path,
    applied: Position,
    last: Option<LogId>,
    purged: Option<LogId>,
    installed: Option<Position>,
) -> Result<(), StartError> {
    // A crash came between the database of a received snapshot and the log's beginning behind it.
    if installed == Some(applied) {
        return Ok(());
    }
    let refuse = |why: String| Err(StartError::Inconsistent { dir: dir.display().to_string(), why });
    let last = last.map_or(0, |id| id.index);
    let purged = purged.map_or(0, |id| id.index);
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

/// Refuses what a later release has written, and what the cluster has left behind.
fn check_release(config: &NodeConfig, store: &Store) -> Result<(), StartError> {
    let dir = config.data_dir.display().to_string();
    let release = &config.release;
    if !release.reads.contains(&store.format_version()) {
        return Err(StartError::Outdated { dir, reads: release.reads.clone() });
    }
    let determined = store.cluster_version().unwrap_or_default();
    release.check_cluster_version(&determined).map_err(|why| StartError::Inconsistent { dir, why })
}

/// Makes this member a cluster of its own when it is told to, once: the flag may stay until the cluster grows again.
fn obey_force_flag(
    files: &MemberFiles,
    force: bool,
    record: Record,
    wal: &Wal,
    checkpointed: &Checkpointed,
) -> Result<(), StartError> {
    let dir = || files.path("").display().to_string();
    let refuse = |error: ForceError| StartError::NotForced { dir: dir(), why: error.to_string() };
    if let Some(plan) =
        force.then(|| Force::plan(wal, checkpointed, record.identity)).transpose().map_err(refuse)?.flatten()
    {
        if record.forced {
            return Err(refuse(ForceError::Again));
        }
        let at = plan.write(wal).map_err(refuse)?;
        tracing::warn!(
            index = at.index,
            term = at.term,
            "forcing restart member: a cluster of its own from this entry on"
        );
    }
    if force != record.forced {
        let record = Record { forced: force, ..record };
        identity::write(files, &record).map_err(|e| io(&format!("writing the identity in {}", dir()), e))?;
    }
    Ok(())
}

/// Everything but the runtime it runs on.
struct Parts {
    config: NodeConfig,
    identity: Identity,
    joined: bool,
    store: Arc<Store>,
    consensus: Consensus,
    links: Arc<Links>,
    proposer: Proposer,
    reads: ReadIndex,
    installer: Arc<Installer>,
    on_refused: OnRefused,
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
            joined: self.joined,
            store: self.store,
            consensus: self.consensus,
            links: self.links,
            proposer: self.proposer,
            reads: self.reads,
            defragmenting: Arc::clone(&self.installer.defragmenting),
            installer: self.installer,
            changing_members: tokio::sync::Mutex::new(()),
            on_refused: self.on_refused,
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
            executor,
            data_dir: Mutex::new(Some(self.data_dir)),
            tasks: Mutex::new(Vec::new()),
        }
    }
}

/// The end of a member that the others refuse. One that was removed does not start again.
fn on_refused(data_dir: &DataDir, record: Record, release: &Release, ends: &Ends) -> OnRefused {
    let (files, dir, refused) = (data_dir.files(), data_dir.path().to_owned(), Arc::clone(&ends.refused));
    let once = AtomicBool::new(false);
    let (member_id, reads) = (record.identity.member_id, release.reads.clone());
    Arc::new(move |refusal| {
        if once.swap(true, Ordering::AcqRel) {
            return;
        }
        let dir_text = dir.display().to_string();
        let (code, error) = match refusal {
            Refusal::Removed => {
                if let Err(error) = identity::write(&files, &Record { removed: true, ..record }) {
                    tracing::warn!(%error, "cannot write down that this member was removed");
                }
                (EXIT_REMOVED, StartError::Removed { dir: dir_text, member_id })
            }
            Refusal::Outdated => (EXIT_OUTDATED, StartError::Outdated { dir: dir_text, reads: reads.clone() }),
            _ => (EXIT_WIPED, StartError::Wiped { dir: dir_text, member_id }),
        };
        // Whoever asked this member to remove itself gets the answer, as from etcd.
        let (refused, why) = (Arc::clone(&refused), error.to_string());
        let ends = spawn::thread("end", move || {
            clock::pause_thread(LAST_ANSWERS);
            refused(code, &why);
        });
        if let Err(error) = ends {
            tracing::error!(%error, "no thread to end this member with");
        }
    })
}

/// The connections to the other members, and who those are.
fn link_up(config: &NodeConfig, opened: &Opened, on_refused: &OnRefused, metrics: Arc<PeerMetrics>) -> Arc<Links> {
    let files = opened.data_dir.files();
    let save = move |pins: &BTreeMap<u64, u64>| identity::write_pins(&files, pins);
    let roster =
        Arc::new(Roster::new(opened.record.identity, config.release.clone(), opened.pins.clone(), Box::new(save)));
    let links_config = LinksConfig {
        tls: config.peer_tls.0.clone(),
        election_timeout: config.election_timeout,
        on_refused: Arc::clone(on_refused),
        metrics,
    };
    Arc::new(Links::new(roster, links_config))
}

/// Up to where the database is a snapshot that was received.
pub(crate) fn installed(backend: &Backend) -> Result<Option<Position>, BackendError> {
    let row = backend.get_many(Table::Meta, &[META_INSTALLED.as_bytes()])?.into_iter().flatten().next();
    Ok(row.and_then(|bytes| meta::decode_position(&bytes)))
}

async fn run(
    config: NodeConfig,
    opened: Opened,
    metrics: Arc<Metrics>,
    peer_metrics: Arc<PeerMetrics>,
    ends: Ends,
) -> Result<Parts, StartError> {
    let on_refused = on_refused(&opened.data_dir, opened.record, &config.release, &ends);
    let links = link_up(&config, &opened, &on_refused, peer_metrics);
    let Ends { fatal, refused } = ends;
    let Opened { disk, data_dir, record, backend_options, backend, wal, space, recovered, .. } = opened;
    let identity = record.identity;
    let database = Arc::new(Database(Arc::clone(&backend)));
    let options = StoreOptions { cache_bytes: config.cache_bytes, ..StoreOptions::default() };
    let opening = spawn::blocking(move || Store::open(database, options)).await;
    let (store, applier) = opening.map_err(|e| StartError::Config(e.to_string()))??;
    let installed = installed(&backend)?;
    check_together(&config.data_dir, store.applied(), recovered.last, recovered.purged, installed)?;
    check_release(&config, &store)?;
    links.roster().agreed(store.format_version());
    if let Some(at) = installed.filter(|at| recovered.last.is_none_or(|last| last.index < at.index)) {
        wal.purge(LogId { term: at.term, index: at.index });
    }
    let checkpointed = checkpointed(&config, &store)?;
    let (files, at) = (data_dir.files(), checkpointed.clone());
    let (log, force) = (Arc::clone(&wal), config.force_new_cluster);
    let forcing = spawn::blocking(move || obey_force_flag(&files, force, record, &log, &at)).await;
    forcing.map_err(|e| StartError::Config(e.to_string()))??;

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
    let installer = Arc::new(Installer {
        backend: Arc::clone(&backend),
        store: Arc::clone(&store),
        flusher: Arc::clone(&flusher),
        compactor: Arc::clone(&compactor),
        receiver: Arc::new(Receiver::new(disk, &data_dir.db_path(), backend_options, Arc::clone(&metrics))),
        metrics: Arc::clone(&metrics),
        defragmenting: Arc::default(),
    });
    let waiting = Arc::new(Waiting::new().map_err(|e| io("drawing a number", e))?);
    let (applied_sender, applied) = watch::channel(store.applied().index);
    let removed = Arc::clone(&on_refused);
    let observer = Arc::new(Observer {
        flusher: Arc::clone(&flusher),
        compactor: Arc::clone(&compactor),
        leases: Arc::clone(&leases),
        metrics: Arc::clone(&metrics),
        warning_apply_duration: config.warning_apply_duration,
        fatal: Arc::clone(&fatal),
        // At once, answers under way or not: the next entry would be misread.
        outdated: Arc::new(move |why| refused(EXIT_OUTDATED, why)),
        waiting: Arc::clone(&waiting),
        links: Arc::clone(&links),
        installer: Arc::clone(&installer),
        applied: applied_sender,
        removed: Box::new(move || removed(Refusal::Removed)),
        compaction: AtomicBool::new(false),
    });

    let consensus_config = ConsensusConfig {
        member_id: identity.member_id,
        cluster_name: format!("{:016x}", identity.cluster_id),
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        snapshot_count: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        pre_vote: config.pre_vote,
        lease_reads: config.lease_reads,
    };
    let state_machine = StateMachine::new(identity.member_id, applier, checkpointed, observer);
    let failed = |e: crate::consensus::ConsensusError| StartError::Consensus(e.to_string());
    let log_store = LogStore::new(Arc::clone(&wal), identity.member_id);
    let consensus =
        Consensus::start(consensus_config, log_store, state_machine, Arc::clone(&links)).await.map_err(failed)?;
    if !record.joined && recovered.last.is_none() {
        consensus.initialize(founders(&config)).await.map_err(failed)?;
    }
    consensus.elect_if_alone().await.map_err(failed)?;
    if consensus.voters().iter().eq([&identity.member_id]) && !links.roster().is_alone() {
        // A cluster of its own by what is not applied yet: who was a member before must not be heard until it is.
        let end = wal.state().last.map_or(0, |last| last.index);
        let mut applied = applied.clone();
        tokio::select! {
            _ = applied.wait_for(|index| *index >= end) => {}
            () = consensus.watch_leadership(config.election_timeout, |_| true) => {
                return Err(StartError::Consensus("it has stopped".to_owned()));
            }
        }
    }
    let stopping = Arc::new(AtomicBool::new(false));
    let expected = Arc::clone(&stopping);
    let ended = move || {
        if !expected.load(Ordering::Acquire) {
            fatal("consensus has stopped by itself");
        }
    };
    let leadership = leadership::follow(&consensus, &store, &leases, &metrics, config.election_timeout, ended);
    let timeout = config.request_timeout();
    let way = Way { consensus: consensus.clone(), links: Arc::clone(&links), waiting };
    let ground = Ground { consensus: consensus.clone(), links: Arc::clone(&links), applied };
    Ok(Parts {
        identity,
        joined: record.joined,
        links,
        proposer: Proposer::start(way, Arc::clone(&metrics), timeout),
        reads: ReadIndex::start(ground, Arc::clone(&metrics), timeout),
        installer,
        on_refused,
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
        Some(bytes) => StoredMembership::decode(&bytes)
            .map_err(|e| StartError::Inconsistent { dir: config.data_dir.display().to_string(), why: e.to_string() })?,
        None => Default::default(),
    };
    Ok(Checkpointed { position, membership })
}

#[cfg(test)]
mod tests {
    use garboard_storage::disk::memory::MemoryDisk;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_format_that_cannot_be_read_ends_the_member_with_its_own_code() {
        let (told, mut ends) = mpsc::channel(16);
        let refused = told.clone();
        let ends_with = Ends {
            fatal: Arc::new(move |why| drop(told.try_send((1, why.to_owned())))),
            refused: Arc::new(move |code, why| drop(refused.try_send((code, why.to_owned())))),
        };
        // It writes what it cannot read: what another release would have brought about.
        let release = Release { writes: 2, ..Release::default() };
        let config = NodeConfig { data_dir: "/data".into(), release, ..NodeConfig::default() };
        let disk = Arc::new(MemoryDisk::new());
        let node = Node::start_ending(config, disk, &Registry::new(), ends_with).await.expect("a member");
        let ended = clock::timeout(Duration::from_secs(30), ends.recv()).await;
        let (code, why) = ended.expect("it goes on").expect("a reason");
        assert_eq!(code, EXIT_OUTDATED, "{why}");
        assert!(why.contains("writes format 2"), "{why}");
        node.shutdown().await;
    }
}
