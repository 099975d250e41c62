//! Programs that receive, started in directories of their own and ended with the test; and the little HTTP that is
//! needed to ask them.

use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

/// A program of a Debian package that was unpacked for the tests.
pub(crate) fn program(name: &str) -> PathBuf {
    let home = env::var_os("MEMWATCH_TEST_COLLECTORS").unwrap_or_else(|| {
        panic!("MEMWATCH_TEST_COLLECTORS is not set: run these tests with `cargo xtask test`")
    });
    PathBuf::from(home).join(name)
}

/// Runs it to its end, which must be a good one.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{command:?}: {status}\n{out}\n{err}");
    out.into_owned()
}

/// Runs until it is dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Running {
    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: passes no pointer; the child is not waited for yet, so the pid is its own.
        let sent = unsafe { libc::kill(self.0.id() as libc::pid_t, signal) };
        assert_eq!(sent, 0);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that nobody listens at.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

/// What a server answers: its head and its body. HTTP/1.0, so that the body is the rest.
pub(crate) fn request(at: SocketAddr, head: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(at).ok()?;
    write!(stream, "{head}\r\nHost: {at}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// What is there, if it is.
pub(crate) fn get(at: SocketAddr, path: &str) -> Option<String> {
    let (head, body) = request(at, &format!("GET {path} HTTP/1.0"))?;
    let status = head.split(' ').nth(1)?;
    (status == "200").then_some(body)
}

/// The same, as JSON.
pub(crate) fn get_json(at: SocketAddr, path: &str) -> Option<Value> {
    serde_json::from_str(&get(at, path)?).ok()
}
