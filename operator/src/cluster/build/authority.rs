//! The authority of a plane, in its Secret: who signs, who is to sign next while that changes, and how far the change is.
//!
//! Keys and phase are one object: no death comes between them, and a status that is lost loses nothing. What is shown and what is trusted
//! follows from it alone.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::foreign::Foreign;
use super::secret::secret_of;
use crate::cluster::rotate::Turn;
use crate::cluster::validate::Plane;
use crate::cluster::validate::Valid;
use crate::crd::status::RotationPhase;
use crate::names;
use crate::tls;
use crate::tls::Pair;
use crate::tls::TlsError;

/// Where a signer is in the Secret: certificate and key of a CA of the operator's; of another the CAs, and the Secret.
struct Keys {
    cert: &'static str,
    key: &'static str,
    trust: &'static str,
    secret: &'static str,
}

const CURRENT: Keys = Keys { cert: "tls.crt", key: "tls.key", trust: "ca.crt", secret: "secret-name" };
const NEXT: Keys = Keys { cert: "next.crt", key: "next.key", trust: "next-ca.crt", secret: "next-secret-name" };
/// How far a rotation is; absent: [`RotationPhase::Stable`].
const PHASE: &str = "garboard.dev/rotation-phase";
/// Since when all Secrets are as the phase has them.
const SETTLED_AT: &str = "garboard.dev/settled-at";

/// Who signs what is shown on a plane.
#[derive(Debug, Clone, PartialEq)]
pub enum Signer {
    /// The operator, with this CA.
    Kept(Pair),
    Foreign(Foreign),
}

/// The authority of a plane.
#[derive(Debug, Clone, PartialEq)]
pub struct Authority {
    pub phase: RotationPhase,
    current: Signer,
    /// In the phases TrustBoth and Reissue, and in no other.
    next: Option<Signer>,
    pub settled_at: Option<Timestamp>,
    /// What the annotation of the cluster said when the operator made its last CA.
    pub obeyed: Option<String>,
}

/// The Secret of a plane's authority.
pub fn authority_name(valid: &Valid, plane: Plane) -> String {
    format!("{}-{plane}-ca", valid.names.cluster)
}

// === impl Signer ===

impl Signer {
    /// A new CA. Each has a name of its own, by which people and clients can tell them apart.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new(valid: &Valid, plane: Plane, now: Timestamp) -> Result<Self, TlsError> {
        let name = format!("{}@{}", authority_name(valid, plane), now.as_second());
        tls::new_ca(&name, valid.ca_validity, now).map(Self::Kept)
    }

    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(_))
    }

    /// The CAs that are to be trusted, as PEM.
    pub fn trust(&self) -> Vec<&str> {
        match self {
            Self::Kept(ca) => vec![&ca.cert],
            Self::Foreign(foreign) => foreign.trust.iter().map(String::as_str).collect(),
        }
    }

    /// The end of the last of them. `None`: it cannot be read.
    pub fn ends(&self) -> Option<Timestamp> {
        self.trust().into_iter().filter_map(|ca| Some(tls::first("ca.crt", ca.as_bytes()).ok()?.1)).max()
    }

    fn read(text: impl Fn(&str) -> Result<String, String>, keys: &Keys) -> Result<Self, String> {
        match text(keys.trust) {
            Ok(trust) => {
                let trust = tls::bundle(keys.trust, trust.as_bytes())?;
                Ok(Self::Foreign(Foreign { secret: text(keys.secret).ok(), trust }))
            }
            Err(_) => Ok(Self::Kept(Pair { cert: text(keys.cert)?, key: text(keys.key)? })),
        }
    }

    fn write(&self, data: &mut BTreeMap<String, String>, keys: &Keys) {
        let mut put = |key: &str, text: String| drop(data.insert(key.to_owned(), text));
        match self {
            Self::Kept(ca) => {
                put(keys.cert, ca.cert.clone());
                put(keys.key, ca.key.clone());
            }
            Self::Foreign(foreign) => {
                put(keys.trust, self.trust().concat());
                if let Some(secret) = &foreign.secret {
                    put(keys.secret, secret.clone());
                }
            }
        }
    }
}

