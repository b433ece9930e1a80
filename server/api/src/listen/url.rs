//! Listening URLs as etcd writes them: `http://host:port`, `https://...`, `unix://path`, `unixs://path` (the path may look like `host:port`).

use std::fmt;
use std::str::FromStr;

/// What speaks on a listening URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

impl Scheme {
    /// Whether TLS is spoken.
    pub fn is_tls(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Unixs)
    }

    /// Whether the address is a path.
    pub fn is_unix(self) -> bool {
        matches!(self, Scheme::Unix | Scheme::Unixs)
    }
}

/// A listening URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    pub scheme: Scheme,
    /// `host:port`, or the socket's path.
    pub address: String,
}

/// Why a URL cannot be listened on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("{0:?}: URL scheme must be http, https, unix, or unixs")]
    Scheme(String),
    #[error("{0:?}: URL address does not have the form \"host:port\"")]
    Address(String),
    #[error("{0:?}: URL must not contain a path")]
    Path(String),
}

impl FromStr for ListenUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<ListenUrl, UrlError> {
        let text = text.trim();
        let (scheme, address) = text.split_once("://").ok_or_else(|| UrlError::Scheme(text.to_owned()))?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(UrlError::Scheme(text.to_owned())),
        };
        if scheme.is_unix() {
            if address.is_empty() {
                return Err(UrlError::Address(text.to_owned()));
            }
        } else {
            if address.contains(['/', '?', '#']) {
                return Err(UrlError::Path(text.to_owned()));
            }
            let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                return Err(UrlError::Address(text.to_owned()));
            }
        }
        Ok(ListenUrl { scheme, address: address.to_owned() })
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Unix => "unix",
            Scheme::Unixs => "unixs",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_schemes_and_what_is_refused() {
        for text in ["http://127.0.0.1:0", "https://[::1]:2379", "unix://localhost:2379", "unixs:///run/garboard.sock"]
        {
            assert_eq!(text.parse::<ListenUrl>().unwrap().to_string(), text);
        }
        assert!(matches!("ftp://a:1".parse::<ListenUrl>(), Err(UrlError::Scheme(_))));
        assert!(matches!("localhost:2379".parse::<ListenUrl>(), Err(UrlError::Scheme(_))));
        assert!(matches!("http://localhost".parse::<ListenUrl>(), Err(UrlError::Address(_))));
        assert!(matches!("http://localhost:99999".parse::<ListenUrl>(), Err(UrlError::Address(_))));
        assert!(matches!("http://localhost:1/path".parse::<ListenUrl>(), Err(UrlError::Path(_))));
        assert!(matches!("unix://".parse::<ListenUrl>(), Err(UrlError::Address(_))));
    }
}
