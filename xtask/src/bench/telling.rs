//! A thousand incidents and a `memwatch export run` that has trouble telling them: one receiver is not there, the
//! others take one in four and answer the rest with 503, 429, 400, nothing at all, or half of an answer. It is killed
//! again and again, and another one goes on. What that does to the deciding thread is `awake`'s.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::workspace::{Release, root};

pub(crate) const INCIDENTS: usize = 1000;
const ANSWERS: [&str; 5] = ["503", "429", "400", "", "200 OK\r\ncontent-length: 9"];

/// For how long one of them lives: what it is at when it is killed is not always the same.
const LIVES: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(1_100),
    Duration::from_millis(70),
    Duration::from_millis(2_300),
];

/// Under way until it is dropped.
pub(crate) struct Telling {
    exporting: Option<JoinHandle<Result<usize>>>,
    is_over: Arc<AtomicBool>,
    taken: Arc<AtomicUsize>,
    state: PathBuf,
}

/// What came of it.
pub(crate) struct Told {
    /// How often an incident was taken by a receiver.
    pub(crate) taken: usize,
    /// How often a `memwatch export run` was killed.
    pub(crate) kills: usize,
}

impl Telling {
    /// With its files below `scratch`.
    ///
    /// # Errors
    /// If they cannot be written, or it does not start.
    pub(crate) fn start(release: &Release, scratch: &Path) -> Result<Self> {
        let state = scratch.join("telling");
        if state.exists() {
            fs::remove_dir_all(&state)?;
        }
        keep_incidents(&state.join("incidents"))?;
        let taken = Arc::new(AtomicUsize::new(0));
        let mut config = exporter("nobody", nobodys_port()?);
        for (nth, answer) in ANSWERS.into_iter().enumerate() {
            let port = receive(answer, Arc::clone(&taken))?;
            config += &exporter(&format!("receiver{nth}"), port);
        }
        let file = state.join("memwatch.toml");
        fs::write(&file, config)?;
        let mut exporting = Command::new(&release.memwatch);
        exporting
            .args(["export", "run", "--all", "--socket"])
            .arg(state.join("none.sock"))
            .env("MEMWATCH_STATE", &state)
            .env("MEMWATCH_CONFIG", file)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        Ok(Self {
            exporting: Some(thread::spawn(move || again_and_again(exporting, &until))),
            is_over,
            taken,
            state,
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// If one of them could not be started, or ended by itself.
    pub(crate) fn end(mut self) -> Result<Told> {
        let kills = self.join().context("it goes on until here")??;
        let taken = self.taken.load(Ordering::Relaxed);
        Ok(Told { taken, kills })
    }

    fn join(&mut self) -> Option<Result<usize>> {
        self.is_over.store(true, Ordering::Relaxed);
        let exporting = self.exporting.take()?;
        let panicked = |_| {
            Err(anyhow!(
                "the thread that starts memwatch export run panicked"
            ))
        };
        Some(exporting.join().unwrap_or_else(panicked))
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.join();
        let _ = fs::remove_dir_all(&self.state);
    }
}

/// Starts it, kills it after a while, and starts it again; how often it was killed.
fn again_and_again(mut exporting: Command, is_over: &AtomicBool) -> Result<usize> {
    let mut kills = 0;
    while !is_over.load(Ordering::Relaxed) {
        let mut child = exporting.spawn()?;
        thread::sleep(LIVES[kills % LIVES.len()]);
        let ended = child.try_wait()?;
        child.kill()?;
        child.wait()?;
        ensure!(ended.is_none(), "memwatch export run has ended: {ended:?}");
        kills += 1;
    }
    Ok(kills)
}

/// Of one incident, under as many ids.
fn keep_incidents(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let fixture = root().join("tests/fixtures/incidents/third-freeze.json");
    let mut incident: Value = serde_json::from_slice(&fs::read(fixture)?)?;
    for nth in 0..INCIDENTS {
        let id = format!("019caaa1-6b00-7000-8000-{nth:012x}");
        incident["id"] = id.as_str().into();
        fs::write(dir.join(format!("{id}.json")), incident.to_string())?;
    }
    Ok(())
}

fn exporter(name: &str, port: u16) -> String {
    format!(
        "[export.{name}]\ntype = 'webhook'\nurl = 'http://127.0.0.1:{port}'\ntimeout = '300ms'\n\
         retry_least = '1ms'\nretry_most = '20ms'\n"
    )
}

/// Where nobody listens.
fn nobodys_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Takes one request in four, and answers the others with that; the port. Until this process ends.
fn receive(answer: &'static str, taken: Arc<AtomicUsize>) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for (turn, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { continue };
            let (takes, taken) = (turn % 4 == 0, Arc::clone(&taken));
            thread::spawn(move || {
                let answer = if takes { "204 No Content" } else { answer };
                if reply(stream, answer).is_some() && takes {
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    Ok(port)
}

/// Reads a request and answers it, once.
fn reply(mut stream: TcpStream, answer: &str) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut request = Vec::new();
    let mut buffer = [0; 16 << 10];
    while !is_whole(&request) {
        let read = stream.read(&mut buffer).ok().filter(|&read| read > 0)?;
        request.extend_from_slice(&buffer[..read]);
    }
    if answer.is_empty() {
        thread::sleep(Duration::from_secs(1)); // longer than anybody waits
        return None;
    }
    let head = format!("HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()
}

/// Whether a request has as much of a body as its head says.
fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    request.len() >= end + 4 + length.unwrap_or(0)
}
