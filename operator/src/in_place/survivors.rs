//! What the members that are left have on their volumes, and which of them is the one to go on with.
//!
//! The order is Raft's own: by the term, then by the index of the last entry of the log. What a majority had acknowledged is on the best of a
//! majority; of fewer, the best one has the most (docs/operations/recover.md).

use std::cmp::Reverse;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::LogParams;
use serde_json::Value;

use super::build;
use super::plan::Looked;
use super::plan::Salvage;
use crate::backup;
use crate::cluster::world::Aside;
use crate::crd::EtcdRestore;
use crate::crd::in_place::Candidate;

pub const AUTO: &str = "Auto";
/// Bytes of what `garboard inspect` prints.
const TOLD_MAX: i64 = 256 << 10;

/// What is known of the volumes that were put aside.
pub async fn look(client: &Client, restore: &EtcdRestore, aside: &[Aside]) -> kube::Result<Vec<(String, Looked)>> {
    let mut looked = Vec::new();
    for volume in aside.iter().filter(|volume| !volume.deleting) {
        looked.push((volume.name.clone(), inspected(client, restore, volume).await?));
    }
    Ok(looked)
}

/// A Job that this EtcdRestore has made, with its Pods; the word is on one that is not to be waited for.
async fn job(
    client: &Client,
    restore: &EtcdRestore,
    name: &str,
) -> kube::Result<Option<Result<(Job, Vec<Pod>), String>>> {
    let namespace = restore.namespace().unwrap_or_default();
    let Some(job) = Api::<Job>::namespaced(client.clone(), &namespace).get_opt(name).await? else { return Ok(None) };
    let own = job.owner_references().iter().any(|owner| Some(&owner.uid) == restore.metadata.uid.as_ref());
    if job.metadata.deletion_timestamp.is_some() || !own {
        return Ok(Some(Err(format!("the Job {name} is being deleted, or another's"))));
    }
    let pods = backup::pods_of(&Api::namespaced(client.clone(), &namespace), name).await?;
    Ok(Some(Ok((job, pods))))
}

fn at_work(pods: &[Pod]) -> String {
    pods.last().and_then(backup::held_up).unwrap_or_else(|| "at work".to_owned())
}

async fn inspected(client: &Client, restore: &EtcdRestore, volume: &Aside) -> kube::Result<Looked> {
    let name = build::inspect_name(restore, &volume.name);
    let (job, pods) = match job(client, restore, &name).await? {
        None => return Ok(Looked::Not),
        Some(Err(why)) => return Ok(Looked::At(why)),
        Some(Ok(found)) => found,
    };
    let Some((_, message, _)) = backup::ended(&job) else { return Ok(Looked::At(at_work(&pods))) };
    // It tells of damage as well, and ends otherwise then.
    let api = Api::<Pod>::namespaced(client.clone(), &restore.namespace().unwrap_or_default());
    let mut told = String::new();
    if let Some(pod) = pods.last() {
        let params = LogParams { limit_bytes: Some(TOLD_MAX), ..LogParams::default() };
        told = api.logs(&pod.name_any(), &params).await.unwrap_or_default();
    }
    Ok(Looked::Told(candidate(volume, &told, &message)))
}

/// `told`: by `garboard inspect`; `message`: by the Job, if that says nothing.
fn candidate(volume: &Aside, told: &str, message: &str) -> Candidate {
    let unusable = |why: String| Candidate {
        member: volume.name.clone(),
        volume: volume.name.clone(),
        message: why,
        ..Candidate::default()
    };
    let Ok(told) = serde_json::from_str::<Value>(told) else {
        let last = told.lines().last().filter(|line| !line.is_empty()).unwrap_or(message);
        return unusable(format!("it cannot be looked at: {}", last.chars().take(512).collect::<String>()));
    };
    let last = &told["log"]["last"];
    let id = volume.cluster_id.map(|id| format!("{id:x}"));
    let message = if let Some(damage) = told["damage"].as_array().and_then(|damage| damage.first()) {
        format!("damaged: {}", damage["reason"].as_str().unwrap_or_default())
    } else if told["identity"]["clusterId"].as_str() != id.as_deref() {
        format!("it is of the cluster {}", told["identity"]["clusterId"])
    } else if told["identity"]["removed"] == true {
        "it is of a member that the cluster has removed".to_owned()
    } else if last["index"].as_i64().is_none() || told["last"]["revision"].as_i64().is_none() {
        "nothing is in its log".to_owned()
    } else {
        String::new()
    };
    Candidate {
        term: last["term"].as_i64(),
        index: last["index"].as_i64(),
        revision: told["last"]["revision"].as_i64(),
        ..unusable(message)
    }
}

