//! Watches against the replay: in order, without gap or double, whole revisions, true events, true progress.

use crate::history::Event;
use crate::history::History;
use crate::history::KeyValue;
use crate::history::Outcome;
use crate::history::Request;
use crate::history::Watch;
use crate::history::WatchResponse;
use crate::history::in_range;
use crate::model::Change;
use crate::replay::Replay;
use crate::replay::Step;
use crate::report::Kind;
use crate::report::Report;

pub fn judge(history: &History, replay: &Replay, report: &mut Report) {
    let compactions = Compactions::of(history);
    for watch in &history.watches {
        Judge::new(watch, history.base_revision, replay, &compactions, report).run();
    }
}

/// Compactions that were asked for: revision and time of the call.
struct Compactions(Vec<(i64, i64)>);

/// What the watch should deliver next.
struct Expected<'a> {
    revision: i64,
    change: &'a Change,
    certain: bool,
}

struct Judge<'a, 'r> {
    watch: &'a Watch,
    /// Of what was before, nothing is known.
    base: i64,
    replay: &'a Replay,
    compactions: &'a Compactions,
    report: &'r mut Report,
    steps: &'a [Step],
    /// Index into `steps`, and into its changes.
    place: (usize, usize),
    /// The last event that came, and its line.
    last: Option<(i64, u32)>,
    /// Everything up to here has been promised to have come.
    promised: Option<(i64, u32)>,
    /// The last response was not the end of its revisions.
    in_pieces: bool,
    /// What follows cannot be judged: it has gone wrong, or ended.
    over: bool,
}

// === impl Compactions ===

impl Compactions {
    fn of(history: &History) -> Self {
        let asked = history.operations.iter().filter_map(|operation| match &operation.request {
            Request::Compact(compact) if !matches!(operation.outcome, Outcome::Refused(_)) => {
                Some((compact.revision, operation.call))
            }
            _ => None,
        });
        Self(asked.collect())
    }

    fn any(&self, before: i64, wanted: impl Fn(i64) -> bool) -> bool {
        self.0.iter().any(|(revision, call)| *call < before && wanted(*revision))
    }
}

// === impl Judge ===

impl<'a, 'r> Judge<'a, 'r> {
    fn new(
        watch: &'a Watch,
        base: i64,
        replay: &'a Replay,
        compactions: &'a Compactions,
        report: &'r mut Report,
    ) -> Self {
        let mut judge = Self {
            watch,
            base,
            replay,
            compactions,
            report,
            steps: &[],
            place: (0, 0),
            last: None,
            promised: None,
            in_pieces: false,
            over: false,
        };
        judge.begin(watch.open.start);
        judge
    }

    fn begin(&mut self, revision: i64) {
        self.steps = self.replay.from(revision);
        self.place = (0, 0);
    }

    fn run(&mut self) {
        let mut begun = self.watch.open.start > 0;
        for response in &self.watch.responses {
            if !begun {
                // Without a revision to start from, a watch starts after the one it was created at.
                begun = true;
                self.begin(response.header_revision + 1);
            }
            if self.over {
                return;
            }
            self.take(response);
        }
        if let Some((line, _, revision)) = self.watch.drain
            && !self.over
            && begun
        {
            self.must_have(revision, Kind::WatchBehind, line, "at the end");
        }
    }

    fn take(&mut self, response: &'a WatchResponse) {
        if response.canceled {
            self.cancel(response);
            return;
        }
        if let (Some(first), Some((last, line))) = (response.events.first(), self.last)
            && first.kv.modified == last
            && !self.in_pieces
        {
            let text = format!("revision {last} comes in two responses");
            self.violate(Kind::WatchSplit, &[line, response.line], text);
        }
        for event in &response.events {
            if !self.over {
                self.event(event, response);
            }
        }
        self.in_pieces = response.fragment;
        if response.events.is_empty() && !response.created && !self.over {
            let progress = response.header_revision;
            self.must_have(progress, Kind::WatchFalseProgress, response.line, "though progress is said to be there");
            self.promised = Some((progress, response.line));
        }
    }

