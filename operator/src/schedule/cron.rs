//! Times as cron writes them, in a time zone: five fields, taken as Kubernetes' CronJob takes them.
//!
//! Where a zone sets its clock, a schedule for every hour goes by the time that passes: it has no run in what is left out, and two in what
//! comes twice. One for certain hours goes by the clock: what is left out is made up for at the moment the clock is set, once, and what
//! comes twice is done the first time.

use std::str::FromStr;

use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::Date;
use k8s_openapi::jiff::civil::DateTime;
use k8s_openapi::jiff::tz::AmbiguousOffset;
use k8s_openapi::jiff::tz::Offset;
use k8s_openapi::jiff::tz::TimeZone;

/// How far a time is looked for: as far as CronJob does, five years with two leap days.
const DAYS_MAX: i64 = 5 * 365 + 2;
const EVERY_HOUR: u64 = (1 << 24) - 1;

const MINUTE: Field = Field { name: "minute", min: 0, max: 59, names: &[] };
const HOUR: Field = Field { name: "hour", min: 0, max: 23, names: &[] };
const DAY: Field = Field { name: "day of the month", min: 1, max: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Field =
    Field { name: "day of the week", min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Sets of numbers, a bit for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both kinds of day are restricted: either is enough.
    either_day: bool,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    #[error(
        "{0:?} must be five fields, such as \"0 3 * * *\", or one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly"
    )]
    Fields(String),
    #[error("{part:?} is no {name}: {min} to {max}, a range of them, or either with a step")]
    Part { part: String, name: &'static str, min: u8, max: u8 },
}

struct Field {
    name: &'static str,
    min: u8,
    max: u8,
    /// From `min` on.
    names: &'static [&'static str],
}

// === impl Cron ===

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let plain = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            plain => plain,
        };
        let fields: Vec<&str> = plain.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(CronError::Fields(text.to_owned()));
        };
        let (days, any_day) = DAY.set(days)?;
        let (weekdays, any_weekday) = WEEKDAY.set(weekdays)?;
        Ok(Self {
            minutes: MINUTE.set(minutes)?.0,
            hours: HOUR.set(hours)?.0,
            months: MONTH.set(months)?.0,
            days,
            weekdays,
            either_day: !any_day && !any_weekday,
        })
    }
}

impl Cron {
    /// The first time after `after`; `None` when there is none within five years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let last = after.saturating_add(SignedDuration::from_hours(24 * DAYS_MAX)).ok()?;
        let mut offset = zone.to_offset(after);
        let mut from = full_minute(offset.to_datetime(after))?;
        let mut settings = zone.following(after);
        // A clock runs evenly until it is set.
        loop {
            let setting = settings.next();
            let end = setting.as_ref().map_or(last, |setting| setting.timestamp().min(last));
            if let Some(at) = self.shown(from, offset, zone).filter(|at| *at < end) {
                return Some(at);
            }
            let setting = setting.filter(|_| end < last)?;
            let expected = offset.to_datetime(end);
            offset = setting.offset();
            let shows = offset.to_datetime(end);
            if !self.is_for_every_hour() && self.first(expected).is_some_and(|left_out| left_out < shows) {
                return Some(end);
            }
            from = shows;
        }
    }

    /// When a clock that is not set any more shows one of the times first.
    fn shown(&self, from: DateTime, offset: Offset, zone: &TimeZone) -> Option<Timestamp> {
        let again = |local: &DateTime| match zone.to_ambiguous_timestamp(*local).offset() {
            AmbiguousOffset::Fold { before, .. } => before != offset && !self.is_for_every_hour(),
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Gap { .. } => false,
        };
        let mut times = std::iter::successors(self.first(from), |local| self.first(full_minute(*local)?));
        offset.to_timestamp(times.find(|local| !again(local))?).ok()
    }

    /// The first time from `from` on, on a clock that is never set.
    fn first(&self, from: DateTime) -> Option<DateTime> {
        let days = std::iter::successors(Some(from.date()), |day| day.tomorrow().ok());
        let days = days.take(usize::try_from(DAYS_MAX).ok()?).filter(|day| self.has_day(*day));
        let hours = days.flat_map(|day| members(self.hours).map(move |hour| day.at(hour, 59, 0, 0)));
        let minutes =
            |hour: DateTime| members(self.minutes).map(move |minute| hour.date().at(hour.hour(), minute, 0, 0));
        hours.filter(|end| *end >= from).flat_map(minutes).find(|local| *local >= from)
    }

    fn is_for_every_hour(&self) -> bool {
        self.hours == EVERY_HOUR
    }

    fn has_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.either_day { day || weekday } else { day && weekday }
    }
}

// === impl Field ===

impl Field {
    /// The numbers of a list, and whether the list is no restriction.
    fn set(&self, list: &str) -> Result<(u64, bool), CronError> {
        let mut set = (0, false);
        for part in list.split(',') {
            let (bits, any) = self.range(part).ok_or_else(|| CronError::Part {
                part: part.to_owned(),
                name: self.name,
                min: self.min,
                max: self.max,
            })?;
            set = (set.0 | bits, set.1 | any);
        }
        Ok(set)
    }

    fn range(&self, text: &str) -> Option<(u64, bool)> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0)?)),
            None => (text, None),
        };
        let any = matches!(range, "*" | "?");
        let (first, last) = match range.split_once('-') {
            _ if any => (self.min, self.max),
            Some((first, last)) => (self.value(first)?, self.value(last)?),
            // From there on, where there is a step.
            None => (self.value(range)?, if step.is_some() { self.max } else { self.value(range)? }),
        };
        let step = step.unwrap_or(1);
        let bits = (first..=last).step_by(step).fold(0, |bits, value| bits | 1 << value);
        (first <= last).then_some((bits, any && step == 1))
    }

    fn value(&self, text: &str) -> Option<u8> {
        let named = self.names.iter().zip(self.min..).find(|(name, _)| name.eq_ignore_ascii_case(text));
        let value = named.map(|(_, value)| value).or_else(|| u8::try_from(number(text)?).ok())?;
        (self.min..=self.max).contains(&value).then_some(value)
    }
}

/// The first one after `local`.
fn full_minute(local: DateTime) -> Option<DateTime> {
    local.date().at(local.hour(), local.minute(), 0, 0).checked_add(SignedDuration::from_mins(1)).ok()
}

/// Digits, without a sign.
fn number(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn has(set: u64, value: i8) -> bool {
    set >> value & 1 == 1
}

fn members(set: u64) -> impl Iterator<Item = i8> {
    (0..60).filter(move |value| has(set, *value))
}

#[cfg(test)]
mod tests;