/// The best one first; those that cannot be used last.
pub fn ranked(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by_key(|of| (!of.message.is_empty(), Reverse((of.term, of.index)), of.member.clone()));
    candidates
}

/// The one to go on with, of those that are ranked.
pub fn choose<'a>(candidates: &'a [Candidate], wanted: &str) -> Option<&'a Candidate> {
    candidates.iter().find(|of| of.message.is_empty() && (wanted == AUTO || wanted == of.member))
}

/// What has become of the backup that is taken of the one that was chosen.
pub async fn salvage(client: &Client, restore: &EtcdRestore) -> kube::Result<Salvage> {
    let (job, pods) = match job(client, restore, &build::salvage_name(restore)).await? {
        None => return Ok(Salvage::Absent),
        Some(Err(why)) => return Ok(Salvage::Running(why)),
        Some(Ok(found)) => found,
    };
    Ok(match backup::ended(&job) {
        None => Salvage::Running(at_work(&pods)),
        Some((true, ..)) => Salvage::Taken,
        Some((false, message, at)) => Salvage::Failed(backup::failure(&pods, message, at).message),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(name: &str) -> Aside {
        Aside { name: name.to_owned(), cluster_id: Some(0xc1), ..Aside::default() }
    }

    fn told(term: i64, index: i64) -> Value {
        json!({
            "identity": {"clusterId": "c1", "removed": false}, "damage": [],
            "log": {"last": {"term": term, "index": index}, "committed": {"term": 9, "index": 900}},
            "last": {"revision": index + 100},
        })
    }

    fn seen(name: &str, told: &Value) -> Candidate {
        candidate(&volume(name), &told.to_string(), "")
    }

    #[test]
    fn the_log_that_ends_last_is_the_best_by_term_before_index() {
        let all =
            vec![seen("a", &told(2, 90)), seen("b", &told(3, 40)), seen("c", &told(3, 41)), seen("d", &told(1, 99))];
        let ranked = ranked(all);
        let names: Vec<_> = ranked.iter().map(|of| of.member.as_str()).collect();
        assert_eq!(names, ["c", "b", "a", "d"]);
        assert_eq!(choose(&ranked, AUTO).unwrap().revision, Some(141));
        assert_eq!(choose(&ranked, "a").unwrap().member, "a");
        assert_eq!(choose(&ranked, "e"), None);
    }

    #[test]
    fn what_cannot_be_used_is_named_and_never_chosen() {
        let mut damaged = told(9, 99);
        damaged["damage"] = json!([{"file": "wal", "offset": 1, "reason": "checksum"}]);
        let mut foreign = told(9, 99);
        foreign["identity"]["clusterId"] = json!("c2");
        let mut empty = told(9, 99);
        empty["log"]["last"] = json!(null);
        let mut removed = told(9, 99);
        removed["identity"]["removed"] = json!(true);
        for (bad, why) in [(damaged, "checksum"), (foreign, "c2"), (empty, "nothing"), (removed, "removed")] {
            let bad = seen("bad", &bad);
            assert!(bad.message.contains(why), "{bad:?}");
            let ranked = ranked(vec![bad.clone(), seen("good", &told(1, 1))]);
            assert_eq!(choose(&ranked, AUTO).unwrap().member, "good", "{why}");
            assert_eq!(choose(&[bad], "bad"), None, "{why}");
        }
        let unmounted = candidate(&volume("a"), "", "Job was active longer than specified deadline");
        assert!(unmounted.message.contains("longer than specified"), "{unmounted:?}");
        let refused = candidate(&volume("a"), "Error: cannot inspect /survivor/data: in use\n", "");
        assert!(refused.message.contains("in use"), "{refused:?}");
    }
}
