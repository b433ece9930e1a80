//! The rotation of a cluster's authorities: what is seen of it, and its turns.
//!
//! A turn is one write of an authority's Secret. What follows from it, the Secrets of all who use it, the next pass writes
//! ([`certificates`](super::certificates)): a death in between costs nothing.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::Client;

use super::PassError;
use super::build::authority::Authority;
use super::build::authority::Signer;
use super::build::authority::authority_name;
use super::build::foreign;
use super::build::foreign::Foreign;
use super::build::secret;
use super::build::secret::Need;
use super::certificates::put;
use super::fetch::Objects;
use super::rotate;
use super::rotate::Asked;
use super::rotate::Held;
use super::rotate::Loaded;
use super::rotate::Seen;
use super::rotate::Turn;
use super::validate::Plane;
use super::validate::Source;
use super::validate::Valid;
use crate::crd::status::AuthoritySource;
use crate::crd::status::AuthorityStatus;
use crate::crd::status::RotationPhase;
use crate::fail;
use crate::fail::Point;
use crate::report;
use crate::report::Report;
use crate::tls;

/// A CA is followed by another one when a third of its time is left: the turns take days, and a member that is down holds them up.
const PARTS_LEFT: i32 = 3;
/// Two times that clients are given, and as much again for the members.
const PARTS_OF_GRACE: i32 = 6;

/// What members say that they have loaded, by name.
pub type Said = BTreeMap<String, Result<Report, String>>;

/// An authority, and its next turn.
pub struct Rotation {
    pub status: AuthorityStatus,
    pub turn: Turn,
    authority: Authority,
    /// Others who are to sign.
    asked: Option<Foreign>,
}

/// Asks all members what they have loaded, while something depends on it.
pub async fn ask(valid: &Valid, objects: &Objects) -> Said {
    let under_way = authorities(valid, objects).any(|(_, authority)| authority.phase != RotationPhase::Stable);
    if !under_way {
        return Said::new();
    }
    let asked = objects.pods.iter().map(|(name, pod)| async move {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        let said = match address {
            Some(address) => report::ask(address).await,
            None => Err("its Pod has no address".to_owned()),
        };
        (name.clone(), said)
    });
    join_all(asked).await.into_iter().collect()
}

/// One that cannot be read is told by [`certificates`](super::certificates).
fn authorities<'a>(valid: &'a Valid, objects: &'a Objects) -> impl Iterator<Item = (Plane, Authority)> + 'a {
    Plane::ALL.into_iter().filter(|plane| valid.source(*plane).is_some()).filter_map(|plane| {
        let secret = objects.secrets.get(&authority_name(valid, plane))?;
        Some((plane, Authority::read(secret).ok()?))
    })
}

/// All of them, each with its next turn.
pub fn look(valid: &Valid, objects: &Objects, said: &Said, now: Timestamp) -> Vec<Rotation> {
    let needs = secret::needs(valid, &objects.names());
    let view = View { valid, objects, said, needs: &needs, now };
    authorities(valid, objects).filter_map(|(plane, authority)| view.rotation(plane, authority)).collect()
}

/// What a pass has seen.
struct View<'a> {
    valid: &'a Valid,
    objects: &'a Objects,
    said: &'a Said,
    needs: &'a [Need],
    now: Timestamp,
}

// === impl View ===

