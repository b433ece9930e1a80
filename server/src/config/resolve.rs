//! From what was given to what counts: older names become the flags they stand for, what is not built is refused, what
//! has no effect is named.

use super::ConfigError;
use crate::flags;
use crate::flags::Flag;
use crate::flags::Given;
use crate::flags::Settings;
use crate::flags::Support;
use crate::flags::Value;
use crate::notice::Notice;

const FEATURE_GATES: &str = "feature-gates";

/// The one older name that etcd refuses beside the flag it stands for; the others replace it.
const EXCLUSIVE: &str = "experimental-warning-unary-request-duration";

/// # Errors
/// A flag has a value that is not supported, or is given under two names.
pub fn resolve(mut settings: Settings) -> Result<(Settings, Vec<Notice>), ConfigError> {
    let mut notices = Vec::new();
    let given_gates = settings.feature_gates(FEATURE_GATES);
    let mut gates = given_gates.clone();
    let mut gates_by = None;
    let given: Vec<Given> = settings.given().cloned().collect();
    for given in given {
        match given.flag.support {
            Support::Alias(now) => {
                if given.flag.name == EXCLUSIVE && settings.is_given(now) {
                    return Err(ConfigError::FlagTwice { older: given.flag.name, now });
                }
                notices.push(deprecated(given.flag, &format!("--{now}")));
                if let Some(flag) = flags::find(now) {
                    settings.put(flag, given);
                }
            }
            Support::GateAlias(gate) => {
                let Value::Bool(value) = given.value else { unreachable!("--{} is no bool", given.flag.name) };
                if given_gates.is_switched(gate) {
                    return Err(ConfigError::GateTwice { older: given.flag.name, gate, value });
                }
                notices.push(deprecated(given.flag, &format!("--feature-gates={gate}={value}")));
                gates.switch(gate, value);
                gates_by = Some(given.source);
            }
            Support::Used | Support::IgnoredByEtcd | Support::NoEffect(_) | Support::Refused(_) => {}
        }
    }
    if let (Some(source), Some(flag)) = (gates_by, flags::find(FEATURE_GATES)) {
        settings.put_gates(flag, gates, source);
    }
    check_support(&settings, &mut notices)?;
    Ok((settings, notices))
}

fn deprecated(flag: &Flag, instead: &str) -> Notice {
    Notice::warn(format!("--{} is deprecated in 3.6 and gone in 3.7. Use {instead} instead.", flag.name))
}

fn check_support(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
    for given in settings.given() {
        let differs = given.value != given.flag.default_value();
        match given.flag.support {
            // An empty list asks for nothing.
            Support::Refused(reason) if differs && !given.text.is_empty() => {
                return Err(ConfigError::NotSupported { flag: given.flag.name, text: given.text.clone(), reason });
            }
            Support::NoEffect(reason) if differs => {
                let notice = Notice::warn("flag has no effect");
                notices.push(notice.with("flag-name", given.flag.name).with("reason", reason));
            }
            Support::IgnoredByEtcd => {
                let notice = Notice::warn("flag is no longer supported - ignoring");
                notices.push(notice.with("flag-name", given.flag.name));
            }
            _ => {}
        }
    }
    for (gate, reason) in settings.feature_gates(FEATURE_GATES).without_effect() {
        let notice = Notice::warn("feature gate has no effect");
        notices.push(notice.with("feature-gate", gate.name).with("reason", reason));
    }
    Ok(())
}
