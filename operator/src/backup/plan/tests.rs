use proptest::prelude::*;

use super::*;

fn manifest() -> Manifest {
    serde_json::from_value(serde_json::json!({
        "format": 1, "namespace": "n", "cluster": "a", "clusterID": "c", "backup": "b", "uid": "u", "member": "a-1",
        "takenAt": "2026-01-01T00:00:00Z", "revision": 5, "compactRevision": 1, "hashKV": 7, "keys": 3,
        "raw": {"bytes": 10, "sha256": "00"},
        "archive": {"file": "b.db.zst", "bytes": 5, "sha256": "11", "compression": "zstd"},
        "serverVersion": "3.6.0", "operatorVersion": "0.1.0",
    }))
    .unwrap()
}

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn world() -> World {
    World {
        wanted: Wanted {
            deadline: SignedDuration::from_secs(3600),
            restore: true,
            remove_files: true,
            own_volume: false,
        },
        phase: Phase::Pending,
        started: false,
        created_at: START,
        deleting: false,
        held: true,
        claim: Claim::There,
        obstacle: None,
        take: None,
        verify: None,
        delete: None,
        now: START,
    }
}

fn running() -> Option<Job> {
    Some(Job::Running { progress: None, held_up: None })
}

fn failure(reason: Option<Reason>) -> Option<Job> {
    Some(Job::Failed(Failure { reason, message: "why".to_owned(), at: START }))
}

fn reason(step: &Step) -> &'static str {
    match step {
        Step::Wait(obstacle) => obstacle.reason,
        Step::Fail { reason, .. } => reason,
        _ => panic!("{step:?}"),
    }
}

#[test]
fn what_is_missing_is_named_and_waited_for_until_the_deadline() {
    let absent = World { claim: Claim::Absent, ..world() };
    assert_eq!(reason(&plan(&absent)), "VolumeMissing");
    assert_eq!(reason(&plan(&World { claim: Claim::Deleting, ..world() })), "VolumeDeleting");
    let obstacle = Some(Obstacle { reason: "ClusterMissing", message: String::new() });
    assert_eq!(reason(&plan(&World { obstacle, ..world() })), "ClusterMissing");
    let late = World { now: START.checked_add(SignedDuration::from_secs(3601)).unwrap(), ..absent };
    assert_eq!(reason(&plan(&late)), "DeadlineExceeded");
}

#[test]
fn a_volume_of_its_own_is_made_and_goes_with_it() {
    let mut own = World { claim: Claim::Absent, ..world() };
    own.wanted.own_volume = true;
    assert_eq!(plan(&own), Step::CreateClaim);
    let mut going = World { deleting: true, started: true, ..world() };
    going.wanted.own_volume = true;
    assert_eq!(plan(&going), Step::DeleteClaim);
    going.claim = Claim::Deleting;
    assert_eq!(plan(&going), Step::LetGo);
}

#[test]
fn only_what_proves_it_bad_fails_a_backup_that_is_taken() {
    let verifying = |verify| World { phase: Phase::Verifying, verify, ..world() };
    assert_eq!(reason(&plan(&verifying(failure(Some(Reason::Mismatch))))), "Mismatch");
    assert_eq!(plan(&verifying(failure(Some(Reason::Io)))), Step::Unverified("why".to_owned()));
    assert_eq!(plan(&verifying(failure(None))), Step::Unverified("why".to_owned()));
    assert_eq!(plan(&verifying(Some(Job::Succeeded(Told::Same)))), Step::Verified);
    // The Pod went before it could be asked: another one is.
    assert_eq!(plan(&verifying(Some(Job::Succeeded(Told::Nothing)))), Step::DeleteJob(Task::Verify));
}

#[test]
fn files_are_removed_by_a_job_and_again_after_a_minute_if_that_failed() {
    let mut going = World { deleting: true, started: true, phase: Phase::Succeeded, ..world() };
    assert_eq!(plan(&going), Step::Start(Task::Delete));
    going.delete = failure(Some(Reason::Io));
    assert_eq!(reason(&plan(&going)), "FilesNotRemoved");
    going.now = START.checked_add(REMOVE_AGAIN).unwrap();
    assert_eq!(plan(&going), Step::DeleteJob(Task::Delete));
    going.delete = Some(Job::Succeeded(Told::Nothing));
    assert_eq!(plan(&going), Step::LetGo);
    going.delete = failure(Some(Reason::Foreign));
    assert_eq!(plan(&going), Step::LetGo);
    going.delete = None;
    going.take = running();
    assert_eq!(plan(&going), Step::DeleteJob(Task::Take));
}

// === worlds made up at random ===

/// What happens to a backup besides what the operator does.
#[derive(Debug, Clone)]
enum Happening {
    JobEnds(Job),
    Claim(Claim),
    Obstacle(bool),
    Later(i64),
    Deleted,
}

fn happening() -> impl Strategy<Value = Happening> {
    let reasons = prop_oneof![Just(Reason::Io), Just(Reason::NoSpace), Just(Reason::Damaged), Just(Reason::Mismatch)];
    let job = prop_oneof![
        3 => Just(Job::Succeeded(Told::Manifest(Box::new(manifest())))),
        3 => Just(Job::Succeeded(Told::Same)),
        1 => Just(Job::Succeeded(Told::Nothing)),
        2 => proptest::option::of(reasons).prop_map(|reason| failure(reason).unwrap()),
    ];
    prop_oneof![
        8 => job.prop_map(Happening::JobEnds),
        1 => prop_oneof![Just(Claim::Absent), Just(Claim::Deleting), Just(Claim::There)].prop_map(Happening::Claim),
        1 => any::<bool>().prop_map(Happening::Obstacle),
        2 => (1..2000i64).prop_map(Happening::Later),
        1 => Just(Happening::Deleted),
    ]
}

