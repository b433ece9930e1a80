//! SRV records (RFC 2782) from the servers that `/etc/resolv.conf` names. The system's own resolver has no call for them; host names are
//! left to it.
//!
//! Only for the first start of a member: blocking, and without a cache. What comes back is not believed unread.

use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use garboard_runtime::clock;
use garboard_runtime::random;
use garboard_storage::disk::Disk;
use simple_dns::CLASS;
use simple_dns::Name;
use simple_dns::Packet;
use simple_dns::PacketFlag;
use simple_dns::Question;
use simple_dns::RCODE;
use simple_dns::TYPE;
use simple_dns::rdata::RData;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const RESOLV_CONF_BYTES_MAX: usize = 64 << 10;
const DNS_PORT: u16 = 53;
/// What fits one datagram when nothing larger was agreed on (RFC 1035, 4.2.1); answers that are longer come by TCP.
const DATAGRAM_BYTES_MAX: usize = 512;
/// Attempts and seconds beyond these are taken for these, as resolv.conf(5) has it.
const ATTEMPTS_MAX: u32 = 5;
const TIMEOUT_S_MAX: u32 = 30;

/// Why there are no records.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("lookup {name} on {server}: no such host")]
    NoSuchHost { name: String, server: SocketAddr },
    #[error("lookup {name} on {server}: {why}")]
    Failed { name: String, server: SocketAddr, why: String },
    #[error("lookup {name}: it is no domain name")]
    Name { name: String },
    #[error("{RESOLV_CONF}: {0}")]
    Config(String),
}

/// One record: a service's host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// Without the dot at its end.
    pub target: String,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    /// Domains to look in for a name that is not found as it is.
    search: Vec<String>,
    timeout: Duration,
    attempts: u32,
}

/// One answer that makes sense.
enum Answer {
    Records(Vec<Srv>),
    NoSuchHost,
    Truncated,
}

// === impl Resolver ===

impl Resolver {
    /// As this machine is configured.
    ///
    /// # Errors
    /// The configuration cannot be read. When there is none, the resolver of this machine is asked (resolv.conf(5)).
    pub fn of_system(disk: &dyn Disk) -> Result<Self, DnsError> {
        let path = Path::new(RESOLV_CONF);
        let config = |error: io::Error| DnsError::Config(error.to_string());
        let text = if disk.exists(path).map_err(config)? {
            disk.read(path, RESOLV_CONF_BYTES_MAX).map_err(config)?
        } else {
            Vec::new()
        };
        Ok(Self::of(&text))
    }

    /// Lines that make no sense are passed over, as the system's own resolver does.
    fn of(text: &[u8]) -> Self {
        let (config, _) = resolv_conf::Config::parse_with_errors(text);
        let mut servers: Vec<SocketAddr> =
            config.nameservers.iter().map(|server| SocketAddr::new(IpAddr::from(server), DNS_PORT)).collect();
        if servers.is_empty() {
            servers.push(SocketAddr::from(([127, 0, 0, 1], DNS_PORT)));
        }
        Self {
            servers,
            search: config.get_last_search_or_domain().cloned().collect(),
            timeout: Duration::from_secs(config.timeout.clamp(1, TIMEOUT_S_MAX).into()),
            attempts: config.attempts.clamp(1, ATTEMPTS_MAX),
        }
    }

    /// The records of `name`, the preferred ones first; at least one.
    ///
    /// # Errors
    /// There are none, or no server tells.
    pub fn srv(&self, name: &str) -> Result<Vec<Srv>, DnsError> {
        let mut result = self.srv_of(name);
        if !name.ends_with('.') {
            for domain in &self.search {
                if !matches!(result, Err(DnsError::NoSuchHost { .. })) {
                    break;
                }
                if let Ok(found) = self.srv_of(&format!("{name}.{domain}")) {
                    result = Ok(found);
                }
            }
        }
        result
    }

    /// Each server in its turn, until one knows.
    fn srv_of(&self, name: &str) -> Result<Vec<Srv>, DnsError> {
        let mut last = None;
        for _ in 0..self.attempts {
            for server in &self.servers {
                match self.ask(name, *server) {
                    Ok(Some(mut records)) => {
                        records.sort();
                        return Ok(records);
                    }
                    Ok(None) => return Err(DnsError::NoSuchHost { name: name.to_owned(), server: *server }),
                    Err(Unanswered::Name) => return Err(DnsError::Name { name: name.to_owned() }),
                    Err(Unanswered::Why(why)) => {
                        last = Some(DnsError::Failed { name: name.to_owned(), server: *server, why });
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| DnsError::Config("no server to ask".to_owned())))
    }

    /// Asks one server; `None` when there are no such records.
    fn ask(&self, name: &str, server: SocketAddr) -> Result<Option<Vec<Srv>>, Unanswered> {
        let id = random::u64().map_err(|error| Unanswered::Why(error.to_string()))? as u16;
        let query = query(id, name).map_err(|_| Unanswered::Name)?;
        let answer = match self.by_datagram(&query, id, name, server)? {
            Answer::Truncated => self.by_stream(&query, id, name, server)?,
            answer => answer,
        };
        match answer {
            Answer::Records(records) => Ok(Some(records)),
            Answer::NoSuchHost => Ok(None),
            Answer::Truncated => Err(Unanswered::Why("the answer is cut short".to_owned())),
        }
    }

    fn by_datagram(&self, query: &[u8], id: u16, name: &str, server: SocketAddr) -> Result<Answer, Unanswered> {
        let any = if server.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let socket = UdpSocket::bind((any, 0))?;
        // Datagrams of others do not arrive.
        socket.connect(server)?;
        socket.send(query)?;
        let deadline = clock::now() + self.timeout;
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(Unanswered::Why("i/o timeout".to_owned()));
            }
            socket.set_read_timeout(Some(left))?;
            let len = socket.recv(&mut bytes)?;
            // What is no answer to this question may be a late one, or a forged one.
            if let Some(answer) = answer(&bytes[..len], id, name) {
                return answer.map_err(Unanswered::Why);
            }
        }
    }

