//! The rotation of a cluster's own CAs: what is seen of it, and its turns.
//!
//! A turn is one write of a CA's Secret. What follows from it, the Secrets of all who use the CA, the next pass writes
//! ([`certificates`](super::certificates)): a death in between costs nothing.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::Client;

use super::PassError;
use super::build::authority::Authority;
use super::build::authority::authority_name;
use super::build::authority::new_ca;
use super::build::secret;
use super::build::secret::Need;
use super::certificates::put;
use super::fetch::Objects;
use super::rotate;
use super::rotate::Held;
use super::rotate::Loaded;
use super::rotate::Seen;
use super::rotate::Turn;
use super::validate::Plane;
use super::validate::Source;
use super::validate::Valid;
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

/// A CA, and its next turn.
pub struct Rotation {
    pub status: AuthorityStatus,
    pub turn: Turn,
    authority: Authority,
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

/// The CAs that the operator keeps. One that cannot be read is told by [`certificates`](super::certificates).
fn authorities<'a>(valid: &'a Valid, objects: &'a Objects) -> impl Iterator<Item = (Plane, Authority)> + 'a {
    let kept = Plane::ALL.into_iter().filter(|plane| valid.source(*plane) == Some(&Source::OperatorCa));
    kept.filter_map(|plane| {
        let secret = objects.secrets.get(&authority_name(valid, plane))?;
        Some((plane, Authority::read(secret).ok()?))
    })
}

/// All of them, each with its next turn.
pub fn look(valid: &Valid, objects: &Objects, said: &Said, now: Timestamp) -> Vec<Rotation> {
    let rotation = |(plane, authority): (Plane, Authority)| {
        let cert = authority.signer().cert.as_bytes();
        let status = AuthorityStatus {
            plane,
            phase: authority.phase,
            not_after: tls::ends("tls.crt", cert).ok()?.into(),
            sha256: tls::fingerprints("tls.crt", cert).ok()?.into_iter().next()?,
        };
        let turn = match rotate::plan(&see(valid, objects, said, &authority, &status, now)) {
            turn if turn != Turn::Rest && valid.wanted.paused => Turn::Wait("paused".to_owned()),
            turn => turn,
        };
        Some(Rotation { status, turn, authority })
    };
    authorities(valid, objects).filter_map(rotation).collect()
}

fn see(
    valid: &Valid,
    objects: &Objects,
    said: &Said,
    authority: &Authority,
    status: &AuthorityStatus,
    now: Timestamp,
) -> Seen {
    let plane = status.plane;
    let needs: Vec<Need> =
        secret::needs(valid, &objects.names()).into_iter().filter(|need| need.plane == plane).collect();
    let unwritten = needs.iter().find(|need| !secret::is_given(authority, &objects.secrets, need));
    let members = needs.iter().filter_map(|need| {
        let member = need.member.clone()?;
        let said = match said.get(&member) {
            None => Err("it has no Pod".to_owned()),
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(report)) => {
                report.get(&plane.to_string()).cloned().ok_or_else(|| format!("nothing of its {plane} TLS"))
            }
        };
        let given = objects.secrets.get(&need.secret).and_then(given);
        Some((member, Held { given, said }))
    });
    Seen {
        phase: authority.phase,
        signer_ends: status.not_after.0,
        next_ends: authority.successor().and_then(|next| tls::ends("next.crt", next.cert.as_bytes()).ok()),
        demanded: valid.rotate_ca.is_some() && valid.rotate_ca != authority.obeyed,
        renew_before: valid.ca_validity / PARTS_LEFT,
        unwritten: unwritten.map(|need| format!("Secret {} is not written yet", need.secret)),
        members: members.collect(),
        settled_at: authority.settled_at,
        grace: match plane {
            Plane::Client => valid.rotation_grace.min(valid.ca_validity / PARTS_OF_GRACE),
            Plane::Peer => SignedDuration::ZERO,
        },
        now,
    }
}

fn given(secret: &Secret) -> Option<Loaded> {
    let credentials = secret::credentials(secret).ok()?;
    let certificate = tls::fingerprints("tls.crt", &credentials.cert).ok()?.into_iter().next()?;
    Some(Loaded { certificate, trust: tls::fingerprints("ca.crt", &credentials.ca).ok()?.into_iter().collect() })
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
    for Rotation { status, turn, authority } in rotations {
        let plane = status.plane;
        let make = || new_ca(valid, plane, now);
        let Some(next) = authority.turned(turn, valid.rotate_ca.as_ref(), now, make)? else { continue };
        fail::reached(Point::Recorded, turn);
        put(&api, next.secret(valid, plane), objects, valid).await?;
        fail::reached(Point::Acted, turn);
        turned = true;
    }
    Ok(turned)
}
