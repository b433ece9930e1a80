//! Times from tables, and against a walk over every minute.

use proptest::prelude::*;

use super::*;

/// Zones whose clocks are set by an hour, by half of one, by two, at midnight, by a day, and never.
const ZONES: &[&str] = &[
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "America/Nuuk",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
];
const MINUTES_WALKED: i64 = 1600;

fn cron(text: &str) -> Cron {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The first times after `after`, as text.
fn times(text: &str, zone_name: &str, after: &str, count: usize) -> Vec<String> {
    let (cron, zone) = (cron(text), zone(zone_name));
    let following = |after: &Timestamp| cron.next(*after, &zone);
    std::iter::successors(following(&at(after)), following).take(count).map(|at| at.to_string()).collect()
}

#[test]
fn fields_are_read_as_cron_job_reads_them() {
    for (text, same) in [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("  0\t3  * * * ", "0 3 * * *"),
        ("0 3 ? ? ?", "0 3 * * *"),
        ("0 3 * JAN-mar Mon,fri", "0 3 * 1-3 1,5"),
        ("*/20 * * * *", "0,20,40 * * * *"),
        ("5/20 * * * *", "5,25,45 * * * *"),
        ("10-40/15,7 * * * *", "7,10,25,40 * * * *"),
        ("59/1 * * * *", "59 * * * *"),
        ("*/90 * * * *", "0 * * * *"),
        ("0 0 * * mon/2", "0 0 * * 1,3,5"),
        ("0 0 */1 * 1", "0 0 * * 1"),
    ] {
        assert_eq!(cron(text), cron(same), "{text}");
    }
}

#[test]
fn what_is_no_schedule_is_refused() {
    for text in ["", "* * * *", "* * * * * *", "@every 5m", "@Daily", "TZ=UTC 0 3 * * *", "CRON_TZ=UTC * * * * *"] {
        assert!(matches!(text.parse::<Cron>(), Err(CronError::Fields(_) | CronError::Part { .. })), "{text}");
    }
    for text in [
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 0 *",
        "* * * 13 *",
        "* * * * 7",
        "* * * * sunday",
        "* * mon * *",
        "jan * * * *",
        "*/0 * * * *",
        "1/ * * * *",
        "/5 * * * *",
        "5-1 * * * *",
        "1-2-3 * * * *",
        "*-5 * * * *",
        "1/2/3 * * * *",
        "+1 * * * *",
        "-1 * * * *",
        ", * * * *",
        "1, * * * *",
        "99999999999999999999 * * * *",
        "L * * * *",
    ] {
        assert!(matches!(text.parse::<Cron>(), Err(CronError::Part { .. })), "{text}");
    }
    let error = "61 * * * *".parse::<Cron>().unwrap_err().to_string();
    assert_eq!(error, "\"61\" is no minute: 0 to 59, a range of them, or either with a step");
}

#[test]
fn either_day_is_enough_where_both_are_restricted() {
    // 13 March 2026 is a Friday.
    for (text, expected) in [
        ("0 0 13 * fri", ["2026-03-06T00:00:00Z", "2026-03-13T00:00:00Z", "2026-03-20T00:00:00Z"]),
        ("0 0 13 * *", ["2026-03-13T00:00:00Z", "2026-04-13T00:00:00Z", "2026-05-13T00:00:00Z"]),
        ("0 0 * * fri", ["2026-03-06T00:00:00Z", "2026-03-13T00:00:00Z", "2026-03-20T00:00:00Z"]),
        // A star with a step is a restriction.
        ("0 0 */10 * fri", ["2026-03-01T00:00:00Z", "2026-03-06T00:00:00Z", "2026-03-11T00:00:00Z"]),
        // One without is none, though it stands in a list.
        ("0 0 1,* * fri", ["2026-03-06T00:00:00Z", "2026-03-13T00:00:00Z", "2026-03-20T00:00:00Z"]),
    ] {
        assert_eq!(times(text, "UTC", "2026-02-28T12:00:00Z", 3), expected, "{text}");
    }
}

#[test]
fn times_are_those_of_the_zone() {
    let berlin = times("30 3 * * *", "Europe/Berlin", "2026-07-01T12:00:00Z", 2);
    assert_eq!(berlin, ["2026-07-02T01:30:00Z", "2026-07-03T01:30:00Z"]);
    let kathmandu = times("0 0 1 1 *", "Asia/Kathmandu", "2026-07-01T12:00:00Z", 1);
    assert_eq!(kathmandu, ["2026-12-31T18:15:00Z"]);
}

#[test]
fn what_the_clock_leaves_out_is_made_up_for_once() {
    // From 2:00 to 3:00, which is at 1:00 UTC.
    for (text, expected) in [
        ("30 2 * * *", ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
        ("*/20 2 * * *", ["2026-03-28T01:20:00Z", "2026-03-28T01:40:00Z", "2026-03-29T01:00:00Z"]),
        ("30 2,3 * * *", ["2026-03-28T01:30:00Z", "2026-03-28T02:30:00Z", "2026-03-29T01:00:00Z"]),
    ] {
        assert_eq!(times(text, "Europe/Berlin", "2026-03-28T01:00:00Z", 3), expected, "{text}");
    }
    let hourly = times("30 * * * *", "Europe/Berlin", "2026-03-28T23:00:00Z", 3);
    assert_eq!(hourly, ["2026-03-28T23:30:00Z", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"]);
    // A day that was left out as a whole.
    let apia = times("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", 1);
    assert_eq!(apia, ["2011-12-30T10:00:00Z"]);
}

#[test]
fn what_the_clock_shows_twice_is_done_once() {
    // From 3:00 to 2:00, which is at 1:00 UTC.
    let daily = times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
    assert_eq!(daily, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    let hourly = times("30 * * * *", "Europe/Berlin", "2026-10-24T23:00:00Z", 3);
    assert_eq!(hourly, ["2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]);
}

#[test]
fn a_time_that_does_not_come_is_given_up() {
    assert_eq!(times("0 0 30 2 *", "UTC", "2026-01-01T00:00:00Z", 1), [""; 0]);
    assert_eq!(times("0 0 30 2 *", "Europe/Berlin", "2026-01-01T00:00:00Z", 1), [""; 0]);
    assert_eq!(times("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
    // 2100 is no leap year.
    assert_eq!(times("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1), [""; 0]);
    assert_eq!(cron("* * * * *").next(Timestamp::MAX, &zone("UTC")), None);
}

fn field(field: Field) -> impl Strategy<Value = String> {
    let (min, max) = (field.min, field.max);
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => prop::collection::vec(min..=max, 1..4)
            .prop_map(|values| values.iter().map(u8::to_string).collect::<Vec<_>>().join(",")),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (1..=max).prop_map(|step| format!("*/{step}")),
        1 => (min..=max, 1..=max).prop_map(|(first, step)| format!("{first}/{step}")),
    ]
}

fn any_cron() -> impl Strategy<Value = String> {
    let days = prop_oneof![2 => Just("*".to_owned()), 1 => field(DAY)];
    let months = prop_oneof![3 => Just("*".to_owned()), 1 => field(MONTH)];
    let weekdays = prop_oneof![2 => Just("*".to_owned()), 1 => field(WEEKDAY)];
    let fields = (field(MINUTE), field(HOUR), days, months, weekdays);
    fields.prop_map(|(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"))
}

/// A zone and a time in it, mostly one close to where its clock is set.
fn moment() -> impl Strategy<Value = (&'static str, Timestamp)> {
    let name = prop::sample::select(ZONES);
    (name, 1_000_000_000..2_500_000_000i64, -100_000..20_000i64, any::<bool>()).prop_map(
        |(name, second, apart, close)| {
            let anywhere = Timestamp::from_second(second).unwrap();
            let set = zone(name).following(anywhere).next().map(|set| set.timestamp()).filter(|_| close);
            (name, set.map_or(anywhere, |set| set + SignedDuration::from_secs(apart)))
        },
    )
}

/// Whether something is to be done at a full minute: what the documentation of the module says, by looking at the clock alone.
fn fires(cron: &Cron, now: Timestamp, zone: &TimeZone) -> bool {
    let minutes = |count| SignedDuration::from_mins(count);
    let asked = |clock: DateTime| {
        cron.has_day(clock.date()) && has(cron.hours, clock.hour()) && has(cron.minutes, clock.minute())
    };
    let shown = zone.to_datetime(now);
    if cron.hours == EVERY_HOUR {
        return asked(shown);
    }
    let seen_before = || (1..=6).any(|halves| zone.to_datetime(now - minutes(30 * halves)) == shown);
    let mut left_out = zone.to_datetime(now - minutes(1)) + minutes(1);
    while left_out < shown {
        if asked(left_out) {
            return true;
        }
        left_out += minutes(1);
    }
    asked(shown) && !seen_before()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn times_are_the_minutes_that_match(text in any_cron(), (name, after) in moment()) {
        let (cron, zone) = (cron(&text), zone(name));
        let following = |after: &Timestamp| cron.next(*after, &zone);
        let start = Timestamp::from_second(after.as_second().div_euclid(60) * 60).unwrap();
        let minutes = (1..=MINUTES_WALKED).map(|count| start + SignedDuration::from_mins(count));
        let expected: Vec<_> = minutes.filter(|minute| fires(&cron, *minute, &zone)).collect();
        let times = std::iter::successors(following(&after), following);
        let times = times.take_while(|at| *at <= start + SignedDuration::from_mins(MINUTES_WALKED));
        prop_assert_eq!(times.collect::<Vec<_>>(), expected, "in {}", name);
        if let Some(next) = following(&after) {
            prop_assert!(next > after);
            prop_assert!(fires(&cron, next, &zone), "{next} in {name}");
        }
    }
}
