//! What a member says of its TLS: the page `/tls` of its metrics port.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::BodyExt as _;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper::Request;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::cluster::rotate::Loaded;
use crate::names::METRICS_PORT;

/// No answer in so long is none.
const TIMEOUT: Duration = Duration::from_secs(3);
/// An answer has some hundred bytes for each CA.
const BYTES_MAX: usize = 64 << 10;

/// By plane.
pub type Report = BTreeMap<String, Loaded>;

#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("{0}")]
    Connect(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    #[error("its release tells nothing of it")]
    Unknown,
    #[error("{0}")]
    Refused(StatusCode),
    #[error("its answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("its answer is not what is asked for: {0}")]
    Json(#[from] serde_json::Error),
}

/// Asks the member whose Pod has this address.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn ask(address: &str) -> Result<Report, String> {
    let port = u16::try_from(METRICS_PORT).map_err(|error| error.to_string())?;
    match tokio::time::timeout(TIMEOUT, get(address, port)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer in {TIMEOUT:?}")),
    }
}

async fn get(address: &str, port: u16) -> Result<Report, ReportError> {
    let stream = TcpStream::connect((address, port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender.
    tokio::spawn(connection);
    let request = Request::get("/tls").header(HOST, "member").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(ReportError::Unknown),
        status => return Err(ReportError::Refused(status)),
    }
    let body = Limited::new(response.into_body(), BYTES_MAX).collect().await.map_err(ReportError::Body)?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// What is made of this answer.
    async fn answered(status: &str, body: &str) -> Result<Report, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /tls HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let (report, ()) = tokio::join!(get("127.0.0.1", port), serve);
        report.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn what_a_member_has_loaded_is_read_as_the_server_writes_it() {
        let page = r#"{"client":{"certificate":"aa","notAfter":"2027-01-01T00:00:00Z","trust":["bb","cc"]}}"#;
        let report = answered("200 OK", page).await.unwrap();
        let trust = ["bb", "cc"].map(str::to_owned).into();
        assert_eq!(report["client"], Loaded { certificate: "aa".to_owned(), trust });
        assert_eq!(report.get("peer"), None);
    }

    #[tokio::test]
    async fn every_other_answer_is_told_as_what_it_is() {
        assert_eq!(
            answered("404 Not Found", "404 page not found\n").await.unwrap_err(),
            "its release tells nothing of it"
        );
        assert_eq!(answered("503 Service Unavailable", "").await.unwrap_err(), "503 Service Unavailable");
        let error = answered("200 OK", r#"{"client":{"certificate":null,"trust":[]}}"#).await.unwrap_err();
        assert!(error.starts_with("its answer is not what is asked for"), "{error}");
        let error = answered("200 OK", &" ".repeat(BYTES_MAX + 1)).await.unwrap_err();
        assert!(error.starts_with("its answer cannot be read"), "{error}");
    }
}
