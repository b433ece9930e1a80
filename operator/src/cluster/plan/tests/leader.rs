//! Who leads while nodes are cordoned.

use super::*;

// === impl Model ===

impl Model {
    fn pod_of(&self, entry: &Entry) -> Option<&Pod> {
        let member = self.world.members.values().find(|member| entry.peer_urls.contains(&member.peer_url));
        member.and_then(|member| member.pod.as_ref())
    }

    /// Who is well, votes, and runs on a node that stays.
    fn sheltered(&self) -> Vec<u64> {
        let stays = |pod: &Pod| pod.node_ready && !pod.cordoned && !pod.deleting;
        let voters = self.entries.iter().filter(|entry| entry.healthy && !entry.learner);
        voters.filter(|entry| self.pod_of(entry).is_some_and(stays)).map(|entry| entry.id).collect()
    }

    pub(super) fn judge_leader(&self, step: &Step, known: &Known) {
        let Step::MoveLeader { to } = step else { return };
        let target = known.by_id(*to).unwrap();
        assert!(target.healthy && !target.learner && *to != known.leader, "{step:?} of {known:?}");
        let mut better = self.sheltered();
        better.retain(|id| *id != known.leader);
        let operation = self.world.recorded.operation.as_ref();
        let operates = operation.is_some_and(|operation| operation.member_id == Some(format!("{:x}", known.leader)));
        assert!(operates || operation.is_none(), "{step:?}: {operation:?} is under way");
        assert!(better.contains(to) || (operates && better.is_empty()), "{step:?}: its node is to be emptied");
        let leaves = self.pod_of(known.by_id(known.leader).unwrap()).is_some_and(|pod| pod.cordoned);
        assert!(operates || leaves, "{step:?}: the leader could have stayed");
    }

    pub(super) fn is_led_from_shelter(&self) -> bool {
        let sheltered = self.sheltered();
        sheltered.is_empty() || sheltered.contains(&self.leader)
    }

    /// By the number of its member.
    fn leader_at(&self) -> usize {
        self.world.members.keys().position(|name| self.id_of(name) == Some(self.leader)).unwrap()
    }
}

/// What was done in so many turns.
fn moves(model: &mut Model, turns: usize) -> Vec<Step> {
    (0..turns).map(|_| model.turn()).filter(|step| matches!(step, Step::MoveLeader { .. })).collect()
}

#[test]
fn a_leader_on_a_cordoned_node_gives_its_place_away_once() {
    let mut model = steady(3);
    model.happen(Event::Cordon(model.leader_at()));
    assert_eq!(moves(&mut model, 20).len(), 1);
    assert!(model.is_as_wanted());
    model.happen(Event::Uncordon);
    assert_eq!(moves(&mut model, 20), []);
}

#[test]
fn nobody_moves_to_a_node_that_is_cordoned_or_not_ready() {
    for everywhere in [true, false] {
        let mut model = steady(3);
        let leader = model.leader_at();
        for at in (0..3).filter(|at| everywhere || *at == leader) {
            model.happen(Event::Cordon(at));
        }
        model.world.members.values_mut().for_each(|member| member.pod.as_mut().unwrap().node_ready = everywhere);
        assert_eq!(moves(&mut model, 20), [], "cordoned everywhere: {everywhere}");
        assert_eq!(model.leader_at(), leader);
    }
}

#[test]
fn a_leader_leaves_its_node_while_others_are_waited_for() {
    let mut model = steady(3);
    model.world.wanted.healing = false;
    let leader = model.leader_at();
    model.happen(Event::LoseNode((leader + 1) % 3));
    model.happen(Event::Cordon(leader));
    assert_eq!(moves(&mut model, 20).len(), 1);
    assert_eq!(model.leader_at(), (leader + 2) % 3);
}

#[test]
fn what_is_under_way_comes_to_its_end_before_the_leader_leaves_its_node() {
    let mut model = Model::full(false);
    while !model.operates(OperationType::ReclaimSpace) {
        model.turn();
    }
    model.happen(Event::Cordon(model.leader_at()));
    let steps: Vec<Step> = (0..50).map(|_| model.turn()).collect();
    let waited = steps.iter().position(|step| matches!(step, Step::Wait(_)));
    let moved = steps.iter().position(|step| matches!(step, Step::MoveLeader { .. }));
    assert!(waited.is_some() && moved > steps.iter().position(|step| *step == Step::End), "{steps:#?}");
}

#[test]
fn a_leader_that_is_restarted_gives_its_place_to_a_cordoned_one_only_for_want_of_another() {
    for cordoned in [1, 2] {
        let mut model = steady(3);
        let leader = model.leader_at();
        for at in 1..=cordoned {
            model.happen(Event::Cordon((leader + at) % 3));
        }
        let name = model.nth(leader).unwrap();
        model.member(&name).pod.as_mut().unwrap().outdated = true;
        let moved = moves(&mut model, 40);
        assert_eq!(moved.len(), cordoned, "{moved:?}");
        assert!(model.is_as_wanted());
    }
}

#[test]
fn nobody_moves_to_who_is_not_well() {
    let mut model = steady(5);
    let leader = model.leader_at();
    for at in (0..5).filter(|at| *at != leader) {
        model.happen(Event::Cordon(at));
    }
    let name = model.nth(leader).unwrap();
    model.member(&name).pod.as_mut().unwrap().outdated = true;
    while !model.operates(OperationType::RestartMember) {
        model.turn();
    }
    // The first that comes to mind.
    let next = model.entries.iter().find(|entry| entry.id != model.leader).unwrap().id;
    let ill = model.world.members.keys().position(|name| model.id_of(name) == Some(next)).unwrap();
    model.happen(Event::LoseNode(ill));
    assert_eq!(moves(&mut model, 3).len(), 1);
}
