//! All outcomes so far, and the medians of them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::run::Outcome;
use super::server::Contender;
use super::workload::Workload;

#[derive(Default)]
pub struct Record {
    /// By workload, figure and contender: a value for each round.
    values: BTreeMap<(&'static str, String, usize), Vec<f64>>,
    /// By workload and contender: parts that are not served.
    not_served: BTreeSet<(&'static str, usize, String)>,
    elsewhere: Vec<f64>,
    /// By contender's and workload's name: changes of the leader.
    elections: BTreeMap<(&'static str, &'static str), u64>,
    /// Of this server, by workload and thread: microseconds per operation in each round.
    threads: BTreeMap<(&'static str, String), Vec<f64>>,
}

// === impl Record ===

impl Record {
    pub fn add(&mut self, workload: &'static Workload, index: usize, contender: &Contender, outcome: Outcome) {
        for (key, value) in outcome.figures {
            self.values.entry((workload.name, key, index)).or_default().push(value);
        }
        self.not_served.extend(outcome.not_served.into_iter().map(|part| (workload.name, index, part)));
        self.elsewhere.push(outcome.elsewhere);
        if outcome.elections > 0 {
            *self.elections.entry((contender.name, workload.name)).or_default() += outcome.elections;
        }
        if contender.ours {
            for (name, us) in outcome.threads_us_op {
                self.threads.entry((workload.name, name)).or_default().push(us);
            }
        }
    }

    /// The values of all rounds.
    pub fn rounds(&self, workload: &Workload, figure: &str, contender: usize) -> &[f64] {
        self.values.get(&(workload.name, figure.to_owned(), contender)).map_or(&[], Vec::as_slice)
    }

    pub fn has(&self, workload: &Workload) -> bool {
        self.values.keys().any(|(name, ..)| *name == workload.name)
    }

    pub fn is_served(&self, workload: &Workload, figure: &str, contender: usize) -> bool {
        let of_this = |(name, index, _): &&(&str, usize, String)| *name == workload.name && *index == contender;
        !self.not_served.iter().filter(of_this).any(|(.., part)| figure.starts_with(part.as_str()))
    }

    /// How quiet the machine was.
    pub fn elsewhere(&self) -> String {
        let percent = |part: f64| part * 100.0;
        let most = self.elsewhere.iter().copied().fold(0.0, f64::max);
        format!(
            "CPU used by others meanwhile: median {:.0} %, at most {:.0} % of the machine.",
            percent(median(&self.elsewhere).unwrap_or(0.0)),
            percent(most)
        )
    }

    /// How often members have changed their leader under load: none has a reason to.
    pub fn elections(&self) -> String {
        let each = self.elections.iter().map(|((server, workload), n)| format!("{server} {n} ({workload})"));
        let each: Vec<String> = each.collect();
        let shown = if each.is_empty() { "none".to_owned() } else { each.join(", ") };
        format!("Changes of the leader under load: {shown}.")
    }

    /// Where our CPU time went, largest part first.
    pub fn threads(&self) -> String {
        let mut text = String::from("Server CPU by thread, µs/op (median of the rounds):\n");
        let workloads: BTreeSet<&str> = self.threads.keys().map(|(workload, _)| *workload).collect();
        for workload in workloads {
            let of_this = self.threads.iter().filter(|((name, _), _)| *name == workload);
            let mut parts: Vec<(&str, f64)> =
                of_this.filter_map(|((_, thread), us)| Some((thread.as_str(), median(us)?))).collect();
            parts.sort_by(|a, b| b.1.total_cmp(&a.1));
            let sum: f64 = parts.iter().map(|(_, us)| us).sum();
            let parts = parts.iter().filter(|(_, us)| *us >= sum * 0.01);
            let parts: Vec<String> = parts.map(|(thread, us)| format!("{thread} {us:.2}")).collect();
            let _ = writeln!(text, "  {workload:<18} {}", parts.join(", "));
        }
        text
    }
}

/// The middle of the values, or the mean of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[sorted.len() / 2 - 1] + upper) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::super::workload;
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn elections_are_shown_with_whose_they_were() {
        let (workload, contender) = (workload::named("put-1").unwrap(), Contender::ours("garboard", "c".into()));
        let mut record = Record::default();
        assert_eq!(record.elections(), "Changes of the leader under load: none.");
        for elections in [0, 1, 2] {
            record.add(workload, 1, &contender, Outcome { elections, ..Outcome::default() });
        }
        assert_eq!(record.elections(), "Changes of the leader under load: garboard 3 (put-1).");
    }

    #[test]
    fn what_one_server_does_not_serve_is_known_of_that_server_alone() {
        let workload = workload::named("maintenance").unwrap();
        let mut record = Record::default();
        let contender = Contender::ours("garboard", "c".into());
        record.add(workload, 1, &contender, Outcome { not_served: vec!["snapshot".to_owned()], ..Outcome::default() });
        assert!(!record.is_served(workload, "snapshot_p99_ms", 1));
        assert!(record.is_served(workload, "snapshot_p99_ms", 0));
        assert!(record.is_served(workload, "defrag_p99_ms", 1));
    }
}
