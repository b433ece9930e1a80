use std::collections::BTreeSet;

use super::*;

fn draw(seed: u64, seconds: u64, only: &[&str], volatile: bool) -> anyhow::Result<Plan> {
    let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
    Plan::draw(&Wanted { seed, members: 3, seconds, only: &only, volatile, control: false })
}

#[test]
fn a_seed_gives_one_plan() {
    let texts: BTreeSet<String> = (0..50).map(|seed| draw(seed, 60, &[], false).unwrap().describe()).collect();
    assert_eq!(texts.len(), 50);
    for seed in 0..50 {
        assert!(texts.contains(&draw(seed, 60, &[], false).unwrap().describe()));
    }
}

#[test]
fn naming_the_kinds_of_a_seed_gives_the_same_plan() {
    for seed in 0..50 {
        let plan = draw(seed, 60, &[], true).unwrap();
        let names: Vec<&str> = plan.kinds.iter().rev().map(|kind| kind.name).collect();
        assert_eq!(draw(seed, 60, &names, true).unwrap().describe(), plan.describe());
    }
}

#[test]
fn each_run_has_kinds_of_two_lanes() {
    for seed in 0..500 {
        let plan = draw(seed, 60, &[], seed % 2 == 0).unwrap();
        let planned: BTreeSet<&str> = plan.lanes.values().flatten().map(|step| step.kind.name).collect();
        assert!(planned.len() >= 2, "{}", plan.describe());
        assert!(plan.lanes.contains_key(&Lane::Member) && plan.lanes.contains_key(&Lane::Network));
        assert!((3..=6).contains(&plan.kinds.len()), "{}", plan.describe());
    }
}

#[test]
fn every_kind_is_drawn_by_some_seed() {
    let mut drawn = BTreeSet::new();
    for seed in 0..500 {
        drawn.extend(draw(seed, 60, &[], true).unwrap().lanes.values().flatten().map(|step| step.kind.name));
    }
    for kind in KINDS {
        assert!(drawn.contains(kind.name), "{}", kind.name);
    }
}

#[test]
fn steps_fit_in_the_run_and_do_not_overlap_in_their_lane() {
    for seed in 0..500 {
        let plan = draw(seed, 5 + seed % 90, &[], true).unwrap();
        for steps in plan.lanes.values() {
            let mut free = Duration::ZERO;
            for step in steps {
                assert!(step.at >= free, "{}", plan.describe());
                free = step.at + step.lasts;
                assert!(free <= plan.length && step.lasts <= step.kind.longest, "{}", plan.describe());
            }
        }
    }
}

#[test]
fn only_these_are_drawn() {
    for seed in 0..50 {
        let plan = draw(seed, 60, &["leader-kill"], false).unwrap();
        assert!(plan.lanes.values().flatten().all(|step| step.kind.name == "leader-kill"));
        assert!(plan.lanes.values().flatten().count() >= 3, "{}", plan.describe());
    }
    assert!(draw(1, 60, &["leader-kil"], false).is_err());
    assert!(draw(1, 5, &["lag"], false).is_err());
}

#[test]
fn a_power_cut_needs_disks_that_lose_what_is_not_synced() {
    assert!(draw(1, 60, &["power"], false).is_err());
    assert!(draw(1, 60, &["power"], true).unwrap().volatile);
    assert!(draw(1, 60, &["power", "slow-sync"], true).is_err());
    for seed in 0..300 {
        let plan = draw(seed, 60, &[], true).unwrap();
        assert!(!(plan.volatile && (plan.needs(Need::SmallDisk) || plan.needs(Need::Strace))), "{}", plan.describe());
        assert!(!draw(seed, 60, &[], false).unwrap().volatile);
    }
}

#[test]
fn nothing_is_asked_of_etcd_that_it_does_not_promise() {
    for seed in 0..300 {
        let plan = Plan::draw(&Wanted { seed, members: 5, seconds: 60, only: &[], volatile: true, control: true });
        assert!(!plan.unwrap().needs(Need::Ours));
    }
    let only = ["wipe".to_owned()];
    assert!(
        Plan::draw(&Wanted { seed: 1, members: 3, seconds: 60, only: &only, volatile: false, control: true }).is_err()
    );
}

#[test]
fn the_cluster_is_laid_out_for_its_faults() {
    for seed in 0..300 {
        let plan = draw(seed, 60, &[], false).unwrap();
        assert_eq!(plan.layout.proxies, plan.needs(Need::Proxies));
        assert_eq!(plan.layout.small_disk, plan.needs(Need::SmallDisk));
        if plan.needs(Need::Snapshots) {
            assert!(plan.layout.snapshot_count <= 100);
        }
    }
}

#[test]
fn names_are_unique_and_durations_in_order() {
    let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(names.len(), KINDS.len());
    for kind in KINDS {
        assert!(kind.shortest < kind.longest && kind.longest <= Duration::from_secs(60), "{}", kind.name);
    }
}
