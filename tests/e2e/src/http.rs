//! Plain HTTP, for the endpoints beside gRPC.

use std::io::Read as _;
use std::time::Duration;

use serde_json::Value;

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub allow: String,
    pub body: String,
}

/// A client that keeps its connections.
#[derive(Clone)]
pub struct Http {
    agent: ureq::Agent,
}

// === impl Http ===

impl Http {
    pub fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .build();
        Self { agent: config.into() }
    }

    pub fn get(&self, url: &str) -> anyhow::Result<Answer> {
        answer(self.agent.get(url).call()?)
    }

    pub fn delete(&self, url: &str) -> anyhow::Result<Answer> {
        answer(self.agent.delete(url).call()?)
    }

    pub fn post(&self, url: &str, body: &Value) -> anyhow::Result<Answer> {
        answer(self.agent.post(url).content_type("application/json").send(body.to_string())?)
    }

    pub fn put(&self, url: &str, body: &Value) -> anyhow::Result<Answer> {
        answer(self.agent.put(url).content_type("application/json").send(body.to_string())?)
    }

    pub fn merge_patch(&self, url: &str, body: &Value) -> anyhow::Result<Answer> {
        answer(self.agent.patch(url).content_type("application/merge-patch+json").send(body.to_string())?)
    }

    /// The body as it comes, for watches.
    pub fn stream(&self, url: &str) -> anyhow::Result<(u16, impl std::io::Read + use<>)> {
        let response = self.agent.get(url).call()?;
        Ok((response.status().as_u16(), response.into_body().into_reader()))
    }
}

fn answer(response: ureq::http::Response<ureq::Body>) -> anyhow::Result<Answer> {
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (status, content_type, allow) = (response.status().as_u16(), header("content-type"), header("allow"));
    let mut body = String::new();
    response.into_body().into_reader().read_to_string(&mut body)?;
    Ok(Answer { status, content_type, allow, body })
}
