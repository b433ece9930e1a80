//! The store's side: its certificates, and a member with the flags that kubeadm gives to etcd.

use crate::certs::Authority;
use crate::certs::Identity;
use crate::scenario::Lab;
use crate::server::Member;

/// One authority for the store, and one certificate for each of its sides.
pub struct StoreCerts {
    pub authority: Authority,
    served: Identity,
    /// What the API server shows.
    pub client: Identity,
}

// === impl StoreCerts ===

impl StoreCerts {
    pub fn new(lab: &Lab) -> anyhow::Result<Self> {
        let authority = Authority::new(&lab.dir, "store-ca")?;
        let served = authority.issue(&lab.dir, "store", "store", None)?;
        let client = authority.issue(&lab.dir, "store-client", "kube-apiserver", None)?;
        Ok(Self { authority, served, client })
    }

    /// A member with TLS to clients and to other members.
    pub fn member(&self, lab: &Lab, name: &str) -> anyhow::Result<Member> {
        Ok(Member::new(lab, name)?
            .named(name)
            .with_tls(&self.served, &self.authority)
            .with_peer_tls(&self.served, &self.authority)
            .with("--snapshot-count=10000")
            .with("--watch-progress-notify-interval=5s")
            .with("--feature-gates=InitialCorruptCheck=true"))
    }
}
