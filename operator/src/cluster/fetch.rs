//! What is there: asked of the API server without a cache, and of the members themselves.

mod node;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use futures_util::future::join_all;
use garboard_proto::etcdserverpb as pb;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::api::ObjectMeta;

use super::build;
use super::build::authority::Authority;
use super::build::authority::authority_name;
use super::build::secret;
use super::certificates::Certificates;
use super::validate::Plane;
use super::validate::Source;
use super::validate::Valid;
use super::validate::bytes;
use super::world;
use super::world::Alarms;
use super::world::Aside;
use super::world::Entry;
use super::world::Exit;
use super::world::Known;
use super::world::Leaving;
use super::world::Member;
use super::world::Recorded;
use super::world::Restore;
use super::world::Size;
use super::world::Store;
use super::world::World;
use super::world::parse_id;
use crate::crd::EtcdCluster;
use crate::crd::EtcdMember;
use crate::crd::status::DetachedVolume;
use crate::crd::status::RestoreInPlace;
use crate::names;
use crate::store;
use crate::store::StoreError;

/// Exit codes of the server: see its docs/operations.
const EXIT_WIPED: i32 = 3;
const EXIT_REMOVED: i32 = 4;
const EXIT_OUTDATED: i32 = 5;
const EXIT_DAMAGED: i32 = 6;
/// A follower so many entries behind the leader is not well.
const LAG_MAX: u64 = 5000;

/// The objects of a cluster, as they are in the API server.
pub struct Objects {
    pub members: BTreeMap<String, EtcdMember>,
    pub pods: BTreeMap<String, Pod>,
    pub volumes: BTreeMap<String, PersistentVolumeClaim>,
    pub detached: Vec<DetachedVolume>,
    pub aside: Vec<Aside>,
    pub secrets: BTreeMap<String, Secret>,
    pub nodes: BTreeMap<String, Option<Node>>,
    /// Whether volumes of a class may grow; looked up when one is to.
    pub expandable: BTreeMap<String, bool>,
}

/// What the members said.
#[derive(Default)]
pub struct Answers {
    /// Of itself, by member name.
    pub said: BTreeMap<String, pb::StatusResponse>,
    /// The member list, as a quorum has it, and from whom it came.
    pub list: Option<(String, pb::MemberListResponse)>,
    /// Whether a linearizable read succeeded; `None`: nobody could be asked.
    pub read: Option<Result<(), String>>,
    /// `None`: they could not be read.
    pub alarms: Option<Vec<pb::AlarmMember>>,
    pub clients: BTreeMap<String, store::Client>,
}

// === impl Objects ===

impl Objects {
    /// Of all members that have anything here.
    pub fn names(&self) -> BTreeSet<String> {
        self.members.keys().chain(self.pods.keys()).chain(self.volumes.keys()).cloned().collect()
    }

    /// Of the servers that the Pods run.
    pub fn versions(&self) -> BTreeSet<String> {
        self.pods.values().filter_map(|pod| pod.annotations().get(names::VERSION).cloned()).collect()
    }

    /// Bytes of the smallest volume that stays.
    pub fn smallest_volume(&self) -> Option<u64> {
        let stays = self.volumes.values().filter(|volume| volume.metadata.deletion_timestamp.is_none());
        stays.map(sizes).map(|(requested, capacity)| capacity.unwrap_or(requested)).min()
    }
}

/// Bytes that a claim asks for, and those that it has.
fn sizes(volume: &PersistentVolumeClaim) -> (u64, Option<u64>) {
    let spec = volume.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
    let status = volume.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
    (spec.and_then(bytes).unwrap_or(0), status.and_then(bytes))
}

/// `None`: no restore has put it aside.
pub fn put_aside(volume: &PersistentVolumeClaim) -> Option<Aside> {
    Some(Aside {
        name: volume.name_any(),
        uid: volume.uid().unwrap_or_default(),
        restore: volume.annotations().get(names::RESTORE)?.clone(),
        deleting: volume.metadata.deletion_timestamp.is_some(),
        cluster_id: volume.annotations().get(names::CLUSTER_ID).and_then(|id| parse_id(id)),
    })
}

fn class(volume: &PersistentVolumeClaim) -> Option<&String> {
    volume.spec.as_ref()?.storage_class_name.as_ref()
}

// === impl Answers ===

