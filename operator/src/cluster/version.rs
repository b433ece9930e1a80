//! Which version members are to run: the one that is asked for, by steps that members of both versions survive.

use crate::crd::cluster::UpdatePolicy;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u64,
    minor: u64,
    patch: u64,
}

/// What an empty `spec.version` stands for: the version that was recorded, unless the operator's `own` may take its place.
pub fn unnamed(policy: UpdatePolicy, recorded: Option<&str>, own: &str) -> String {
    let Some(recorded) = recorded else { return own.to_owned() };
    let raise = match (parse(recorded), parse(own)) {
        (Some(from), Some(to)) if to > from && to.major == from.major => match policy {
            UpdatePolicy::Pinned => false,
            UpdatePolicy::Patch => to.minor == from.minor,
            UpdatePolicy::Minor => true,
        },
        _ => false,
    };
    if raise { own } else { recorded }.to_owned()
}

/// Why members of version `from` are not made members of version `to`. Two releases work together that follow each other, whichever way
/// round; whether the older one can read what the newer one wrote, it says itself.
pub fn refusal(from: &str, to: &str) -> Option<String> {
    let (before, after) = (parse(from)?, parse(to)?);
    if before.major != after.major {
        return Some(format!("{from} and {to} differ in their major version"));
    }
    let minor = match after.minor.abs_diff(before.minor) {
        0 | 1 => return None,
        _ if after.minor > before.minor => before.minor + 1,
        _ => before.minor - 1,
    };
    Some(format!("from {from} to {to} are several minor versions: go by way of {}.{minor}", before.major))
}

fn parse(text: &str) -> Option<Version> {
    let release = text.trim_start_matches('v').split('-').next()?;
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    let version = Version { major: numbers.next()??, minor: numbers.next()??, patch: numbers.next()?? };
    numbers.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_version_is_raised_as_far_as_the_policy_goes() {
        let cases = [
            (UpdatePolicy::Pinned, "1.2.3", "1.2.4", "1.2.3"),
            (UpdatePolicy::Patch, "1.2.3", "1.2.4", "1.2.4"),
            (UpdatePolicy::Patch, "1.2.3", "1.3.0", "1.2.3"),
            (UpdatePolicy::Minor, "1.2.3", "1.3.0", "1.3.0"),
            (UpdatePolicy::Minor, "1.2.3", "2.0.0", "1.2.3"),
            // An operator that went back takes nobody with it.
            (UpdatePolicy::Minor, "1.2.3", "1.1.0", "1.2.3"),
        ];
        for (policy, recorded, own, expected) in cases {
            assert_eq!(unnamed(policy, Some(recorded), own), expected, "{policy:?} {recorded} {own}");
        }
        assert_eq!(unnamed(UpdatePolicy::Pinned, None, "1.2.3"), "1.2.3");
    }

    #[test]
    fn versions_go_one_minor_at_a_time() {
        for (from, to) in [("1.2.3", "1.2.9"), ("1.2.3", "1.3.0"), ("1.3.0", "1.2.3"), ("1.2.3", "v1.2.3-rc.1")] {
            assert_eq!(refusal(from, to), None, "{from} {to}");
        }
        assert!(refusal("1.2.3", "1.4.0").unwrap().ends_with("by way of 1.3"));
        assert!(refusal("1.4.0", "1.2.0").unwrap().ends_with("by way of 1.3"));
        assert!(refusal("1.2.3", "2.0.0").unwrap().contains("major"));
    }
}
