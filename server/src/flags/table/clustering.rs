//! How the members of a cluster find each other, and what they are to their clients.

use super::super::Flag;
use super::super::Kind::*;
use super::super::Release;
use super::super::Support;
use super::super::Support::*;
use super::flag;
use super::only_36;

/// Why discovery is refused.
const NO_DISCOVERY: Support = Refused("members are found by --initial-cluster, --discovery-srv or --join");
const GOES_WITH_DISCOVERY: Support = NoEffect("it goes with --discovery-endpoints, which is not supported");

pub const FLAGS: &[Flag] = &[
    flag(
        "initial-advertise-peer-urls",
        Urls,
        "http://localhost:2380",
        Used,
        "URLs under which the other members reach this one.",
    ),
    flag(
        "advertise-client-urls",
        Urls,
        "http://localhost:2379",
        Used,
        "URLs under which clients reach this member; needed when --listen-client-urls is given.",
    ),
    flag(
        "initial-cluster",
        Text,
        "default=http://localhost:2380",
        Used,
        "The members a new cluster begins with, as name=url,name=url; a name with several URLs comes several times.",
    ),
    flag(
        "initial-cluster-state",
        Choice(&["new", "existing"]),
        "new",
        Used,
        "new: begins a cluster. existing: joins one. Not read once the member has data.",
    ),
    flag(
        "initial-cluster-token",
        Text,
        "etcd-cluster",
        Used,
        "Makes the ids of a new cluster and of its members differ from those of clusters with the same members.",
    ),
    flag("strict-reconfig-check", Bool, "true", Used, "Refuses changes of the membership that would lose the quorum."),
    flag(
        "pre-vote",
        Bool,
        "true",
        Used,
        "Asks whether an election could be won before calling it, so that a member coming back disturbs nobody.",
    ),
    flag("max-learners", Int, "1", Used, "Most learners in the cluster."),
    Flag {
        name: "join",
        kind: Urls,
        default: "",
        release: Release::Own,
        support: Used,
        help: "Peer URLs of a cluster to join: who its members are, and who this one is, they say. The initial cluster is not read then.",
    },
    Flag {
        name: "lease-reads",
        kind: Bool,
        default: "false",
        release: Release::Own,
        support: Used,
        help: "Linearizable reads trust the leader's lease instead of asking a quorum each time. For all members or none; the machines' clocks are to run equally fast, and on while they are suspended.",
    },
    flag(
        "feature-gates",
        FeatureGates,
        "",
        Used,
        "Switches features, as Name=true,Name=false; which ones have an effect is in docs/flags.md.",
    ),
];

pub const DISCOVERY: &[Flag] = &[
    flag("discovery-endpoints", Set, "", NO_DISCOVERY, "Addresses of a discovery service."),
    flag("discovery-token", Text, "", NO_DISCOVERY, "Token of the cluster at the discovery service."),
    flag("discovery-srv", Text, "", Used, "DNS domain whose SRV records name the members."),
    flag("discovery-srv-name", Text, "", Used, "Suffix of the service's name in those SRV records."),
    flag(
        "discovery-fallback",
        Choice(&["exit", "proxy"]),
        "exit",
        Refused("there is no proxy mode, in etcd neither"),
        "What to do when discovery fails.",
    ),
    flag("discovery-dial-timeout", Duration, "2s", GOES_WITH_DISCOVERY, "Longest wait for a connection."),
    flag("discovery-request-timeout", Duration, "5s", GOES_WITH_DISCOVERY, "Longest wait for an answer."),
    flag("discovery-keepalive-time", Duration, "2s", GOES_WITH_DISCOVERY, "Time between two pings."),
    flag("discovery-keepalive-timeout", Duration, "6s", GOES_WITH_DISCOVERY, "Longest wait for a ping's answer."),
    flag("discovery-insecure-transport", Bool, "true", GOES_WITH_DISCOVERY, "Talks to the service without TLS."),
    flag(
        "discovery-insecure-skip-tls-verify",
        Bool,
        "false",
        GOES_WITH_DISCOVERY,
        "Does not verify the service's certificate.",
    ),
    flag("discovery-cert", Text, "", GOES_WITH_DISCOVERY, "Certificate shown to the service."),
    flag("discovery-key", Text, "", GOES_WITH_DISCOVERY, "Key of that certificate."),
    flag("discovery-cacert", Text, "", GOES_WITH_DISCOVERY, "Authorities that the service's certificate is held to."),
    flag("discovery-user", Text, "", GOES_WITH_DISCOVERY, "User at the service."),
    flag("discovery-password", Text, "", GOES_WITH_DISCOVERY, "Password at the service."),
    only_36(flag("discovery", Text, "", NO_DISCOVERY, "URL of a discovery service of version 2.")),
    only_36(flag("discovery-proxy", Text, "", NO_DISCOVERY, "HTTP proxy on the way to that service.")),
];
