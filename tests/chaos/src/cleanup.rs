//! What ends when the run ends, also by a signal: the members, their namespaces (see `network`) and the programs beside them.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;

use anyhow::Context as _;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

use crate::network;

/// Programs that this process has started and not yet waited for.
static STARTED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Nothing is started any more: it would be left behind. Whoever starts something holds it for reading until that can be ended.
static ENDING: RwLock<bool> = RwLock::new(false);

/// Leave to start something, as long as it is held; none when the run is being ended.
pub fn may_start() -> Option<RwLockReadGuard<'static, bool>> {
    let ending = ENDING.read().unwrap_or_else(PoisonError::into_inner);
    (!*ending).then_some(ending)
}

/// Keeps a process among those that a signal to this one ends.
pub struct Kept(u32);

// === impl Kept ===

impl Kept {
    pub fn new(id: u32) -> Self {
        STARTED.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        Self(id)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        STARTED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP remove what the run has made before they end it.
pub fn on_signals() -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("handle signals")?;
    std::thread::spawn(move || {
        if let Some(number) = signals.forever().next() {
            eprintln!("chaos: signal {number}: removing members and network");
            *ENDING.write().unwrap_or_else(PoisonError::into_inner) = true;
            for id in STARTED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                send(*id, Signal::KILL);
            }
            network::remove(std::process::id());
            std::process::exit(128 + number);
        }
    });
    Ok(())
}

/// Sends a signal; a process that is no more is no error.
pub fn send(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}
