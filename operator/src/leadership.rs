//! One of several operators works: whoever holds a Lease.
//!
//! Two that work at once would do no harm, since each step is recorded first and safe to be done twice; this saves work and conflicts.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::api::ObjectMeta;
use kube::api::PostParams;
use tokio::time::Instant;

use crate::cluster::act::is;

const NAME: &str = "garboard-operator";
/// A holder that has not renewed for so long has lost it.
const LENGTH: Duration = Duration::from_secs(15);
const RENEWAL: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);

pub struct Leadership {
    api: Api<Lease>,
    identity: String,
}

/// What another holder's Lease said, and when this was first seen: clocks of two machines are never compared.
struct Seen {
    renewed: Option<Timestamp>,
    holder: Option<String>,
    at: Instant,
}

// === impl Leadership ===

impl Leadership {
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), identity }
    }

    /// Returns once this one holds the Lease.
    pub async fn acquire(&self) {
        let mut seen: Option<Seen> = None;
        loop {
            match self.attempt(&mut seen).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the lease cannot be had"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Returns when it is lost.
    pub async fn hold(&self) {
        let mut renewed = Instant::now();
        let mut seen = None;
        loop {
            tokio::time::sleep(RENEWAL).await;
            match self.attempt(&mut seen).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => return,
                Err(error) => tracing::warn!(%error, "the lease cannot be renewed"),
            }
            // Before the next one may take it.
            if renewed.elapsed() + RENEWAL > LENGTH {
                return;
            }
        }
    }

    /// Lets the next one begin at once, when this one is told to end.
    pub async fn release(&self) -> kube::Result<()> {
        let Some(mut lease) = self.api.get_opt(NAME).await? else { return Ok(()) };
        if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity)) {
            spec.holder_identity = Some(String::new());
            self.api.replace(NAME, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    async fn attempt(&self, seen: &mut Option<Seen>) -> kube::Result<bool> {
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.held(None)) };
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let own = spec.holder_identity.as_ref() == Some(&self.identity);
        let renewed = spec.renew_time.as_ref().map(|time| time.0);
        let same = seen.as_ref().filter(|seen| seen.renewed == renewed && seen.holder == spec.holder_identity);
        let since = same.map_or_else(Instant::now, |seen| seen.at);
        *seen = Some(Seen { renewed, holder: spec.holder_identity.clone(), at: since });
        let free = spec.holder_identity.as_deref().is_none_or(str::is_empty) || since.elapsed() > LENGTH;
        if !own && !free {
            return Ok(false);
        }
        lease.spec = Some(self.held(Some(spec)));
        taken(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    fn held(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        let own = before.holder_identity.as_ref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LENGTH.as_secs()).ok(),
            renew_time: Some(now.clone()),
            acquire_time: if own { before.acquire_time } else { Some(now) },
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!own)),
            ..LeaseSpec::default()
        }
    }
}

fn taken(result: kube::Result<Lease>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        // Another one was faster.
        Err(error) if is(&error, 409) => Ok(false),
        Err(error) => Err(error),
    }
}
