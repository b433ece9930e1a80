//! What the member says of itself: logs, metrics, traces, profiles.

use super::super::Flag;
use super::super::Kind::*;
use super::super::Support;
use super::super::Support::*;
use super::flag;

const NO_TRACING: Support = NoEffect("it goes with --enable-distributed-tracing, which is not supported");

pub const FLAGS: &[Flag] = &[
    flag("logger", Text, "zap", Used, "Kind of the logger; zap (lines of JSON) is the only one."),
    flag(
        "log-outputs",
        Set,
        "default",
        Used,
        "Where log lines go: default or stderr, stdout, or paths of files, which are appended to.",
    ),
    flag("log-level", Text, "info", Used, "Lowest level to log: debug, info, warn, error, panic or fatal."),
    flag("log-format", Text, "json", Used, "Form of a log line: json or console."),
    flag(
        "enable-log-rotation",
        Bool,
        "false",
        Refused("log files are not rotated; truncating one from outside (logrotate's copytruncate) works"),
        "Rotates the log file.",
    ),
    flag(
        "log-rotation-config-json",
        Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        NoEffect("it goes with --enable-log-rotation, which is not supported"),
        "How the log file is rotated.",
    ),
];

pub const OBSERVING: &[Flag] = &[
    flag("metrics", Text, "basic", Used, "basic, or extensive: adds histograms of the time gRPC calls take."),
    flag(
        "warning-apply-duration",
        Duration,
        "100ms",
        Used,
        "Applying an entry for longer than this is logged as a warning.",
    ),
    flag(
        "warning-unary-request-duration",
        Duration,
        "300ms",
        Used,
        "A request that takes longer than this is logged as a warning. 0: 300ms.",
    ),
    flag(
        "enable-pprof",
        Bool,
        "false",
        NoEffect("there are no Go profiles"),
        "Serves profiles of the process at /debug/pprof/.",
    ),
    flag(
        "enable-grpc-gateway",
        Bool,
        "true",
        NoEffect("the JSON gateway is not served yet"),
        "Serves the API as JSON at /v3/.",
    ),
    flag(
        "enable-distributed-tracing",
        Bool,
        "false",
        Refused("traces are not sent"),
        "Sends traces to an OpenTelemetry collector.",
    ),
    flag("distributed-tracing-address", Text, "localhost:4317", NO_TRACING, "Address of the collector."),
    flag("distributed-tracing-service-name", Text, "etcd", NO_TRACING, "Name of the service in traces."),
    flag("distributed-tracing-instance-id", Text, "", NO_TRACING, "Id of this member in traces."),
    flag("distributed-tracing-sampling-rate", Int, "0", NO_TRACING, "Traces to send of a million."),
];
