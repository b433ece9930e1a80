//! Somebody else's file fills the disk of one member, and goes.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;

use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::fault::Fault;
use crate::fault::Outcome;
use garboard_e2e::random::Random;

const DISARM_LIMIT: Duration = Duration::from_secs(10);

struct FullDisk {
    slot: usize,
    ballast: Option<PathBuf>,
}

pub fn make(_: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    Box::new(FullDisk { slot: layout.small_disk_slot(), ballast: None })
}

impl Fault for FullDisk {
    fn describe(&self) -> String {
        format!("the disk of member {} is full", self.slot)
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let path = cluster.slots[self.slot].home().join("ballast");
        // etcd ends when it cannot write; what ours does is the history's to judge.
        cluster.slots[self.slot].set_may_end(true);
        let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        self.ballast = Some(path);
        for size in [1 << 20, 4 << 10] {
            fill(&mut file, size)?;
        }
        Ok(Outcome::Hit(vec![self.slot]))
    }

    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        if let Some(path) = self.ballast.take() {
            std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        cluster.ensure_started(self.slot)?;
        cluster.disarm(DISARM_LIMIT)?;
        cluster.slots[self.slot].set_may_end(false);
        Ok(())
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        let other = cluster.slots[self.slot].home().join("other");
        let written = std::fs::write(&other, [0; 8192]);
        let _ = std::fs::remove_file(&other);
        match written {
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok("nothing more can be written".to_owned()),
            other => bail!("the disk is not full: {other:?}"),
        }
    }
}

/// Writes pieces until none fits.
fn fill(file: &mut File, size: usize) -> anyhow::Result<()> {
    let zeros = vec![0; size];
    loop {
        match file.write_all(&zeros) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error).context("fill the disk"),
        }
    }
}
