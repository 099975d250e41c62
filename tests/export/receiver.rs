//! A receiver of HTTP that does as it is told: takes what it is sent, refuses it, is silent, breaks off, or is down.
//! It speaks on a bare socket, since no server would break its own rules.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::lab::wait_for;

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A status, further header lines, a body.
    Status(u16, &'static str, &'static str),
    /// Nothing is said, and the connection stays.
    Hang,
    /// The connection is closed after half of the answer.
    Half,
}

pub(crate) const TAKE: Reply = Reply::Status(200, "", "thanks");

/// A request that came whole.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// When it was there.
    pub(crate) at: Instant,
    /// Those that came through one connection are one process'.
    pub(crate) connection: usize,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The incident's id, of a webhook's event.
    pub(crate) fn id(&self) -> String {
        self.json()["id"].as_str().expect("an id").to_owned()
    }
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;

/// It listens until it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    answer: Arc<Answer>,
    requests: Arc<Mutex<Vec<(Request, Reply)>>>,
    connections: Arc<Mutex<BTreeMap<usize, TcpStream>>>,
    listening: Mutex<Option<Listening>>,
}

static NEXT: AtomicUsize = AtomicUsize::new(1);

/// As long as it is up.
struct Listening {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Receiver {
    /// Does with each request as `answer` says.
    pub(crate) fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let receiver = Self {
            address: listener.local_addr().expect("bound"),
            answer: Arc::new(answer),
            requests: Arc::default(),
            connections: Arc::default(),
            listening: Mutex::default(),
        };
        receiver.listen(listener);
        receiver
    }

    fn listen(&self, listener: TcpListener) {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, answer) = (Arc::clone(&is_over), Arc::clone(&self.answer));
        let (heard, connections) = (Arc::clone(&self.requests), Arc::clone(&self.connections));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (heard, answer) = (Arc::clone(&heard), Arc::clone(&answer));
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let other = stream.try_clone().expect("descriptors");
                lock(&connections).insert(number, other);
                let open = Arc::clone(&connections);
                thread::spawn(move || {
                    serve(stream, number, &heard, &*answer);
                    lock(&open).remove(&number);
                });
            }
        });
        *lock(&self.listening) = Some(Listening { is_over, thread });
    }

    /// Nobody listens there any more, and what was connected is broken off.
    pub(crate) fn go_down(&self) {
        let Some(listening) = lock(&self.listening).take() else {
            return;
        };
        listening.is_over.store(true, Ordering::Relaxed);
        // It waits for one more.
        let _ = TcpStream::connect(self.address);
        let _ = listening.thread.join();
        for connection in lock(&self.connections).values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// At the same place.
    pub(crate) fn come_back(&self) {
        if lock(&self.listening).is_none() {
            let listener = wait_for("its port", || TcpListener::bind(self.address).ok());
            self.listen(listener);
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests, with what was answered.
    pub(crate) fn requests(&self) -> Vec<(Request, Reply)> {
        lock(&self.requests).clone()
    }

    /// How often each incident was taken, by id.
    pub(crate) fn taken(&self) -> BTreeMap<String, usize> {
        let mut taken = BTreeMap::new();
        for (request, _) in self.requests().iter().filter(|(_, reply)| *reply == TAKE) {
            *taken.entry(request.id()).or_default() += 1;
        }
        taken
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.go_down();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(
    stream: TcpStream,
    connection: usize,
    heard: &Mutex<Vec<(Request, Reply)>>,
    answer: &Answer,
) {
    let mut reader = BufReader::new(stream.try_clone().expect("descriptors"));
    let mut stream = stream;
    while let Some(request) = read_request(&mut reader) {
        let request = Request {
            connection,
            ..request
        };
        let reply = answer(&request);
        lock(heard).push((request, reply.clone()));
        let said = match reply {
            Reply::Status(code, headers, body) => {
                let length = body.len();
                let whole = format!(
                    "HTTP/1.1 {code} So\r\n{headers}content-length: {length}\r\n\r\n{body}"
                );
                stream.write_all(whole.as_bytes())
            }
            Reply::Hang => {
                // Until the other side gives up.
                let _ = reader.read(&mut [0]);
                return;
            }
            Reply::Half => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf of");
                return;
            }
        };
        if said.is_err() {
            return;
        }
    }
}

/// A whole request.
pub(crate) fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line.to_ascii_lowercase());
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.trim().parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        head,
        body,
        at: Instant::now(),
        connection: 0,
    })
}

/// A port on which nobody listens.
pub(crate) fn nobodys_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// What `GET` answers.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}
