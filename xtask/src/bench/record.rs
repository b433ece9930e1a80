//! All outcomes so far, and the medians of them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::run::Outcome;
use super::workload::Workload;

#[derive(Default)]
pub struct Record {
    /// By workload, figure and contender: a value for each round.
    values: BTreeMap<(&'static str, String, usize), Vec<f64>>,
    /// By workload and contender: parts that are not served.
    not_served: BTreeSet<(&'static str, usize, String)>,
    elsewhere: Vec<f64>,
    /// Of this server, by workload and thread: microseconds per operation in each round.
    threads: BTreeMap<(&'static str, String), Vec<f64>>,
}

// === impl Record ===

impl Record {
    pub fn add(&mut self, workload: &'static Workload, contender: usize, ours: bool, outcome: Outcome) {
        for (key, value) in outcome.figures {
            self.values.entry((workload.name, key, contender)).or_default().push(value);
        }
        self.not_served.extend(outcome.not_served.into_iter().map(|part| (workload.name, contender, part)));
        self.elsewhere.push(outcome.elsewhere);
        if ours {
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
    fn what_one_server_does_not_serve_is_known_of_that_server_alone() {
        let workload = workload::named("maintenance").unwrap();
        let mut record = Record::default();
        record.add(workload, 1, true, Outcome { not_served: vec!["snapshot".to_owned()], ..Outcome::default() });
        assert!(!record.is_served(workload, "snapshot_p99_ms", 1));
        assert!(record.is_served(workload, "snapshot_p99_ms", 0));
        assert!(record.is_served(workload, "defrag_p99_ms", 1));
    }
}
