//! Wrong histories, each caught with the right verdict, made from a right one by one lie.

mod story;

use garboard_check::Options;
use garboard_check::history::History;
use garboard_check::judge;
use garboard_check::report::Kind;
use garboard_check::report::Report;
use garboard_check::report::Verdict;
use serde_json::Value;
use serde_json::json;

use crate::story::Story;
use crate::story::event;
use crate::story::kv;

fn judged(story: &Story, options: &Options) -> Report {
    let history = History::read(story.text().as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    judge(&history, options)
}

#[track_caller]
fn right(story: &Story) {
    let report = judged(story, &Options::default());
    assert_eq!(report.verdict(), Verdict::Right, "{report}");
}

#[track_caller]
fn wrong_with(kind: Kind, story: &Story, options: &Options) {
    let report = judged(story, options);
    assert!(report.violations.iter().any(|violation| violation.kind == kind), "not {}:\n{report}", kind.name());
}

/// The one lie is named, and nothing else is.
#[track_caller]
fn wrong(kind: Kind, lie: impl FnOnce(&mut Story)) {
    let mut story = Story::right();
    lie(&mut story);
    let report = judged(&story, &Options::default());
    assert!(!report.violations.is_empty(), "not {}: nothing was found\n{report}", kind.name());
    assert!(report.violations.iter().all(|violation| violation.kind == kind), "not only {}:\n{report}", kind.name());
}

#[test]
fn the_right_history_is_right() {
    right(&Story::right());
}

#[test]
fn without_watches_the_unknown_is_searched_for() {
    let mut story = Story::right();
    story.retain(|line| !["open", "watch", "drain"].contains(&line["type"].as_str().unwrap_or_default()));
    right(&story);
    // The same story, but at the end a key is there that was deleted.
    story.line("read-end")["response"]["range"]["kvs"] = json!([kv("a", "5", 2, 5, 3, 0), kv("d", "6", 7, 7, 1, 0)]);
    story.line("read-end")["response"]["range"]["count"] = json!(2);
    let report = judged(&story, &Options::default());
    assert_eq!(report.verdict(), Verdict::Wrong, "{report}");
}

#[test]
fn a_history_that_is_cut_off_is_judged_up_to_there() {
    let mut story = Story::right();
    // What is shown here was asked for by a request that was never recorded.
    story.again(10, "e", "99");
    story.take("done");
    let text = story.text();
    let history = History::read(&text.as_bytes()[..text.len() - 40]).unwrap();
    assert!(history.cut_off);
    let report = judge(&history, &Options::default());
    assert_eq!(report.verdict(), Verdict::Right, "{report}");
    let mut story = Story::right();
    story.take("done");
    story.op("late", 20_000, json!({"range": {"key": "a"}}), 9, json!({"range": {"count": 0}}));
    right(&story);
    story.events(5).0[0]["kv"]["version"] = json!(4);
    wrong_with(Kind::WatchWrongEvent, &story, &Options::default());
    let broken = text.replacen("\"op\"", "\"op", 1);
    assert!(History::read(broken.as_bytes()).is_err());
}

#[test]
fn a_stale_read() {
    wrong(Kind::Stale, |story| {
        let read = story.line("read");
        read["header"]["revision"] = json!(6);
        read["response"]["range"] = json!({"kvs": [kv("a", "5", 2, 5, 3, 0), kv("b", "2", 3, 3, 1, 7)], "count": 2});
    });
}

#[test]
fn a_stale_read_that_pretends() {
    wrong(Kind::LostWrite, |story| {
        story.line("read")["response"]["range"] =
            json!({"kvs": [kv("a", "3", 2, 4, 2, 0), kv("d", "6", 7, 7, 1, 0)], "count": 2});
    });
}

#[test]
fn a_serializable_read_may_be_old_but_never_wrong() {
    let mut story = Story::right();
    let read = story.line("read");
    read["request"]["range"]["serializable"] = json!(true);
    read["endpoint"] = json!(1);
    read["header"]["revision"] = json!(6);
    read["header"]["member"] = json!(12);
    read["response"]["range"] = json!({"kvs": [kv("a", "5", 2, 5, 3, 0), kv("b", "2", 3, 3, 1, 7)], "count": 2});
    right(&story);
    story.line("read")["response"]["range"] =
        json!({"kvs": [kv("a", "3", 2, 4, 2, 0), kv("b", "2", 3, 3, 1, 7)], "count": 2});
    wrong_with(Kind::LostWrite, &story, &Options::default());
    // The same member had answered with a later revision before.
    let read = story.line("read");
    read["endpoint"] = json!(0);
    read["header"] = json!({"revision": 4, "member": 11, "cluster": 1});
    wrong_with(Kind::WentBack, &story, &Options::default());
}

#[test]
fn an_acknowledged_write_that_is_lost() {
    wrong(Kind::LostWrite, |story| {
        story.line("read")["response"]["range"] = json!({"kvs": [kv("a", "5", 2, 5, 3, 0)], "count": 1});
    });
}

#[test]
fn an_acknowledged_write_whose_revision_is_given_again() {
    let mut story = Story::right();
    story.line("delete")["header"]["revision"] = json!(5);
    wrong_with(Kind::RevisionReused, &story, &Options::default());
    wrong_with(Kind::Stale, &story, &Options::default());
}

#[test]
fn a_write_that_is_applied_twice() {
    // Once acknowledged, and once more.
    wrong(Kind::AppliedTwice, |story| story.again(10, "a", "5"));
    // Of unknown outcome, and there twice.
    wrong(Kind::AppliedTwice, |story| story.again(10, "d", "6"));
}

#[test]
fn a_delete_that_is_applied_twice() {
    wrong(Kind::AppliedTwice, |story| {
        // Somebody writes d anew, and the delete of unknown outcome, which has worked at 9, works once more.
        story.op("put-d", 5700, json!({"put": {"key": "d", "value": "20"}}), 10, json!({"put": {}}));
        story.insert_events(5800, vec![event("put", kv("d", "20", 10, 10, 1, 0), None)]);
        story.insert_events(5810, vec![event("delete", story::gone("d", 11), Some(kv("d", "20", 10, 10, 1, 0)))]);
        story.end_at(11);
    });
}

#[test]
fn a_write_that_was_refused_and_works() {
    wrong(Kind::AppliedTwice, |story| {
        story.line("unknown-put")["error"]["definite"] = json!(true);
    });
}

#[test]
fn revisions_in_another_order_than_time() {
    let mut story = Story::right();
    for (name, revision) in [("put-a", 3), ("put-b", 2)] {
        story.line(name)["header"]["revision"] = json!(revision);
    }
    wrong_with(Kind::Stale, &story, &Options::default());
}

#[test]
fn an_effect_before_its_cause() {
    wrong(Kind::Unexplained, |story| {
        let unknown = story.line("unknown-put");
        (unknown["call"], unknown["return"]) = (json!(5_580_000_000i64), json!(5_590_000_000i64));
    });
}

#[test]
fn a_transaction_of_which_a_half_is_there() {
    wrong(Kind::LostWrite, |story| {
        story.line("read-old")["response"]["range"] =
            json!({"kvs": [kv("a", "3", 2, 4, 2, 0), kv("b", "2", 3, 3, 1, 7)], "count": 2});
    });
    wrong(Kind::WatchBehind, |story| {
        story.unknown_txn();
        story.insert_events(5800, vec![event("put", kv("e", "30", 10, 10, 1, 0), None)]);
        story.end_at(10);
    });
    let mut story = Story::right();
    story.unknown_txn();
    story.insert_events(5800, vec![event("put", kv("e", "31", 10, 10, 1, 0), None)]);
    wrong_with(Kind::HalfApplied, &story, &Options::default());
}

#[test]
fn a_transaction_that_takes_the_wrong_branch() {
    let mut story = Story::right();
    story.line("txn")["response"]["txn"] = json!({"succeeded": false, "responses": [{"delete": {"deleted": 1}}]});
    wrong_with(Kind::WrongAnswer, &story, &Options::default());
}

#[test]
fn answers_with_wrong_fields() {
    for (field, value) in [("version", 9), ("create", 9), ("lease", 9), ("mod", 9)] {
        let mut story = Story::right();
        story.line("read")["response"]["range"]["kvs"][0][field] = json!(value);
        assert_eq!(judged(&story, &Options::default()).verdict(), Verdict::Wrong, "{field}");
    }
    wrong(Kind::WrongAnswer, |story| story.line("read")["response"]["range"]["count"] = json!(3));
    wrong(Kind::LostWrite, |story| story.line("put-prev")["response"]["put"]["prev_kv"] = kv("a", "1", 2, 2, 1, 0));
}

#[test]
fn values_and_revisions_of_nobody() {
    wrong(Kind::Unexplained, |story| story.again(10, "e", "99"));
    wrong(Kind::Unexplained, |story| story.line("read-end")["header"]["revision"] = json!(10));
    wrong(Kind::Unexplained, |story| {
        story.insert_events(5800, vec![event("delete", story::gone("a", 10), Some(kv("a", "5", 2, 5, 3, 0)))]);
        story.end_at(10);
    });
}

#[test]
fn foreign_writes_are_allowed_where_they_are_said_to_be() {
    let mut story = Story::right();
    story.line("read-end")["header"]["revision"] = json!(10);
    let options = Options { foreign_writes: true, ..Options::default() };
    let report = judged(&story, &options);
    assert_eq!(report.verdict(), Verdict::Right, "{report}");
}

#[test]
fn an_event_that_is_dropped() {
    wrong(Kind::WatchDropped, |story| story.drop_events(5));
    // The last one: no later event shows the gap, but the end does.
    wrong(Kind::WatchBehind, |story| {
        story.drop_events(9);
        story.line("progress")["header"]["revision"] = json!(8);
    });
}

#[test]
fn an_event_that_is_doubled() {
    wrong(Kind::WatchDoubled, |story| {
        let event = story.events(5).0[0].clone();
        story.insert_events_to(1, 5450, vec![event]);
    });
}

#[test]
fn events_in_the_wrong_order() {
    wrong(Kind::WatchReordered, |story| story.show_after(5, 6));
}

#[test]
fn a_revision_in_two_responses() {
    wrong(Kind::WatchSplit, |story| story.split(4, false));
    let mut story = Story::right();
    story.split(4, true);
    right(&story);
}

#[test]
fn false_progress() {
    wrong(Kind::WatchFalseProgress, |story| {
        story.line("early-progress")["header"]["revision"] = json!(8);
    });
}

#[test]
fn events_with_wrong_fields() {
    wrong(Kind::WatchWrongPrev, |story| story.events(5).0[0]["prev_kv"]["value"] = json!("1"));
    wrong(Kind::WatchWrongPrev, |story| drop(story.events(5).0[0].as_object_mut().map(|e| e.remove("prev_kv"))));
    wrong(Kind::WatchWrongPrev, |story| story.events(7).0[0]["prev_kv"] = kv("d", "6", 7, 7, 1, 0));
    wrong(Kind::WatchWrongEvent, |story| story.events(5).0[0]["kv"]["version"] = json!(4));
    wrong(Kind::WatchWrongEvent, |story| story.events(5).0[0]["kv"]["create"] = json!(5));
    wrong(Kind::WatchWrongEvent, |story| story.events(5).0[0]["kv"]["value"] = json!("1"));
    wrong(Kind::WatchWrongEvent, |story| story.events(6).0[0]["kv"]["value"] = json!("4"));
}

#[test]
fn a_missing_previous_value_is_right_once_compacted() {
    let mut story = Story::right();
    story.retain(|line| line["name"] != "read-old");
    story
        .push(json!({"type": "op", "call": 100, "return": 200, "endpoint": 0, "request": {"compact": {"revision": 5}},
        "error": {"code": "Unavailable", "text": "closed", "definite": false}}));
    story.events(5).0[0].as_object_mut().unwrap().remove("prev_kv");
    right(&story);
}

#[test]
fn events_that_were_not_asked_for() {
    wrong(Kind::WatchWrongEvent, |story| story.line("open-2")["open"]["no_delete"] = json!(true));
    wrong(Kind::WatchWrongEvent, |story| story.line("open-2")["open"]["key"] = json!("b"));
    wrong(Kind::WatchWrongEvent, |story| story.line("open-2")["open"]["start"] = json!(6));
}

#[test]
fn a_cancellation_without_a_reason() {
    let cancel = |story: &mut Story, compact: i64| {
        story.push(
            json!({"type": "watch", "watch": 1, "at": 5_900_000_000i64, "canceled": true, "compact_revision": compact}),
        );
        story.retain(|line| line["type"] != "drain");
    };
    wrong(Kind::WatchWrongCancel, |story| cancel(story, 9));
    wrong(Kind::WatchWrongCancel, |story| {
        story.op("compact", 5850, json!({"compact": {"revision": 9}}), 9, Value::Null);
        cancel(story, 9);
    });
}

#[test]
fn a_compaction_that_is_not_one() {
    wrong(Kind::Compaction, |story| {
        story.op("compact", 5850, json!({"compact": {"revision": 6}}), 9, Value::Null);
        let old = story.take("read-old");
        story.op("read-old", 5870, old["request"].clone(), 9, old["response"].clone());
    });
    wrong(Kind::Compaction, |story| {
        let old = story.line("read-old");
        old["error"] = json!({"code": "OutOfRange", "definite": true,
            "text": "etcdserver: mvcc: required revision has been compacted"});
    });
}

#[test]
fn a_lease_that_ends_early() {
    // Asked for at 4.9 s and acknowledged, with 2 s to live; the keys go at 5.55 s.
    wrong(Kind::LeaseEarly, |story| {
        story.op("late-keepalive", 4900, json!({"keepalive": {"lease": 7}}), 7, json!({"ttl": 2}));
    });
    wrong(Kind::LeaseEarly, |story| {
        story.push(json!({"type": "op", "call": 1_300_000_000i64, "return": 1_310_000_000i64, "endpoint": 0,
            "request": {"put": {"key": "z", "value": "77", "lease": 7}},
            "error": {"code": "NotFound", "text": "etcdserver: requested lease not found", "definite": true}}));
    });
    let mut story = Story::right();
    story.op("late-keepalive", 4900, json!({"keepalive": {"lease": 7}}), 7, json!({"ttl": 2}));
    story.op("revoke", 5000, json!({"revoke": {"lease": 7}}), 8, Value::Null);
    right(&story);
}

#[test]
fn a_lease_that_ends_late() {
    let story = Story::right();
    let slack = |seconds| Options { lease_slack_s: Some(seconds), ..Options::default() };
    let mut late = Story::right();
    late.op(
        "late",
        5300,
        json!({"range": {"key": "b"}}),
        7,
        json!({"range": {"kvs": [kv("b", "2", 3, 3, 1, 7)], "count": 1}}),
    );
    assert_eq!(judged(&late, &slack(10)).verdict(), Verdict::Right);
    wrong_with(Kind::LeaseLate, &late, &slack(0));
    assert_eq!(judged(&story, &slack(0)).verdict(), Verdict::Right);
}

#[test]
fn keys_of_a_revoked_lease() {
    wrong(Kind::LeaseRevoked, |story| {
        story.op("revoke", 1400, json!({"revoke": {"lease": 7}}), 3, Value::Null);
    });
}

#[test]
fn members_that_differ() {
    wrong(Kind::HashesDiffer, |story| story.line("hash-2")["hash"]["hash"] = json!(1));
    wrong(Kind::HashesDiffer, |story| story.line("hash-1")["hash"]["compact_revision"] = json!(4));
    wrong(Kind::MembersDiffer, |story| story.line("members-2")["members"] = json!([{"id": 11, "name": "m0"}]));
    wrong(Kind::NoAnswer, |story| story.line("status-1")["status"]["leader"] = json!(0));
    wrong(Kind::NoAnswer, |story| story.retain(|line| line["name"] != "hash-1"));
    wrong(Kind::TwoClusters, |story| story.line("read")["header"]["cluster"] = json!(2));
}

#[test]
fn a_cluster_that_does_not_come_back() {
    let options = |heal, within| Options { heals: vec![heal], serving_within_s: Some(within), ..Options::default() };
    let story = Story::right();
    assert_eq!(judged(&story, &options(900_000_000, 1.0)).verdict(), Verdict::Right);
    wrong_with(Kind::NotServing, &story, &options(2_000_000_000, 1.0));
    wrong_with(Kind::NotServing, &story, &options(9_000_000_000, 10.0));
}

#[test]
fn a_history_that_is_none() {
    let mut story = Story::right();
    story.line("unknown-put")["request"]["put"]["value"] = json!("5");
    wrong_with(Kind::Malformed, &story, &Options::default());
}
