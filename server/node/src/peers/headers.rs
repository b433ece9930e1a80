//! What every call between members carries besides its message: of which cluster, from whom, to whom, and by which data directories they
//! know each other. Ids and incarnations are in hexadecimal.

use tonic::Code;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::metadata::MetadataValue;

use super::Roster;

const CLUSTER: &str = "garboard-cluster";
const FROM: &str = "garboard-from";
const FROM_INCARNATION: &str = "garboard-from-incarnation";
const TO: &str = "garboard-to";
const TO_INCARNATION: &str = "garboard-to-incarnation";
/// The formats that the caller reads, and the one that the cluster writes as far as it knows.
const READS_FROM: &str = "garboard-reads-from";
const READS_TO: &str = "garboard-reads-to";
const FORMAT: &str = "garboard-format";
const REFUSAL: &str = "garboard-refusal";

/// Why a call between members is refused before raft sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The caller is of another cluster.
    #[error("cluster ID mismatch")]
    Cluster,
    /// The call was meant for another member.
    #[error("this is another member")]
    Member,
    /// The caller was removed from the cluster.
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    /// The caller is known by another data directory.
    #[error("the member is known by another data directory: this one is new or was wiped")]
    Wiped,
    /// The call was meant for the data directory that this member had before.
    #[error("this member has another data directory than the one that was called")]
    Other,
    /// The caller cannot read what the cluster writes.
    #[error("the cluster writes a format that the member's release cannot read")]
    Outdated,
    /// The caller's cluster writes what this member cannot read.
    #[error("this member's release cannot read the format that the cluster writes")]
    Behind,
    /// The caller's identity could not be written down.
    #[error("the member's identity could not be written down")]
    Unsaved,
    /// The headers say nothing that can be read.
    #[error("the call does not say who makes it")]
    Nameless,
}

impl Refusal {
    const ALL: [(Refusal, &str); 9] = [
        (Refusal::Cluster, "cluster"),
        (Refusal::Member, "member"),
        (Refusal::Removed, "removed"),
        (Refusal::Wiped, "wiped"),
        (Refusal::Other, "other"),
        (Refusal::Outdated, "outdated"),
        (Refusal::Behind, "behind"),
        (Refusal::Unsaved, "unsaved"),
        (Refusal::Nameless, "nameless"),
    ];

    fn code(self) -> &'static str {
        Self::ALL.iter().find(|(refusal, _)| *refusal == self).map_or("nameless", |(_, code)| code)
    }

    /// The refusal that a status carries.
    pub(crate) fn of(status: &Status) -> Option<Self> {
        let code = status.metadata().get(REFUSAL)?.to_str().ok()?;
        Self::ALL.iter().find(|(_, known)| *known == code).map(|(refusal, _)| *refusal)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut status = Status::new(Code::FailedPrecondition, refusal.to_string());
        status.metadata_mut().insert(REFUSAL, MetadataValue::from_static(refusal.code()));
        status
    }
}

/// Who calls, and as whom it knows the one it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) id: u64,
    pub(crate) incarnation: u64,
}

/// Puts the headers of a call to `to` into `headers`.
pub(crate) fn address(headers: &mut MetadataMap, roster: &Roster, to: u64) {
    let own = roster.own();
    put(headers, CLUSTER, own.cluster_id);
    put(headers, FROM, own.member_id);
    put(headers, FROM_INCARNATION, own.incarnation);
    put(headers, TO, to);
    put(headers, TO_INCARNATION, roster.incarnation(to));
    put(headers, READS_FROM, (*roster.release().reads.start()).into());
    put(headers, READS_TO, (*roster.release().reads.end()).into());
    put(headers, FORMAT, roster.format().into());
}

/// Puts the headers of an answer into `headers`.
pub(crate) fn sign(headers: &mut MetadataMap, roster: &Roster) {
    let own = roster.own();
    put(headers, CLUSTER, own.cluster_id);
    put(headers, FROM, own.member_id);
    put(headers, FROM_INCARNATION, own.incarnation);
}

