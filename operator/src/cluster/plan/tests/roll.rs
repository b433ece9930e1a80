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
