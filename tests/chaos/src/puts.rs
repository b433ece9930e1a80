//! Traffic for want of a better one: etcdctl puts keys that are never used again, and all that were acknowledged must be there at the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use anyhow::ensure;

use crate::cluster::Cluster;

const WRITERS: usize = 2;
const PREFIX: &str = "chaos/puts/";

pub struct Puts {
    done: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    threads: Vec<JoinHandle<()>>,
}

// === impl Puts ===

impl Puts {
    pub fn start(cluster: &Arc<Cluster>) -> Self {
        let (done, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<BTreeSet<String>>>::default());
        let threads = (0..WRITERS)
            .map(|writer| {
                let (cluster, done, acknowledged) = (cluster.clone(), done.clone(), acknowledged.clone());
                std::thread::spawn(move || {
                    for number in 0.. {
                        if done.load(Ordering::SeqCst) {
                            return;
                        }
                        let key = format!("{PREFIX}{writer}/{number:06}");
                        let url = cluster.slots[(writer + number) % cluster.layout.members].client_url();
                        if cluster.ctl.ok(&url, 2, &["put", &key, "x"]).is_ok() {
                            acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
                        }
                    }
                })
            })
            .collect();
        Self { done, acknowledged, threads }
    }

    /// Ends it and looks for what was acknowledged; how much that is.
    pub fn finish(mut self, cluster: &Cluster) -> anyhow::Result<usize> {
        self.stop();
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner));
        let text = cluster.ask(None, |url| cluster.ctl.ok(url, 10, &["get", "--prefix", "--keys-only", PREFIX]))?;
        let found: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let lost: Vec<&String> = acknowledged.iter().filter(|key| !found.contains(key.as_str())).collect();
        let some: Vec<&&String> = lost.iter().take(5).collect();
        ensure!(lost.is_empty(), "{} of {} acknowledged writes are lost: {some:?}", lost.len(), acknowledged.len());
        ensure!(!acknowledged.is_empty(), "no write was acknowledged");
        Ok(acknowledged.len())
    }

    fn stop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Puts {
    fn drop(&mut self) {
        self.stop();
    }
}
