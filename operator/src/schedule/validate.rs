//! The spec as the rest of a pass uses it.

use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::tz::TimeZone;
use kube::ResourceExt as _;

use super::cron::CronError;
use super::plan;
use super::retention::Limits;
use super::seen::Wanted;
use crate::cluster::validate::Invalid;
use crate::cluster::validate::bytes;
use crate::cluster::validate::duration;
use crate::crd::EtcdBackupSchedule;
use crate::crd::schedule::Retention;

/// # Errors
/// What the rules of the CRD let through and cannot be obeyed.
pub fn validate(schedule: &EtcdBackupSchedule) -> Result<Wanted, Invalid> {
    let spec = &schedule.spec;
    let invalid = |field, why: &str| Invalid { field, why: why.to_owned() };
    let cron = spec.schedule.parse().map_err(|error: CronError| invalid("schedule", &error.to_string()))?;
    let zone = spec.time_zone.as_deref().unwrap_or("UTC");
    let zone = TimeZone::get(zone).map_err(|_| invalid("timeZone", &format!("{zone:?} is no time zone known here")))?;
    let jitter_s = u64::try_from(spec.jitter_seconds).map_err(|_| invalid("jitterSeconds", "is negative"))?;
    let Retention { keep_last, max_age, max_total_size } = &spec.retention;
    let keep_last =
        keep_last.map(|count| usize::try_from(count).map_err(|_| invalid("retention.keepLast", "is negative")));
    let max_age = max_age
        .as_ref()
        .map(|text| duration(text).ok_or_else(|| invalid("retention.maxAge", "is not a duration such as 720h")));
    let max_total = max_total_size
        .as_ref()
        .map(|size| bytes(size).ok_or_else(|| invalid("retention.maxTotalSize", "is not a quantity")));
    Ok(Wanted {
        cron,
        zone,
        suspend: spec.suspend,
        starting_deadline: SignedDuration::from_secs(spec.starting_deadline_seconds.into()),
        concurrency: spec.concurrency_policy,
        offset: plan::offset(&schedule.namespace().unwrap_or_default(), &schedule.name_any(), jitter_s),
        limits: Limits {
            keep_last: keep_last.transpose()?,
            max_age: max_age.transpose()?,
            max_total_bytes: max_total.transpose()?,
        },
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn schedule(spec: serde_json::Value) -> EtcdBackupSchedule {
        let mut whole = serde_json::json!({
            "schedule": "0 3 * * *",
            "clusterRef": {"name": "a"},
            "template": {"destination": {"volume": {"claimName": "backups"}}},
        });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let mut schedule = EtcdBackupSchedule::new("nightly", serde_json::from_value(whole).unwrap());
        schedule.metadata.namespace = Some("n".to_owned());
        schedule
    }

    #[test]
    fn what_is_absent_is_filled_in() {
        let wanted = validate(&schedule(serde_json::json!({}))).unwrap();
        assert_eq!(wanted.zone, TimeZone::UTC);
        assert_eq!((wanted.starting_deadline, wanted.offset), (SignedDuration::from_mins(10), SignedDuration::ZERO));
        assert_eq!((wanted.suspend, wanted.limits), (false, Limits::default()));
    }

    #[test]
    fn limits_are_read() {
        let retention = serde_json::json!({"keepLast": 7, "maxAge": "720h", "maxTotalSize": "50Gi"});
        let wanted = validate(&schedule(serde_json::json!({"retention": retention}))).unwrap();
        let max_age = Some(SignedDuration::from_hours(720));
        assert_eq!(wanted.limits, Limits { keep_last: Some(7), max_age, max_total_bytes: Some(50 << 30) });
    }

    #[test]
    fn what_cannot_be_obeyed_is_named() {
        for (spec, field) in [
            (serde_json::json!({"schedule": "0 24 * * *"}), "schedule"),
            (serde_json::json!({"timeZone": "Europe/Atlantis"}), "timeZone"),
            (serde_json::json!({"jitterSeconds": -1}), "jitterSeconds"),
            (serde_json::json!({"retention": {"keepLast": -1}}), "retention.keepLast"),
            (serde_json::json!({"retention": {"maxAge": "a month"}}), "retention.maxAge"),
            (serde_json::json!({"retention": {"maxTotalSize": "much"}}), "retention.maxTotalSize"),
        ] {
            assert_eq!(validate(&schedule(spec)).unwrap_err().field, field);
        }
    }
}
