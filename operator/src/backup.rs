//! One pass over one EtcdBackup: fetch, plan, write down what is to be done, do it.
//!
//! The work itself is done by Pods (`archive`): the operator makes their Jobs and reads what they tell.

mod build;
mod fetch;
mod plan;
mod status;

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::Client;
use kube::Resource;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use kube::api::PostParams;

use crate::cluster::act;
use crate::cluster::act::ActError;
use crate::cluster::validate::Defaults;
use crate::cluster::write;
use crate::crd::EtcdBackup;
use crate::fail;
use crate::fail::Point;
use crate::names;
use build::Plan;
pub use build::SERVICE_ACCOUNT;
pub use build::failure_policy;
pub use build::service_account;
pub use build::tolerations;
use fetch::FINALIZER;
use fetch::Source;
pub use fetch::ended;
pub use fetch::failure;
pub use fetch::held_up;
pub use fetch::pods_of;
pub use fetch::read_failure;
pub use plan::Obstacle;
pub use plan::Step;
use plan::Task;
use plan::World;

const SOON: Duration = Duration::from_millis(200);
const WATCHING: Duration = Duration::from_secs(2);
const WAITING: Duration = Duration::from_secs(5);

/// What came of a pass.
pub struct Passed {
    pub step: Step,
    /// `None`: when somebody changes something.
    pub again: Option<Duration>,
}

/// Looks at `backup` and makes one step.
///
/// # Errors
/// The API server refuses.
pub async fn pass(client: &Client, backup: &EtcdBackup, defaults: &Defaults) -> Result<Passed, ActError> {
    let (world, source) = fetch::fetch(client, backup, defaults).await?;
    let step = plan::plan(&world);
    write(client, backup, status::status(backup, &world, &step)).await?;
    fail::reached(Point::Recorded, &step);
    act(client, backup, &world, source, &step, defaults).await?;
    fail::reached(Point::Acted, &step);
    let again = match &step {
        Step::Rest => None,
        Step::Wait(_) => Some(WAITING),
        Step::Watch(..) => Some(WATCHING),
        _ => Some(SOON),
    };
    Ok(Passed { step, again })
}

async fn act(
    client: &Client,
    backup: &EtcdBackup,
    world: &World,
    source: Result<Source, Obstacle>,
    step: &Step,
    defaults: &Defaults,
) -> Result<(), ActError> {
    let namespace = backup.namespace().unwrap_or_default();
    let jobs = Api::<Job>::namespaced(client.clone(), &namespace);
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
    match step {
        Step::Hold => act::finalizer(client, backup, FINALIZER, true).await,
        Step::LetGo => act::finalizer(client, backup, FINALIZER, false).await,
        Step::CreateClaim => match build::claim(backup) {
            Some(claim) => create(&claims, &claim).await,
            None => Ok(()),
        },
        Step::Start(task) => {
            let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &namespace);
            let made = async {
                create(&accounts, &build::service_account(&namespace)).await?;
                create(&jobs, &job(backup, world, source, *task, defaults)).await
            };
            match made.await {
                // Nothing can be made in a namespace that ends, and its volumes go with it.
                Err(ActError::Kube(error)) if *task == Task::Delete && act::namespace_ends(&error) => {
                    act::finalizer(client, backup, FINALIZER, false).await
                }
                made => made,
            }
        }
        Step::DeleteJob(task) => {
            // With its Pods: they hold the volume.
            delete(&jobs, &build::job_name(&backup.name_any(), *task), DeleteParams::foreground()).await
        }
        Step::DeleteClaim => delete(&claims, &backup.claim(), DeleteParams::default()).await,
        Step::Rest
        | Step::Wait(_)
        | Step::Watch(..)
        | Step::Taken(_)
        | Step::Verified
        | Step::Unverified(_)
        | Step::Fail { .. } => Ok(()),
    }
}

fn job(backup: &EtcdBackup, world: &World, source: Result<Source, Obstacle>, task: Task, defaults: &Defaults) -> Job {
    let left = world.wanted.deadline - world.now.duration_since(world.created_at);
    let source = source.ok();
    Plan {
        backup,
        cluster: source.as_ref().map(|source| &source.valid),
        image: &defaults.operator_image,
        members: source.as_ref().map(|source| source.members.clone()).unwrap_or_default(),
        client_secret: source.as_ref().and_then(|source| source.client_secret.clone()),
        // The operator itself ends what takes too long; this is for when there is none.
        deadline_s: if task == Task::Delete { world.wanted.deadline.as_secs() } else { left.as_secs().max(1) },
    }
    .job(task)
}

/// Creates; one that is there is looked at by the next pass.
pub async fn create<K>(api: &Api<K>, object: &K) -> Result<(), ActError>
where
    K: Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let params = PostParams { field_manager: Some(names::MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, object).await {
        Err(error) if !act::is_already_there(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

async fn delete<K>(api: &Api<K>, name: &str, params: DeleteParams) -> Result<(), ActError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(name, &params).await {
        Err(error) if !act::is(&error, 404) => Err(error.into()),
        _ => Ok(()),
    }
}
