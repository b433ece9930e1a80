//! `/tls`: the certificates that handshakes use which begin now; and their ends, among the metrics.

use std::sync::Arc;

use garboard_tls::Reloader;
use garboard_tls::Shown;
use prometheus::GaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use serde_json::Value;
use serde_json::json;

/// The TLS of both planes, where there is any.
pub struct TlsPage {
    planes: Vec<(&'static str, Arc<Reloader>)>,
    not_after: GaugeVec,
}

impl TlsPage {
    /// # Errors
    /// A name is taken in `registry`.
    pub fn register(
        registry: &Registry,
        client: Option<Arc<Reloader>>,
        peer: Option<Arc<Reloader>>,
    ) -> prometheus::Result<TlsPage> {
        let not_after = GaugeVec::new(
            Opts::new(
                "garboard_tls_certificate_not_after_seconds",
                "When the certificate that is shown ends, in seconds since the epoch.",
            ),
            &["plane"],
        )?;
        registry.register(Box::new(not_after.clone()))?;
        let planes = [("client", client), ("peer", peer)].into_iter();
        Ok(TlsPage { planes: planes.filter_map(|(name, tls)| Some((name, tls?))).collect(), not_after })
    }

    /// As JSON, by plane.
    pub async fn page(&self) -> Value {
        let mut page = serde_json::Map::new();
        for (plane, tls) in &self.planes {
            let settings = tls.current().await;
            let loaded = &settings.loaded;
            let mut told = shown(loaded.accept.as_ref());
            told["trust"] = json!(loaded.trust);
            if let Some(dial) = &loaded.dial {
                told["dial"] = shown(Some(dial));
            }
            page.insert((*plane).to_owned(), told);
        }
        Value::Object(page)
    }

    /// Sets the gauges to what is true now.
    pub async fn observe(&self) {
        for (plane, tls) in &self.planes {
            let settings = tls.current().await;
            let end = settings.loaded.accept.as_ref().and_then(|shown| shown.not_after);
            if let Some(end) = end {
                // Exact for as long as there are such years.
                self.not_after.with_label_values(&[plane]).set(end.unix_s() as f64);
            }
        }
    }
}

fn shown(certificate: Option<&Shown>) -> Value {
    let not_after = certificate.and_then(|shown| shown.not_after).map(|end| end.to_string());
    json!({"certificate": certificate.map(|shown| &shown.sha256), "notAfter": not_after})
}
