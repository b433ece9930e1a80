//! What libFuzzer says at its end.

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub runs: Option<u64>,
    /// Edges that were reached.
    pub edges: Option<u64>,
    /// Why it stopped, in its words.
    pub reason: Option<String>,
    /// Where the program panicked, and what it said.
    pub panic: Vec<String>,
    /// The input that did it.
    pub artifact: Option<String>,
}

// === impl Outcome ===

impl Outcome {
    pub fn read(log: &str) -> Self {
        let mut outcome = Self::default();
        let mut lines = log.lines();
        while let Some(line) = lines.next() {
            if let Some(runs) = line.strip_prefix("stat::number_of_executed_units:") {
                outcome.runs = runs.trim().parse().ok();
            } else if let Some((_, path)) = line.split_once("Test unit written to ") {
                outcome.artifact = Some(path.trim().to_owned());
            } else if let Some((_, reason)) = line.split_once("ERROR: libFuzzer: ") {
                outcome.reason = Some(reason.to_owned());
            } else if line.starts_with("thread '") && line.contains(" panicked at ") {
                outcome.panic = vec![line.to_owned(), lines.next().unwrap_or_default().to_owned()];
            } else if let Some(edges) = line.split_once(" cov: ").and_then(|(_, rest)| rest.split(' ').next()) {
                outcome.edges = edges.parse().ok().or(outcome.edges);
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_end_and_a_bad_one() {
        let good = "#8\tINITED cov: 190 ft: 208 corp: 7/243b\n#9\tNEW    cov: 199 ft: 251 corp: 8/272b lim: 78\n\
                    Done 1714268 runs in 11 second(s)\nstat::number_of_executed_units: 1714268\n";
        let expected = Outcome { runs: Some(1_714_268), edges: Some(199), ..Outcome::default() };
        assert_eq!(Outcome::read(good), expected);
        let bad = "thread '<unnamed>' (1) panicked at a.rs:1:2:\nattempt to add with overflow\n\
                   ==1== ERROR: libFuzzer: deadly signal\n\
                   artifact_prefix='/x/'; Test unit written to /x/crash-4e7a\n";
        let outcome = Outcome::read(bad);
        assert_eq!(outcome.reason.as_deref(), Some("deadly signal"));
        assert_eq!(outcome.artifact.as_deref(), Some("/x/crash-4e7a"));
        assert_eq!(outcome.panic[1], "attempt to add with overflow");
    }
}
