//! The CA of a plane, in its Secret: the one that there is, the next one while they are rotated, and how far that is.
//!
//! Keys and phase are one object: no death comes between them, and a status that is lost loses nothing. What is signed by whom, and what is
//! trusted, follows from it alone.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::secret::CERT;
use super::secret::KEY;
use super::secret::secret_of;
use crate::cluster::rotate::Turn;
use crate::cluster::validate::Plane;
use crate::cluster::validate::Valid;
use crate::crd::status::RotationPhase;
use crate::names;
use crate::tls;
use crate::tls::Pair;
use crate::tls::TlsError;

const NEXT_CERT: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
/// How far a rotation is; absent: [`RotationPhase::Stable`].
const PHASE: &str = "garboard.dev/rotation-phase";
/// Since when all Secrets are as the phase has them.
const SETTLED_AT: &str = "garboard.dev/settled-at";

/// The CA of a plane.
#[derive(Debug, Clone, PartialEq)]
pub struct Authority {
    pub phase: RotationPhase,
    current: Pair,
    /// In the phases TrustBoth and Reissue, and in no other.
    next: Option<Pair>,
    pub settled_at: Option<Timestamp>,
    /// What the annotation of the cluster said when the last CA was made.
    pub obeyed: Option<String>,
}

/// The Secret of a plane's CA.
pub fn authority_name(valid: &Valid, plane: Plane) -> String {
    format!("{}-{plane}-ca", valid.names.cluster)
}

/// A new CA. Each has a name of its own, by which people and clients can tell them apart.
///
/// # Errors
/// No key can be made.
pub fn new_ca(valid: &Valid, plane: Plane, now: Timestamp) -> Result<Pair, TlsError> {
    tls::new_ca(&format!("{}@{}", authority_name(valid, plane), now.as_second()), valid.ca_validity, now)
}

// === impl Authority ===

impl Authority {
    pub fn new(ca: Pair, obeyed: Option<String>) -> Self {
        Self { phase: RotationPhase::Stable, current: ca, next: None, settled_at: None, obeyed }
    }

