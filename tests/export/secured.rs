//! TLS and proxies: a receiver with a certificate that this test has made, and a proxy that counts who came through.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

use super::desk::Desk;
use super::receiver::{Receiver, TAKE, read_request};

/// A receiver with TLS: what each request said, after a handshake that worked.
struct Secured {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Secured {
    /// With this certificate; of `client`, if there is one, it wants to see the certificate.
    fn new(own: &CertifiedKey<rcgen::KeyPair>, client: Option<&CertificateDer<'static>>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ServerConfig::builder();
        let config = match client {
            Some(client) => {
                let mut roots = RootCertStore::empty();
                roots.add(client.clone()).expect("a certificate");
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
                config.with_client_cert_verifier(verifier.expect("a verifier"))
            }
            None => config.with_no_client_auth(),
        };
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
        let config = config
            .with_single_cert(vec![own.cert.der().clone()], key)
            .expect("a certificate and its key");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
                let mut stream = BufReader::new(StreamOwned::new(session, stream));
                // Of who does not believe the certificate nothing comes.
                if let Some(request) = read_request(&mut stream) {
                    heard.lock().expect("whole").push(request.head);
                    let answer =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    let _ = stream.get_mut().write_all(answer);
                    let _ = stream.get_mut().flush();
                }
            }
        });
        Self { port, heads }
    }

    fn count(&self) -> usize {
        self.heads.lock().expect("whole").len()
    }
}

fn certificate() -> CertifiedKey<rcgen::KeyPair> {
    generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate")
}

#[test]
fn a_receiver_is_believed_by_its_certificate_alone() {
    let (own, other) = (certificate(), certificate());
    let receiver = Secured::new(&own, None);
    let desk = Desk::new("");
    let test = |ca: Option<&str>, host: &str| {
        let ca = ca.map(|name| format!("ca_file = '{}'\n", desk.file(name).display()));
        desk.configure(&format!(
            "[export.otlp]\nurl = 'https://{host}:{}'\n{}",
            receiver.port,
            ca.unwrap_or_default()
        ));
        desk.exported(&["test"])
    };
    fs::write(desk.file("own.pem"), own.cert.pem()).expect("room");
    fs::write(desk.file("other.pem"), other.cert.pem()).expect("room");
    let (code, text) = test(Some("own.pem"), "localhost");
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(receiver.count(), 1);
    for (ca, host) in [
        (Some("other.pem"), "localhost"),
        (Some("own.pem"), "127.0.0.1"),
        (None, "localhost"),
    ] {
        let (code, text) = test(ca, host);
        assert_eq!(code, Some(1), "{ca:?} {host}: {text}");
        assert!(text.contains("certificate"), "{text}");
    }
    assert_eq!(
        receiver.count(),
        1,
        "nothing was told to whom nobody believes"
    );
    fs::write(desk.file("junk.pem"), "-----BEGIN CERTIFICATE-----\n!\n").expect("room");
    let (code, text) = test(Some("junk.pem"), "localhost");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("junk.pem"), "{text}");
}

#[test]
fn a_receiver_that_asks_is_shown_memwatchs_own_certificate() {
    let (own, client) = (certificate(), certificate());
    let receiver = Secured::new(&own, Some(client.cert.der()));
    let desk = Desk::new("");
    let file = |name: &str, text: String| {
        fs::write(desk.file(name), text).expect("room");
        desk.file(name).display().to_string()
    };
    let without = format!(
        "[export.otlp]\nurl = 'https://localhost:{}'\nca_file = '{}'\n",
        receiver.port,
        file("ca.pem", own.cert.pem())
    );
    desk.configure(&without);
    assert_eq!(desk.exported(&["test"]).0, Some(1));
    desk.configure(&format!(
        "{without}certificate_file = '{}'\nkey_file = '{}'\n",
        file("client.pem", client.cert.pem()),
        file("client.key", client.signing_key.serialize_pem())
    ));
    let (code, text) = desk.exported(&["test"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(receiver.count(), 1);
}

/// A proxy: the first line of each who came, whether for a tunnel or for a request.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let came: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&came);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            thread::spawn(move || pass_on(stream, &seen));
        }
    });
    (format!("http://{address}"), came)
}