    fn event(&mut self, event: &'a Event, response: &WatchResponse) {
        let revision = event.kv.modified;
        if revision <= self.base {
            return;
        }
        if let Some((promised, line)) = self.promised.filter(|(promised, _)| revision <= *promised) {
            let text = format!("{} comes after progress to {promised}", show(event));
            self.violate(Kind::WatchFalseProgress, &[line, response.line], text);
        }
        if revision >= self.replay.end {
            // Beyond what could be replayed.
            self.over = true;
            return;
        }
        loop {
            let Some(expected) = self.expected() else {
                return self.unexpected(event, response);
            };
            if expected.revision == revision && expected.change.key == event.kv.key {
                self.place.1 += 1;
                self.last = Some((revision, response.line));
                return self.compare(event, expected.change, response);
            }
            let passed = expected.revision < revision || (expected.revision == revision && self.comes_later(event));
            if !passed {
                return self.unexpected(event, response);
            }
            if expected.certain {
                return self.left_out(&expected, event, response);
            }
            self.place.1 += 1;
        }
    }

    fn left_out(&mut self, expected: &Expected<'_>, event: &Event, response: &WatchResponse) {
        self.over = true;
        let later = self.watch.responses.iter().filter(|other| other.line >= response.line).find(|other| {
            let same = |event: &Event| event.kv.modified == expected.revision && event.kv.key == expected.change.key;
            other.events.iter().any(same)
        });
        let change = format!("{} at revision {}", show_change(expected.change), expected.revision);
        match later {
            Some(later) => {
                let text = format!("{change} comes after {}", show(event));
                self.violate(Kind::WatchReordered, &[response.line, later.line], text);
            }
            None => {
                let text = format!("{change} is left out before {}", show(event));
                self.violate(Kind::WatchDropped, &[self.watch.line, response.line], text);
            }
        }
    }

    /// The event is the change of the present revision after the one that is expected.
    fn comes_later(&self, event: &Event) -> bool {
        let step = &self.steps[self.place.0];
        step.changes[self.place.1..].iter().any(|change| change.key == event.kv.key)
    }

