//! The member itself: where it keeps its data, where it listens, what it accepts.

use super::super::Flag;
use super::super::Kind::*;
use super::super::Release;
use super::super::Support::*;
use super::flag;

/// Why a timeout of the connections between members does nothing.
const PINGS: &str = "connections between members are held to pings, which go by --election-timeout";

pub const FLAGS: &[Flag] = &[
    flag("name", Text, "default", Used, "Name of this member, for people and for --initial-cluster."),
    flag("data-dir", Text, "", Used, "Directory of the data. Empty: NAME.etcd in the working directory."),
    flag("wal-dir", Text, "", Used, "Directory of the write-ahead log. Empty: member/wal in the data directory."),
    flag(
        "config-file",
        Text,
        "",
        Used,
        "File with the configuration, in YAML or JSON. Other flags and the environment are not read then.",
    ),
    flag("version", Bool, "false", Used, "Prints the version and ends."),
    flag("snapshot-count", Uint, "10000", Used, "Log entries between two checkpoints of the state."),
    flag(
        "snapshot-catchup-entries",
        Uint,
        "5000",
        Used,
        "Log entries kept behind a checkpoint, for members that lag behind.",
    ),
    flag("heartbeat-interval", Uint, "100", Used, "Time between two heartbeats of the leader, in milliseconds."),
    flag(
        "election-timeout",
        Uint,
        "1000",
        Used,
        "Longest time without a leader before an election, in milliseconds; at least 5 heartbeats, at most 50000.",
    ),
    flag(
        "initial-election-tick-advance",
        Bool,
        "true",
        NoEffect("the first election never waits for longer than the others"),
        "Whether the first election after a start comes sooner.",
    ),
    flag("listen-peer-urls", Urls, "http://localhost:2380", Used, "URLs to listen on for the other members."),
    flag("listen-client-urls", Urls, "http://localhost:2379", Used, "URLs to listen on for clients, gRPC and HTTP."),
    flag(
        "listen-client-http-urls",
        Urls,
        "",
        Refused("HTTP is served on --listen-client-urls only"),
        "URLs to listen on for HTTP alone; --listen-client-urls then serves gRPC alone.",
    ),
    flag("listen-metrics-urls", Urls, "", Used, "URLs to listen on for /metrics and the health checks alone."),
    flag(
        "quota-backend-bytes",
        Int,
        "0",
        Used,
        "Size of the database, in bytes, past which writes are refused with NOSPACE. 0: 2 GiB. Negative: no limit.",
    ),
    flag("max-txn-ops", Uint, "128", Used, "Most operations in a transaction."),
    flag("max-request-bytes", Uint, "1572864", Used, "Largest request that is accepted, in bytes."),
    flag(
        "max-concurrent-streams",
        Uint32,
        "4294967295",
        Used,
        "Most streams open at a time on a connection. The default stands for 65536 here.",
    ),
    flag(
        "grpc-keepalive-min-time",
        Duration,
        "5s",
        Used,
        "Shortest time between two pings of a client; one that pings more often is disconnected.",
    ),
    flag(
        "grpc-keepalive-interval",
        Duration,
        "2h0m0s",
        Used,
        "Time without traffic after which a client is pinged. 0: never.",
    ),
    flag(
        "grpc-keepalive-timeout",
        Duration,
        "20s",
        Used,
        "Time that a client has to answer a ping before it is disconnected.",
    ),
    flag("socket-reuse-port", Bool, "false", Used, "Lets several processes listen on the same port (SO_REUSEPORT)."),
    flag(
        "socket-reuse-address",
        Bool,
        "false",
        NoEffect("listeners always use SO_REUSEADDR"),
        "Lets the member listen on a port whose old connections are in TIME_WAIT (SO_REUSEADDR).",
    ),
    flag("raft-read-timeout", Duration, "5s", NoEffect(PINGS), "Longest wait for bytes from another member."),
    flag("raft-write-timeout", Duration, "5s", NoEffect(PINGS), "Longest wait for another member to take bytes."),
    flag("backend-batch-interval", Duration, "0s", Used, "Longest time between two flushes of the database. 0: 100ms."),
    flag(
        "backend-batch-limit",
        Int,
        "0",
        NoEffect("flushes go by time and by bytes"),
        "Most operations between two flushes of the database.",
    ),
    flag(
        "backend-bbolt-freelist-type",
        Text,
        "",
        NoEffect("bbolt is not the backend"),
        "How etcd's backend keeps its free pages: array or map.",
    ),
    flag(
        "max-snapshots",
        Uint,
        "5",
        NoEffect("there are no snapshot files"),
        "Most snapshot files to keep. Deprecated in 3.6.",
    ),
    flag(
        "max-wals",
        Uint,
        "5",
        NoEffect("segments are removed as soon as a checkpoint covers them"),
        "Most files of the write-ahead log to keep.",
    ),
    flag(
        "memory-mlock",
        Bool,
        "false",
        Refused("memory is not locked"),
        "Keeps the process's memory from being swapped out.",
    ),
    Flag {
        name: "cache-bytes",
        kind: Uint,
        default: "67108864",
        release: Release::Own,
        support: Used,
        help: "Memory for the latest values of keys, in bytes.",
    },
];
