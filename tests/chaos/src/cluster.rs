//! The cluster under test: what faults do to it and what they ask it.

mod membership;
mod setup;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use garboard_e2e::process::run;
use garboard_e2e::process::run_with_input;
use garboard_e2e::process::tail;

pub use membership::Change;
pub use setup::Layout;
pub use setup::READY;

use crate::ctl::Ctl;
use crate::ctl::Status;
use crate::links::Links;
use crate::network::Network;
use crate::proxy::Proxy;
use crate::rules;
use crate::rules::Cuts;
use crate::rules::Map;
use crate::slot::Slot;
use crate::timeline::Timeline;

/// Whom a fault hits: known from the plan, or found when it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Slot(usize),
    Leader,
}

pub struct Cluster {
    // Dropped in this order: members and proxies before the network that they are on.
    pub slots: Vec<Slot>,
    proxies: Vec<Proxy>,
    pub network: Network,
    pub ctl: Ctl,
    pub links: Arc<Links>,
    pub timeline: Timeline,
    pub dir: PathBuf,
    pub layout: Layout,
    /// Faults may compact the keys; otherwise the clients do so alone.
    pub compacts: bool,
    /// The program is a real etcd.
    pub control: bool,
    program: PathBuf,
    map: Map,
    cuts: Mutex<Cuts>,
    violations: Mutex<Vec<String>>,
    /// Who answered last is asked first.
    answered: AtomicUsize,
}

