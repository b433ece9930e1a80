//! Members that are restarted one by one, because what they run is not what is wanted.

use super::*;

#[test]
fn a_release_that_cannot_read_the_format_stops_the_roll_until_it_is_taken_back() {
    let mut model = steady(3);
    model.happen(Event::Outdate);
    let stuck = loop {
        if let Step::DeletePod { name, .. } = model.turn() {
            break name;
        }
    };
    while model.world.members[&stuck].pod.as_ref().is_none_or(|pod| pod.outdated) {
        model.turn();
    }
    let id = model.id_of(&stuck).unwrap();
    model.whole.insert(id, false);
    for _ in 0..20 {
        model.settle();
        if let Some(pod) = &mut model.member(&stuck).pod {
            pod.exit = Some(Exit::Outdated);
        }
        assert!(matches!(plan(&model.world), Step::Refuse(_)), "{:?}", plan(&model.world));
    }
    model.whole.insert(id, true);
    model.happen(Event::Outdate);
    for _ in 0..STEPS_MAX {
        model.turn();
    }
    assert!(model.is_as_wanted(), "{:#?}", model.world);
}

#[test]
fn a_roll_stops_at_a_member_that_does_not_come_back_and_goes_on_when_it_does() {
    let mut model = steady(3);
    model.happen(Event::Outdate);
    let first = loop {
        if let Step::DeletePod { name, .. } = model.turn() {
            break name;
        }
    };
    // The release does not start: its Pod is there, and never ready.
    let id = model.id_of(&first).unwrap();
    for _ in 0..50 {
        model.whole.insert(id, false);
        model.settle();
        if let Some(pod) = &mut model.member(&first).pod {
            pod.exit = None;
        }
        let step = plan(&model.world);
        assert!(!matches!(step, Step::DeletePod { .. } | Step::MoveLeader { .. } | Step::Begin(_)), "{step:?}");
        model.obey(step);
    }
    let outdated = |model: &Model| {
        model.world.members.values().filter(|member| member.pod.as_ref().is_some_and(|pod| pod.outdated)).count()
    };
    assert_eq!(outdated(&model), 2, "{:#?}", model.world);
    model.whole.insert(id, true);
    for _ in 0..STEPS_MAX {
        model.turn();
    }
    assert!(model.is_as_wanted() && outdated(&model) == 0, "{:#?}", model.world);
}

#[test]
fn a_roll_does_not_begin_while_a_member_is_not_well() {
    let mut model = steady(3);
    model.happen(Event::Outdate);
    let ill = model.world.members.keys().next().cloned().unwrap();
    let id = model.id_of(&ill).unwrap();
    model.settle();
    // It runs what is wanted, and does not follow.
    model.member(&ill).pod.as_mut().unwrap().outdated = false;
    for _ in 0..20 {
        if let Store::Known(known) = &mut model.world.store {
            known.entries.iter_mut().filter(|entry| entry.id == id).for_each(|entry| entry.healthy = false);
        }
        let step = plan(&model.world);
        assert!(matches!(&step, Step::Wait(why) if why.contains("is not well")), "{step:?}");
    }
    for _ in 0..STEPS_MAX {
        model.turn();
    }
    assert!(model.is_as_wanted(), "{:#?}", model.world);
}

#[test]
fn a_roll_ends_with_the_leader() {
    let mut model = steady(3);
    model.happen(Event::Outdate);
    let mut restarted = Vec::new();
    for _ in 0..STEPS_MAX {
        let leader = model.leader;
        match model.turn() {
            Step::DeletePod { name, .. } => {
                assert_ne!(model.id_of(&name), Some(leader), "the leader is restarted as the leader");
                restarted.push(name);
            }
            Step::Steady => break,
            _ => {}
        }
    }
    assert_eq!(restarted.len(), 3, "{restarted:?}");
    assert!(model.is_as_wanted());
}

#[test]
fn a_roll_waits_while_a_member_is_corrupt() {
    let mut model = steady(3);
    model.happen(Event::Corrupt(0));
    model.happen(Event::Outdate);
    for _ in 0..20 {
        let step = model.turn();
        assert!(matches!(&step, Step::Wait(why) if why.contains("CORRUPT")), "{step:?}");
    }
    model.happen(Event::Mend);
    for _ in 0..STEPS_MAX {
        model.turn();
    }
    assert!(model.is_as_wanted(), "{:#?}", model.world);
}
