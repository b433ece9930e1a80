//! The HTTP side of the client and metrics URLs: health checks, version, metrics, TLS; for everything else etcd's 404.

pub mod health;
pub mod query;
pub mod tls;

use std::sync::Arc;

use garboard_node::Node;
use garboard_runtime::spawn;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use prometheus::Encoder as _;
use prometheus::Registry;
use prometheus::TextEncoder;

use crate::body::Body;
use crate::http::health::Health;
use crate::http::health::NodeProbe;
use crate::http::tls::TlsPage;
use crate::listen::Surface;
use crate::metrics::Metrics;

/// Answers what is not gRPC.
pub struct HttpService {
    pub node: Node,
    pub registry: Registry,
    pub metrics: Arc<Metrics>,
    pub tls: TlsPage,
    /// Origins that browsers may call from; `*` for any.
    pub cors: Vec<String>,
}

impl HttpService {
    /// Answers one request. Bodies of requests are not read: no page takes one.
    pub async fn respond<B>(&self, request: Request<B>, surface: Surface) -> Response<Body> {
        let (parts, _) = request.into_parts();
        let mut response = if surface == Surface::Client && parts.method == Method::OPTIONS {
            Response::new(Body::empty())
        } else {
            self.page(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or(""), surface).await
        };
        if surface == Surface::Client {
            allow_origin(&self.cors, &parts.headers, response.headers_mut());
        }
        response
    }

    async fn page(&self, method: &Method, path: &str, query: &str, surface: Surface) -> Response<Body> {
        let health = Health { probe: NodeProbe(&self.node), metrics: &self.metrics };
        match path {
            "/metrics" => self.scrape().await,
            "/tls" if method == Method::GET => json(&self.tls.page().await),
            "/tls" => not_allowed(),
            _ if health::is_health(path) => {
                if method != Method::GET {
                    return not_allowed();
                }
                health.respond(path, query).await
            }
            "/version" if surface == Surface::Client => {
                if method == Method::GET {
                    self.version()
                } else {
                    not_allowed()
                }
            }
            "/debug/vars" if surface == Surface::Client => self.vars(),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn version(&self) -> Response<Body> {
        let cluster = self.node.status().cluster_version;
        let body = serde_json::json!({
            "etcdserver": self.node.etcd_version(),
            "etcdcluster": cluster.as_deref().unwrap_or("not_decided"),
            "storage": self.node.storage_version(),
        });
        json(&body)
    }

    fn vars(&self) -> Response<Body> {
        let status = self.node.status();
        let body = serde_json::json!({
            "cmdline": std::env::args().collect::<Vec<_>>(),
            "raft.status": {
                "id": format!("{:x}", self.node.member_id()),
                "term": status.raft_term,
                "commit": status.raft_index,
                "applied": status.raft_applied_index,
                "lead": format!("{:x}", status.leader),
            },
        });
        json(&body)
    }

    async fn scrape(&self) -> Response<Body> {
        self.metrics.scrapes_in_flight.inc();
        self.tls.observe().await;
        let registry = self.registry.clone();
        // Reads counters of the whole process, some from files of the kernel.
        let scraped = spawn::blocking(move || {
            let mut page = Vec::with_capacity(64 << 10);
            TextEncoder::new().encode(&registry.gather(), &mut page).map(|()| page)
        });
        let response = match scraped.await {
            Ok(Ok(page)) => {
                let mut response = Response::new(Body::whole(page));
                let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, content_type);
                response
            }
            Ok(Err(error)) => error_text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            Err(_) => error_text(StatusCode::INTERNAL_SERVER_ERROR, "the scrape was cut off".to_owned()),
        };
        self.metrics.scrapes.with_label_values(&[response.status().as_str()]).inc();
        self.metrics.scrapes_in_flight.dec();
        response
    }
}

fn allow_origin(allowed: &[String], request: &HeaderMap, response: &mut HeaderMap) {
    let origin = if allowed.iter().any(|origin| origin == "*") {
        HeaderValue::from_static("*")
    } else {
        let known = |origin: &&HeaderValue| allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
        let Some(origin) = request.get(header::ORIGIN).filter(known) else { return };
        origin.clone()
    };
    const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
    const HEADERS: HeaderValue = HeaderValue::from_static("accept, content-type, authorization");
    response.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
}

fn not_allowed() -> Response<Body> {
    let mut response = error_text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".to_owned());
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::whole(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Text that is not sniffed for markup, as Go's `http.Error` sends it.
fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    const NOSNIFF: HeaderName = header::X_CONTENT_TYPE_OPTIONS;
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    response
}

fn error_text(status: StatusCode, mut body: String) -> Response<Body> {
    body.push('\n');
    text(status, body)
}
