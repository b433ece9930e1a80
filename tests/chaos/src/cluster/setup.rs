//! How a cluster comes to be: network, certificates, proxies, and the first start of all members.

use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use garboard_e2e::certs::Authority;
use garboard_e2e::process::run;
use garboard_e2e::process::tail;

use super::Cluster;
use crate::ctl::Ctl;
use crate::links::Links;
use crate::network::Network;
use crate::proxy::Front;
use crate::proxy::Proxy;
use crate::rules::Map;
use crate::rules::PEER_PORT;
use crate::slot::Slot;
use crate::timeline::Timeline;

/// The log line that every framework around etcd waits for.
pub const READY: &str = "ready to serve client requests";
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Room for the segments that members allocate ahead, for what they keep in reserve, and for some writes.
const SMALL_DISK_MIB: u32 = 400;

/// What a plan asks of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// At the start; one slot more is there to grow into.
    pub members: usize,
    /// Members call each other through proxies.
    pub proxies: bool,
    /// The last of the members has a small disk of its own.
    pub small_disk: bool,
    /// After so many entries a member takes a snapshot.
    pub snapshot_count: u64,
    /// So many entries before it are kept for those that lag.
    pub catchup_entries: u64,
    /// Reads trust the leader's lease.
    pub lease_reads: bool,
}

// === impl Layout ===

impl Layout {
    pub fn small_disk_slot(&self) -> usize {
        self.members - 1
    }

    pub fn spare_slot(&self) -> usize {
        self.members
    }

    pub(super) fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            format!("--snapshot-count={}", self.snapshot_count),
            format!("--snapshot-catchup-entries={}", self.catchup_entries),
        ];
        if self.lease_reads {
            flags.push("--lease-reads".to_owned());
        }
        flags
    }
}

// === impl Cluster ===

impl Cluster {
    /// Makes everything that members need; none is started. The last two are the fields of the same names.
    pub fn new(
        program: &Path,
        etcdctl: &Path,
        layout: Layout,
        dir: &Path,
        timeline: Timeline,
        (compacts, control): (bool, bool),
    ) -> anyhow::Result<Arc<Self>> {
        let count = layout.members + 1;
        let network = Network::new(count).context("make the network (this needs root)")?;
        let host = network.host();
        let members: Vec<_> = (0..count).map(|slot| network.address(slot)).collect();
        let links = Arc::new(Links::new(count));
        let mut proxies = Vec::new();
        let mut called_at: Vec<_> = members.iter().map(|address| SocketAddrV4::new(*address, PEER_PORT)).collect();
        if layout.proxies {
            for (slot, address) in called_at.iter_mut().enumerate() {
                let front = Front { slot, target: *address, members: members.clone() };
                proxies.push(Proxy::new(host, front, links.clone())?);
                *address = proxies[slot].address;
            }
        }
        let authority = Authority::new(dir, "ca")?;
        let mut slots = Vec::new();
        for (index, address) in members.iter().enumerate() {
            // With proxies a member is called at this process's address, and calls from it.
            let identity = authority.issue_for_addresses(dir, &format!("m{index}"), &[*address, host])?;
            slots.push(Slot::new(index, *address, format!("https://{}", called_at[index]), identity, dir));
            std::fs::create_dir_all(slots[index].home())?;
        }
        if layout.small_disk {
            mount_small_disk(&slots[layout.small_disk_slot()].home())?;
        }
        let client = authority.issue_for_addresses(dir, "client", &[])?;
        let ctl = Ctl::new(etcdctl.to_owned(), authority.cert.clone(), client);
        let cluster = Self {
            slots,
            proxies,
            network,
            ctl,
            links,
            timeline,
            dir: dir.to_owned(),
            layout,
            compacts,
            control,
            program: program.to_owned(),
            map: Map { host, members, called_at },
            cuts: Mutex::default(),
            violations: Mutex::default(),
            answered: AtomicUsize::new(0),
        };
        cluster.timeline.note("layout", "", &[], &format!("{layout:?}; {}", cluster.describe()));
        Ok(Arc::new(cluster))
    }

    /// Starts a new cluster of the first members and waits until all of them serve.
    pub fn bootstrap(&self) -> anyhow::Result<()> {
        let first: Vec<usize> = (0..self.layout.members).collect();
        let entries: Vec<String> =
            first.iter().map(|slot| format!("{}={}", self.slots[*slot].name(), self.slots[*slot].peer_url)).collect();
        for slot in &first {
            self.slots[*slot].joins(entries.join(","), "new");
            self.start(*slot)?;
        }
        let start = Instant::now();
        for slot in &first {
            while !self.slots[*slot].logged().contains(READY) {
                let ended = self.slots[*slot].poll().is_some();
                if ended || start.elapsed() > READY_LIMIT {
                    bail!("member {slot} does not serve:\n{}", tail(&self.slots[*slot].logged()));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.timeline.note("ready", "", &first, "all members serve");
        Ok(())
    }
}

/// A disk of memory, mounted where all namespaces made later see it. It goes with the network.
fn mount_small_disk(folder: &Path) -> anyhow::Result<()> {
    let size = format!("size={SMALL_DISK_MIB}m");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder))?.success("mount").map(drop)
}
