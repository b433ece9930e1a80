//! Certificates that others sign: cert-manager, or whoever has made the Secret that the spec names.
//!
//! Members mount Secrets of the operator's alone, into which it copies what is in theirs. So who signs can change under a Pod that goes on, and
//! what members show is never ahead of what the others trust.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;

use super::secret;
use super::secret::Need;
use crate::cluster::validate::Plane;
use crate::cluster::validate::Source;
use crate::cluster::validate::Valid;
use crate::store::Credentials;
use crate::tls;
use crate::tls::Pair;

/// Ends the name of a Secret that cert-manager writes.
pub const ISSUED: &str = "-issued";

/// Somebody else who signs.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    /// The Secret that all members use; `None`: each has one of cert-manager's.
    pub secret: Option<String>,
    /// The CAs that are told there, as PEM.
    pub trust: BTreeSet<String>,
}

/// Whom the spec lets sign on `plane`, and what they have signed by now; `None`: the operator.
///
/// # Errors
/// What of it is missing, or is of no use.
pub fn asked(
    valid: &Valid,
    plane: Plane,
    needs: &[Need],
    existing: &BTreeMap<String, Secret>,
    now: Timestamp,
) -> Result<Option<Foreign>, String> {
    let secret = match valid.source(plane) {
        None | Some(Source::OperatorCa) => return Ok(None),
        Some(Source::Secret(name)) => Some(name.clone()),
        Some(Source::CertManager(_)) => None,
    };
    // It is to do for a cluster that has no member yet, too.
    let any =
        secret.as_ref().and_then(|_| secret::member_need(valid, plane, &format!("{}-00000", valid.names.cluster)));
    let mut trust = BTreeSet::new();
    for need in needs.iter().filter(|need| need.plane == plane).chain(&any) {
        let Some(name) = made_in(need, secret.as_ref()) else { continue };
        let shown = read(&name, existing)?;
        need.is_met_by(&shown, now).map_err(|why| format!("Secret {name}: {why}"))?;
        trust.extend(tls::bundle("ca.crt", &shown.ca).map_err(|why| format!("Secret {name}: {why}"))?);
    }
    Ok(Some(Foreign { secret, trust }))
}

// === impl Foreign ===

impl Foreign {
    /// What they have signed for `need`, where those who trust their CAs take it.
    ///
    /// # Errors
    /// Why there is nothing, or nothing that would be taken.
    pub fn offers(&self, need: &Need, existing: &BTreeMap<String, Secret>, now: Timestamp) -> Result<Pair, String> {
        let name = made_in(need, self.secret.as_ref())
            .ok_or_else(|| format!("Secret {}: the operator does not sign for clients", need.secret))?;
        let fail = |why: String| format!("Secret {name}: {why}");
        let told = read(&name, existing)?;
        let ca = self.trust.iter().map(String::as_str).collect::<String>().into_bytes();
        let shown = Credentials { ca, ..told };
        need.is_met_by(&shown, now).map_err(fail)?;
        secret::pair(&shown).ok_or_else(|| fail("is no text".to_owned()))
    }
}

/// The Secret of theirs that `need` is met from. The one that all members use has their key, which is for no client of somebody else's.
fn made_in(need: &Need, secret: Option<&String>) -> Option<String> {
    match secret {
        Some(_) if need.is_users => None,
        Some(name) => Some(name.clone()),
        None => Some(issued(need)),
    }
}

/// The Secret that cert-manager writes for `need`.
pub fn issued(need: &Need) -> String {
    format!("{}{ISSUED}", need.secret)
}

fn read(name: &str, existing: &BTreeMap<String, Secret>) -> Result<Credentials, String> {
    let there = existing.get(name).ok_or_else(|| format!("Secret {name}: is not there"))?;
    secret::credentials(there).map_err(|why| format!("Secret {name}: {why}"))
}
