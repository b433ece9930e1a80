//! The URLs that etcd listens on and advertises: `http`, `https`, `unix` and `unixs`, with host and port or a socket
//! path, and nothing after them.

use std::fmt;
use std::net::IpAddr;

/// Why a text is no such URL. The words are etcd's where it has some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    #[error("URL address does not have the form \"host:port\": {0}")]
    HostPort(String),
    #[error("URL must not contain a path: {0}")]
    Path(String),
    #[error("URL must not contain user, query or fragment: {0}")]
    Extra(String),
    #[error("URL of a unix socket needs a path: {0}")]
    NoSocket(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
    Unix,
    /// A unix socket with TLS.
    Unixs,
}

/// One such URL, printed as it was written, but for capitals in the scheme.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    place: Place,
    text: String,
}

/// Where a URL leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// `host` without the brackets of IPv6; may be empty.
    Tcp {
        host: String,
        port: u16,
    },
    Socket(String),
}

impl Url {
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let owned = || text.to_owned();
        let (scheme, rest) = text.split_once(':').ok_or_else(|| UrlError::Scheme(owned()))?;
        let name = scheme.to_ascii_lowercase();
        let scheme = match name.as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(UrlError::Scheme(owned())),
        };
        if rest.contains(['?', '#', '@']) {
            return Err(UrlError::Extra(owned()));
        }
        let place = match scheme {
            Scheme::Http | Scheme::Https => tcp(rest, text)?,
            Scheme::Unix | Scheme::Unixs => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() {
                    return Err(UrlError::NoSocket(owned()));
                }
                Place::Socket(path.to_owned())
            }
        };
        Ok(Self { scheme, place, text: format!("{name}:{rest}") })
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether connections are wrapped in TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }

    pub fn has_empty_host(&self) -> bool {
        matches!(&self.place, Place::Tcp { host, .. } if host.is_empty())
    }

    /// Whether one can listen there without asking a name service: an IP address, `localhost`, or a socket.
    pub fn is_bindable(&self) -> bool {
        match &self.place {
            Place::Tcp { host, .. } => host == "localhost" || host.parse::<IpAddr>().is_ok(),
            Place::Socket(_) => true,
        }
    }
}

fn tcp(rest: &str, text: &str) -> Result<Place, UrlError> {
    let malformed = || UrlError::HostPort(text.to_owned());
    let address = rest.strip_prefix("//").ok_or_else(malformed)?;
    let (address, path) = match address.find('/') {
        Some(at) => address.split_at(at),
        None => (address, ""),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or_else(malformed)?,
        None if host.contains([':', '[', ']']) => return Err(malformed()),
        None => host,
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let port = port.parse().map_err(|_| malformed())?;
    if !path.is_empty() {
        return Err(UrlError::Path(text.to_owned()));
    }
    Ok(Place::Tcp { host: host.to_owned(), port })
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Place {
        Place::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn what_is_a_url() {
        let table = [
            ("http://localhost:2379", Scheme::Http, tcp("localhost", 2379)),
            ("https://10.0.0.1:0", Scheme::Https, tcp("10.0.0.1", 0)),
            ("HTTPS://[::1]:2379", Scheme::Https, tcp("::1", 2379)),
            ("http://:2379", Scheme::Http, tcp("", 2379)),
            ("unix:///run/etcd.sock", Scheme::Unix, Place::Socket("/run/etcd.sock".into())),
            ("unix:/run/etcd.sock", Scheme::Unix, Place::Socket("/run/etcd.sock".into())),
            ("unixs://etcd.sock:0", Scheme::Unixs, Place::Socket("etcd.sock:0".into())),
        ];
        for (text, scheme, place) in table {
            let url = Url::parse(text).expect(text);
            assert_eq!((url.scheme(), url.place()), (scheme, &place), "{text}");
            assert_eq!(url.to_string(), text.replace("HTTPS", "https"));
        }
    }

    #[test]
    fn what_is_none() {
        type Fault = fn(String) -> UrlError;
        let table: [(&str, Fault); 14] = [
            ("", UrlError::Scheme),
            ("localhost:2379", UrlError::Scheme),
            ("ftp://localhost:2379", UrlError::Scheme),
            ("http://localhost", UrlError::HostPort),
            ("http:localhost:1", UrlError::HostPort),
            ("http://localhost:port", UrlError::HostPort),
            ("http://localhost:+1", UrlError::HostPort),
            ("http://localhost:65536", UrlError::HostPort),
            ("http://::1:2379", UrlError::HostPort),
            ("http://localhost:1/", UrlError::Path),
            ("http://localhost:1/v3", UrlError::Path),
            ("http://a@localhost:1", UrlError::Extra),
            ("http://localhost:1?x", UrlError::Extra),
            ("unix://", UrlError::NoSocket),
        ];
        for (text, error) in table {
            assert_eq!(Url::parse(text), Err(error(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn only_addresses_and_localhost_are_bindable() {
        for (text, expected) in [
            ("http://localhost:1", true),
            ("http://0.0.0.0:1", true),
            ("http://[::]:1", true),
            ("unix:///x", true),
            ("http://example.com:1", false),
            ("http://:1", false),
        ] {
            assert_eq!(Url::parse(text).expect(text).is_bindable(), expected, "{text}");
        }
    }
}