impl View<'_> {
    /// `None`: there is a certificate that cannot be read.
    fn rotation(&self, plane: Plane, authority: Authority) -> Option<Rotation> {
        let asked = foreign::asked(self.valid, plane, self.needs, &self.objects.secrets, self.now);
        let turn = match rotate::plan(&self.see(plane, &authority, asked.as_ref())?) {
            turn if turn != Turn::Rest && self.valid.wanted.paused => Turn::Wait("paused".to_owned()),
            turn => turn,
        };
        let (source, sha256) = match authority.signer() {
            Signer::Kept(ca) => (AuthoritySource::OperatorCa, Some(tls::first("tls.crt", ca.cert.as_bytes()).ok()?.0)),
            Signer::Foreign(Foreign { secret: None, .. }) => (AuthoritySource::CertManager, None),
            Signer::Foreign(_) => (AuthoritySource::SecretName, None),
        };
        let not_after = Time(authority.signer().ends()?);
        let status = AuthorityStatus { plane, source, phase: authority.phase, sha256, not_after };
        Some(Rotation { status, turn, authority, asked: asked.ok().flatten() })
    }

    fn see(&self, plane: Plane, authority: &Authority, asked: Result<&Option<Foreign>, &String>) -> Option<Seen> {
        let valid = self.valid;
        Some(Seen {
            phase: authority.phase,
            signer_ends: self.taken_until(plane, authority.signer())?,
            next_ends: authority.successor().and_then(Signer::ends),
            asked: self.whom(plane, authority, asked),
            is_kept: authority.signer().is_kept(),
            demanded: valid.rotate_ca.is_some() && valid.rotate_ca != authority.obeyed,
            renew_before: valid.ca_validity / PARTS_LEFT,
            lags: self.needs_of(plane).find_map(|need| secret::lags(authority, &self.objects.secrets, need)),
            members: self.members(plane),
            settled_at: authority.settled_at,
            grace: match plane {
                Plane::Client => valid.rotation_grace.min(valid.ca_validity / PARTS_OF_GRACE),
                Plane::Peer => SignedDuration::ZERO,
            },
            now: self.now,
        })
    }

    fn needs_of(&self, plane: Plane) -> impl Iterator<Item = &Need> {
        self.needs.iter().filter(move |need| need.plane == plane)
    }

    fn whom(&self, plane: Plane, authority: &Authority, asked: Result<&Option<Foreign>, &String>) -> Asked {
        let is_same = |newest: &Foreign| match self.valid.source(plane) {
            Some(Source::Secret(name)) => newest.secret.as_ref() == Some(name),
            Some(Source::CertManager(_)) => newest.secret.is_none(),
            _ => false,
        };
        match (asked, authority.newest()) {
            (Ok(None), Signer::Kept(_)) => Asked::TheNewest,
            (Ok(Some(asked)), Signer::Foreign(newest)) if asked == newest => Asked::TheNewest,
            (Ok(_), _) => Asked::Another,
            // What is missing is told as a certificate that is missing: it does not begin a rotation.
            (Err(_), Signer::Foreign(newest)) if authority.phase == RotationPhase::Stable && is_same(newest) => {
                Asked::TheNewest
            }
            (Err(why), _) => Asked::Later(why.clone()),
        }
    }

    /// When nobody takes any more what `signer` has signed. What the operator signs itself, it signs again before.
    fn taken_until(&self, plane: Plane, signer: &Signer) -> Option<Timestamp> {
        let ends = signer.ends()?;
        if signer.is_kept() {
            return Some(ends);
        }
        let shown = self.needs_of(plane).filter_map(|need| {
            let shown = secret::credentials(self.objects.secrets.get(&need.secret)?).ok()?;
            Some(tls::first("tls.crt", &shown.cert).ok()?.1)
        });
        Some(shown.max().map_or(ends, |shown| shown.min(ends)))
    }

    /// Those that have a Pod. Another one begins with what is in its Secret then.
    fn members(&self, plane: Plane) -> BTreeMap<String, Held> {
        let held = |need: &Need| {
            let member = need.member.clone()?;
            let said = match self.said.get(&member)? {
                Ok(report) => {
                    let of_plane = report.get(&plane.to_string()).cloned();
                    of_plane.ok_or_else(|| format!("nothing of its {plane} TLS"))
                }
                Err(why) => Err(why.clone()),
            };
            let given = self.objects.secrets.get(&need.secret).and_then(given);
            Some((member, Held { given, said }))
        };
        self.needs_of(plane).filter_map(held).collect()
    }
}

fn given(secret: &Secret) -> Option<Loaded> {
    let shown = secret::credentials(secret).ok()?;
    let certificate = tls::first("tls.crt", &shown.cert).ok()?.0;
    let trust = tls::bundle("ca.crt", &shown.ca).ok()?;
    let trust = trust.iter().filter_map(|ca| Some(tls::first("ca.crt", ca.as_bytes()).ok()?.0)).collect();
    Some(Loaded { certificate, trust })
}

