//! `--record FILE`: every look as a line of JSON, written by a thread of its own. The looks are the flight
//! recorder's.

use super::flight::Flights;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The writing end.
#[derive(Debug)]
pub struct Recording {
    flights: Arc<Flights>,
    done: Arc<AtomicBool>,
    writer: JoinHandle<io::Result<()>>,
}

/// Starts recording into `file`.
///
/// # Errors
/// No thread could be started.
pub fn start(file: File, flights: Arc<Flights>) -> io::Result<Recording> {
    flights.also_for_disk();
    let done = Arc::new(AtomicBool::new(false));
    let (source, over) = (Arc::clone(&flights), Arc::clone(&done));
    let writer = std::thread::Builder::new()
        .name("memwatch-record".into())
        .spawn(move || write(&source, &over, BufWriter::new(file)))?;
    Ok(Recording {
        flights,
        done,
        writer,
    })
}

impl Recording {
    /// Writes what is left; returns how many looks were dropped.
    ///
    /// # Errors
    /// The disk refused.
    pub fn finish(self) -> io::Result<u64> {
        self.done.store(true, Ordering::Release);
        self.writer
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the recorder ended early")))?;
        Ok(self.flights.lost())
    }
}

fn write(flights: &Flights, done: &AtomicBool, mut out: impl Write) -> io::Result<()> {
    loop {
        let is_last = done.load(Ordering::Acquire);
        for look in flights.for_disk() {
            serde_json::to_writer(&mut out, &look)?;
            out.write_all(b"\n")?;
        }
        if is_last {
            return out.flush();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
