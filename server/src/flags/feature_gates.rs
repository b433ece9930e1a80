//! `--feature-gates=A=true,B=false`: etcd's gates, their stage, their default, and what they do here.

use std::collections::BTreeMap;
use std::fmt;

use super::ValueError;
use super::go_syntax;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Alpha,
    Beta,
}

/// A gate of etcd.
#[derive(Debug)]
pub struct Gate {
    pub name: &'static str,
    pub stage: Stage,
    pub default: bool,
    /// Why switching it changes nothing here; `None` when it does.
    pub without_effect: Option<&'static str>,
}

const fn gate(name: &'static str, stage: Stage, default: bool, without_effect: Option<&'static str>) -> Gate {
    Gate { name, stage, default, without_effect }
}

const ALWAYS_CHECKPOINTED: &str = "the time that leases have left is always written down here";

pub const GATES: &[Gate] = &[
    gate("CompactHashCheck", Stage::Alpha, false, None),
    gate("FastLeaseKeepAlive", Stage::Beta, true, Some("keep-alives never wait for the log here")),
    gate("InitialCorruptCheck", Stage::Alpha, false, None),
    gate("LeaseCheckpoint", Stage::Alpha, false, Some(ALWAYS_CHECKPOINTED)),
    gate("LeaseCheckpointPersist", Stage::Alpha, false, Some(ALWAYS_CHECKPOINTED)),
    gate("PriorityRequest", Stage::Alpha, false, Some("there is one limit for all requests here")),
    gate(
        "SetMemberLocalAddr",
        Stage::Alpha,
        false,
        Some("connections to peers leave by the address that the system chooses"),
    ),
    gate("StopGRPCServiceOnDefrag", Stage::Alpha, false, Some("defragmentation does not stop reads and writes here")),
    gate("TxnModeWriteWithSharedBuffer", Stage::Beta, true, Some("it tunes a backend that is not used here")),
];

/// Gates that stand for all of one stage.
const ALL_ALPHA: &str = "AllAlpha";
const ALL_BETA: &str = "AllBeta";

/// Which gates were switched, and to what. Gates not named in it are at their default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    switched: BTreeMap<&'static str, bool>,
}

impl FeatureGates {
    /// Reads `A=true,B=false`; empty parts are skipped, the last of a name counts.
    ///
    /// # Errors
    /// An unknown gate, or a value that is no boolean.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let mut switched = BTreeMap::new();
        let mut stages = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(ValueError::GateWithoutValue(part.trim().to_owned())),
            };
            let enabled = go_syntax::parse_bool(value)
                .map_err(|_| ValueError::GateValue { gate: name.to_owned(), value: value.to_owned() })?;
            match name {
                ALL_ALPHA => stages.push((Stage::Alpha, enabled)),
                ALL_BETA => stages.push((Stage::Beta, enabled)),
                _ => {
                    let gate = GATES.iter().find(|gate| gate.name == name);
                    let gate = gate.ok_or_else(|| ValueError::UnknownGate(name.to_owned()))?;
                    switched.insert(gate.name, enabled);
                }
            }
        }
        // A gate named itself counts more than its stage.
        for (stage, enabled) in stages {
            for gate in GATES.iter().filter(|gate| gate.stage == stage) {
                switched.entry(gate.name).or_insert(enabled);
            }
        }
        Ok(Self { switched })
    }

    /// Whether the gate was named, itself or by its stage.
    pub fn is_switched(&self, name: &str) -> bool {
        self.switched.contains_key(name)
    }

    /// Switches a gate by its own name.
    ///
    /// # Panics
    /// There is no such gate.
    pub fn switch(&mut self, name: &str, enabled: bool) {
        self.switched.insert(find(name).name, enabled);
    }

    /// # Panics
    /// There is no such gate.
    pub fn enabled(&self, name: &str) -> bool {
        let gate = find(name);
        self.switched.get(gate.name).copied().unwrap_or(gate.default)
    }

    /// The gates switched away from their default although that has no effect here.
    pub fn without_effect(&self) -> impl Iterator<Item = (&'static Gate, &'static str)> {
        GATES
            .iter()
            .filter(|gate| self.enabled(gate.name) != gate.default)
            .filter_map(|gate| gate.without_effect.map(|reason| (gate, reason)))
    }
}

fn find(name: &str) -> &'static Gate {
    match GATES.iter().find(|gate| gate.name == name) {
        Some(gate) => gate,
        None => unreachable!("no feature gate {name}"),
    }
}

impl fmt::Display for FeatureGates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, enabled)) in self.switched.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{name}={enabled}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_gates_and_stages() {
        let gates = FeatureGates::parse(" InitialCorruptCheck = true ,,AllAlpha=true,LeaseCheckpoint=false").unwrap();
        assert!(gates.enabled("InitialCorruptCheck"));
        assert!(gates.enabled("SetMemberLocalAddr"), "by its stage");
        assert!(!gates.enabled("LeaseCheckpoint"), "its own name wins over its stage");
        assert!(gates.enabled("TxnModeWriteWithSharedBuffer"), "beta: at its default");
        assert!(!FeatureGates::parse("AllBeta=false").unwrap().enabled("FastLeaseKeepAlive"));
        assert_eq!(FeatureGates::parse("").unwrap(), FeatureGates::default());
        assert_eq!(FeatureGates::parse("LeaseCheckpoint=1").unwrap().to_string(), "LeaseCheckpoint=true");
    }

    #[test]
    fn faults_are_named() {
        for (text, error) in [
            ("Nope=true", "unrecognized feature gate: Nope"),
            ("LeaseCheckpoint", "missing bool value for LeaseCheckpoint"),
            ("LeaseCheckpoint=yes", "invalid value of LeaseCheckpoint=yes, err: not a bool"),
        ] {
            assert_eq!(FeatureGates::parse(text).unwrap_err().to_string(), error);
        }
    }
}
