//! What a partition is for the kernel: the nft rules of one member's namespace.
//!
//! A cut is of packets from one member to another, so that both directions can differ. Without proxies they are dropped where they arrive.
//! With proxies members never see each other's addresses: a connection to `b` is one to the proxy of `b`, and what it carries towards `b`
//! is dropped where it leaves, what a connection of `b` brings from elsewhere where it arrives.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;

/// The port on which members serve clients.
pub const CLIENT_PORT: u16 = 2379;
/// The port on which members serve each other.
pub const PEER_PORT: u16 = 2380;

/// Which packets are lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// From the first slot to the second.
    pub links: BTreeSet<(usize, usize)>,
    /// Slots that clients cannot reach.
    pub clients: BTreeSet<usize>,
}

/// Where things are.
pub struct Map {
    pub host: Ipv4Addr,
    /// By slot.
    pub members: Vec<Ipv4Addr>,
    /// By slot, where the others call it: itself or its proxy.
    pub called_at: Vec<SocketAddrV4>,
}

// === impl Cuts ===

impl Cuts {
    /// Nothing passes between the two sides.
    pub fn between(one: &[usize], other: &[usize]) -> Self {
        let mut cuts = Self::default();
        for a in one {
            for b in other {
                assert_ne!(a, b, "a member on both sides");
                cuts.links.extend([(*a, *b), (*b, *a)]);
            }
        }
        cuts
    }

    /// Nothing passes from the first side to the second; the other way all does.
    pub fn towards(from: &[usize], to: &[usize]) -> Self {
        let mut cuts = Self::between(from, to);
        cuts.links.retain(|(a, _)| from.contains(a));
        cuts
    }
}

/// The whole table of one namespace, which replaces what was there.
pub fn table(slot: usize, map: &Map, cuts: &Cuts) -> String {
    let (mut input, mut output) = (BTreeSet::new(), BTreeSet::new());
    for (from, to) in &cuts.links {
        let direct = map.called_at[*to] == SocketAddrV4::new(map.members[*to], PEER_PORT);
        if direct && *to == slot {
            input.insert(format!("ip saddr {}", map.members[*from]));
        }
        if !direct && *from == slot {
            let proxy = map.called_at[*to];
            output.insert(format!("ip daddr {} tcp dport {}", proxy.ip(), proxy.port()));
        }
        if !direct && *to == slot {
            let proxy = map.called_at[*from];
            input.insert(format!("ip saddr {} tcp sport {}", proxy.ip(), proxy.port()));
        }
    }
    if cuts.clients.contains(&slot) {
        input.insert(format!("ip saddr {} tcp dport {CLIENT_PORT}", map.host));
        output.insert(format!("ip daddr {} tcp sport {CLIENT_PORT}", map.host));
    }
    // Declared first, so that deleting it never fails.
    let mut text = String::from("table ip chaos {}\ndelete table ip chaos\n");
    if input.is_empty() && output.is_empty() {
        return text;
    }
    text.push_str("table ip chaos {\n");
    for (hook, rules) in [("input", input), ("output", output)] {
        let _ = writeln!(text, "  chain {hook} {{\n    type filter hook {hook} priority 0; policy accept;");
        for rule in rules {
            let _ = writeln!(text, "    {rule} counter drop");
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    text
}

/// How many packets the rules in the output of `nft list table` have dropped.
pub fn dropped(listing: &str) -> u64 {
    listing
        .lines()
        .filter_map(|line| line.split_once("counter packets ")?.1.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(proxies: bool) -> Map {
        let host = Ipv4Addr::new(10, 200, 1, 1);
        let members: Vec<Ipv4Addr> = (10..13).map(|last| Ipv4Addr::new(10, 200, 1, last)).collect();
        let called_at = if proxies {
            (0..3).map(|slot| SocketAddrV4::new(host, 7000 + slot)).collect()
        } else {
            members.iter().map(|member| SocketAddrV4::new(*member, PEER_PORT)).collect()
        };
        Map { host, members, called_at }
    }

    #[test]
    fn without_cuts_the_table_is_removed() {
        assert_eq!(table(0, &map(false), &Cuts::default()), "table ip chaos {}\ndelete table ip chaos\n");
        assert_eq!(table(2, &map(false), &Cuts::between(&[0], &[1])), "table ip chaos {}\ndelete table ip chaos\n");
    }

    #[test]
    fn an_isolated_member_hears_nobody_and_nobody_hears_it() {
        let cuts = Cuts::between(&[1], &[0, 2]);
        assert_eq!(
            table(1, &map(false), &cuts),
            "table ip chaos {}\n\
             delete table ip chaos\n\
             table ip chaos {\n  chain input {\n    type filter hook input priority 0; policy accept;\n    \
             ip saddr 10.200.1.10 counter drop\n    ip saddr 10.200.1.12 counter drop\n  }\n  \
             chain output {\n    type filter hook output priority 0; policy accept;\n  }\n}\n"
        );
        for other in [0, 2] {
            let text = table(other, &map(false), &cuts);
            assert!(text.contains("ip saddr 10.200.1.11 counter drop"), "{text}");
            assert_eq!(text.matches("drop").count(), 1, "{text}");
        }
    }

    #[test]
    fn one_way_drops_at_the_receiver_alone() {
        let cuts = Cuts::towards(&[0], &[1, 2]);
        assert!(!table(0, &map(false), &cuts).contains("drop"));
        assert!(table(1, &map(false), &cuts).contains("ip saddr 10.200.1.10 counter drop"));
    }

    #[test]
    fn with_proxies_a_cut_follows_the_connections() {
        let cuts = Cuts::towards(&[0], &[1]);
        // What 0 sends on the connections it has made, and what it answers on those that 1 has made.
        let (sender, receiver) = (table(0, &map(true), &cuts), table(1, &map(true), &cuts));
        assert!(sender.contains("ip daddr 10.200.1.1 tcp dport 7001 counter drop"), "{sender}");
        assert!(receiver.contains("ip saddr 10.200.1.1 tcp sport 7000 counter drop"), "{receiver}");
        assert_eq!((sender.matches("drop").count(), receiver.matches("drop").count()), (1, 1));
        assert!(!table(2, &map(true), &cuts).contains("drop"));
    }

    #[test]
    fn clients_are_cut_both_ways() {
        let cuts = Cuts { clients: [2].into(), ..Cuts::default() };
        let text = table(2, &map(false), &cuts);
        assert!(text.contains("ip saddr 10.200.1.1 tcp dport 2379 counter drop"), "{text}");
        assert!(text.contains("ip daddr 10.200.1.1 tcp sport 2379 counter drop"), "{text}");
    }

    #[test]
    fn counters_are_summed() {
        let listing = "table ip chaos {\n chain input {\n  ip saddr 10.0.0.1 counter packets 12 bytes 720 drop\n  \
                       ip saddr 10.0.0.2 counter packets 3 bytes 180 drop\n }\n}";
        assert_eq!(dropped(listing), 15);
        assert_eq!(dropped(""), 0);
    }
}