impl Answers {
    /// What the member of this id said, and its name.
    pub fn of(&self, id: u64) -> Option<(&String, &pb::StatusResponse)> {
        self.said.iter().find(|(_, said)| said.header.as_ref().is_some_and(|header| header.member_id == id))
    }
}

pub async fn objects(client: &Client, valid: &Valid) -> kube::Result<Objects> {
    let namespace = valid.names.namespace.as_str();
    let labelled = ListParams::default().labels(&valid.names.selector_text());
    let (members, pods, volumes, secrets) = tokio::try_join!(
        async { Api::<EtcdMember>::namespaced(client.clone(), namespace).list(&labelled).await },
        async { Api::<Pod>::namespaced(client.clone(), namespace).list(&labelled).await },
        async { Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace).list(&labelled).await },
        async { Api::<Secret>::namespaced(client.clone(), namespace).list(&labelled).await },
    )?;
    let by_name = |metadata: &ObjectMeta| metadata.name.clone().unwrap_or_default();
    let (mut detached, mut aside) = (Vec::new(), Vec::new());
    let mut attached = BTreeMap::new();
    for volume in volumes.items {
        aside.extend(put_aside(&volume));
        match volume.annotations().get(names::DETACHED) {
            Some(since) => detached.push(DetachedVolume {
                claim: volume.name_any(),
                member: volume.labels().get(names::MEMBER).cloned().unwrap_or_default(),
                since: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                    since.parse().unwrap_or(Timestamp::UNIX_EPOCH),
                ),
            }),
            None => {
                attached.insert(volume.name_any(), volume);
            }
        }
    }
    let pods: BTreeMap<String, Pod> = pods
        .items
        .into_iter()
        .filter(|pod| pod.labels().contains_key(names::MEMBER))
        .map(|pod| (by_name(&pod.metadata), pod))
        .collect();
    let mut wanted = BTreeSet::new();
    wanted.extend(pods.values().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()));
    wanted.extend(attached.values().filter_map(selected_node).map(str::to_owned));
    let nodes: Api<Node> = Api::all(client.clone());
    let looked_at = join_all(wanted.into_iter().map(|name| async {
        let node = nodes.get_opt(&name).await?;
        Ok::<_, kube::Error>((name, node))
    }))
    .await;
    let small = attached.values().filter(|volume| sizes(volume).0 < valid.wanted.volume_size);
    let classes: BTreeSet<&String> = small.filter_map(class).collect();
    let mut expandable = BTreeMap::new();
    for name in classes {
        let class = Api::<StorageClass>::all(client.clone()).get_opt(name).await?;
        expandable.insert(name.clone(), class.and_then(|class| class.allow_volume_expansion).unwrap_or(false));
    }
    let mut secrets: BTreeMap<String, Secret> =
        secrets.items.into_iter().map(|secret| (by_name(&secret.metadata), secret)).collect();
    for name in foreign_secrets(valid, &secrets) {
        if let Some(secret) = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(&name).await? {
            secrets.insert(name, secret);
        }
    }
    Ok(Objects {
        members: members.items.into_iter().map(|member| (by_name(&member.metadata), member)).collect(),
        pods,
        volumes: attached,
        detached,
        aside,
        secrets,
        expandable,
        nodes: looked_at.into_iter().collect::<Result<_, _>>()?,
    })
}

/// Those that somebody else has made for all members: that the spec names, and that something is still shown from.
fn foreign_secrets(valid: &Valid, secrets: &BTreeMap<String, Secret>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for plane in Plane::ALL {
        if let Some(Source::Secret(name)) = valid.source(plane) {
            names.insert(name.clone());
        }
        if let Some(authority) =
            secrets.get(&authority_name(valid, plane)).and_then(|secret| Authority::read(secret).ok())
        {
            names.extend(authority.foreign().filter_map(|foreign| foreign.secret.clone()));
        }
    }
    names
}

