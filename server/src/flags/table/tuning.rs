//! Compaction, checks between members, and what is unsafe.

use super::super::Flag;
use super::super::Kind::*;
use super::super::Support::*;
use super::flag;

pub const FLAGS: &[Flag] = &[
    flag(
        "auto-compaction-mode",
        Text,
        "periodic",
        Used,
        "How --auto-compaction-retention is read: periodic (as a time) or revision (as a number of revisions).",
    ),
    flag(
        "auto-compaction-retention",
        Text,
        "0",
        Used,
        "History to keep: a duration such as 30m, a bare number of hours, or a number of revisions. 0: all of it.",
    ),
    flag("compaction-batch-limit", Int, "0", Used, "Most revisions that a compaction deletes in one step. 0: 1000."),
    flag("compaction-sleep-interval", Duration, "0s", Used, "Pause between two steps of a compaction. 0: 10ms."),
    flag(
        "watch-progress-notify-interval",
        Duration,
        "0s",
        Used,
        "Time without events after which a watch that asks for it hears of the progress. 0: 10m.",
    ),
    flag("corrupt-check-time", Duration, "0s", Used, "Time between two comparisons of the members' data. 0: none."),
    flag(
        "compact-hash-check-time",
        Duration,
        "1m0s",
        Used,
        "Time between two comparisons of the members' compacted data.",
    ),
    flag(
        "downgrade-check-time",
        Duration,
        "5s",
        Used,
        "Time between two looks at whether a downgrade is done. 0: it is ended by hand.",
    ),
    flag(
        "bootstrap-defrag-threshold-megabytes",
        Uint,
        "0",
        NoEffect("the database is not defragmented at the start; Defragment does not stop reads and writes"),
        "Defragments the database at the start if that frees at least so many megabytes. 0: never.",
    ),
];

pub const UNSAFE: &[Flag] = &[
    flag(
        "unsafe-no-fsync",
        Bool,
        "false",
        Used,
        "Does not wait for the disk: what was acknowledged is lost when the machine goes down.",
    ),
    flag(
        "force-new-cluster",
        Bool,
        "false",
        Used,
        "Makes a cluster of this member alone out of its data, for good: when the others are lost.",
    ),
];
