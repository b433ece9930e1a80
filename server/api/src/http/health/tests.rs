//! The bodies and codes that probes and people read.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body::Body as _;
use prometheus::Registry;

use super::*;

#[derive(Default, Clone)]
struct Member {
    alarms: Vec<i32>,
    leaderless: bool,
    learner: bool,
    local_fails: bool,
    quorum_fails: bool,
}

impl Probe for Member {
    fn alarms(&self) -> Vec<i32> {
        self.alarms.clone()
    }

    fn has_leader(&self) -> bool {
        !self.leaderless
    }

    fn is_learner(&self) -> bool {
        self.learner
    }

    async fn read(&self, serializable: bool) -> Result<(), Status> {
        let fails = if serializable { self.local_fails } else { self.quorum_fails };
        if fails { Err(status::TIMEOUT) } else { Ok(()) }
    }
}

fn body(response: Response<Body>) -> (u16, String) {
    let (parts, mut body) = response.into_parts();
    let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).now_or_never().unwrap();
    let bytes = frame.map_or(Bytes::new(), |frame| frame.unwrap().into_data().unwrap());
    (parts.status.as_u16(), String::from_utf8(bytes.to_vec()).unwrap())
}

fn ask(member: &Member, path: &str) -> (u16, String) {
    let metrics = Metrics::register(&Registry::new(), false, Duration::ZERO, "test").unwrap();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    assert!(is_health(path), "{path}");
    let health = Health { probe: member.clone(), metrics: &metrics };
    body(health.respond(path, query).now_or_never().unwrap())
}

#[test]
fn health_of_a_healthy_member() {
    assert_eq!(ask(&Member::default(), "/health"), (200, r#"{"health":"true","reason":""}"#.into()));
}

#[test]
fn health_names_the_first_reason() {
    let unhealthy = |member: &Member, path: &str| {
        let (code, body) = ask(member, path);
        assert_eq!(code, 503);
        serde_json::from_str::<serde_json::Value>(&body).unwrap()["reason"].as_str().unwrap().to_owned()
    };
    let nospace = Member { alarms: vec![AlarmType::Nospace as i32], ..Default::default() };
    assert_eq!(unhealthy(&nospace, "/health"), "ALARM NOSPACE");
    assert_eq!(ask(&nospace, "/health").1, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n");
    assert_eq!(ask(&nospace, "/health?exclude=NOSPACE").0, 200);
    let both = Member { alarms: vec![AlarmType::Nospace as i32, AlarmType::Corrupt as i32], ..Default::default() };
    assert_eq!(unhealthy(&both, "/health?exclude=NOSPACE"), "ALARM CORRUPT");
    assert_eq!(ask(&both, "/health?exclude=NOSPACE&exclude=CORRUPT").0, 200);
    assert_eq!(unhealthy(&Member { alarms: vec![77], ..Default::default() }, "/health"), "ALARM UNKNOWN");
    let leaderless = Member { leaderless: true, quorum_fails: true, ..Default::default() };
    assert_eq!(unhealthy(&leaderless, "/health"), "RAFT NO LEADER");
    assert_eq!(ask(&leaderless, "/health?serializable=true").0, 200);
    assert_eq!(
        unhealthy(&Member { quorum_fails: true, ..Default::default() }, "/health"),
        "RANGE ERROR:etcdserver: request timed out"
    );
}

#[test]
fn livez_reads_locally_and_readyz_asks_the_quorum() {
    let cut_off = Member { quorum_fails: true, ..Default::default() };
    assert_eq!(ask(&cut_off, "/livez"), (200, "ok\n".into()));
    assert_eq!(ask(&cut_off, "/livez?verbose"), (200, "[+]serializable_read ok\nok\n".into()));
    let (code, lines) = ask(&cut_off, "/readyz");
    assert_eq!(code, 503);
    assert_eq!(
        lines,
        "[+]data_corruption ok\n[+]serializable_read ok\n[-]linearizable_read failed: etcdserver: request timed out\n\
         [+]non_learner ok\n\n"
    );
    assert_eq!(ask(&cut_off, "/readyz?exclude=linearizable_read"), (200, "ok\n".into()));
    assert_eq!(ask(&Member { local_fails: true, ..Default::default() }, "/livez").0, 503);
}

#[test]
fn readyz_fails_for_corruption_and_learners_but_not_for_nospace() {
    assert_eq!(ask(&Member { alarms: vec![AlarmType::Nospace as i32], ..Default::default() }, "/readyz").0, 200);
    let corrupt = Member { alarms: vec![AlarmType::Corrupt as i32], ..Default::default() };
    assert_eq!(ask(&corrupt, "/readyz/data_corruption").1, "[-]data_corruption failed: alarm activated: CORRUPT\n\n");
    assert_eq!(ask(&corrupt, "/readyz/serializable_read"), (200, "ok\n".into()));
    assert_eq!(ask(&Member { learner: true, ..Default::default() }, "/readyz/non_learner").0, 503);
}

#[test]
fn only_known_checks_have_a_path() {
    assert!(is_health("/readyz/linearizable_read"));
    for path in ["/livez/linearizable_read", "/readyz/", "/readyz/nothing", "/livezz", "/healthz"] {
        assert!(!is_health(path), "{path}");
    }
}
