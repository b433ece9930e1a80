//! Leases: no key goes before the time that was promised, none stays long after it. (None after a revocation: the replay sees to that.)

use std::collections::BTreeMap;

use crate::Options;
use crate::history::History;
use crate::history::Operation;
use crate::history::Outcome;
use crate::history::Request;
use crate::history::Response;
use crate::observations::Observations;
use crate::replay::Cause;
use crate::replay::Replay;
use crate::replay::Step;
use crate::report::Kind;
use crate::report::Report;

const SECOND_NS: i64 = 1_000_000_000;

/// What clients were told of a lease.
#[derive(Debug, Default)]
struct Lease {
    /// Grants and keep-alives that were acknowledged.
    promises: Vec<Promise>,
    /// The last answer to anything that may have extended it; the end of time if one of unknown outcome may still do so.
    latest: i64,
    /// The longest that was granted.
    ttl_s: i64,
    /// From when on a revocation may have been under way.
    revoked_from: Option<i64>,
}

/// The lease lives at least `until`.
#[derive(Debug, Clone, Copy)]
struct Promise {
    until: i64,
    answered: i64,
    line: u32,
}

pub fn judge(history: &History, replay: &Replay, observations: &Observations, options: &Options, report: &mut Report) {
    let leases = gather(history);
    let mut expired = 0;
    for step in &replay.steps {
        if let (Cause::Lease(id, others), true) = (&step.cause, step.certain)
            && let Some(lease) = leases.get(id)
        {
            expired += 1;
            if others.is_empty() {
                not_early(*id, lease, step, observations, report);
            }
        }
    }
    for operation in &history.operations {
        not_missing(operation, &leases, report);
        if let Some(slack_s) = options.lease_slack_s {
            not_late(operation, &leases, slack_s as i64, options, report);
        }
    }
    report.figure("leases", format!("{}, of which {expired} took their keys with them", leases.len()));
}

fn gather(history: &History) -> BTreeMap<i64, Lease> {
    let mut leases: BTreeMap<i64, Lease> = BTreeMap::new();
    for operation in &history.operations {
        if matches!(operation.outcome, Outcome::Refused(_)) {
            continue;
        }
        match &operation.request {
            Request::Grant(request) | Request::KeepAlive(request) => {
                let lease = leases.entry(request.lease).or_default();
                lease.latest = lease.latest.max(operation.returned);
                if let Some(Response::Ttl(ttl_s)) = operation.response() {
                    lease.ttl_s = lease.ttl_s.max(*ttl_s);
                    lease.promises.push(Promise {
                        until: operation.call + ttl_s * SECOND_NS,
                        answered: operation.returned,
                        line: operation.line,
                    });
                }
                if operation.is_unknown() {
                    // It may still be under way.
                    lease.latest = i64::MAX;
                }
            }
            Request::Revoke(request) => {
                let lease = leases.entry(request.lease).or_default();
                let from = lease.revoked_from.map_or(operation.call, |from| from.min(operation.call));
                lease.revoked_from = Some(from);
            }
            _ => {}
        }
    }
    leases
}

/// The keys went: somebody revoked the lease, or its time was over.
fn not_early(id: i64, lease: &Lease, step: &Step, observations: &Observations, report: &mut Report) {
    let Some(seen) = observations.first_of(step.revision) else { return };
    let Some(promise) = lease.promises.iter().max_by_key(|promise| promise.until) else { return };
    if seen.at < promise.until && lease.revoked_from.is_none_or(|from| from > seen.at) {
        let text = format!(
            "lease {id} took its keys with it at revision {}, {:.3} s before the time that was promised",
            step.revision,
            (promise.until - seen.at) as f64 / SECOND_NS as f64
        );
        report.violate(Kind::LeaseEarly, &[promise.line, seen.line], text);
    }
}

/// A request that names a lease is told that there is none, though it was promised to live.
fn not_missing(operation: &Operation, leases: &BTreeMap<i64, Lease>, report: &mut Report) {
    let Outcome::Refused(failure) = &operation.outcome else { return };
    if !failure.text.contains("lease not found") {
        return;
    }
    let mut named = Vec::new();
    if let Request::KeepAlive(request) = &operation.request {
        named.push(request.lease);
    }
    operation.request.puts(&mut |put| named.extend((put.lease != 0).then_some(put.lease)));
    let alive = |id: &i64| {
        let lease = leases.get(id)?;
        let promised =
            lease.promises.iter().find(|p| p.answered < operation.call && p.until > operation.returned).copied()?;
        lease.revoked_from.is_none_or(|from| from > operation.returned).then_some((*id, promised))
    };
    // Of a transaction, one lease that is gone is enough.
    let promised: Vec<(i64, Promise)> = named.iter().filter_map(alive).collect();
    if !named.is_empty()
        && promised.len() == named.len()
        && let Some((id, promise)) = promised.first()
    {
        let left = (promise.until - operation.returned) as f64 / SECOND_NS as f64;
        let text = format!("lease {id} is not found {left:.3} s before the end of the time that was promised");
        report.violate(Kind::LeaseEarly, &[promise.line, operation.line], text);
    }
}

/// A linearizable answer shows a key whose lease is long over.
fn not_late(
    operation: &Operation,
    leases: &BTreeMap<i64, Lease>,
    slack_s: i64,
    options: &Options,
    report: &mut Report,
) {
    let Some(response) = operation.response() else { return };
    let past = matches!(&operation.request, Request::Range(range) if range.revision > 0);
    if past || operation.request.is_serializable() || !operation.request.is_kv() {
        return;
    }
    response.key_values(&mut |kv| {
        let Some(lease) = leases.get(&kv.lease).filter(|lease| lease.ttl_s > 0) else { return };
        let over = lease.latest.saturating_add((lease.ttl_s + slack_s) * SECOND_NS);
        let troubled = options.faults.iter().any(|window| window.begin <= operation.call && window.end >= lease.latest);
        if operation.call > over && !troubled {
            let late = (operation.call - over) as f64 / SECOND_NS as f64;
            let text = format!("{} is still there {late:.3} s after TTL and slack of lease {}", kv.key, kv.lease);
            report.violate(Kind::LeaseLate, &[operation.line], text);
        }
    });
}