/// Asks every member that has an address.
pub async fn ask(valid: &Valid, objects: &Objects) -> Answers {
    let mut answers = Answers::default();
    let credentials = secret::operator_credentials(valid, &objects.secrets);
    if valid.source(Plane::Client).is_some() && credentials.is_none() {
        return answers;
    }
    for (name, pod) in &objects.pods {
        let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()) else { continue };
        if let Ok(client) = store::Client::new(address, &valid.names.host(name), credentials.as_ref()) {
            answers.clients.insert(name.clone(), client);
        }
    }
    let asked = answers.clients.iter().map(|(name, client)| async move {
        let (status, list) = tokio::join!(client.status(), client.members());
        (name.clone(), status, list)
    });
    let mut refused = None;
    for (name, status, list) in join_all(asked).await {
        match list {
            Ok(list) if answers.list.is_none() => answers.list = Some((name.clone(), list)),
            Ok(_) => {}
            Err(error) => refused = Some(error),
        }
        if let Ok(status) = status {
            answers.said.insert(name, status);
        }
    }
    if let Some((name, _)) = &answers.list
        && let Some(client) = answers.clients.get(name)
    {
        let (read, alarms) = tokio::join!(client.read(), client.alarms());
        answers.alarms = alarms.ok();
        // Of NOSPACE and CORRUPT the alarms tell; both let reads through or say so.
        answers.read = Some(read.map_err(|error| error.to_string()));
    } else if !answers.said.is_empty() {
        answers.read = Some(Err(refused.map_or_else(String::new, |error: StoreError| error.to_string())));
    }
    answers
}

/// The world as the plan sees it.
pub fn world(
    cluster: &EtcdCluster,
    valid: &Valid,
    objects: &Objects,
    answers: &Answers,
    certificates: &Certificates,
    (restore, asked): (Option<Restore>, Option<RestoreInPlace>),
    now: Timestamp,
) -> World {
    let status = cluster.status.clone().unwrap_or_default();
    let seen = |name: String| {
        let uncertified = certificates.of.get(&name).cloned();
        let member = Member { uncertified, ..member(valid, objects, &name) };
        (name, member)
    };
    let members = objects.names().into_iter().map(seen).collect();
    World {
        wanted: valid.wanted.clone(),
        recorded: Recorded {
            cluster_id: status.cluster_id.as_deref().and_then(parse_id),
            bootstrap: status.bootstrap.map(|bootstrap| bootstrap.member),
            operation: status.operation,
            reclaim: status.reclaim,
            restore: status.restore,
        },
        members,
        uncertified: certificates.shared.clone(),
        restore,
        leaving: Leaving::default(),
        asked,
        aside: objects.aside.clone(),
        store: store(valid, answers),
        now,
        fresh_name: format!("{}-{}", valid.names.cluster, super::random_suffix()),
    }
}

fn member(valid: &Valid, objects: &Objects, name: &str) -> Member {
    let object = objects.members.get(name);
    let volume = objects.volumes.get(name);
    let pod = objects.pods.get(name).map(|pod| seen_pod(valid, objects, name, pod, volume));
    Member {
        peer_url: build::peer_url(valid, name),
        object: object.is_some_and(|object| object.metadata.deletion_timestamp.is_none()),
        id: object.and_then(|object| parse_id(object.spec.member_id.as_deref()?)),
        pod,
        volume: volume.map(|volume| world::Volume {
            requested: sizes(volume).0,
            capacity: sizes(volume).1,
            expandable: class(volume).is_some_and(|class| objects.expandable.get(class) == Some(&true)),
            uid: volume.uid().unwrap_or_default(),
            deleting: volume.metadata.deletion_timestamp.is_some(),
            lost: volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost"),
            cluster_id: volume.annotations().get(names::CLUSTER_ID).and_then(|id| parse_id(id)),
            member_id: volume.annotations().get(names::MEMBER_ID).and_then(|id| parse_id(id)),
        }),
        uncertified: None,
    }
}

fn seen_pod(
    valid: &Valid,
    objects: &Objects,
    name: &str,
    pod: &Pod,
    volume: Option<&PersistentVolumeClaim>,
) -> world::Pod {
    let status = pod.status.clone().unwrap_or_default();
    let condition = |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let ready = condition("Ready");
    let wanted = build::spec_hash(valid, name);
    let unplaced =
        condition("PodScheduled").filter(|c| c.status == "False" && c.reason.as_deref() == Some("Unschedulable"));
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let lost = |node: &str, unseen| node::lost_since(objects.nodes.get(node)?.as_ref(), unseen);
    let lost_since = match (node, unplaced) {
        (Some(node), _) => {
            let unseen = ready.and_then(|ready| Some(ready.last_transition_time.as_ref()?.0));
            lost(node, unseen)
        }
        // It waits for the node that its volume is on.
        (None, Some(unplaced)) => volume.and_then(selected_node).and_then(|node| {
            let since = unplaced.last_transition_time.as_ref().map(|time| time.0);
            lost(node, since)
        }),
        (None, None) => None,
    };
    let node = node.and_then(|node| objects.nodes.get(node)?.as_ref());
    world::Pod {
        uid: pod.uid().unwrap_or_default(),
        ready: ready.is_some_and(|ready| ready.status == "True"),
        ready_since: ready
            .filter(|ready| ready.status == "True")
            .and_then(|r| Some(r.last_transition_time.as_ref()?.0)),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        finished: matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")),
        outdated: wanted.is_ok_and(|wanted| pod.annotations().get(names::SPEC_HASH) != Some(&wanted)),
        founds: pod.annotations().contains_key(names::FOUNDS),
        exit: exit(pod),
        node_lost_since: lost_since,
        cordoned: node.is_some_and(node::is_cordoned),
        node_ready: node.is_some_and(node::is_ready),
    }
}