    /// The next change that the watch is about.
    fn expected(&mut self) -> Option<Expected<'a>> {
        let steps = self.steps;
        let open = &self.watch.open;
        while let Some(step) = steps.get(self.place.0) {
            while let Some(change) = step.changes.get(self.place.1) {
                let filtered = if change.now.is_some() { open.no_put } else { open.no_delete };
                if !filtered && in_range(&change.key, &open.key, &open.end) {
                    return Some(Expected { revision: step.revision, change, certain: step.certain });
                }
                self.place.1 += 1;
            }
            self.place = (self.place.0 + 1, 0);
        }
        None
    }

    /// An event that is not in its place: it has come before, or never happened.
    fn unexpected(&mut self, event: &Event, response: &WatchResponse) {
        self.over = true;
        let revision = event.kv.modified;
        let (last, line) = self.last.unwrap_or((0, self.watch.line));
        let known = self.change_of(event).is_some();
        let (kind, what) = match known {
            true if revision < self.start() => (Kind::WatchWrongEvent, "is older than the start of the watch"),
            true if self.has_come(event, response) => (Kind::WatchDoubled, "has come before"),
            true => (Kind::WatchReordered, "comes late"),
            false => (Kind::WatchWrongEvent, "never happened, or is not what was asked for"),
        };
        let text = format!("{} {what}, after revision {last}", show(event));
        self.violate(kind, &[line, response.line], text);
    }

    fn start(&self) -> i64 {
        match self.watch.open.start {
            0 => self.watch.responses.first().map_or(0, |first| first.header_revision + 1),
            start => start,
        }
    }

    /// The change that an event tells of, if there was one.
    fn change_of(&self, event: &Event) -> Option<&'a Change> {
        let open = &self.watch.open;
        let filtered = if event.delete { open.no_delete } else { open.no_put };
        if filtered || !in_range(&event.kv.key, &open.key, &open.end) {
            return None;
        }
        let step = self.replay.from(event.kv.modified).first()?;
        let same = |change: &&Change| change.key == event.kv.key && change.now.is_none() == event.delete;
        (step.revision == event.kv.modified).then(|| step.changes.iter().find(same)).flatten()
    }

    fn has_come(&self, event: &Event, now: &WatchResponse) -> bool {
        let same = |other: &Event| other.kv.modified == event.kv.modified && other.kv.key == event.kv.key;
        let mut times = 0;
        for response in self.watch.responses.iter().take_while(|response| response.line <= now.line) {
            times += response.events.iter().filter(|other| same(other)).count();
        }
        times > 1
    }

    fn compare(&mut self, event: &Event, change: &Change, response: &WatchResponse) {
        let right = match &change.now {
            Some(now) => !event.delete && event.kv == *now,
            // All that is known of a deleted key is its name and when.
            None => event.delete && event.kv == KeyValue { modified: event.kv.modified, ..deleted(&change.key) },
        };
        if !right {
            let text = format!("{}, but it was {}", show(event), show_change(change));
            self.violate(Kind::WatchWrongEvent, &[response.line], text);
        }
        let asked = self.watch.open.prev_kv;
        match (&event.prev_kv, &change.prev) {
            (None, None) => {}
            (Some(actual), Some(expected)) if asked && actual == expected => {}
            (None, Some(_)) if !asked => {}
            (None, Some(_)) if self.compactions.any(response.at, |revision| revision > event.kv.modified - 1) => {}
            (actual, expected) => {
                let text = format!("{}: the previous value is {actual:?}, not {expected:?}", show(event));
                self.violate(Kind::WatchWrongPrev, &[response.line], text);
            }
        }
    }

    /// Everything up to `revision` must have come.
    fn must_have(&mut self, revision: i64, kind: Kind, line: u32, when: &str) {
        while let Some(expected) = self.expected() {
            if expected.revision > revision || expected.revision >= self.replay.end {
                return;
            }
            if expected.certain {
                let text = format!(
                    "{} at revision {} has not come {when} (revision {revision})",
                    show_change(expected.change),
                    expected.revision
                );
                self.violate(kind, &[self.watch.line, line], text);
                self.over = true;
                return;
            }
            self.place.1 += 1;
        }
    }

    fn cancel(&mut self, response: &WatchResponse) {
        self.over = true;
        let compacted = response.compact_revision;
        if compacted == 0 {
            return;
        }
        let next = self.last.map_or(self.start(), |(last, _)| last + 1);
        let next = self.promised.map_or(next, |(promised, _)| next.max(promised + 1));
        if compacted > self.base && !self.compactions.any(response.at, |revision| revision == compacted) {
            let text = format!("cancelled as compacted up to {compacted}, which nobody asked for");
            self.violate(Kind::WatchWrongCancel, &[response.line], text);
        } else if next >= compacted {
            let text = format!("cancelled as compacted up to {compacted}, though only {next} and later is missing");
            self.violate(Kind::WatchWrongCancel, &[response.line], text);
        }
    }

    fn violate(&mut self, kind: Kind, lines: &[u32], text: String) {
        let text = format!("watch {} of {}: {text}", self.watch.id, self.report.endpoint(self.watch.endpoint));
        self.report.violate(kind, lines, text);
    }
}

fn deleted(key: &crate::history::Text) -> KeyValue {
    KeyValue { key: key.clone(), value: "".into(), create: 0, modified: 0, version: 0, lease: 0 }
}

fn show(event: &Event) -> String {
    let what = if event.delete { "delete" } else { "put" };
    let KeyValue { key, value, create, modified, version, .. } = &event.kv;
    format!("{what} {key}={value:?} (create {create}, mod {modified}, version {version})")
}

fn show_change(change: &Change) -> String {
    match &change.now {
        Some(now) => crate::replay::show(now),
        None => format!("delete {}", change.key),
    }
}
