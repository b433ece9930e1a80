//! The environment: `ETCD_NAME_WITH_DASHES` for each flag.
//!
//! A variable never overrides a flag: both together are refused, as in etcd, since one of them is a leftover. Values of
//! variables that are no flags are not logged, since they may be secrets.

use crate::flags;
use crate::flags::Settings;
use crate::flags::Source;
use crate::flags::ValueError;
use crate::notice::Notice;

const PREFIX: &str = "ETCD_";

/// Would be the variable of `--version`; orchestrators set it to the version of the image.
const VERSION: &str = "ETCD_VERSION";

/// Read where the architecture is checked, in etcd; every architecture that this builds for is supported.
const UNSUPPORTED_ARCH: &str = "ETCD_UNSUPPORTED_ARCH";

/// Names the file that replaces flags and environment.
pub const CONFIG_FILE: &str = "ETCD_CONFIG_FILE";

/// Why the environment cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error(
        "conflicting environment variable {0:?} is shadowed by corresponding command-line flag \
         (either unset environment variable or disable flag)"
    )]
    Shadowed(String),
    #[error("invalid value {text:?} for {variable}: {error}")]
    Value { variable: String, text: String, error: ValueError },
}

/// Sets the flags that have a variable. Empty variables count as unset.
///
/// # Errors
/// A variable whose flag is set as well, or whose value is malformed.
pub fn apply(
    settings: &mut Settings,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Notice>, EnvError> {
    let mut notices = Vec::new();
    for (variable, text) in variables {
        if !variable.starts_with(PREFIX) || text.is_empty() || variable == UNSUPPORTED_ARCH {
            continue;
        }
        if variable == VERSION {
            let notice = Notice::warn("cannot set special environment variable");
            notices.push(notice.with("key", variable).with("value", text));
            continue;
        }
        let Some(flag) = flags::all().find(|flag| flag.variable() == variable) else {
            let notice = Notice::warn("unrecognized environment variable");
            notices.push(notice.with("environment-variable", variable));
            continue;
        };
        if settings.is_given(flag.name) {
            return Err(EnvError::Shadowed(variable));
        }
        if let Err(error) = settings.set(flag, &text, Source::Environment) {
            return Err(EnvError::Value { variable, text, error });
        }
        let notice = Notice::info("recognized and used environment variable");
        notices.push(notice.with("variable-name", variable).with("variable-value", text));
    }
    Ok(notices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse::Request;
    use crate::flags::parse::parse;

    fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Result<(Settings, Vec<String>), EnvError> {
        let Ok(Request::Serve(mut settings)) = parse(arguments.iter().map(|&argument| argument.to_owned())) else {
            panic!("{arguments:?}");
        };
        let variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let notices = apply(&mut settings, variables)?;
        Ok((settings, notices.iter().map(Notice::to_string).collect()))
    }

    #[test]
    fn a_variable_sets_its_flag() {
        let variables = [("ETCD_NAME", "a"), ("ETCD_PRE_VOTE", "false"), ("ETCD_SNAPSHOT_COUNT", "7"), ("HOME", "/x")];
        let (settings, notices) = run(&["--data-dir=d"], &variables).unwrap();
        assert_eq!(settings.text("name"), "a");
        assert!(!settings.bool("pre-vote"));
        assert_eq!(settings.uint("snapshot-count"), 7);
        assert_eq!(settings.text("data-dir"), "d");
        assert_eq!(notices.len(), 3);
        assert_eq!(
            notices[0],
            r#"info recognized and used environment variable {"variable-name":"ETCD_NAME","variable-value":"a"}"#
        );
    }

    #[test]
    fn a_variable_beside_its_flag_is_refused() {
        let error = run(&["--name=a"], &[("ETCD_NAME", "b")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "conflicting environment variable \"ETCD_NAME\" is shadowed by corresponding command-line flag \
             (either unset environment variable or disable flag)"
        );
        assert!(run(&["--name=a"], &[("ETCD_NAME", "a")]).is_err(), "even with the same value");
    }

    #[test]
    fn an_empty_variable_is_unset() {
        let (settings, notices) = run(&["--name=a"], &[("ETCD_NAME", ""), ("ETCD_NOPE", "")]).unwrap();
        assert_eq!(settings.text("name"), "a");
        assert!(notices.is_empty());
    }

    #[test]
    fn a_malformed_value_is_refused() {
        let error = run(&[], &[("ETCD_HEARTBEAT_INTERVAL", "1s")]).unwrap_err();
        assert_eq!(error.to_string(), "invalid value \"1s\" for ETCD_HEARTBEAT_INTERVAL: parse error");
    }

    #[test]
    fn unknown_variables_are_named_without_their_value() {
        let variables = [("ETCD_ROOT_PASSWORD", "secret"), ("ETCDCTL_API", "3"), ("ETCD_UNSUPPORTED_ARCH", "arm64")];
        let (_, notices) = run(&[], &variables).unwrap();
        assert_eq!(
            notices,
            [r#"warn unrecognized environment variable {"environment-variable":"ETCD_ROOT_PASSWORD"}"#]
        );
    }

    #[test]
    fn etcd_version_is_not_the_version_flag() {
        let (settings, notices) = run(&[], &[("ETCD_VERSION", "v3.6.0")]).unwrap();
        assert!(!settings.bool("version"));
        assert_eq!(
            notices,
            [r#"warn cannot set special environment variable {"key":"ETCD_VERSION","value":"v3.6.0"}"#]
        );
    }
}