/// What the server said when it last ended, unless it has started again since.
fn exit(pod: &Pod) -> Option<Exit> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let server = statuses.iter().find(|status| status.name == build::CONTAINER)?;
    let terminated = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| state?.terminated.clone();
    let running = server.state.as_ref().is_some_and(|state| state.running.is_some());
    let ended = match terminated(server.state.as_ref()) {
        Some(ended) => ended,
        None if !running => terminated(server.last_state.as_ref())?,
        None => return None,
    };
    match ended.exit_code {
        EXIT_WIPED => Some(Exit::Wiped),
        EXIT_REMOVED => Some(Exit::Removed),
        EXIT_OUTDATED => Some(Exit::Outdated),
        EXIT_DAMAGED => Some(Exit::Damaged),
        _ => None,
    }
}

fn selected_node(volume: &PersistentVolumeClaim) -> Option<&str> {
    volume.annotations().get("volume.kubernetes.io/selected-node").map(String::as_str)
}

/// Whether it is one that [`build::peer_url`] makes for some member.
fn is_ours(valid: &Valid, peer_url: &str) -> bool {
    let host = peer_url.split_once("://").map_or(peer_url, |(_, rest)| rest).split(':').next().unwrap_or_default();
    host.split_once('.').is_some_and(|(_, domain)| domain == valid.names.peer_domain())
}

fn store(valid: &Valid, answers: &Answers) -> Store {
    let Some((_, list)) = &answers.list else { return Store::Unknown };
    let said = |id: u64| answers.of(id).map(|(_, said)| said);
    // Most members' leader: one of them may not know yet.
    let leaders = answers.said.values().map(|said| said.leader).filter(|leader| *leader != 0);
    let mut votes = BTreeMap::new();
    leaders.for_each(|leader| *votes.entry(leader).or_insert(0) += 1);
    let leader = votes.into_iter().max_by_key(|(_, votes)| *votes).map_or(0, |(leader, _)| leader);
    let committed = said(leader).map(|said| said.raft_index);
    let entries = list.members.iter().map(|member| {
        let healthy = said(member.id).is_some_and(|said| {
            let lag = committed.map_or(0, |index| index.saturating_sub(said.raft_applied_index));
            said.leader == leader && leader != 0 && lag <= LAG_MAX
        });
        Entry {
            id: member.id,
            name: member.name.clone(),
            peer_urls: member.peer_ur_ls.clone(),
            learner: member.is_learner,
            ours: member.peer_ur_ls.iter().any(|url| is_ours(valid, url)),
            healthy,
            size: said(member.id).map(size),
        }
    });
    let revisions = answers.said.values().filter_map(|said| Some(said.header.as_ref()?.revision));
    Store::Known(Known {
        cluster_id: list.header.as_ref().map_or(0, |header| header.cluster_id),
        leader,
        entries: entries.collect(),
        revision: revisions.max().unwrap_or(0),
        alarms: answers.alarms.as_deref().map(alarms),
    })
}

fn size(said: &pb::StatusResponse) -> Size {
    let bytes = |said: i64| u64::try_from(said).unwrap_or(0);
    Size { total: bytes(said.db_size), in_use: bytes(said.db_size_in_use), quota: bytes(said.db_size_quota) }
}

fn alarms(raised: &[pb::AlarmMember]) -> Alarms {
    let of = |kind| raised.iter().filter(|alarm| alarm.alarm() == kind).map(|alarm| alarm.member_id).collect();
    Alarms { no_space: of(pb::AlarmType::Nospace), corrupt: of(pb::AlarmType::Corrupt) }
}