    /// # Errors
    /// What the Secret lacks.
    pub fn read(secret: &Secret) -> Result<Self, String> {
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
            text.ok_or_else(|| format!("has no {key}, or one that is no text"))
        };
        let pair = |cert: &str, key: &str| Ok::<_, String>(Pair { cert: text(cert)?, key: text(key)? });
        let noted = |name: &str| secret.annotations().get(name);
        let next = pair(NEXT_CERT, NEXT_KEY).ok();
        let phase = match (noted(PHASE).map(String::as_str), &next) {
            (Some("Reissue"), Some(_)) => RotationPhase::Reissue,
            // Where somebody has changed it: in every phase that has two, both are trusted, or are about to be.
            (_, Some(_)) => RotationPhase::TrustBoth,
            (Some("Retire"), None) => RotationPhase::Retire,
            (_, None) => RotationPhase::Stable,
        };
        Ok(Self {
            phase,
            current: pair(CERT, KEY)?,
            next,
            settled_at: noted(SETTLED_AT).and_then(|at| at.parse().ok()),
            obeyed: noted(names::ROTATE_CA).cloned(),
        })
    }

    pub fn secret(&self, valid: &Valid, plane: Plane) -> Secret {
        let mut data: BTreeMap<String, String> = [(CERT, &self.current.cert), (KEY, &self.current.key)]
            .map(|(key, text)| (key.to_owned(), text.clone()))
            .into();
        if let Some(next) = &self.next {
            data.insert(NEXT_CERT.to_owned(), next.cert.clone());
            data.insert(NEXT_KEY.to_owned(), next.key.clone());
        }
        let mut secret = secret_of(valid, authority_name(valid, plane), None, data);
        let phase = Some(format!("{:?}", self.phase)).filter(|_| self.phase != RotationPhase::Stable);
        let settled_at = self.settled_at.map(|at| at.to_string());
        let notes = [(PHASE, phase), (SETTLED_AT, settled_at), (names::ROTATE_CA, self.obeyed.clone())];
        secret.metadata.annotations =
            Some(notes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect());
        secret
    }

    /// Signs what is signed now.
    pub fn signer(&self) -> &Pair {
        match (self.phase, &self.next) {
            (RotationPhase::Reissue, Some(next)) => next,
            _ => &self.current,
        }
    }

    /// Is to sign in the next phase, if that is another one.
    pub fn successor(&self) -> Option<&Pair> {
        self.next.as_ref().filter(|_| self.phase == RotationPhase::TrustBoth)
    }

    /// Those that are trusted, the signer first: some programs read no more than one.
    pub fn trusted(&self) -> Vec<&Pair> {
        let mut trusted: Vec<_> = std::iter::once(&self.current).chain(&self.next).collect();
        if self.phase == RotationPhase::Reissue {
            trusted.reverse();
        }
        trusted
    }

    /// They as `ca.crt`.
    pub fn bundle(&self) -> String {
        self.trusted().into_iter().map(|ca| ca.cert.as_str()).collect()
    }

    /// What it is after `turn`; `None`: as it is. `make` makes another CA, which obeys `demand`.
    ///
    /// # Errors
    /// None can be made.
    pub fn turned(
        &self,
        turn: &Turn,
        demand: Option<&String>,
        now: Timestamp,
        make: impl FnOnce() -> Result<Pair, TlsError>,
    ) -> Result<Option<Self>, TlsError> {
        let to = |phase| Self { phase, settled_at: None, ..self.clone() };
        let another = |phase, current: &Pair| {
            let (current, next, obeyed) = (current.clone(), Some(make()?), demand.cloned());
            Ok::<_, TlsError>(Self { current, next, obeyed, ..to(phase) })
        };
        Ok(Some(match turn {
            Turn::Rest | Turn::Wait(_) => return Ok(None),
            Turn::TrustBoth => another(RotationPhase::TrustBoth, &self.current)?,
            Turn::Settle => Self { settled_at: Some(now), ..self.clone() },
            Turn::Reissue => to(RotationPhase::Reissue),
            Turn::Retire => Self { current: self.signer().clone(), next: None, ..to(RotationPhase::Retire) },
            Turn::Conclude => to(RotationPhase::Stable),
            Turn::Renew => another(RotationPhase::Reissue, self.signer())?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::validate;
    use crate::cluster::validate::tests::cluster;
    use crate::cluster::validate::tests::defaults;

    fn pair(name: &str) -> Pair {
        Pair { cert: format!("{name} cert\n"), key: format!("{name} key\n") }
    }

    fn walk(turns: &[Turn]) -> Authority {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let first = Authority::new(pair("old"), None);
        turns.iter().fold(first, |authority, turn| {
            authority.turned(turn, Some(&"again".to_owned()), now, || Ok(pair("new"))).unwrap().unwrap()
        })
    }

    const ALL: [Turn; 5] = [Turn::TrustBoth, Turn::Settle, Turn::Reissue, Turn::Retire, Turn::Conclude];

    #[test]
    fn each_phase_says_who_signs_and_whom_to_trust() {
        let said = |count| {
            let authority = walk(&ALL[..count]);
            (authority.phase, authority.signer().cert.clone(), authority.bundle())
        };
        let said_of = |phase, signer: &str, bundle: &str| (phase, signer.to_owned(), bundle.to_owned());
        let (old, new) = ("old cert\n", "new cert\n");
        assert_eq!(said(0), said_of(RotationPhase::Stable, old, old));
        assert_eq!(said(2), said_of(RotationPhase::TrustBoth, old, "old cert\nnew cert\n"));
        assert_eq!(said(3), said_of(RotationPhase::Reissue, new, "new cert\nold cert\n"));
        assert_eq!(said(4), said_of(RotationPhase::Retire, new, new));
        assert_eq!(said(5), said_of(RotationPhase::Stable, new, new));
    }

    #[test]
    fn the_secret_tells_all_of_it_and_no_key_that_is_retired() {
        let valid = validate::validate(&cluster(json!({})), &defaults()).unwrap();
        for count in 0..=ALL.len() {
            let authority = walk(&ALL[..count]);
            let secret = authority.secret(&valid, Plane::Peer);
            assert_eq!(Authority::read(&secret).unwrap(), authority);
            let has_old = secret.data.unwrap().values().any(|text| text.0 == b"old key\n");
            assert_eq!(has_old, count < 4, "{:?}", authority.phase);
        }
    }

    #[test]
    fn a_secret_that_somebody_has_changed_is_read_as_a_phase_that_does_no_harm() {
        let valid = validate::validate(&cluster(json!({})), &defaults()).unwrap();
        let read = |count: usize, change: &dyn Fn(&mut Secret)| {
            let mut secret = walk(&ALL[..count]).secret(&valid, Plane::Peer);
            change(&mut secret);
            Authority::read(&secret).map(|authority| authority.phase)
        };
        let unnoted = |secret: &mut Secret| secret.metadata.annotations = None;
        assert_eq!(read(3, &unnoted), Ok(RotationPhase::TrustBoth));
        assert_eq!(read(4, &unnoted), Ok(RotationPhase::Stable));
        let without = |key: &str| {
            let key = key.to_owned();
            move |secret: &mut Secret| drop(secret.data.as_mut().unwrap().remove(&key))
        };
        assert_eq!(read(3, &without(NEXT_KEY)), Ok(RotationPhase::Stable));
        assert!(read(0, &without(KEY)).unwrap_err().contains(KEY));
    }
}
