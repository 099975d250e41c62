//! What every exporter that speaks HTTP does alike: one client with TLS, proxies (HTTPS_PROXY, NO_PROXY) and an
//! end to every wait, headers with their secrets, and what an answer means. Who says what to whom is each
//! exporter's own.

use super::discreet::Discreet;
use super::refusal::Refusal;
use crate::causes::with_causes;
use crate::config::{self, HeaderError, Headers};
use crate::host::file_error::FileError;
use crate::incident::Text;
use flate2::write::GzEncoder;
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Certificate, Client, Identity, StatusCode, Url};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Of an answer; what follows is not read.
const ANSWER_BYTES: usize = 64 << 10;
/// No receiver is believed that wants to be left alone for longer.
pub(super) const LONGEST_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Until a connection stands, within the whole time.
const CONNECTING: Duration = Duration::from_secs(5);

/// Why an exporter cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Neither the configuration nor the environment names a receiver.
    #[error("it names no receiver; write url = \"https://...\"")]
    NoReceiver,
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A header in the file is none.
    #[error("{}:{line}: {source}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        source: HeaderError,
    },
    /// A line of the file is no header.
    #[error("{}:{line}: a line is a header and its value: Authorization: Bearer ...", path.display())]
    NoHeader {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A variable of the environment says nothing that can be used.
    #[error("{name} in the environment: {why}")]
    Environment {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Certificates that are none.
    #[error("{}: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: reqwest::Error,
    },
    /// The client cannot be made.
    #[error("cannot speak HTTP: {0}")]
    Client(#[source] reqwest::Error),
}

/// The certificates that a client is made with.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificates {
    /// The only ones by which a receiver is believed.
    pub(super) ca: Option<PathBuf>,
    /// Its own.
    pub(super) own: Option<PathBuf>,
    /// The key to it.
    pub(super) key: Option<PathBuf>,
}

impl From<&config::Exporter> for Certificates {
    fn from(config: &config::Exporter) -> Self {
        Self {
            ca: config.ca_file.clone(),
            own: config.certificate_file.clone(),
            key: config.key_file.clone(),
        }
    }
}

/// A client for one exporter.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    discreet: Discreet,
}

/// What came back with a success.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Http {
    /// With these headers in each request, and so long for each.
    pub(super) fn new(
        urls: &[&Url],
        headers: &Headers,
        certificates: &Certificates,
        timeout: Duration,
    ) -> Result<Self, SetupError> {
        // Whoever comes first; it is the same one for all.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .user_agent(concat!("memwatch/", env!("CARGO_PKG_VERSION")))
            .default_headers(map(headers))
            .timeout(timeout)
            .connect_timeout(timeout.min(CONNECTING))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(Duration::from_secs(60));
        if let Some(path) = &certificates.ca {
            let certificates = Certificate::from_pem_bundle(&read(path)?);
            client = client.tls_certs_only(certificates.map_err(of_file(path))?);
        } else if urls.iter().all(|url| url.scheme() == "http") {
            // A machine without certificates can still speak to a collector of its own.
            client = client.tls_certs_only([]);
        }
        if let Some(path) = &certificates.own {
            let mut pem = read(path)?;
            if let Some(key) = &certificates.key {
                pem.push(b'\n');
                pem.extend(read(key)?);
            }
            client = client.identity(Identity::from_pem(&pem).map_err(of_file(path))?);
        }
        let client = client.build().map_err(SetupError::Client)?;
        let discreet = Discreet::of(urls, headers);
        Ok(Self { client, discreet })
    }

    /// Sends, and waits for the whole answer.
    pub(super) async fn post(
        &self,
        url: &Url,
        content_type: &'static str,
        headers: &[(&'static str, String)],
        packed: bool,
        body: Vec<u8>,
    ) -> Result<Answer, Refusal> {
        let mut request = self.client.post(url.clone());
        request = request.header(CONTENT_TYPE, content_type);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let body = if packed {
            request = request.header(CONTENT_ENCODING, "gzip");
            gzip(&body)
        } else {
            body
        };
        let mut answer = request.body(body).send().await.map_err(|e| self.later(e))?;
        let status = answer.status();
        let after = after(answer.headers(), SystemTime::now());
        let content_type = text(answer.headers(), CONTENT_TYPE);
        let mut body = Vec::new();
        let cut = loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if body.len() < ANSWER_BYTES => body.extend_from_slice(&chunk),
                Ok(_) => break None,
                Err(error) => break Some(error),
            }
        };
        body.truncate(ANSWER_BYTES);
        if status.is_success() {
            // Who breaks off may not have kept it.
            return match cut {
                Some(error) => Err(self.later(error)),
                None => Ok(Answer {
                    status,
                    content_type,
                    body,
                }),
            };
        }
        let why = self.said(status, &body);
        let passes = matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        );
        Err(if passes || status.is_server_error() {
            Refusal::Later { why, after }
        } else {
            Refusal::Never { why }
        })
    }

    /// A status, and what was said with it.
    pub(super) fn said(&self, status: StatusCode, body: &[u8]) -> String {
        let excerpt = self.excerpt(&String::from_utf8_lossy(body));
        if excerpt.as_str().is_empty() {
            status.to_string()
        } else {
            format!("{status}: {excerpt}")
        }
    }

    /// As much of it as is told to a person.
    pub(super) fn excerpt(&self, text: &str) -> Text {
        self.discreet.excerpt(text)
    }

    /// Nobody answered, or not to the end.
    fn later(&self, error: reqwest::Error) -> Refusal {
        let why = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            self.discreet.tell(&with_causes(&error.without_url()))
        };
        let after = None;
        let why = Text::from(why).to_string();
        Refusal::Later { why, after }
    }
}