/// Reads the headers of a call. Whether the caller is who it says is another question ([`Roster::admit`]).
///
/// # Errors
/// It is not for this member, or not as its data directory is; or one of the two cannot read what the other may write.
pub(crate) fn caller(headers: &MetadataMap, roster: &Roster) -> Result<Caller, Refusal> {
    let own = roster.own();
    let get = |name| get(headers, name).ok_or(Refusal::Nameless);
    if get(CLUSTER)? != own.cluster_id {
        return Err(Refusal::Cluster);
    }
    if get(TO)? != own.member_id {
        return Err(Refusal::Member);
    }
    let known_as = get(TO_INCARNATION)?;
    if known_as != 0 && known_as != own.incarnation {
        return Err(Refusal::Other);
    }
    if !(get(READS_FROM)?..=get(READS_TO)?).contains(&roster.format().into()) {
        return Err(Refusal::Outdated);
    }
    let (written, reads) = (get(FORMAT)?, &roster.release().reads);
    if !(u64::from(*reads.start())..=u64::from(*reads.end())).contains(&written) {
        return Err(Refusal::Behind);
    }
    Ok(Caller { id: get(FROM)?, incarnation: get(FROM_INCARNATION)? })
}

/// Reads the headers of `from`'s answer.
///
/// # Errors
/// Somebody else has answered.
pub(crate) fn answerer(headers: &MetadataMap, roster: &Roster, from: u64) -> Result<Caller, Refusal> {
    let get = |name| get(headers, name).ok_or(Refusal::Nameless);
    if get(CLUSTER)? != roster.own().cluster_id {
        return Err(Refusal::Cluster);
    }
    if get(FROM)? != from {
        return Err(Refusal::Member);
    }
    Ok(Caller { id: from, incarnation: get(FROM_INCARNATION)? })
}

fn put(headers: &mut MetadataMap, name: &'static str, value: u64) {
    if let Ok(value) = MetadataValue::try_from(format!("{value:x}")) {
        headers.insert(name, value);
    }
}

fn get(headers: &MetadataMap, name: &str) -> Option<u64> {
    u64::from_str_radix(headers.get(name)?.to_str().ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::identity::Identity;
    use crate::release::Release;

    fn roster(member_id: u64, incarnation: u64) -> Roster {
        of_release(member_id, incarnation, Release::default())
    }

    fn of_release(member_id: u64, incarnation: u64, release: Release) -> Roster {
        Roster::new(Identity { cluster_id: 7, member_id, incarnation }, release, BTreeMap::new(), Box::new(|_| Ok(())))
    }

    #[test]
    fn a_call_names_both_ends() {
        let (a, b) = (roster(1, 11), roster(2, 22));
        let mut headers = MetadataMap::new();
        address(&mut headers, &a, 2);
        assert_eq!(caller(&headers, &b), Ok(Caller { id: 1, incarnation: 11 }));
        assert_eq!(caller(&headers, &roster(3, 33)), Err(Refusal::Member));
        assert_eq!(caller(&MetadataMap::new(), &b), Err(Refusal::Nameless));
        let mut answer = MetadataMap::new();
        sign(&mut answer, &b);
        assert_eq!(answerer(&answer, &a, 2), Ok(Caller { id: 2, incarnation: 22 }));
        assert_eq!(answerer(&answer, &a, 3), Err(Refusal::Member));
    }

    #[test]
    fn who_is_known_by_another_directory_refuses_the_call() {
        let (a, b) = (roster(1, 11), roster(2, 22));
        a.admit(2, 22).expect("first met");
        let mut headers = MetadataMap::new();
        address(&mut headers, &a, 2);
        assert_eq!(caller(&headers, &b), Ok(Caller { id: 1, incarnation: 11 }));
        // It is the one called that has changed, not the caller.
        assert_eq!(caller(&headers, &roster(2, 23)), Err(Refusal::Other));
    }

    #[test]
    fn releases_that_would_misread_each_other_do_not_talk() {
        let next = |reads| Release { reads, writes: 2, ..Release::default() };
        let calls = |a: &Roster, b: &Roster| {
            let mut headers = MetadataMap::new();
            address(&mut headers, a, b.own().member_id);
            caller(&headers, b).map(|caller| caller.id)
        };
        let (old, new) = (roster(1, 11), of_release(2, 22, next(1..=2)));
        assert_eq!((calls(&old, &new), calls(&new, &old)), (Ok(1), Ok(2)));
        new.agreed(2);
        assert_eq!((calls(&old, &new), calls(&new, &old)), (Err(Refusal::Outdated), Err(Refusal::Behind)));
        let later = of_release(3, 33, next(2..=3));
        assert_eq!(calls(&roster(1, 11), &later), Err(Refusal::Behind));
        later.agreed(2);
        assert_eq!(calls(&new, &later), Ok(2));
    }

    #[test]
    fn a_refusal_survives_the_way() {
        for (refusal, _) in Refusal::ALL {
            assert_eq!(Refusal::of(&Status::from(refusal)), Some(refusal));
        }
        assert_eq!(Refusal::of(&Status::unavailable("down")), None);
    }
}
