//! One pass over one EtcdCluster: fetch, validate, plan, write down what is to be done, do it.
//!
//! A pass makes one step at most, and waits for nothing: what it cannot see done now, the next one sees.

pub mod act;
pub mod authorities;
pub mod build;
pub mod certificates;
pub mod deletion;
pub mod fetch;
pub mod plan;
pub mod restore;
pub mod rotate;
pub mod status;
pub mod validate;
pub mod version;
pub mod world;

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use kube::core::NamespaceResourceScope;
use kube::core::object::HasStatus;
use sha2::Digest as _;
use sha2::Sha256;

use crate::crd::EtcdCluster;
use crate::fail;
use crate::fail::Point;
use crate::in_place;
use crate::names;
use crate::tls::TlsError;
use act::ActError;
use plan::Step;
use rotate::Turn;
use status::Monitored;
use validate::Defaults;
use validate::Plane;
use validate::Valid;
use world::Store;
use world::World;

/// Between two passes: while something is under way, and while nothing is.
const SOON: Duration = Duration::from_millis(200);
const WAITING: Duration = Duration::from_secs(1);
const STEADY: Duration = Duration::from_secs(15);

/// Why a pass came to no end.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    #[error("{0}")]
    Kube(#[from] kube::Error),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Act(#[from] ActError),
}

// === impl PassError ===

impl PassError {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kube(_) => "ApiServer",
            Self::Tls(_) => "Certificates",
            Self::Act(error) => error.reason(),
        }
    }

    fn is_of_ending_namespace(&self) -> bool {
        matches!(self, Self::Kube(error) | Self::Act(ActError::Kube(error)) if act::namespace_ends(error))
    }
}

/// What came of a pass.
pub struct Passed {
    pub step: Step,
    /// Of the rotations of CAs.
    pub turns: Vec<(Plane, Turn)>,
    pub again: Duration,
}

// === impl Passed ===

impl Passed {
    fn idle(step: Step) -> Self {
        Self { step, turns: Vec::new(), again: STEADY }
    }
}

/// Looks at `cluster` and makes one step.
pub async fn pass(client: &Client, cluster: &EtcdCluster, defaults: &Defaults) -> Result<Passed, PassError> {
    if cluster.metadata.deletion_timestamp.is_none() {
        return keep(client, cluster, defaults).await;
    }
    // What belongs to it goes with it; the volumes as `storage.retention` has it.
    if !deletion::is_held(cluster) {
        return Ok(Passed::idle(Step::Wait("it is being deleted".to_owned())));
    }
    let why = match &cluster.spec.deletion.final_backup {
        // Whatever else may be wrong with its spec.
        None => "no final backup is asked for",
        Some(_) => match keep(client, cluster, defaults).await {
            Err(error) if error.is_of_ending_namespace() => "no backup can be made in a namespace that ends",
            passed => return passed,
        },
    };
    deletion::hold(client, cluster, false).await?;
    Ok(Passed::idle(Step::LetGo(why.to_owned())))
}

/// The same where there is something to keep.
async fn keep(client: &Client, cluster: &EtcdCluster, defaults: &Defaults) -> Result<Passed, PassError> {
    let now = Timestamp::now();
    let mut valid = match validate::validate(cluster, defaults) {
        Ok(valid) => valid,
        Err(invalid) => {
            let status = status::failed(cluster, "InvalidSpec", &invalid.to_string(), now);
            write(client, cluster, status).await?;
            return Ok(Passed::idle(Step::Refuse(invalid.to_string())));
        }
    };
    let mut objects = fetch::objects(client, &valid).await?;
    valid.keep_in_step(&objects.versions());
    if let Some(smallest) = objects.smallest_volume().filter(|_| valid.wanted.volumes) {
        valid.fit_quota(smallest);
    }
    let (mut problems, mut monitored, mut isolated) = (Vec::new(), None, None);
    if !valid.wanted.paused {
        services(client, &valid).await?;
        isolated = isolate(client, cluster, &valid).await?;
        monitored = monitor(client, cluster, &valid).await?;
        problems = certificates::ensure(client, &valid, &mut objects, now).await?;
    }
    let certificates = certificates::look(&valid, &objects, problems, now);
    let (answers, said) = tokio::join!(fetch::ask(&valid, &objects), authorities::ask(&valid, &objects));
    let rotations = authorities::look(&valid, &objects, &said, now);
    let restore = restore::look(client, cluster, &valid, &objects).await?;
    let leaving = deletion::look(client, cluster).await?;
    let asked = in_place::asked(client, cluster).await?;
    let world = fetch::world(cluster, &valid, &objects, &answers, &certificates, (restore, asked), now);
    let world = World { leaving, ..world };
    let step = plan::plan(&world);
    if !valid.wanted.paused {
        budget(client, &valid, &world).await?;
    }
    // First the record, then the deed.
    let mut status = status::status(cluster, &valid, &objects, &answers, &certificates, &world, &step);
    if let Some(monitored) = monitored {
        status::monitored(&mut status, monitored, now);
    }
    if let Some(isolated) = isolated {
        status::isolated(&mut status, isolated, now);
    }
    status::rotating(&mut status, &rotations, now);
    write(client, cluster, status).await?;
    let turned = authorities::turn(client, &valid, &mut objects, &rotations, now).await?;
    fail::reached(Point::Recorded, &step);
    act::act(client, &valid, &world, &answers, &step).await?;
    deletion::act(client, cluster, &valid, &step).await?;
    fail::reached(Point::Acted, &step);
    let again = match &step {
        _ if turned => SOON,
        Step::Steady | Step::Refuse(_) => STEADY,
        Step::Wait(_) | Step::Promote { .. } | Step::MoveLeader { .. } => WAITING,
        Step::Compact { .. } | Step::Defragment { .. } => WAITING,
        _ => SOON,
    };
    let under_way = rotations.iter().filter(|_| !valid.wanted.paused);
    let again = under_way.map(|rotation| rotation.turn.again(now)).fold(again, Duration::min);
    let turns = rotations.into_iter().map(|rotation| (rotation.status.plane, rotation.turn)).collect();
    Ok(Passed { step, turns, again })
}

