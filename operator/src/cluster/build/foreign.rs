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
    if trust.is_empty() {
        return Err(format!("towards {plane}s nothing is signed yet"));
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

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;
    use serde_json::json;

    use super::*;
    use crate::cluster::build::authority::Authority;
    use crate::cluster::build::authority::Signer;
    use crate::cluster::rotate::Turn;
    use crate::cluster::validate;
    use crate::cluster::validate::tests::cluster;
    use crate::cluster::validate::tests::defaults;
    use crate::tls::Leaf;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn valid(tls: serde_json::Value) -> Valid {
        validate::validate(&cluster(json!({"tls": tls})), &defaults()).unwrap()
    }

    /// The Secrets of somebody, with this one.
    fn with(mut existing: BTreeMap<String, Secret>, secret: Secret) -> BTreeMap<String, Secret> {
        existing.insert(secret.metadata.name.clone().unwrap(), secret);
        existing
    }

    /// `mine`, which another CA has signed.
    fn mine(valid: &Valid, name: &str) -> Secret {
        let ca = tls::new_ca(name, DAY, now()).unwrap();
        let sans = vec!["*.a-peer.n.svc.cluster.local".to_owned()];
        let leaf = Leaf { common_name: name.to_owned(), sans, server: true, ..Leaf::default() };
        let pair = tls::sign(&ca, &leaf, DAY, now()).unwrap();
        let files = [("tls.crt", pair.cert), ("tls.key", pair.key), ("ca.crt", ca.cert)];
        let files = files.map(|(name, text)| (name.to_owned(), text)).into();
        secret::secret_of(valid, "mine".to_owned(), None, files)
    }

    fn file<'a>(secret: &'a Secret, name: &str) -> &'a [u8] {
        &secret.data.as_ref().unwrap()[name].0
    }

    #[test]
    fn what_is_signed_by_another_ca_is_copied_when_all_trust_it_and_not_before() {
        let source = json!({"source": {"secretName": "mine"}});
        let valid = valid(json!({"client": source, "peer": source}));
        let needs = secret::needs(&valid, [&"a-1".to_owned()]);
        let need = needs.iter().find(|need| need.member.is_some() && need.plane == Plane::Peer).unwrap();
        assert!(asked(&valid, Plane::Peer, &needs, &BTreeMap::new(), now()).unwrap_err().starts_with("Secret mine: "));
        let existing = with(BTreeMap::new(), mine(&valid, "one"));
        let foreign = asked(&valid, Plane::Peer, &needs, &existing, now()).unwrap().unwrap();
        let authority = Authority::new(Signer::Foreign(foreign), None);
        let composed = |authority: &Authority, existing: &BTreeMap<String, Secret>| {
            secret::compose(&valid, authority, existing, need, now()).unwrap()
        };
        let copy = composed(&authority, &existing).unwrap();
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            assert_eq!(file(&copy, name), file(&existing["mine"], name), "{name}");
        }
        let existing = with(existing, copy);
        assert_eq!(composed(&authority, &existing), None);

        let existing = with(existing, mine(&valid, "other"));
        assert_eq!(composed(&authority, &existing), None, "nobody trusts the other CA yet");
        let next = asked(&valid, Plane::Peer, &needs, &existing, now()).unwrap().unwrap();
        let turned = |authority: &Authority, turn: &Turn| {
            authority.turned(turn, None, now(), || Ok(Signer::Foreign(next.clone()))).unwrap().unwrap()
        };
        let both = turned(&authority, &Turn::TrustBoth);
        assert!(secret::lags(&both, &existing, need).is_some());
        let copy = composed(&both, &existing).unwrap();
        assert_eq!(file(&copy, "tls.crt"), file(&existing["a-1-peer-tls"], "tls.crt"));
        let existing = with(existing, copy);
        assert_eq!((composed(&both, &existing), secret::lags(&both, &existing, need)), (None, None));
        let reissue = turned(&both, &Turn::Reissue);
        assert!(secret::lags(&reissue, &existing, need).is_some());
        let copy = composed(&reissue, &existing).unwrap();
        assert_eq!(file(&copy, "tls.crt"), file(&existing["mine"], "tls.crt"));
        assert_eq!(secret::lags(&reissue, &with(existing, copy), need), None);
    }

    #[test]
    fn the_key_that_all_members_have_is_given_to_no_client() {
        let before = valid(json!({"client": {"source": {"secretName": "mine"}}}));
        let existing = with(BTreeMap::new(), mine(&before, "one"));
        let foreign = asked(&before, Plane::Client, &[], &existing, now()).unwrap().unwrap();
        let valid = valid(json!({"clientCertificates": [{"name": "c", "secretName": "c"}]}));
        let authority = Authority::new(Signer::Foreign(foreign), None);
        let needs = secret::needs(&valid, []);
        let need = needs.iter().find(|need| need.is_users).unwrap();
        assert!(secret::compose(&valid, &authority, &existing, need, now()).is_err());
        assert_eq!(secret::lags(&authority, &existing, need), None, "it holds up nothing");
        let own = Secret {
            metadata: kube::api::ObjectMeta { name: Some("c".to_owned()), ..Default::default() },
            ..mine(&valid, "two")
        };
        let existing = with(existing, own);
        let kept = secret::compose(&valid, &authority, &existing, need, now()).unwrap().unwrap();
        assert_eq!(file(&kept, "tls.key"), file(&existing["c"], "tls.key"));
        assert_eq!(file(&kept, "ca.crt"), file(&existing["mine"], "ca.crt"));
    }
}
