//! What is measured: each workload of the load generator, and the figures that are made of it.

use std::time::Duration;

use anyhow::Context as _;

/// How a server is loaded, at the full scale.
pub struct Workload {
    pub name: &'static str,
    pub title: &'static str,
    pub load: Load,
    pub figures: &'static [Figure],
}

/// The arguments of the load generator.
#[derive(Clone, Copy)]
pub struct Load {
    pub workload: &'static str,
    pub clients: u32,
    pub conns: u32,
    pub keys: Keys,
    pub value_bytes: u32,
    /// A store is filled, and read again after a restart.
    pub restart: bool,
}

#[derive(Clone, Copy)]
pub enum Keys {
    /// Part of what the workload is: the same at any scale.
    Fixed(u32),
    Scaled(u32),
}

/// A row of the table: a number of the load generator, or one that is made of the server's counters.
pub struct Figure {
    pub key: &'static str,
    pub title: &'static str,
    pub better: Better,
    pub shown: Shown,
}

/// With how many members a figure says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Always,
    /// Several members start with an election, which takes longer than what is measured.
    OneMember,
    SeveralMembers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

const TIME: Duration = Duration::from_secs(10);
const TIME_MIN: Duration = Duration::from_secs(2);
const KEYS_MIN: u32 = 10_000;

const fn lower(key: &'static str, title: &'static str) -> Figure {
    Figure { key, title, better: Better::Lower, shown: Shown::Always }
}

const fn higher(key: &'static str, title: &'static str) -> Figure {
    Figure { key, title, better: Better::Higher, shown: Shown::Always }
}

const fn lower_with(shown: Shown, key: &'static str, title: &'static str) -> Figure {
    Figure { key, title, better: Better::Lower, shown }
}

const CPU: Figure = lower("cpu_us_op", "server CPU, µs/op");
const CPU_LEADER: Figure = lower_with(Shown::SeveralMembers, "cpu_leader_us_op", "of this the leader's");
const QPS: Figure = higher("qps", "op/s");
const P50: Figure = lower("p50_ms", "p50, ms");
const P99: Figure = lower("p99_ms", "p99, ms");
const ANON: Figure = lower("anon_mib", "anonymous memory, MiB");
const ANON_MOST: Figure =
    lower_with(Shown::SeveralMembers, "anon_most_mib", "anonymous memory of the largest member, MiB");
const WRITTEN: Figure = lower("written_op", "bytes written/op");

const READS: &[Figure] = &[CPU, CPU_LEADER, QPS, P50, P99, ANON, ANON_MOST];
const WRITES: &[Figure] = &[CPU, CPU_LEADER, QPS, P50, P99, ANON, ANON_MOST, WRITTEN];

const fn load(workload: &'static str, clients: u32, conns: u32, keys: u32, value_bytes: u32) -> Load {
    Load { workload, clients, conns, keys: Keys::Fixed(keys), value_bytes, restart: false }
}

