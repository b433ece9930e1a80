//! A leader that sleeps while another takes its place, and wakes with reads at its door.

use std::process::Command;

use crate::cluster::Cluster;
use crate::output;
use crate::process::run;
use crate::scenario::Lab;

pub fn asleep(lab: &Lab) -> anyhow::Result<u32> {
    let cluster = Cluster::start(lab, &["a", "b", "c"], &[])?;
    let urls: Vec<_> = cluster.servers.iter().map(|server| server.url().to_owned()).collect();
    let pids: Vec<_> = cluster.servers.iter().map(|server| server.process.id().to_string()).collect();
    let mut asleep = Command::new(lab.tool("asleep"));
    asleep.args(["-endpoints", &urls.join(","), "-pids", &pids.join(",")]);
    output::line(format_args!("    {}", run(&mut asleep)?.success("asleep")?.stdout.trim_end()));
    Ok(1 + cluster.check_hashes()?)
}
