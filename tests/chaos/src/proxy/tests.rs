use super::*;
use crate::links::Condition;
use std::io::ErrorKind;
use std::io::Read as _;
use std::io::Write as _;
use std::time::Instant;

const LIMIT: Duration = Duration::from_secs(20);

/// Slot 0 calls slot 1, which answers with what it gets.
struct Lab {
    proxy: Proxy,
    links: Arc<Links>,
}

fn lab() -> Lab {
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(target) = echo.local_addr().unwrap() else { panic!("IPv6") };
    std::thread::spawn(move || {
        for stream in echo.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n) = stream.read(&mut buffer)
                    && n > 0
                    && stream.write_all(&buffer[..n]).is_ok()
                {}
            });
        }
    });
    let links = Arc::new(Links::new(2));
    let front = Front { slot: 1, target, members: vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 9, 9, 9)] };
    Lab { proxy: Proxy::new(Ipv4Addr::LOCALHOST, front, links.clone()).unwrap(), links }
}

impl Lab {
    fn call(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }
}

fn echoed(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    back
}

#[test]
fn bytes_pass_unchanged_and_in_order() {
    let lab = lab();
    let mut stream = lab.call();
    let sent: Vec<u8> = (0..300_000_u32).map(|n| (n * 7 + n / 256) as u8).collect();
    let mut reader = stream.try_clone().unwrap();
    let length = sent.len();
    let back = std::thread::spawn(move || {
        let mut back = vec![0; length];
        reader.read_exact(&mut back).map(|()| back)
    });
    stream.write_all(&sent).unwrap();
    assert_eq!(back.join().unwrap().unwrap(), sent);
    assert_eq!(lab.links.counters.corrupted.load(Ordering::Relaxed), 0);
}

#[test]
fn the_end_of_one_direction_is_passed_on() {
    let lab = lab();
    let mut stream = lab.call();
    stream.write_all(b"last words").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"last words");
}

#[test]
fn delay_holds_both_directions_and_ends_with_the_fault() {
    let lab = lab();
    let mut stream = lab.call();
    lab.links.set_around(&[1], Condition { delay: Duration::from_millis(150), ..Condition::default() });
    let start = Instant::now();
    assert_eq!(echoed(&mut stream, b"ping"), b"ping");
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert!(lab.links.counters.delayed.load(Ordering::Relaxed) >= 2);
    lab.links.set_all(Condition::default());
    let delayed = lab.links.counters.delayed.load(Ordering::Relaxed);
    assert_eq!(echoed(&mut stream, b"pong"), b"pong");
    assert_eq!(lab.links.counters.delayed.load(Ordering::Relaxed), delayed);
}

#[test]
fn a_throttled_link_takes_its_time() {
    let lab = lab();
    let mut stream = lab.call();
    lab.links.set_around(&[1], Condition { bytes_per_s: Some(40_000), ..Condition::default() });
    let start = Instant::now();
    assert_eq!(echoed(&mut stream, &[7; 4000]), [7; 4000]);
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
}

#[test]
fn corruption_flips_bits_and_changes_no_length() {
    let lab = lab();
    let mut stream = lab.call();
    lab.links.set_around(&[1], Condition { corrupt_every: Some(1), ..Condition::default() });
    assert_ne!(echoed(&mut stream, &[0; 64]), [0; 64]);
    let count = lab.links.counters.corrupted.load(Ordering::Relaxed);
    assert!(count >= 2, "{count}");
    drop(stream);
    let start = Instant::now();
    while lab.links.counters.ended_after_corruption.load(Ordering::Relaxed) == 0 {
        assert!(start.elapsed() < LIMIT, "the end of a corrupted connection is not counted");
        std::thread::yield_now();
    }
}

#[test]
fn a_reset_reaches_the_caller_and_the_next_call_passes() {
    let lab = lab();
    let mut stream = lab.call();
    assert_eq!(echoed(&mut stream, b"up"), b"up");
    lab.links.reset(&[0]);
    let error = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(lab.links.counters.reset.load(Ordering::Relaxed), 1);
    assert_eq!(echoed(&mut lab.call(), b"again"), b"again");
}

#[test]
fn a_reset_is_not_kept_waiting_by_a_delay() {
    let lab = lab();
    let mut stream = lab.call();
    assert_eq!(echoed(&mut stream, b"up"), b"up");
    lab.links.set_all(Condition { delay: Duration::from_secs(600), ..Condition::default() });
    stream.write_all(b"never").unwrap();
    while lab.links.counters.delayed.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    lab.links.reset(&[0, 1]);
    assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn strangers_are_refused() {
    let lab = lab();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
    socket.connect(&lab.proxy.address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
    assert_eq!(lab.links.counters.connections.load(Ordering::Relaxed), 0);
}
