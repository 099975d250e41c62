//! The kernel's log, `/dev/kmsg`, from now on: one record at a time, without waiting.
//!
//! Owns the descriptor, what was lost on the way, and the time at which a line was written by the clock that
//! everybody else here uses. [`record`] is the parser of one record, [`report`] puts records together to what the
//! kernel says of memory. What becomes of that is `agent::kernel_log`'s.

pub mod record;
pub mod report;

pub use record::Record;
pub use report::{About, Extent, Line, Report, Reports, victims_size};

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Where it is. Reading takes CAP_SYSLOG, or a kernel with `dmesg_restrict=0`, and the right to open the file.
pub const PATH: &str = "/dev/kmsg";
/// A record is at most so long (kernel/printk/internal.h, `PRINTK_MESSAGE_MAX`), with every byte escaped.
const RECORD_BYTES: usize = 8192;

/// The log, behind the last record that was read.
#[derive(Debug)]
pub struct Kmsg {
    file: File,
    /// The number of the record that comes next, once one has been read.
    next: Option<u64>,
    lost: u64,
    clock: Clock,
}

impl Kmsg {
    /// Opens it behind its last record.
    ///
    /// # Errors
    /// It is not there, or not ours to read.
    pub fn open(now: Duration) -> io::Result<Self> {
        Self::at(Path::new(PATH), now)
    }

    fn at(path: &Path, now: Duration) -> io::Result<Self> {
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            next: None,
            lost: 0,
            clock: Clock::new(now),
        })
    }

    /// Takes out what was written since this was last called, up to `most` records: each with its time on the
    /// monotonic clock.
    pub fn take(&mut self, now: Duration, most: usize) -> Vec<(Duration, Record)> {
        let mut taken = Vec::new();
        let mut buffer = [0; RECORD_BYTES];
        for _ in 0..most {
            match self.file.read(&mut buffer) {
                // A record is never empty.
                Ok(0) => break,
                Ok(len) => match record::parse(&buffer[..len]) {
                    Some(record) => {
                        self.count(&record);
                        let at = self.clock.place(record.at, now);
                        taken.push((at, record));
                    }
                    None => self.lost += 1,
                },
                // Some were overwritten before they were read: the number of the next one tells how many.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Longer than a record can be; the kernel has gone on to the next.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.lost += 1,
                Err(_) => break,
            }
        }
        if taken.len() < most {
            self.clock.has_seen_all(now);
        }
        taken
    }

    fn count(&mut self, record: &Record) {
        if let Some(next) = self.next {
            self.lost = self.lost.saturating_add(record.number.saturating_sub(next));
        }
        self.next = record.number.checked_add(1);
    }

    /// How many records were overwritten before they could be read, or could not be understood.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// From the clock of the log, which is the CPUs' own and runs away from the monotonic one by seconds a week, to
/// that. Pure.
///
/// What is read now was not there when all had been read last: it was written in between. The difference of the
/// two clocks is moved by no more than that takes.
#[derive(Debug)]
struct Clock {
    /// What is added, in µs.
    ahead_us: i64,
    /// When there was nothing more to read.
    seen: Duration,
}

impl Clock {
    fn new(now: Duration) -> Self {
        Self {
            ahead_us: 0,
            seen: now,
        }
    }

    fn place(&mut self, written: Duration, now: Duration) -> Duration {
        let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let (earliest, latest) = (us(self.seen), us(now).max(us(self.seen)));
        let at = us(written).saturating_add(self.ahead_us);
        let placed = at.clamp(earliest, latest);
        self.ahead_us = self.ahead_us.saturating_add(placed.saturating_sub(at));
        Duration::from_micros(u64::try_from(placed).unwrap_or(0))
    }

    fn has_seen_all(&mut self, now: Duration) {
        self.seen = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_that_agrees_is_left_alone() {
        let mut clock = Clock::new(s(100));
        assert_eq!(clock.place(s(101), s(102)), s(101));
        clock.has_seen_all(s(102));
        assert_eq!(clock.place(s(103), s(103)), s(103));
        assert_eq!(clock.ahead_us, 0);
    }

    #[test]
    fn a_clock_that_ran_away_is_led_back_to_when_the_line_can_have_been_written() {
        let mut clock = Clock::new(s(100));
        assert_eq!(clock.place(s(40), s(102)), s(100), "behind");
        assert_eq!(clock.place(s(41), s(102)), s(101), "and its pace is kept");
        clock.has_seen_all(s(102));
        assert_eq!(clock.place(s(90), s(103)), s(103), "ahead");
        let mut early = Clock::new(s(0));
        assert_eq!(early.place(Duration::MAX, s(3)), s(3), "nonsense");
    }

    /// Whoever may write here may read. One record of a user's, which is taken out like the kernel's own.
    #[test]
    fn what_is_written_after_the_opening_is_read_once() {
        let now = crate::host::clock::now;
        let began = now();
        let Ok(mut log) = Kmsg::open(began) else {
            eprintln!("skipped: {PATH} is not ours to read");
            return;
        };
        let word = format!("memwatch test {}", std::process::id());
        if std::fs::write(PATH, format!("{word}\n")).is_err() {
            eprintln!("skipped: {PATH} is not ours to write");
            return;
        }
        let mut ours = Vec::new();
        // The rest is others', and comes or does not.
        for _ in 0..100 {
            let taken = log.take(now(), 4096).into_iter();
            ours.extend(taken.filter(|(_, record)| record.text == word.as_bytes()));
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(ours.len(), 1, "{ours:?}");
        let (at, record) = &ours[0];
        assert!(!record.is_kernels, "a user's");
        // The log counts in µs.
        assert!((began.as_micros()..=now().as_micros()).contains(&at.as_micros()));
        assert_eq!(log.lost(), 0);
    }
}