/// Takes the turns that can be taken; whether there was one.
///
/// # Errors
/// The API server refuses, or somebody has written the Secret since it was read.
pub async fn turn(
    client: &Client,
    valid: &Valid,
    objects: &mut Objects,
    rotations: &[Rotation],
    now: Timestamp,
) -> Result<bool, PassError> {
    let api = Api::<Secret>::namespaced(client.clone(), &valid.names.namespace);
    let mut turned = false;
    for Rotation { status, turn, authority, asked } in rotations {
        let plane = status.plane;
        let make = || match (turn, asked) {
            (Turn::TrustBoth, Some(foreign)) => Ok(Signer::Foreign(foreign.clone())),
            _ => Signer::new(valid, plane, now),
        };
        let Some(next) = authority.turned(turn, valid.rotate_ca.as_ref(), now, make)? else { continue };
        fail::reached(Point::Recorded, turn);
        put(&api, next.secret(valid, plane), objects, valid).await?;
        fail::reached(Point::Acted, turn);
        turned = true;
    }
    Ok(turned)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::cluster::build;
    use crate::cluster::validate;
    use crate::cluster::validate::tests::cluster;
    use crate::cluster::validate::tests::defaults;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    /// Of a cluster with one member that runs, and one that does not.
    fn objects(valid: &Valid) -> Objects {
        let members = ["a-1", "a-2"].map(|name| (name.to_owned(), build::member(valid, name, None)));
        Objects {
            members: members.into(),
            pods: [("a-1".to_owned(), Pod::default())].into(),
            volumes: BTreeMap::new(),
            detached: Vec::new(),
            aside: Vec::new(),
            secrets: BTreeMap::new(),
            nodes: BTreeMap::new(),
            expandable: BTreeMap::new(),
        }
    }

    fn insert(objects: &mut Objects, secret: Secret) {
        objects.secrets.insert(secret.metadata.name.clone().unwrap(), secret);
    }

    /// Everything is written as the operator's CAs have it, of which others follow.
    fn trusts_both(valid: &Valid) -> Objects {
        let mut objects = objects(valid);
        for plane in Plane::ALL {
            let make = || Signer::new(valid, plane, now());
            let stable = Authority::new(make().unwrap(), None);
            let both = stable.turned(&Turn::TrustBoth, None, now(), make).unwrap().unwrap();
            insert(&mut objects, both.secret(valid, plane));
            for need in secret::needs(valid, &objects.names()).iter().filter(|need| need.plane == plane) {
                let composed = secret::compose(valid, &both, &objects.secrets, need, now()).unwrap().unwrap();
                insert(&mut objects, composed);
            }
        }
        objects
    }

    fn turns(valid: &Valid, objects: &Objects, said: Result<Report, String>) -> [Turn; 2] {
        let said = [("a-1".to_owned(), said)].into();
        let turns = look(valid, objects, &said, now()).into_iter().map(|rotation| rotation.turn).collect::<Vec<_>>();
        turns.try_into().unwrap()
    }

    #[test]
    fn a_member_that_runs_is_waited_for_and_one_that_does_not_is_not() {
        let valid = validate::validate(&cluster(json!({})), &defaults()).unwrap();
        let mut objects = trusts_both(&valid);
        let loaded = |objects: &Objects| -> Report {
            let of = |plane: Plane| given(&objects.secrets[&format!("a-1-{plane}-tls")]).unwrap();
            Plane::ALL.map(|plane| (plane.to_string(), of(plane))).into()
        };
        // Only clients are given time.
        assert_eq!(turns(&valid, &objects, Ok(loaded(&objects))), [Turn::Settle, Turn::Reissue]);
        let [_, peer] = turns(&valid, &objects, Err("it sleeps".to_owned()));
        assert_eq!(peer, Turn::Wait("a-1 does not say what it has loaded: it sleeps".to_owned()));
        let [_, peer] = turns(&valid, &objects, Ok(Report::new()));
        assert_eq!(peer, Turn::Wait("a-1 does not say what it has loaded: nothing of its peer TLS".to_owned()));
        let said = loaded(&objects);
        objects.secrets.remove("a-2-peer-tls");
        let [_, peer] = turns(&valid, &objects, Ok(said));
        assert_eq!(peer, Turn::Wait("Secret a-2-peer-tls is not there yet".to_owned()));
    }

    #[test]
    fn who_is_asked_to_sign_is_waited_for_and_can_be_taken_back() {
        let source = json!({"source": {"secretName": "mine"}});
        let another = json!({"tls": {"client": source, "peer": source}});
        let another = validate::validate(&cluster(another), &defaults()).unwrap();
        let valid = validate::validate(&cluster(json!({})), &defaults()).unwrap();
        let mut objects = objects(&valid);
        for plane in Plane::ALL {
            let authority = Authority::new(Signer::new(&valid, plane, now()).unwrap(), None);
            insert(&mut objects, authority.secret(&valid, plane));
        }
        let said = || Ok(Report::new());
        assert_eq!(turns(&valid, &objects, said()), [Turn::Rest, Turn::Rest]);
        let wait = Turn::Wait("Secret mine: is not there".to_owned());
        assert_eq!(turns(&another, &objects, said()), [wait.clone(), wait]);
        let both = trusts_both(&valid);
        let taken_back = Foreign { secret: None, trust: [new_ca(&valid)].into() };
        for plane in Plane::ALL {
            let authority = Authority::read(&both.secrets[&authority_name(&valid, plane)]).unwrap();
            let signer = || Ok(Signer::Foreign(taken_back.clone()));
            let both = authority.turned(&Turn::TrustBoth, None, now(), signer).unwrap().unwrap();
            insert(&mut objects, both.secret(&valid, plane));
        }
        assert_eq!(turns(&valid, &objects, said()), [Turn::Withdraw, Turn::Withdraw]);
    }

    fn new_ca(valid: &Valid) -> String {
        Signer::new(valid, Plane::Peer, now()).unwrap().trust().concat()
    }
}
