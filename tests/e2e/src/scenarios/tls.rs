//! TLS on the client URL.

use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use anyhow::ensure;

use crate::certs::Authority;
use crate::etcdctl::Etcdctl;
use crate::scenario::Lab;
use crate::server::Member;

/// How long a new certificate may take to be served. etcd reads the files at each handshake.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);

pub fn tls(lab: &Lab) -> anyhow::Result<u32> {
    let (old, new) = (Authority::new(&lab.dir, "old")?, Authority::new(&lab.dir, "new")?);
    let clients = Authority::new(&lab.dir, "clients")?;
    let served = old.issue(&lab.dir, "server", "server", None)?;
    let alice = clients.issue(&lab.dir, "alice", "alice", None)?;
    let stranger = new.issue(&lab.dir, "stranger", "stranger", None)?;
    let mut server = Member::new(lab, "server")?.with_tls(&served, &clients).start()?;
    let url = server.url().to_owned();
    let ctl = |authority: &Authority, identity| Etcdctl::new(lab, &url).tls(authority, identity);

    ctl(&old, Some(&alice)).ok(&["put", "k", "1"])?;
    for (what, ctl) in [
        ("no client certificate", ctl(&old, None)),
        ("a client certificate of another authority", ctl(&old, Some(&stranger))),
        ("a server certificate of another authority", ctl(&new, Some(&alice))),
        ("no TLS", Etcdctl::new(lab, &url.replace("https:", "http:"))),
    ] {
        ensure!(!ctl.run(&["get", "k"])?.status.success(), "{what} is accepted");
    }

    let mut watch = ctl(&old, Some(&alice)).spawn(lab, "watch.out", &["watch", "k"])?;
    // The watch is there when it sees a write; those before it are of no interest.
    let start = Instant::now();
    while !watch.output().contains("PUT") {
        ensure!(start.elapsed() < Duration::from_secs(20), "the watch over TLS sees nothing");
        ctl(&old, Some(&alice)).ok(&["put", "k", "before"])?;
    }
    new.issue(&lab.dir, "server", "server", None)?;
    let start = Instant::now();
    while !ctl(&new, Some(&alice)).run(&["get", "k"])?.status.success() {
        if start.elapsed() > RELOAD_LIMIT {
            bail!("the new certificate is not served after {RELOAD_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(!ctl(&old, Some(&alice)).run(&["get", "k"])?.status.success(), "the old certificate is still served");
    ctl(&new, Some(&alice)).ok(&["put", "k", "after-the-reload"])?;
    watch.wait_output("event on the connection from before the reload", Duration::from_secs(10), |text| {
        text.contains("after-the-reload")
    })?;
    ensure!(server.process.wait(Duration::ZERO).is_err(), "the server has ended");
    Ok(8)
}