// === impl Authority ===

impl Authority {
    pub fn new(signer: Signer, obeyed: Option<String>) -> Self {
        Self { phase: RotationPhase::Stable, current: signer, next: None, settled_at: None, obeyed }
    }

    /// # Errors
    /// What the Secret lacks.
    pub fn read(secret: &Secret) -> Result<Self, String> {
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
            text.ok_or_else(|| format!("has no {key}, or one that is no text"))
        };
        let noted = |name: &str| secret.annotations().get(name);
        let next = Signer::read(text, &NEXT).ok();
        let phase = match (noted(PHASE).map(String::as_str), &next) {
            (Some("Reissue"), Some(_)) => RotationPhase::Reissue,
            // Where somebody has changed it: in every phase that has two, both are trusted, or are about to be.
            (_, Some(_)) => RotationPhase::TrustBoth,
            (Some("Retire"), None) => RotationPhase::Retire,
            (_, None) => RotationPhase::Stable,
        };
        Ok(Self {
            phase,
            current: Signer::read(text, &CURRENT)?,
            next,
            settled_at: noted(SETTLED_AT).and_then(|at| at.parse().ok()),
            obeyed: noted(names::ROTATE_CA).cloned(),
        })
    }

    pub fn secret(&self, valid: &Valid, plane: Plane) -> Secret {
        let mut data = BTreeMap::new();
        self.current.write(&mut data, &CURRENT);
        if let Some(next) = &self.next {
            next.write(&mut data, &NEXT);
        }
        let mut secret = secret_of(valid, authority_name(valid, plane), None, data);
        let phase = Some(format!("{:?}", self.phase)).filter(|_| self.phase != RotationPhase::Stable);
        let settled_at = self.settled_at.map(|at| at.to_string());
        let notes = [(PHASE, phase), (SETTLED_AT, settled_at), (names::ROTATE_CA, self.obeyed.clone())];
        secret.metadata.annotations =
            Some(notes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect());
        secret
    }

    /// Signs what is shown now.
    pub fn signer(&self) -> &Signer {
        self.next.as_ref().filter(|_| self.phase == RotationPhase::Reissue).unwrap_or(&self.current)
    }

    /// Is to sign in the next phase, if that is another one.
    pub fn successor(&self) -> Option<&Signer> {
        self.next.as_ref().filter(|_| self.phase == RotationPhase::TrustBoth)
    }

    /// Signs when all is over.
    pub fn newest(&self) -> &Signer {
        self.next.as_ref().unwrap_or(&self.current)
    }

    /// All others of whom something is shown, now or next.
    pub fn foreign(&self) -> impl Iterator<Item = &Foreign> {
        std::iter::once(&self.current).chain(&self.next).filter_map(|signer| match signer {
            Signer::Kept(_) => None,
            Signer::Foreign(foreign) => Some(foreign),
        })
    }

    /// The CAs that are trusted, as PEM: those of the signer first, since some programs read no more than one.
    pub fn trusted(&self) -> Vec<&str> {
        let mut signers: Vec<_> = std::iter::once(&self.current).chain(&self.next).collect();
        if self.phase == RotationPhase::Reissue {
            signers.reverse();
        }
        let mut trusted = Vec::new();
        for ca in signers.into_iter().flat_map(Signer::trust) {
            if !trusted.contains(&ca) {
                trusted.push(ca);
            }
        }
        trusted
    }

    /// They as `ca.crt`.
    pub fn bundle(&self) -> String {
        self.trusted().concat()
    }

    /// Who has signed what is shown now: in the phase Reissue it may be either, and what is shown stays.
    fn shown(&self) -> Signer {
        match (self.phase, self.signer()) {
            (RotationPhase::Reissue, Signer::Foreign(next)) => {
                let trust =
                    next.trust.iter().cloned().chain(self.current.trust().into_iter().map(str::to_owned)).collect();
                Signer::Foreign(Foreign { secret: next.secret.clone(), trust })
            }
            (_, signer) => signer.clone(),
        }
    }

    /// What it is after `turn`; `None`: as it is. `make` makes another signer, which obeys `demand`.
    ///
    /// # Errors
    /// None can be made.
    pub fn turned(
        &self,
        turn: &Turn,
        demand: Option<&String>,
        now: Timestamp,
        make: impl FnOnce() -> Result<Signer, TlsError>,
    ) -> Result<Option<Self>, TlsError> {
        let to = |phase| Self { phase, settled_at: None, ..self.clone() };
        let another = |phase| {
            let next = make()?;
            let obeyed = if next.is_kept() { demand.cloned() } else { self.obeyed.clone() };
            Ok::<_, TlsError>(Self { current: self.shown(), next: Some(next), obeyed, ..to(phase) })
        };
        // What was made for the demand does not come.
        let unless_kept = || self.obeyed.clone().filter(|_| !self.newest().is_kept());
        Ok(Some(match turn {
            Turn::Rest | Turn::Wait(_) | Turn::Grace(_) => return Ok(None),
            Turn::TrustBoth => another(RotationPhase::TrustBoth)?,
            Turn::Withdraw => Self { next: None, obeyed: unless_kept(), ..to(RotationPhase::Stable) },
            Turn::Settle => Self { settled_at: Some(now), ..self.clone() },
            Turn::Reissue => to(RotationPhase::Reissue),
            Turn::Retire => Self { current: self.signer().clone(), next: None, ..to(RotationPhase::Retire) },
            Turn::Conclude => to(RotationPhase::Stable),
            Turn::Renew => another(RotationPhase::Reissue)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;
    use serde_json::json;

    use super::*;
    use crate::cluster::validate;
    use crate::cluster::validate::tests::cluster;
    use crate::cluster::validate::tests::defaults;

    fn kept(name: &str) -> Signer {
        Signer::Kept(Pair { cert: format!("{name} cert\n"), key: format!("{name} key\n") })
    }

    fn walk(turns: &[Turn]) -> Authority {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let first = Authority::new(kept("old"), None);
        turns.iter().fold(first, |authority, turn| {
            authority.turned(turn, Some(&"again".to_owned()), now, || Ok(kept("new"))).unwrap().unwrap()
        })
    }

    const ALL: [Turn; 5] = [Turn::TrustBoth, Turn::Settle, Turn::Reissue, Turn::Retire, Turn::Conclude];

    #[test]
    fn each_phase_says_who_signs_and_whom_to_trust() {
        let said = |count| {
            let authority = walk(&ALL[..count]);
            (authority.phase, authority.signer().trust().concat(), authority.bundle())
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
    fn others_are_told_with_their_secret_and_without_a_key() {
        let (valid, now) = (validate::validate(&cluster(json!({})), &defaults()).unwrap(), Timestamp::UNIX_EPOCH);
        let now = now.checked_add(SignedDuration::from_hours(1)).unwrap();
        let cas = ["one", "other"].map(|name| tls::new_ca(name, SignedDuration::from_hours(1), now).unwrap().cert);
        let trust = tls::bundle("ca.crt", cas.concat().as_bytes()).unwrap();
        for secret in [None, Some("mine".to_owned())] {
            let foreign = Signer::Foreign(Foreign { secret, trust: trust.clone() });
            let before = Authority::new(kept("old"), None);
            let both = before.turned(&Turn::TrustBoth, None, now, || Ok(foreign.clone())).unwrap().unwrap();
            let alone = [Turn::Reissue, Turn::Retire].iter().fold(both.clone(), |authority, turn| {
                authority.turned(turn, None, now, || unreachable!("nobody signs next")).unwrap().unwrap()
            });
            assert_eq!((alone.signer(), alone.trusted().len(), both.trusted().len()), (&foreign, 2, 3));
            for authority in [both, alone] {
                assert_eq!(Authority::read(&authority.secret(&valid, Plane::Client)).unwrap(), authority);
            }
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
        assert_eq!(read(3, &without(NEXT.key)), Ok(RotationPhase::Stable));
        assert!(read(0, &without(CURRENT.key)).unwrap_err().contains(CURRENT.key));
    }
}