pub const ALL: &[Workload] = &[
    Workload { name: "put-1", title: "put, 1 client", load: load("put", 1, 1, 100_000, 256), figures: WRITES },
    Workload { name: "put-100", title: "put, 100 clients", load: load("put", 100, 100, 100_000, 256), figures: WRITES },
    Workload {
        name: "put-1000",
        title: "put, 1000 clients on 100 connections",
        load: load("put", 1000, 100, 100_000, 256),
        figures: WRITES,
    },
    Workload {
        name: "cas",
        title: "compare-and-swap txn, 100 clients on 10 connections",
        load: load("cas", 100, 10, 100, 256),
        figures: WRITES,
    },
    Workload {
        name: "range",
        title: "linearizable read, 1000 clients on 100 connections",
        load: load("range", 1000, 100, 10_000, 256),
        figures: READS,
    },
    Workload {
        name: "range-serializable",
        title: "serializable read, 1000 clients on 100 connections",
        load: load("range-serializable", 1000, 100, 10_000, 256),
        figures: READS,
    },
    Workload {
        name: "list",
        title: "LIST of 10k keys, 4 clients",
        load: load("list", 4, 4, 10_000, 512),
        figures: READS,
    },
    Workload {
        name: "list-pages",
        title: "LIST of 10k keys in pages of 500, 4 clients",
        load: load("list-pages", 4, 4, 10_000, 512),
        figures: READS,
    },
    Workload {
        name: "count",
        title: "count of 10k keys, 4 clients",
        load: load("count", 4, 4, 10_000, 512),
        figures: READS,
    },
    Workload {
        name: "watch",
        title: "watch, 1000 streams on 50 connections (op: an event delivered)",
        load: load("watch", 1000, 50, 4, 256),
        figures: READS,
    },
    Workload {
        name: "keepalive",
        title: "lease keep-alive, 100 streams on 10 connections",
        load: load("keepalive", 100, 10, 100, 256),
        figures: READS,
    },
    Workload {
        name: "memory",
        title: "many keys (512-byte values, txns of 100 puts), and a restart",
        load: Load { keys: Keys::Scaled(1_000_000), restart: true, ..load("preload", 8, 8, 0, 512) },
        figures: &[
            lower("cpu_us_op", "load: server CPU, µs/key"),
            CPU_LEADER,
            higher("qps", "load: keys/s"),
            lower("written_op", "load: bytes written/key"),
            lower("anon_key", "anonymous bytes/key after load"),
            lower("peak_mib", "peak resident memory, MiB"),
            lower_with(Shown::OneMember, "restart_s", "restart to first linearizable read, s"),
            lower_with(Shown::OneMember, "restart_cpu_s", "restart: server CPU, s"),
            lower_with(Shown::OneMember, "restart_anon_key", "anonymous bytes/key after restart"),
            lower_with(Shown::OneMember, "restart_rss_mib", "resident memory after restart, MiB"),
        ],
    },
    Workload {
        name: "maintenance",
        title: "1000 puts/s beside maintenance of a large store",
        load: Load { keys: Keys::Scaled(500_000), ..load("maintenance", 64, 8, 0, 512) },
        figures: &[
            lower("alone_p99_ms", "put p99 alone, ms"),
            lower("snapshot_p99_ms", "put p99 during snapshot, ms"),
            higher("snapshot_mib_s", "snapshot, MiB/s"),
            lower("compaction_p99_ms", "put p99 during compaction, ms"),
            lower("compaction_seconds", "compaction, s"),
            lower("defrag_p99_ms", "put p99 during defragmentation, ms"),
            lower("defrag_seconds", "defragmentation, s"),
        ],
    },
];

pub fn named(name: &str) -> anyhow::Result<&'static Workload> {
    let names = || ALL.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ");
    ALL.iter().find(|workload| workload.name == name).with_context(|| format!("no workload {name}: {}", names()))
}

// === impl Workload ===

impl Workload {
    pub fn figures(&self, members: usize) -> impl Iterator<Item = &'static Figure> {
        self.figures.iter().filter(move |figure| match figure.shown {
            Shown::Always => true,
            Shown::OneMember => members == 1,
            Shown::SeveralMembers => members > 1,
        })
    }
}

// === impl Load ===

impl Load {
    pub fn keys_at(&self, scale: f64) -> u32 {
        match self.keys {
            Keys::Fixed(keys) => keys,
            Keys::Scaled(keys) => ((f64::from(keys) * scale) as u32).max(KEYS_MIN),
        }
    }

    pub fn time_at(scale: f64) -> Duration {
        TIME.mul_f64(scale).max(TIME_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for workload in ALL {
            assert_eq!(ALL.iter().filter(|other| other.name == workload.name).count(), 1, "{}", workload.name);
        }
    }

    #[test]
    fn a_restart_is_measured_of_one_member_and_a_leader_of_several() {
        let keys = |name, members| named(name).unwrap().figures(members).map(|f| f.key).collect::<Vec<_>>();
        assert!(keys("memory", 1).contains(&"restart_s") && !keys("memory", 3).contains(&"restart_s"));
        assert!(keys("put-1", 3).contains(&"cpu_leader_us_op") && !keys("put-1", 1).contains(&"cpu_leader_us_op"));
    }

    #[test]
    fn the_scale_changes_size_and_time_within_reason() {
        let memory = named("memory").unwrap().load;
        assert_eq!((memory.keys_at(1.0), memory.keys_at(0.1), memory.keys_at(0.001)), (1_000_000, 100_000, 10_000));
        assert_eq!(named("list").unwrap().load.keys_at(0.001), 10_000);
        assert_eq!((Load::time_at(1.0), Load::time_at(0.01)), (TIME, TIME_MIN));
    }
}
