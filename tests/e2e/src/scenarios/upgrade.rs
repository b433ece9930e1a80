//! Two releases in one cluster: forth, back, and where there is no way back. The later one is `server/examples/later.rs`: it stands for etcd 3.7,
//! reads format 2, and writes it when all members do.

use anyhow::Context as _;
use anyhow::ensure;

use crate::cluster::Cluster;
use crate::http::Http;
use crate::scenario::Lab;
use crate::server::Member;
use crate::wait::PATIENCE;
use crate::wait::until;

/// The exit code of a member whose release cannot read what the cluster writes.
const EXIT_OUTDATED: i32 = 5;

/// What clients see of the versions, and operators of the format.
#[derive(Debug, PartialEq)]
struct Versions {
    server: String,
    cluster: String,
    format: u64,
}

fn versions(cluster: &Cluster<'_>, at: usize) -> anyhow::Result<Versions> {
    let http = Http::new();
    let url = cluster.servers[at].url();
    let version: serde_json::Value = serde_json::from_str(&http.get(&format!("{url}/version"))?.body)?;
    let text = |name: &str| version[name].as_str().map(str::to_owned).with_context(|| format!("{name} in {version}"));
    let metrics = http.get(&format!("{url}/metrics"))?.body;
    let format = metrics.lines().find_map(|line| line.strip_prefix("garboard_format_version "));
    let format = format.context("no garboard_format_version")?.parse()?;
    Ok(Versions { server: text("etcdserver")?, cluster: text("etcdcluster")?, format })
}

/// Ends a member as an operator does, and starts it as another release.
fn replace(cluster: &mut Cluster<'_>, name: &str, program: &std::path::Path) -> anyhow::Result<()> {
    let at = cluster.position(name)?;
    let server = cluster.servers.remove(at);
    let member = server.member.clone().run_by(program);
    server.terminate()?;
    cluster.add(&member)
}

fn expect(cluster: &Cluster<'_>, cluster_version: &str, format: u64) -> anyhow::Result<()> {
    until(&format!("cluster version {cluster_version} and format {format} at all members"), PATIENCE, || {
        for at in 0..cluster.servers.len() {
            let seen = versions(cluster, at)?;
            if seen.cluster != cluster_version || seen.format != format {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

pub fn upgrade(lab: &Lab) -> anyhow::Result<u32> {
    let (now, later) = (lab.server.clone(), lab.example("later")?);
    let mut cluster = Cluster::start(lab, &["a", "b", "c"], &[])?;
    expect(&cluster, "3.6.0", 1)?;
    let mut checks = 1;

    // Forth and back, while one member is still of the release before.
    for (name, program) in [("a", &later), ("b", &later), ("b", &now), ("b", &later)] {
        replace(&mut cluster, name, program)?;
        checks += cluster.check_writes(&format!("{name} is another release"))?;
        let at = cluster.position("c")?;
        let seen = versions(&cluster, at)?;
        ensure!(seen.cluster == "3.6.0" && seen.format == 1, "one of the release before is left: {seen:?}");
        checks += 1;
    }

    // The last one: nobody is left who could not read it.
    replace(&mut cluster, "c", &later)?;
    expect(&cluster, "3.7.0", 2)?;
    checks += 1 + cluster.check_writes("all are the later release")?;

    // No way back: on its own data, and as a new member.
    let at = cluster.position("b")?;
    let server = cluster.servers.remove(at);
    let back = server.member.clone().run_by(&now);
    server.terminate()?;
    let (status, output) = back.refusal()?;
    ensure!(status.code() == Some(EXIT_OUTDATED), "the release before ended with {status}: {output}");
    ensure!(output.contains("a format that this release does not read (it reads 1 to 1)"), "{output}");
    cluster.add(&back.run_by(&later))?;
    checks += 2 + cluster.check_writes("the later release again")?;
    let mut new = Member::new(lab, "d")?.named("d").with("--initial-cluster-state=existing");
    cluster.change(0, &["member", "add", "d", &format!("--peer-urls={}", new.peer_url)])?.success("member add")?;
    new.initial_cluster = Some(format!("{},{}", cluster.entries(), new.entry()));
    let (status, output) = new.refusal()?;
    ensure!(status.code() == Some(EXIT_OUTDATED), "a new member of the release before ended with {status}: {output}");
    cluster.add(&new.run_by(&later))?;
    checks += 1 + cluster.check_writes("a new one of the later release")?;

    // All of them fall and come back: the format is on disk.
    let members = (0..4).map(|_| cluster.kill(0)).collect::<anyhow::Result<Vec<_>>>()?;
    let cluster = Cluster::start_all(lab, members)?;
    expect(&cluster, "3.7.0", 2)?;
    checks += 1 + cluster.check_writes("all killed")?;

    // Downgrade says what clients see, and leaves the format.
    cluster.ctl(0).ok(&["downgrade", "enable", "3.6"])?;
    expect(&cluster, "3.6.0", 2)?;
    cluster.ctl(1).ok(&["downgrade", "cancel"])?;
    expect(&cluster, "3.7.0", 2)?;
    Ok(checks + 2 + cluster.check_hashes()?)
}
