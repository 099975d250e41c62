//! Answers scrapes: HTTP/1.1, one page, for reading alone. What stands on it is [`super::page`]'s.
//!
//! Whoever may connect may read, so it listens where nobody else is, [`LISTEN`], unless the operator says otherwise.
//! Every connection answers one request and is given a few seconds, and there are few at a time: whoever holds
//! them open holds up no more than other scrapes.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Source;

/// Where, unless the configuration says otherwise. The ports from 9100 to 9999 are other exporters'.
pub const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 19188));

/// As many at a time; others wait to be accepted.
const CONNECTIONS: usize = 8;
/// From the first byte of a request to the last of its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The head of a scrape's request takes a few hundred bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Before the next try, when none can be accepted.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers whoever connects, until it is dropped; with it go the connections.
pub async fn serve<S: Source>(listener: TcpListener, source: S) -> Infallible {
    let source = Arc::new(source);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        let permit = permit.expect("nobody closes it");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = Arc::clone(&source);
                connections.spawn(async move {
                    let _permit = permit;
                    // Who went away or was too slow asks again.
                    let _ = timeout(PATIENCE, answer(stream, source)).await;
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!("no scrape can be answered: cannot accept a connection: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Whether it tells nothing about the next one (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

async fn answer<S: Source>(stream: TcpStream, source: Arc<S>) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let source = Arc::clone(&source);
        async move { Ok::<_, Infallible>(respond(&request, &*source).await) }
    });
    http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn respond<S: Source>(request: &Request<Incoming>, source: &S) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(
            StatusCode::NOT_FOUND,
            "memwatch's metrics are at /metrics\n",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET it\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    let mut page = plain(StatusCode::OK, source.snapshot().await.page());
    let headers = page.headers_mut();
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    headers.insert(CONTENT_TYPE, format);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let format = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}
