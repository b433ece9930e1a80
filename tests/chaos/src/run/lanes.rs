//! The faults of a plan, each lane in a thread of its own.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::cluster::Cluster;
use crate::fault::Fault;
use crate::fault::Outcome;
use crate::plan::Plan;
use crate::plan::Step;
use crate::ticker::Ticker;
use crate::timeline::unix_ns;

/// How often members are looked at that might have ended.
const LOOK: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_millis(500);

/// What became of the plan.
#[derive(Default)]
pub struct Report {
    /// Injections that hit something.
    pub hits: usize,
    pub failures: Vec<String>,
    /// Faults that are still in force.
    pub unhealed: Vec<Struck>,
    /// Those that are healed, while proving.
    pub proved: Vec<Struck>,
}

/// A fault that was injected.
pub struct Struck {
    pub name: &'static str,
    pub begin_unix_ns: u64,
    pub fault: Box<dyn Fault>,
}

struct Lane<'a> {
    cluster: &'a Arc<Cluster>,
    plan: &'a Plan,
    start: Instant,
    heals: bool,
    proves: bool,
}

/// Runs all lanes to the end of the plan.
pub fn run(cluster: &Arc<Cluster>, plan: &Plan, heals: bool, proves: bool) -> Report {
    let watched = cluster.clone();
    let _ends = Ticker::new(LOOK, move |_| watched.notice_ends());
    let lane = Lane { cluster, plan, start: Instant::now(), heals, proves };
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let lane = &lane;
        let threads: Vec<_> = plan.lanes.values().map(|steps| scope.spawn(move || lane.run(steps))).collect();
        let panicked = |_| Report { failures: vec!["a lane panicked".to_owned()], ..Report::default() };
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    let mut all = Report::default();
    for report in reports {
        all.hits += report.hits;
        all.failures.extend(report.failures);
        all.unhealed.extend(report.unhealed);
        all.proved.extend(report.proved);
    }
    all
}

// === impl Lane ===

impl Lane<'_> {
    fn run(&self, steps: &[Step]) -> Report {
        let mut report = Report::default();
        for step in steps {
            self.sleep_until(step.at);
            if self.is_over() && !self.proves {
                break;
            }
            self.step(step, &mut report);
        }
        // A lane that is done early does not end the plan early.
        self.sleep_until(self.plan.length);
        report
    }

    fn step(&self, step: &Step, report: &mut Report) {
        let name = step.kind.name;
        let note = |what: &str, members: &[usize], text: &str| self.cluster.timeline.note(what, name, members, text);
        let mut struck = Struck { name, begin_unix_ns: unix_ns(), fault: step.fault(&self.plan.layout) };
        let fault = &mut struck.fault;
        let what = fault.describe();
        note("strike", &[], &what);
        match fault.inject(self.cluster) {
            Ok(Outcome::Hit(members)) => {
                report.hits += 1;
                note("inject", &members, &what);
            }
            Ok(Outcome::Missed(why)) => {
                note("miss", &[], &why);
                if self.proves {
                    report.failures.push(format!("{name}: missed: {why}"));
                }
            }
            Err(error) => {
                note("error", &[], &format!("{error:#}"));
                report.failures.push(format!("{name} cannot be injected: {error:#}"));
            }
        }
        self.sleep_until(step.at + step.lasts);
        if self.proves {
            match fault.evidence(self.cluster) {
                Ok(text) => note("felt", &[], &text),
                Err(error) => report.failures.push(format!("{name} is not felt: {error:#}")),
            }
        }
        if !self.heals {
            report.unhealed.push(struck);
            return;
        }
        while let Err(error) = fault.heal(self.cluster) {
            note("healing", &[], &format!("{error:#}"));
            if self.is_over() {
                // Together with all others at the end.
                report.unhealed.push(struck);
                return;
            }
            std::thread::sleep(RETRY);
        }
        note("heal", &[], &what);
        self.cluster.timeline.window(struck.begin_unix_ns, name);
        if self.proves {
            report.proved.push(struck);
        }
    }

    fn is_over(&self) -> bool {
        self.start.elapsed() >= self.plan.length
    }

    /// A time of the plan, or its end if that is sooner.
    fn sleep_until(&self, at: Duration) {
        let until = self.start + at.min(self.plan.length);
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}