/// The headers that the configuration names, those of its file among them.
pub(super) fn headers(config: &config::Exporter) -> Result<Headers, SetupError> {
    let mut headers = config.headers.clone().unwrap_or_default();
    let Some(path) = &config.headers_file else {
        return Ok(headers);
    };
    add_lines(&mut headers, path, &read(path)?)?;
    Ok(headers)
}

/// What a file of headers says: one a line, as in HTTP.
pub(super) fn add_lines(headers: &mut Headers, path: &Path, text: &[u8]) -> Result<(), SetupError> {
    for (line, text) in (1..).zip(String::from_utf8_lossy(text).lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let path = path.to_owned();
        let Some((name, value)) = text.split_once(':') else {
            return Err(SetupError::NoHeader { path, line });
        };
        let added = headers.add(name.trim(), value.trim());
        added.map_err(|source| match source {
            // What stands before a colon may be a secret, too.
            HeaderError::Name(_) => SetupError::NoHeader { path, line },
            HeaderError::Value(_) => SetupError::Header { path, line, source },
        })?;
    }
    Ok(())
}

fn map(headers: &Headers) -> HeaderMap {
    let pairs = headers.0.iter().filter_map(|(name, value)| {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    });
    pairs.collect()
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(FileError::at("read", path))
}

fn of_file(path: &Path) -> impl FnOnce(reqwest::Error) -> SetupError {
    let path = path.to_owned();
    move |source| SetupError::Certificate { path, source }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Memory takes everything.
    let _ = packed.write_all(body);
    packed.finish().unwrap_or_default()
}

fn text(headers: &HeaderMap, name: HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    retry_after(&text(headers, RETRY_AFTER), now)
}

/// `Retry-After`: seconds, or a date.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let after = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value.trim())
            .ok()?
            .duration_since(now)
            .unwrap_or(Duration::ZERO),
    };
    Some(after.min(LONGEST_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let said = |value: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            after(&headers, now)
        };
        assert_eq!(said("120"), Some(Duration::from_secs(120)));
        let date = "Sun, 06 Nov 1994 08:50:00 GMT";
        assert_eq!(said(date), Some(Duration::from_secs(23)));
        let past = "Sun, 06 Nov 1994 08:49:00 GMT";
        assert_eq!(said(past), Some(Duration::ZERO));
        assert_eq!(said("soon"), None);
        assert_eq!(said("99999999999"), Some(LONGEST_AFTER));
        assert_eq!(after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn what_is_said_is_short_and_harmless() {
        let body = format!("\x1b[2J no\n{}", "x".repeat(1000));
        let said = to("http://a/").said(StatusCode::BAD_REQUEST, body.as_bytes());
        assert!(said.starts_with("400 Bad Request: "), "{said}");
        assert!(!said.contains(['\x1b', '\n']) && said.len() < 300, "{said}");
    }

    fn to(url: &str) -> Http {
        let url = Url::parse(url).expect("one");
        let (headers, certificates) = (Headers::default(), Certificates::default());
        Http::new(&[&url], &headers, &certificates, CONNECTING).expect("a client")
    }

    #[test]
    fn who_cannot_be_reached_is_not_told_by_what_stands_behind_the_host() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let text = format!("http://127.0.0.1:{port}/T0/S3CRET?key=s3cret");
        let url = Url::parse(&text).expect("one");
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("a loop");
        let http = to(&text);
        let refused = http.post(&url, "text/plain", &[], false, Vec::new());
        let refusal = runtime.block_on(refused).expect_err("nobody is there");
        let said = format!("{refusal} {refusal:?}");
        assert!(said.contains("Connection refused"), "{said}");
        assert!(!said.to_ascii_lowercase().contains("s3cret"), "{said}");
    }

    #[test]
    fn a_file_adds_headers_and_its_wrong_line_is_named_without_its_value() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut config = config::Exporter {
            headers_file: Some(file.path().to_owned()),
            ..config::Exporter::default()
        };
        let mut given = Headers::default();
        given.add("X-A", "1").expect("right");
        config.headers = Some(given);
        fs::write(file.path(), "# secret\n\nAuthorization: Bearer a:b\n").expect("room");
        let read = headers(&config).expect("right").0;
        assert_eq!(read["Authorization"], "Bearer a:b");
        assert_eq!(read["X-A"], "1");
        fs::write(file.path(), "X-B: 1\nX-C: secret\x01\n").expect("room");
        let said = headers(&config).expect_err("wrong").to_string();
        assert!(said.contains(":2: ") && !said.contains("secret"), "{said}");
        fs::write(file.path(), "Bearer secret: x\n").expect("room");
        let said = headers(&config).expect_err("wrong").to_string();
        assert!(said.contains(":1: ") && !said.contains("secret"), "{said}");
    }
}
