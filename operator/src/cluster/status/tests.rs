use std::collections::BTreeMap;

use super::super::validate;
use super::super::world::Alarms;
use super::super::world::Leaving;
use super::super::world::Recorded;
use super::*;
use crate::crd::status::Operation;
use crate::crd::status::Reclaim;

fn world(no_space: Option<&[u64]>, reclaim: bool) -> World {
    let cluster = validate::tests::cluster(serde_json::json!({}));
    let mut wanted = validate::validate(&cluster, &validate::tests::defaults()).unwrap().wanted;
    wanted.reclaim = reclaim;
    let alarms = no_space.map(|ids| Alarms { no_space: ids.to_vec(), corrupt: Vec::new() });
    World {
        wanted,
        recorded: Recorded::default(),
        members: BTreeMap::new(),
        uncertified: None,
        restore: None,
        leaving: Leaving::default(),
        asked: None,
        aside: Vec::new(),
        store: Store::Known(Known { alarms, ..Known::default() }),
        now: Timestamp::UNIX_EPOCH,
        fresh_name: String::new(),
    }
}

fn reclaims() -> EtcdClusterStatus {
    let operation = Operation {
        kind: OperationType::ReclaimSpace,
        member: "m".to_owned(),
        member_id: None,
        reason: String::new(),
        started_at: Time(Timestamp::UNIX_EPOCH),
        asked_at: None,
    };
    EtcdClusterStatus { operation: Some(operation), ..EtcdClusterStatus::default() }
}

fn fell_short() -> Reclaim {
    let ended_at = Time(Timestamp::UNIX_EPOCH);
    Reclaim { ended_at, db_size_in_use_bytes: 9, quota_bytes: 10, message: "9 of 10".to_owned() }
}

#[test]
fn what_is_asked_and_not_waited_for_is_written_down_before() {
    let later = Timestamp::from_second(7).unwrap();
    for step in [Step::Compact { revision: 1 }, Step::Defragment { name: "m".to_owned() }] {
        let mut status = reclaims();
        record(&mut status, &step, later);
        assert_eq!(status.operation.unwrap().asked_at, Some(Time(later)), "{step:?}");
    }
    let mut status = reclaims();
    record(&mut status, &Step::FallShort(fell_short()), later);
    assert_eq!((status.operation, status.reclaim), (None, Some(fell_short())));
}

#[test]
fn a_quota_that_is_full_is_told_with_whose_task_it_is() {
    let (idle, short) = (EtcdClusterStatus::default(), EtcdClusterStatus { reclaim: Some(fell_short()), ..reclaims() });
    let ended = EtcdClusterStatus { operation: None, ..short.clone() };
    let raised: Option<&[u64]> = Some(&[1]);
    for (no_space, reclaim, status, expected) in [
        (None, true, &idle, (None, "NotObserved")),
        (Some(&[][..]), true, &idle, (Some(true), "NoAlarm")),
        (raised, false, &ended, (Some(false), "Manual")),
        (raised, true, &idle, (Some(false), "Waiting")),
        (raised, true, &short, (Some(false), "Reclaiming")),
        (raised, true, &ended, (Some(false), "NotEnough")),
    ] {
        let verdict = has_room(&world(no_space, reclaim), status);
        assert_eq!((verdict.holds, verdict.reason), expected);
    }
    let unknown = World { store: Store::Unknown, ..world(raised, true) };
    assert_eq!(has_room(&unknown, &idle).holds, None);
}
