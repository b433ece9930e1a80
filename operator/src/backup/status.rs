//! The status of a backup after a step.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::Step;
use super::plan::Task;
use super::plan::World;
use crate::archive::Manifest;
use crate::cluster::status::Verdict;
use crate::cluster::status::conditions;
use crate::crd::EtcdBackup;
use crate::crd::EtcdBackupStatus;
use crate::crd::backup::Phase;
use crate::crd::backup::Verification;
use crate::crd::backup::VerificationResult;

const COMPLETE: &str = "Complete";
const VERIFIED: &str = "Verified";

/// What is written down before `step` is done.
pub fn status(backup: &EtcdBackup, world: &World, step: &Step) -> EtcdBackupStatus {
    let mut status = backup.status.clone().unwrap_or_default();
    status.observed_generation = backup.metadata.generation;
    status.claim = Some(backup.claim());
    let verdict = |kind, holds, reason, message: &str| Verdict { kind, holds, reason, message: message.to_owned() };
    let subject = if status.phase == Phase::Verifying { VERIFIED } else { COMPLETE };
    let mut verdicts = Vec::new();
    match step {
        Step::Rest | Step::LetGo | Step::Hold | Step::DeleteJob(_) | Step::DeleteClaim | Step::CreateClaim => {}
        Step::Wait(_) | Step::Start(_) | Step::Watch(..) if world.deleting => {
            if let Step::Wait(obstacle) = step {
                verdicts.push(verdict("Removed", Some(false), obstacle.reason, &obstacle.message));
            }
        }
        Step::Wait(obstacle) => verdicts.push(verdict(subject, Some(false), obstacle.reason, &obstacle.message)),
        Step::Start(Task::Take) => {
            status.phase = Phase::Running;
            status.started_at.get_or_insert(Time(world.now));
            verdicts.push(verdict(COMPLETE, Some(false), "Running", "a Job takes it"));
        }
        Step::Watch(Task::Take, progress) => {
            status.progress = progress.or(status.progress);
            verdicts.push(verdict(COMPLETE, Some(false), "Running", "a Job takes it"));
        }
        Step::Start(_) | Step::Watch(..) => {
            verdicts.push(verdict(VERIFIED, None, "Running", "a Job restores it"));
        }
        Step::Taken(manifest) => {
            take_over(&mut status, manifest, &backup.folder());
            status.progress = None;
            verdicts.push(verdict(COMPLETE, Some(true), "Taken", "the archive is on the volume"));
            match world.wanted.restore {
                true => {
                    status.phase = Phase::Verifying;
                    verdicts.push(verdict(VERIFIED, None, "Pending", "it is not restored yet"));
                }
                false => end(&mut status, world, Phase::Succeeded),
            }
        }
        Step::Verified => {
            verify(&mut status, world, VerificationResult::Passed, "revision, HashKV and keys are the cluster's");
            verdicts.push(verdict(VERIFIED, Some(true), "Restored", "revision, HashKV and keys are the cluster's"));
            end(&mut status, world, Phase::Succeeded);
        }
        Step::Unverified(why) => {
            verify(&mut status, world, VerificationResult::Failed, why);
            verdicts.push(verdict(VERIFIED, None, "NotRestored", why));
            end(&mut status, world, Phase::Succeeded);
        }
        Step::Fail { reason, message } => {
            if status.phase == Phase::Verifying {
                verify(&mut status, world, VerificationResult::Failed, message);
                verdicts.push(verdict(VERIFIED, Some(false), reason, message));
            }
            verdicts.push(verdict(COMPLETE, Some(false), reason, message));
            end(&mut status, world, Phase::Failed);
        }
    }
    conditions(&mut status.conditions, verdicts, backup.metadata.generation, world.now);
    status
}

fn end(status: &mut EtcdBackupStatus, world: &World, phase: Phase) {
    status.phase = phase;
    status.completed_at = Some(Time(world.now));
}

fn verify(status: &mut EtcdBackupStatus, world: &World, result: VerificationResult, message: &str) {
    status.verification = Some(Verification { result, at: Time(world.now), message: message.to_owned() });
}

fn take_over(status: &mut EtcdBackupStatus, manifest: &Manifest, folder: &str) {
    let bytes = |bytes: u64| i64::try_from(bytes).ok();
    status.file = Some(format!("{folder}/{}", manifest.archive.file));
    status.member = Some(manifest.member.clone());
    status.cluster_id = Some(manifest.cluster_id.clone());
    status.server_version = Some(manifest.server_version.clone());
    status.revision = Some(manifest.revision);
    status.compact_revision = Some(manifest.compact_revision);
    status.keys = Some(manifest.keys);
    status.raw_size_bytes = bytes(manifest.raw.bytes);
    status.size_bytes = bytes(manifest.archive.sum.bytes);
    status.sha256 = Some(manifest.archive.sum.sha256.clone());
    status.hash_kv = Some(manifest.hash_kv.into());
}