// === impl Target ===

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Slot(slot) => write!(f, "member {slot}"),
            Self::Leader => write!(f, "the leader"),
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Starts the member of a slot as it was last told to.
    pub fn start(&self, slot: usize) -> anyhow::Result<()> {
        let command = self.network.command(slot, &self.program);
        self.slots[slot].start(command, self.ctl.authority(), &self.layout.flags())
    }

    /// Starts a member unless it runs.
    pub fn ensure_started(&self, slot: usize) -> anyhow::Result<()> {
        self.notice_ends();
        if self.slots[slot].pid().is_none() { self.start(slot) } else { Ok(()) }
    }

    /// Something that must never happen has happened: the run goes on and fails.
    pub fn violation(&self, text: String) {
        self.timeline.note("violation", "", &[], &text);
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notices members that have ended by themselves. It is a violation where no fault explains it, and the member starts again, as anywhere.
    pub fn notice_ends(&self) {
        for slot in &self.slots {
            let Some(ended) = slot.poll() else { continue };
            let text = format!("member {} ended by itself with {}", slot.index, ended.status);
            if ended.expected {
                self.timeline.note("ended", "", &[slot.index], &text);
            } else {
                let log = std::fs::read_to_string(&ended.log).unwrap_or_default();
                self.violation(format!("{text}; {}:\n{}", ended.log.display(), tail(&log)));
                if let Err(error) = self.start(slot.index) {
                    self.timeline.note("error", "", &[slot.index], &format!("{error:#}"));
                }
            }
        }
    }

    /// The slots that have members.
    pub fn active(&self) -> Vec<usize> {
        self.slots.iter().filter(|slot| slot.is_active()).map(|slot| slot.index).collect()
    }

    /// What each member says of itself, asked at once.
    pub fn statuses(&self, slots: &[usize], seconds: u32) -> Vec<(usize, anyhow::Result<Status>)> {
        std::thread::scope(|scope| {
            let ask = |slot: usize| scope.spawn(move || self.ctl.status(&self.slots[slot].client_url(), seconds));
            let asked: Vec<_> = slots.iter().map(|slot| (*slot, ask(*slot))).collect();
            asked.into_iter().map(|(slot, answer)| (slot, joined(answer))).collect()
        })
    }

    /// The member that says that it leads, in the highest term if two do; none if none does within `limit`.
    pub fn leader(&self, limit: Duration) -> Option<usize> {
        let start = Instant::now();
        loop {
            let running: Vec<usize> =
                self.active().into_iter().filter(|slot| self.slots[*slot].pid().is_some()).collect();
            let statuses = self.statuses(&running, 1);
            let leads = statuses.into_iter().filter_map(|(slot, status)| status.ok().map(|status| (slot, status)));
            let leader = leads
                .filter(|(_, status)| status.leader != 0 && status.leader == status.member_id)
                .max_by_key(|(_, status)| status.term);
            if let Some((slot, _)) = leader {
                return Some(slot);
            }
            if start.elapsed() > limit {
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whom a target is now. None without a leader.
    pub fn find(&self, target: Target) -> Option<usize> {
        match target {
            Target::Slot(slot) => Some(slot),
            Target::Leader => self.leader(Duration::from_secs(4)),
        }
    }

    /// The same, or everyone where nobody is meant.
    pub fn find_or_all(&self, target: Option<Target>) -> Option<Vec<usize>> {
        match target {
            Some(target) => self.find(target).map(|slot| vec![slot]),
            None => Some(self.active()),
        }
    }

    /// Asks one running member after the other until one answers; `except` is asked last, who answered before first.
    pub fn ask<T>(&self, except: Option<usize>, ask: impl Fn(&str) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut slots = self.active();
        let favourite = self.answered.load(Ordering::Relaxed);
        slots.sort_by_key(|slot| (Some(*slot) == except, *slot != favourite));
        let mut last = anyhow::anyhow!("no member runs");
        for slot in slots.into_iter().filter(|slot| self.slots[*slot].pid().is_some()) {
            match ask(&self.slots[slot].client_url()) {
                Ok(answer) => {
                    self.answered.store(slot, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => last = error.context(format!("member {slot}")),
            }
        }
        Err(last)
    }

    /// Replaces what is cut.
    pub fn cut(&self, cuts: Cuts) -> anyhow::Result<()> {
        let mut now = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in 0..self.slots.len() {
            let table = rules::table(slot, &self.map, &cuts);
            if table != rules::table(slot, &self.map, &now) {
                let mut nft = self.network.command(slot, "nft");
                run_with_input(nft.args(["-f", "-"]), &table)?.success("nft")?;
            }
        }
        *now = cuts;
        Ok(())
    }

    /// How many packets the cuts that are in force have swallowed.
    pub fn dropped_packets(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for slot in 0..self.slots.len() {
            // Without a cut here there is no table.
            let output = run(self.network.command(slot, "nft").args(["list", "table", "ip", "chaos"]))?;
            sum += rules::dropped(&output.stdout);
        }
        Ok(sum)
    }

    /// Everything that a fault could have left is taken back, and all members run.
    pub fn restore(&self) -> anyhow::Result<()> {
        self.cut(Cuts::default())?;
        self.links.set_all(crate::links::Condition::default());
        for slot in self.active() {
            self.slots[slot].signal(rustix::process::Signal::CONT);
            self.ensure_started(slot)?;
            self.slots[slot].set_may_end(false);
        }
        Ok(())
    }

    /// Disarms NOSPACE, as an operator does once there is space. Other alarms stay: they tell of damage.
    pub fn disarm(&self, limit: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let cleared = self.ask(None, |url| {
                let alarms = self.ctl.alarms(url, 2)?;
                if alarms.iter().all(|alarm| alarm != "NOSPACE") {
                    return Ok(());
                }
                anyhow::ensure!(alarms.iter().all(|alarm| alarm == "NOSPACE"), "alarms: {alarms:?}");
                self.ctl.ok(url, 2, &["alarm", "disarm"])?;
                bail!("just disarmed")
            });
            match cleared {
                Ok(()) => return Ok(()),
                Err(error) if start.elapsed() > limit => return Err(error.context("disarm the alarms")),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Waits until something holds.
    pub fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut last = None;
        loop {
            match holds() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => last = Some(error),
            }
            if start.elapsed() > limit {
                let error = anyhow::anyhow!("{what}: not within {limit:?}");
                return Err(last.map_or(error, |last| anyhow::anyhow!("{what}: not within {limit:?}: {last:#}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The file that says which proxies the members advertise, for whoever reads the kept files.
    pub fn describe(&self) -> String {
        let line = |slot: &Slot| format!("m{} {} called at {}", slot.index, slot.address, slot.peer_url);
        self.slots.iter().map(line).collect::<Vec<_>>().join(", ") + &format!(", {} proxies", self.proxies.len())
    }
}

/// The answer of a thread that asked.
pub fn joined<T>(handle: std::thread::ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    handle.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
}
