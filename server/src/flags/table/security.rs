//! TLS towards clients and peers, who may call from a browser, and users.

use super::super::Flag;
use super::super::Kind::*;
use super::super::Release;
use super::super::Support;
use super::super::Support::*;
use super::flag;

/// Why certificates are not made between peers.
const NO_AUTO_TLS: Support = Refused("certificates are not made here; give --peer-cert-file and --peer-key-file");
const NO_AUTH: Support = NoEffect("users and roles are not supported yet");

pub const FLAGS: &[Flag] = &[
    flag(
        "cert-file",
        Text,
        "",
        Used,
        "Certificate shown to clients, in PEM with what chains it. Read again when it changes.",
    ),
    flag("key-file", Text, "", Used, "Key of that certificate."),
    flag(
        "client-cert-file",
        Text,
        "",
        NoEffect("the member does not call itself"),
        "Certificate the member shows when it calls its own client port, for the gateway. Empty: --cert-file.",
    ),
    flag(
        "client-key-file",
        Text,
        "",
        NoEffect("the member does not call itself"),
        "Key of that certificate. Empty: --key-file.",
    ),
    flag(
        "client-cert-auth",
        Bool,
        "false",
        Used,
        "Takes only clients with a certificate that --trusted-ca-file vouches for.",
    ),
    flag(
        "trusted-ca-file",
        Text,
        "",
        Used,
        "Authorities that clients' certificates are held to; given, clients must show one.",
    ),
    flag("client-crl-file", Text, "", Used, "List of clients' certificates that are revoked, in PEM or DER."),
    Flag {
        name: "client-cert-allowed-cn",
        kind: List,
        default: "",
        release: Release::Own,
        support: Used,
        help: "Common names, one of which a client's certificate must carry (in etcd a key of the file alone).",
    },
    flag("client-cert-allowed-hostname", List, "", Used, "Host names, one of which a client's certificate must carry."),
    flag(
        "auto-tls",
        Bool,
        "false",
        Refused("certificates are not made here; give --cert-file and --key-file"),
        "TLS towards clients with a certificate made at the first start.",
    ),
    flag("peer-cert-file", Text, "", Used, "Certificate shown to peers that connect."),
    flag("peer-key-file", Text, "", Used, "Key of that certificate."),
    flag(
        "peer-client-cert-file",
        Text,
        "",
        Used,
        "Certificate shown when connecting to peers. Empty: --peer-cert-file.",
    ),
    flag("peer-client-key-file", Text, "", Used, "Key of that certificate. Empty: --peer-key-file."),
    flag(
        "peer-client-cert-auth",
        Bool,
        "false",
        Used,
        "Takes only peers with a certificate that --peer-trusted-ca-file vouches for.",
    ),
    flag("peer-trusted-ca-file", Text, "", Used, "Authorities that peers' certificates are held to."),
    flag("peer-crl-file", Text, "", Used, "Peers' certificates that are revoked."),
    flag("peer-cert-allowed-cn", List, "", Used, "Common names, one of which a peer's certificate must carry."),
    flag("peer-cert-allowed-hostname", List, "", Used, "Host names, one of which a peer's certificate must carry."),
    flag(
        "peer-skip-client-san-verification",
        Bool,
        "false",
        NoEffect("the address of a peer that connects is never held against its certificate"),
        "Does not check that a peer's address is in its certificate.",
    ),
    flag("peer-auto-tls", Bool, "false", NO_AUTO_TLS, "TLS between peers with a certificate made at the first start."),
    flag(
        "self-signed-cert-validity",
        Uint,
        "1",
        NoEffect("it goes with --auto-tls and --peer-auto-tls, which are not supported"),
        "Years that certificates made at the first start are valid.",
    ),
    flag(
        "cipher-suites",
        List,
        "",
        Used,
        "TLS 1.2 cipher suites to offer, by their IANA names. Empty: all that are good.",
    ),
    flag("tls-min-version", Text, "TLS1.2", Used, "Lowest version of TLS."),
    flag("tls-max-version", Text, "", Used, "Highest version of TLS. Empty: 1.3."),
    flag("cors", Origins, "*", Used, "Origins whose pages a browser lets call this member. * or empty: all."),
    flag(
        "host-whitelist",
        Set,
        "*",
        Refused("the Host header is not checked"),
        "Host names that HTTP requests without TLS must be addressed to.",
    ),
];

pub const AUTH: &[Flag] = &[
    flag("auth-token", Text, "simple", NO_AUTH, "Kind of tokens: simple, or jwt with its options."),
    flag("auth-token-ttl", Uint, "300", NO_AUTH, "Seconds that a simple token is valid after its last use."),
    flag("bcrypt-cost", Uint, "10", NO_AUTH, "Work factor of the passwords' hash, 4 to 31."),
];
