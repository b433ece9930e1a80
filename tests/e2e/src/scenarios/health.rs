//! The HTTP endpoints that probes use, on the client URL and on the metrics URL.

use anyhow::ensure;
use serde_json::Value;

use crate::etcdctl::Etcdctl;
use crate::http::Http;
use crate::scenario::Lab;
use crate::server::Member;
use crate::server::free_port;

pub fn health(lab: &Lab) -> anyhow::Result<u32> {
    let metrics_url = format!("http://127.0.0.1:{}", free_port()?);
    let server = Member::new(lab, "server")?.with(format!("--listen-metrics-urls={metrics_url}")).start()?;
    let http = Http::new();
    let mut checks = 0;
    for base in [server.url(), metrics_url.as_str()] {
        checks += healthy(&http, base)?;
    }
    let version = http.get(&format!("{}/version", server.url()))?;
    let json: Value = serde_json::from_str(&version.body)?;
    for key in ["etcdserver", "etcdcluster", "storage"] {
        ensure!(json[key].as_str().is_some_and(|v| v.starts_with("3.")), "/version has no {key}: {}", version.body);
    }
    ensure!(http.get(&format!("{metrics_url}/version"))?.status == 404, "/version is on the metrics URL");
    let missing = http.get(&format!("{}/no/such/path", server.url()))?;
    ensure!(missing.status == 404 && missing.body.trim() == "404 page not found", "an unknown path gives {missing:?}");
    checks += 3 + alarmed(lab, &http, server.url(), &metrics_url)?;
    Ok(checks)
}

fn healthy(http: &Http, base: &str) -> anyhow::Result<u32> {
    let get = |path: &str| http.get(&format!("{base}{path}"));
    let answer = get("/health")?;
    ensure!(answer.status == 200 && answer.body == r#"{"health":"true","reason":""}"#, "{base}/health: {answer:?}");
    ensure!(get("/health?serializable=true&exclude=NOSPACE")?.status == 200);
    let posted = http.post(&format!("{base}/health"), &Value::Null)?;
    ensure!(posted.status == 405 && posted.allow == "GET", "POST {base}/health: {posted:?}");
    let paths = [
        "/livez",
        "/readyz",
        "/livez/serializable_read",
        "/readyz/serializable_read",
        "/readyz/linearizable_read",
        "/readyz/data_corruption",
        "/readyz/non_learner",
        "/readyz?exclude=linearizable_read",
    ];
    for path in paths {
        let answer = get(path)?;
        ensure!(answer.status == 200 && answer.body == "ok\n", "{base}{path}: {answer:?}");
    }
    let verbose = get("/readyz?verbose")?.body;
    for name in ["serializable_read", "linearizable_read", "data_corruption", "non_learner"] {
        ensure!(verbose.contains(&format!("[+]{name} ok\n")), "{base}/readyz?verbose lacks {name}: {verbose}");
    }
    ensure!(verbose.ends_with("ok\n"), "{base}/readyz?verbose: {verbose}");
    ensure!(!get("/livez?verbose")?.body.contains("linearizable_read"), "livez must not depend on the quorum");
    ensure!(get("/livez/linearizable_read")?.status == 404, "livez has no linearizable_read");
    Ok(14)
}

fn alarmed(lab: &Lab, http: &Http, client_url: &str, metrics_url: &str) -> anyhow::Result<u32> {
    // etcdctl cannot raise alarms, so a quota that is full from the start does.
    let server = Member::new(lab, "full")?.with("--quota-backend-bytes=8388608").start()?;
    let ctl = Etcdctl::new(lab, server.url());
    let value = "x".repeat(100_000);
    let full =
        (0..200).any(|i| !ctl.run(&["put", &format!("k{i}"), &value]).is_ok_and(|output| output.status.success()));
    ensure!(full, "20 MB fit into a quota of 8 MiB");
    let get = |path: &str| http.get(&format!("{}{path}", server.url()));
    let answer = get("/health")?;
    ensure!(
        answer.status == 503 && answer.body == "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n",
        "/health under NOSPACE: {answer:?}"
    );
    ensure!(answer.content_type.starts_with("text/plain"), "its content type: {answer:?}");
    ensure!(get("/health?exclude=NOSPACE")?.status == 200, "NOSPACE can be excluded");
    ensure!(get("/readyz")?.status == 200, "NOSPACE does not fail readyz");
    ensure!(ctl.ok(&["alarm", "list"])?.contains("alarm:NOSPACE"), "the alarm is listed");
    ensure!(ctl.ok(&["alarm", "disarm"])?.contains("alarm:NOSPACE"), "the alarm is disarmed");
    ensure!(get("/health")?.status == 200, "and health comes back");
    for base in [client_url, metrics_url] {
        ensure!(http.get(&format!("{base}/health"))?.status == 200, "the other member is not concerned");
    }
    Ok(8)
}