/// The backup, and what was seen of it on the way.
struct Model {
    world: World,
    gone: bool,
    compared: bool,
    manifest: bool,
}

impl Model {
    fn jobs(&mut self) -> [&mut Option<Job>; 3] {
        let World { take, verify, delete, .. } = &mut self.world;
        [take, verify, delete]
    }

    fn of(&mut self, task: Task) -> &mut Option<Job> {
        match task {
            Task::Take => &mut self.world.take,
            Task::Verify => &mut self.world.verify,
            Task::Delete => &mut self.world.delete,
        }
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::JobEnds(end) => {
                if let Some(job) = self.jobs().into_iter().find(|job| matches!(job, Some(Job::Running { .. }))) {
                    *job = Some(end);
                }
            }
            Happening::Claim(claim) => self.world.claim = claim,
            Happening::Obstacle(there) => {
                self.world.obstacle = there.then(|| Obstacle { reason: "Obstacle", message: String::new() });
            }
            Happening::Later(seconds) => {
                self.world.now = self.world.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
            }
            Happening::Deleted => self.world.deleting = true,
        }
    }

    /// Makes one step, and holds it against the invariants.
    fn step(&mut self) -> Step {
        let step = plan(&self.world);
        let was = self.world.phase;
        match &step {
            Step::Rest | Step::Wait(_) | Step::Watch(..) => {}
            Step::Hold => self.world.held = true,
            Step::LetGo => {
                let busy = [&self.world.take, &self.world.verify];
                assert!(busy.into_iter().all(Option::is_none), "let go while a Job is there: {:?}", self.world);
                let World { wanted, started, claim, .. } = &self.world;
                let to_remove = wanted.remove_files && *started && *claim == Claim::There;
                let removed = matches!(&self.world.delete, Some(Job::Succeeded(_)));
                assert!(!to_remove || removed, "its files are left: {:?}", self.world);
                self.gone = true;
            }
            Step::CreateClaim => self.world.claim = Claim::There,
            Step::DeleteClaim => {
                assert!(self.world.deleting && self.world.wanted.own_volume && self.world.wanted.remove_files);
                self.world.claim = Claim::Absent;
            }
            Step::Start(task) => {
                assert!(self.of(*task).is_none(), "a second Job");
                assert!(*task == Task::Delete || !was.is_final(), "something is started for one that has ended");
                assert!(*task != Task::Delete || self.world.deleting && self.world.wanted.remove_files);
                if *task == Task::Take {
                    (self.world.phase, self.world.started) = (Phase::Running, true);
                }
                *self.of(*task) = running();
            }
            Step::Taken(_) => {
                assert!(matches!(self.world.take, Some(Job::Succeeded(Told::Manifest(_)))));
                self.manifest = true;
                self.world.phase = if self.world.wanted.restore { Phase::Verifying } else { Phase::Succeeded };
            }
            Step::Verified => {
                assert_eq!(self.world.verify, Some(Job::Succeeded(Told::Same)));
                (self.world.phase, self.compared) = (Phase::Succeeded, true);
            }
            Step::Unverified(_) => self.world.phase = Phase::Succeeded,
            Step::Fail { .. } => self.world.phase = Phase::Failed,
            Step::DeleteJob(task) => *self.of(*task) = None,
        }
        assert!(!was.is_final() || self.world.phase == was, "an end that changes: {was:?} to {:?}", self.world.phase);
        assert!(self.world.phase != Phase::Succeeded || self.manifest, "succeeded without a manifest");
        step
    }
}

proptest! {
    #[test]
    fn whatever_happens_it_comes_to_an_end_and_keeps_its_word(
        restore in any::<bool>(),
        remove_files in any::<bool>(),
        own_volume in any::<bool>(),
        happenings in proptest::collection::vec((happening(), 0..4usize), 0..40),
    ) {
        let mut first = world();
        (first.held, first.claim) = (false, if own_volume { Claim::Absent } else { Claim::There });
        (first.wanted.restore, first.wanted.remove_files, first.wanted.own_volume) = (restore, remove_files, own_volume);
        let mut model = Model { world: first, gone: false, compared: false, manifest: false };
        for (happening, steps) in happenings {
            model.happens(happening);
            for _ in 0..steps {
                if model.gone {
                    return Ok(());
                }
                model.step();
            }
        }
        // From now on Jobs do what they are for, and nothing is in the way.
        (model.world.obstacle, model.world.claim) = (None, if own_volume { model.world.claim } else { Claim::There });
        let mut rests = false;
        for _ in 0..40 {
            if model.gone || rests {
                break;
            }
            match model.step() {
                Step::Rest => rests = true,
                Step::Watch(task, _) => {
                    *model.of(task) = Some(Job::Succeeded(match task {
                        Task::Take => Told::Manifest(Box::new(manifest())),
                        Task::Verify => Told::Same,
                        Task::Delete => Told::Nothing,
                    }));
                }
                Step::Wait(_) => model.happens(Happening::Later(600)),
                _ => {}
            }
        }
        prop_assert!(model.gone || rests, "no end: {:?}", model.world);
        prop_assert!(model.gone || model.world.phase.is_final() || model.world.deleting);
    }
}