/// They are there before any Pod needs them.
async fn services(client: &Client, valid: &Valid) -> Result<(), PassError> {
    let services = Api::<Service>::namespaced(client.clone(), &valid.names.namespace);
    for service in [build::peer_service(valid), build::client_service(valid)] {
        apply(&services, &service, valid).await?;
    }
    Ok(())
}

/// Whether there is a PodMonitor; `None`: nobody has ever asked for one.
async fn monitor(client: &Client, cluster: &EtcdCluster, valid: &Valid) -> Result<Option<Monitored>, PassError> {
    let api =
        Api::<DynamicObject>::namespaced_with(client.clone(), &valid.names.namespace, &build::monitor::resource());
    let wanted = valid.spec.monitoring.pod_monitor.enabled.then(|| build::monitor::pod_monitor(valid));
    match on_demand(&api, wanted, status::holds(cluster, status::MONITORED), valid).await {
        Ok(there) => Ok(there.map(|there| if there { Monitored::Yes } else { Monitored::No })),
        Err(ActError::Kube(error)) if act::is(&error, 404) => Ok(Some(Monitored::NotInstalled)),
        Err(error) => Err(error.into()),
    }
}

/// Whether there is a NetworkPolicy; `None`: nobody has ever asked for one.
async fn isolate(client: &Client, cluster: &EtcdCluster, valid: &Valid) -> Result<Option<bool>, PassError> {
    let api = Api::<NetworkPolicy>::namespaced(client.clone(), &valid.names.namespace);
    let wanted = valid.spec.network.network_policy.enabled.then(|| build::network_policy(valid));
    Ok(on_demand(&api, wanted, status::holds(cluster, status::ISOLATED), valid).await?)
}

/// Makes an object that is wanted, and deletes one that there was; whether there is one, `None` where there never was.
async fn on_demand<K>(api: &Api<K>, wanted: Option<K>, was: bool, valid: &Valid) -> Result<Option<bool>, ActError>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    match wanted {
        Some(object) => apply(api, &object, valid).await.map(|()| Some(true)),
        None if was => withdraw(api, valid).await.map(|()| Some(false)).map_err(ActError::from),
        None => Ok(None),
    }
}

async fn budget(client: &Client, valid: &Valid, world: &World) -> Result<(), PassError> {
    let api = Api::<PodDisruptionBudget>::namespaced(client.clone(), &valid.names.namespace);
    let voters = match &world.store {
        Store::Known(known) => known.voters().count(),
        Store::Unknown => world.members.values().filter(|member| member.id.is_some()).count(),
    };
    match build::disruption_budget(valid, voters) {
        Some(budget) => apply(&api, &budget, valid).await?,
        None => withdraw(&api, valid).await?,
    }
    Ok(())
}

/// Deletes the object that has the cluster's name, if there is one.
async fn withdraw<K>(api: &Api<K>, valid: &Valid) -> kube::Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(&valid.names.cluster, &Default::default()).await {
        Err(error) if !act::is(&error, 404) => Err(error),
        _ => Ok(()),
    }
}

/// Makes an object what it is to be. One of that name that is not the cluster's stays as it is.
async fn apply<K>(api: &Api<K>, object: &K, valid: &Valid) -> Result<(), ActError>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let name = object.meta().name.clone().unwrap_or_default();
    let params = PatchParams::apply(names::MANAGER);
    match api.patch(&name, &params, &Patch::Apply(object)).await {
        Ok(_) => Ok(()),
        // Somebody else has written a field of it.
        Err(error) if act::is(&error, 409) => {
            if !act::is_ours(api, &name, valid).await? {
                return Err(ActError::Taken(name));
            }
            api.patch(&name, &params.force(), &Patch::Apply(object)).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes the status, if it says anything new. Somebody else's write in between is an error, and this pass is made again.
pub(crate) async fn write<K>(client: &Client, object: &K, status: K::Status) -> kube::Result<()>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + HasStatus,
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    K::Status: PartialEq,
{
    if object.status() == Some(&status) {
        return Ok(());
    }
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let mut written = object.clone();
    *written.status_mut() = Some(status);
    written.meta_mut().managed_fields = None;
    api.replace_status(&object.name_any(), &PostParams::default(), &written).await.map(drop)
}

/// A short digest.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Five letters that make a name nobody has had.
pub fn random_suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = [0; 5];
    // Without randomness the name is taken, which is seen when it is created.
    let _ = getrandom::fill(&mut random);
    random.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}