    fn by_stream(&self, query: &[u8], id: u16, name: &str, server: SocketAddr) -> Result<Answer, Unanswered> {
        let mut stream = TcpStream::connect_timeout(&server, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let len = u16::try_from(query.len()).map_err(|_| Unanswered::Name)?;
        stream.write_all(&[&len.to_be_bytes(), query].concat())?;
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut bytes = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut bytes)?;
        let answer = answer(&bytes, id, name).unwrap_or_else(|| Err("this answers another question".to_owned()));
        answer.map_err(Unanswered::Why)
    }
}

enum Unanswered {
    Name,
    Why(String),
}

impl From<io::Error> for Unanswered {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Why("i/o timeout".to_owned()),
            _ => Self::Why(error.to_string()),
        }
    }
}

fn query(id: u16, name: &str) -> Result<Vec<u8>, simple_dns::SimpleDnsError> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name.trim_end_matches('.'))?;
    packet.questions.push(Question::new(name, TYPE::SRV.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec()
}

/// What the bytes say; `None` when they do not answer this question.
fn answer(bytes: &[u8], id: u16, name: &str) -> Option<Result<Answer, String>> {
    let packet = match Packet::parse(bytes) {
        Ok(packet) => packet,
        // It may be ours, and nobody else would send it.
        Err(error) => return Some(Err(format!("the answer cannot be read: {error:?}"))),
    };
    let asked = packet.questions.first()?;
    let is_ours = asked.qname.to_string().eq_ignore_ascii_case(name.trim_end_matches('.'));
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !is_ours {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Ok(Answer::Truncated));
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Some(Ok(Answer::NoSuchHost)),
        other => return Some(Err(format!("server misbehaving: {other:?}"))),
    }
    let records = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::SRV(srv) => Some(Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_string().trim_end_matches('.').to_owned(),
        }),
        _ => None,
    });
    // The root as a target: decidedly no such service here (RFC 2782).
    let records: Vec<Srv> = records.filter(|srv| !srv.target.is_empty()).collect();
    Some(Ok(if records.is_empty() { Answer::NoSuchHost } else { Answer::Records(records) }))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use garboard_runtime::spawn;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;

    use super::*;

    const NAME: &str = "_etcd-server._tcp.example.test";

    #[test]
    fn the_systems_configuration() {
        let resolver =
            Resolver::of(b"# c\nnameserver 10.0.0.1\nnameserver fe80::1\nsearch a.test b.test\noptions timeout:3 attempts:9\nnonsense\n");
        assert_eq!(resolver.servers, ["10.0.0.1:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()]);
        assert_eq!(resolver.search, ["a.test", "b.test"]);
        assert_eq!((resolver.timeout, resolver.attempts), (Duration::from_secs(3), 5));
        assert_eq!(Resolver::of(b"").servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    /// What a server says, from id and question.
    type Say = fn(u16, &Question<'_>) -> Vec<u8>;

    fn reply(id: u16, question: &Question<'_>, records: u16, flags: PacketFlag, rcode: RCODE) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        packet.set_flags(flags);
        *packet.rcode_mut() = rcode;
        packet.questions.push(question.clone());
        for n in 0..records {
            let target = Name::new("a.example.test").unwrap();
            let srv = SRV { priority: 9 - n % 9, weight: 0, port: 2380 + n, target };
            packet.answers.push(ResourceRecord::new(question.qname.clone(), CLASS::IN, 60, RData::SRV(srv)));
        }
        packet.build_bytes_vec().unwrap()
    }

    /// A server that answers each question by datagram and by stream.
    fn server(by_datagram: Say, by_stream: Say) -> Resolver {
        // A port that is free for datagrams may be taken for streams.
        let (socket, listener) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()) {
                break (socket, listener);
            }
        };
        let address = socket.local_addr().unwrap();
        let said = |bytes: &[u8], say: Say| {
            let packet = Packet::parse(bytes).unwrap();
            say(packet.id(), &packet.questions[0])
        };
        spawn::thread("dns-udp", move || {
            let mut bytes = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut bytes) {
                socket.send_to(&said(&bytes[..len], by_datagram), from).unwrap();
            }
        })
        .unwrap();
        spawn::thread("dns-tcp", move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut bytes = [0; 512];
                stream.read_exact(&mut bytes[..2]).unwrap();
                let len = u16::from_be_bytes([bytes[0], bytes[1]]).into();
                stream.read_exact(&mut bytes[..len]).unwrap();
                let answer = said(&bytes[..len], by_stream);
                let len = u16::try_from(answer.len()).unwrap();
                stream.write_all(&[&len.to_be_bytes(), &answer[..]].concat()).unwrap();
            }
        })
        .unwrap();
        Resolver { servers: vec![address], search: Vec::new(), timeout: Duration::from_millis(300), attempts: 1 }
    }

    #[test]
    fn records_come_in_the_order_of_their_priorities() {
        let resolver = server(|id, q| reply(id, q, 3, PacketFlag::empty(), RCODE::NoError), |_, _| Vec::new());
        let found = resolver.srv(NAME).unwrap();
        assert_eq!(found.iter().map(|srv| srv.port).collect::<Vec<_>>(), [2382, 2381, 2380]);
        assert_eq!(found[0].target, "a.example.test");
    }

    #[test]
    fn what_does_not_fit_a_datagram_comes_by_stream() {
        let resolver = server(
            |id, q| reply(id, q, 0, PacketFlag::TRUNCATION, RCODE::NoError),
            |id, q| reply(id, q, 40, PacketFlag::empty(), RCODE::NoError),
        );
        assert_eq!(resolver.srv(NAME).unwrap().len(), 40);
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let none = |_: u16, _: &Question<'_>| Vec::new();
        for (say, expected) in [
            ((|id, q| reply(id, q, 0, PacketFlag::empty(), RCODE::NameError)) as Say, "no such host"),
            (|id, q| reply(id, q, 0, PacketFlag::empty(), RCODE::NoError), "no such host"),
            (|id, q| reply(id, q, 0, PacketFlag::empty(), RCODE::ServerFailure), "server misbehaving: ServerFailure"),
            // Another question's, and another name's.
            (|id, q| reply(id.wrapping_add(1), q, 1, PacketFlag::empty(), RCODE::NoError), "i/o timeout"),
            (
                |id, q| {
                    let other = Question { qname: Name::new("other.test").unwrap(), ..q.clone() };
                    reply(id, &other, 1, PacketFlag::empty(), RCODE::NoError)
                },
                "i/o timeout",
            ),
            (|_, _| vec![1, 2, 3], "cannot be read"),
            (|id, q| reply(id, q, 0, PacketFlag::TRUNCATION, RCODE::NoError), "file"),
        ] {
            let error = server(say, none).srv(NAME).unwrap_err().to_string();
            let ends_early = expected == "file" && error.contains("cannot be read");
            assert!(error.contains(expected) || ends_early, "{error}");
            assert!(error.starts_with("lookup _etcd-server._tcp.example.test on 127.0.0.1:"), "{error}");
        }
        let nameless = server(|_, _| Vec::new(), none).srv(&"x".repeat(64)).unwrap_err();
        assert!(matches!(nameless, DnsError::Name { .. }), "{nameless}");
    }

    /// Every bit flipped, every length: whatever is read, nothing panics, and a target is never empty.
    #[test]
    fn no_bytes_from_a_server_do_harm() {
        let name = Name::new(NAME).unwrap();
        let question = Question::new(name, TYPE::SRV.into(), CLASS::IN.into(), false);
        let whole = reply(7, &question, 4, PacketFlag::empty(), RCODE::NoError);
        let mut read = 0;
        let mut look = |bytes: &[u8]| {
            if let Some(Ok(Answer::Records(records))) = answer(bytes, 7, NAME) {
                assert!(records.iter().all(|srv| !srv.target.is_empty()));
                read += 1;
            }
        };
        for len in 0..whole.len() {
            look(&whole[..len]);
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            look(&bytes);
            // And a name that points anywhere.
            bytes[bit / 8] = 0xc0;
            look(&bytes);
        }
        assert!(read > 100, "{read}");
    }

    #[test]
    fn a_name_that_is_not_found_is_looked_for_in_the_search_list() {
        let mut resolver = server(
            |id, q| {
                let known = q.qname.to_string().ends_with(".example.test");
                let rcode = if known { RCODE::NoError } else { RCODE::NameError };
                reply(id, q, u16::from(known), PacketFlag::empty(), rcode)
            },
            |_, _| Vec::new(),
        );
        assert!(resolver.srv("_etcd-server._tcp").is_err());
        resolver.search = vec!["other.test".to_owned(), "example.test".to_owned()];
        assert_eq!(resolver.srv("_etcd-server._tcp").unwrap().len(), 1);
        assert!(resolver.srv("_etcd-server._tcp.").is_err(), "a dot at the end says that the name is whole");
    }
}