fn pass_on(stream: TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    seen.lock().expect("whole").push(first.trim().to_owned());
    let goal = first.split(' ').nth(1)?.to_owned();
    if first.starts_with("CONNECT ") {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).ok()?;
        }
        let mut there = TcpStream::connect(goal).ok()?;
        let mut back = stream.try_clone().ok()?;
        back.write_all(b"HTTP/1.1 200 Go\r\n\r\n").ok()?;
        let mut from = there.try_clone().ok()?;
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut back);
            let _ = back.shutdown(Shutdown::Both);
        });
        std::io::copy(&mut reader, &mut there).ok()?;
        return there.shutdown(Shutdown::Write).ok();
    }
    // Asked for the whole address: the rest of the request goes on as it is.
    let authority = goal.strip_prefix("http://")?.split('/').next()?.to_owned();
    let mut there = TcpStream::connect(authority).ok()?;
    there.write_all(first.as_bytes()).ok()?;
    let mut from = there.try_clone().ok()?;
    let mut back = stream;
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if back.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    });
    std::io::copy(&mut reader, &mut there).map(drop).ok()
}

#[test]
fn proxies_are_used_and_left_out_as_the_environment_says() {
    let own = certificate();
    let secured = Secured::new(&own, None);
    let plain = Receiver::new(|_| TAKE);
    let (proxy, came) = proxy();
    let desk = Desk::new("");
    fs::write(desk.file("ca.pem"), own.cert.pem()).expect("room");
    desk.configure(&format!(
        "[export.otlp]\nurl = 'https://localhost:{}'\nca_file = '{}'\n\
         [export.hook]\ntype = 'webhook'\nurl = '{}/x'\n",
        secured.port,
        desk.file("ca.pem").display(),
        plain.url()
    ));
    let test = |variables: &[(&str, &str)]| {
        let mut command = desk.export(&["test"]);
        command.envs(variables.iter().copied());
        let (code, text) = super::desk::said(command.output().expect("it runs"));
        assert_eq!(code, Some(0), "{text}");
        came.lock().expect("whole").drain(..).collect::<Vec<_>>()
    };
    assert_eq!(test(&[]), [] as [String; 0]);
    let mut seen = test(&[("HTTPS_PROXY", &proxy), ("HTTP_PROXY", &proxy)]);
    seen.sort();
    let tunnel = format!("CONNECT localhost:{} HTTP/1.1", secured.port);
    let whole = format!("POST {}/x HTTP/1.1", plain.url());
    assert_eq!(seen, [tunnel.clone(), whole]);
    let seen = test(&[
        ("HTTPS_PROXY", &proxy),
        ("HTTP_PROXY", &proxy),
        ("NO_PROXY", "127.0.0.1"),
    ]);
    assert_eq!(seen, [tunnel]);
    assert_eq!((secured.count(), plain.requests().len()), (3, 3));
}

#[test]
fn where_an_otlp_goes_the_environment_may_say_and_it_is_packed() {
    let receiver = Receiver::new(|_| TAKE);
    let desk = Desk::new("[export.otlp]\n");
    let mut command = desk.export(&["test"]);
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-scope-orgid=a%20b");
    let (code, text) = super::desk::said(command.output().expect("it runs"));
    assert_eq!(code, Some(0), "{text}");
    let (request, _) = &receiver.requests()[0];
    for line in [
        "post /v1/logs http/1.1",
        "content-type: application/x-protobuf",
        "content-encoding: gzip",
        "x-scope-orgid: a b",
    ] {
        assert!(request.head.contains(line), "{}", request.head);
    }
    assert_eq!(request.body[..2], [0x1f, 0x8b]);
    // No table in the configuration, no exporter, whatever the environment says.
    desk.configure("");
    let mut command = desk.export(&["test"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url());
    assert_eq!(command.output().expect("it runs").status.code(), Some(125));
}
