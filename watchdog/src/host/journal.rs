//! What systemd said of services that gave no sign of life, and of how a boot ended, from its journal, by
//! journalctl(1): the files have no other reader that every systemd brings. Bounded in time and in what is read, for
//! the slow side alone. What is made of it is `incident::diagnosis`'s and the black box's.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use uuid::Uuid;

/// The program, where systemd has it. No search path is asked: who reads is root.
const PROGRAMS: [&str; 2] = ["/usr/bin/journalctl", "/bin/journalctl"];
/// For all of it. The journal is on disk, and large.
const PATIENCE: Duration = Duration::from_secs(4);
/// Of its output; what systemd says in some minutes is a small part of that.
const MOST_BYTES: usize = 4 << 20;
/// Of one unit, from the line on that its watchdog ran out.
const LINES: usize = 8;
/// Units, the first that ran out.
const UNITS: usize = 16;
/// The part of systemd's line that names the limit (src/core/service.c).
const RAN_OUT: &str = "Watchdog timeout (limit ";
/// logind shuts the machine down (sd-messages.h, SD_MESSAGE_SHUTDOWN).
const SHUTDOWN: &str = "98268866d1d54a499c4e98921d93bc40";
/// systemd has started a unit, of a target: it is reached (SD_MESSAGE_UNIT_STARTED).
const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";

/// Something that systemd said of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, in microseconds since 1970.
    pub unix_us: i64,
    /// Of which unit.
    pub unit: Vec<u8>,
    /// What.
    pub message: Vec<u8>,
}

/// How a boot ended, as far as the journal has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The machine was shut down.
    InOrder,
    /// It was not: the boot's log has no shutdown.
    Abrupt,
    /// Nothing of that boot is there, or not for this user to read.
    Unknown,
}

/// How the boot ended of which `after_us` was a moment, on its monotonic clock: a shutdown before that was not its
/// end. Of the machine's journal, or of the one in a directory.
///
/// # Errors
/// The journal cannot be read, or not in time.
pub fn ending(boot: Uuid, after_us: u64, directory: Option<&Path>) -> io::Result<Ending> {
    let Some(mut command) = journalctl("MESSAGE_ID,UNIT,_PID,_UID") else {
        return Ok(Ending::Unknown);
    };
    if let Some(directory) = directory {
        command.arg("--directory").arg(directory);
    }
    let of_boot = format!("_BOOT_ID={}", boot.simple());
    let logind = format!("MESSAGE_ID={SHUTDOWN}");
    let child = command
        // The newest: of a shutdown hardly more.
        .args(["--lines=2000", "--reverse"])
        .args([&of_boot, "_UID=0", &logind, "+", &of_boot, "_PID=1"])
        .spawn()?;
    read(child).map(|bytes| parse_ending(&bytes, after_us))
}

/// Reads what `journalctl --output=json` prints of systemd itself and of shutdowns.
fn parse_ending(bytes: &[u8], after_us: u64) -> Ending {
    #[derive(Deserialize)]
    struct Line {
        #[serde(rename = "__MONOTONIC_TIMESTAMP")]
        at: String,
        #[serde(rename = "MESSAGE_ID")]
        message: Option<String>,
        #[serde(rename = "UNIT")]
        unit: Option<String>,
        #[serde(rename = "_PID")]
        pid: Option<String>,
        #[serde(rename = "_UID")]
        uid: Option<String>,
    }
    impl Line {
        /// logind says so before services stop, systemd itself when all have: who reboots without logind has the
        /// second alone, and where the journal's disk goes before that, the first. What others write in their names
        /// says nothing.
        fn is_shutdown(&self) -> bool {
            let says = |message| self.message.as_deref() == Some(message);
            says(SHUTDOWN) && self.uid.as_deref() == Some("0")
                || says(STARTED)
                    && self.unit.as_deref() == Some("shutdown.target")
                    && self.is_systemd()
        }

        fn is_systemd(&self) -> bool {
            self.pid.as_deref() == Some("1")
        }
    }
    let mut ending = Ending::Unknown;
    for line in bytes.split(|&byte| byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<Line>(line) else {
            continue;
        };
        let is_later = line.at.parse().is_ok_and(|at_us: u64| at_us > after_us);
        if line.is_shutdown() && is_later {
            return Ending::InOrder;
        }
        // Who sees what systemd itself said in that boot would see that, too.
        if line.is_systemd() {
            ending = Ending::Abrupt;
        }
    }
    ending
}

/// The program with what it prints of each line; `None` where there is none.
fn journalctl(fields: &str) -> Option<Command> {
    let program = PROGRAMS.into_iter().find(|path| Path::new(path).exists())?;
    let mut command = Command::new(program);
    command
        .args(["--no-pager", "--quiet", "--output=json"])
        .arg(format!("--output-fields={fields}"))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Some(command)
}

/// What systemd said between two times of services whose watchdog ran out, from when it did. Empty where there is
/// no journal.
///
/// # Errors
/// The journal cannot be read, or not in time; the times are then not known to be empty.
pub fn watchdogs(from_unix_us: i64, to_unix_us: i64) -> io::Result<Vec<Entry>> {
    let Some(mut command) = journalctl("UNIT,MESSAGE") else {
        return Ok(Vec::new());
    };
    let second = |unix_us: i64| format!("@{}", unix_us.div_euclid(1_000_000).max(0));
    let child = command
        .args(["--since", &second(from_unix_us)])
        .args(["--until", &second(to_unix_us.saturating_add(999_999))])
        // systemd's own word, of whichever boot.
        .arg("_PID=1")
        .spawn()?;
    read(child).map(|bytes| parse(&bytes))
}

/// All that it prints, if it ends in time.
fn read(mut child: Child) -> io::Result<Vec<u8>> {
    let until = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    let whole = match child.stdout.take() {
        Some(mut output) => take_in(&mut output, &mut bytes, until),
        None => Ok(()),
    };
    if whole.is_err() {
        // Gone already, or ours to end.
        let _ = child.kill();
    }
    let status = child.wait()?;
    whole?;
    // 1 and nothing printed: nothing fits.
    match status.code() {
        Some(0) => Ok(bytes),
        Some(1) if bytes.is_empty() => Ok(bytes),
        _ => Err(io::Error::other(format!("journalctl failed: {status}"))),
    }
}

fn take_in(output: &mut ChildStdout, bytes: &mut Vec<u8>, until: Instant) -> io::Result<()> {
    let mut part = vec![0; 64 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, left)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match output.read(&mut part)? {
            0 => return Ok(()),
            read => bytes.extend_from_slice(&part[..read]),
        }
        if bytes.len() > MOST_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

/// Reads what `journalctl --output=json` prints: of the units whose watchdog ran out, the lines from then on.
#[must_use]
pub fn parse(bytes: &[u8]) -> Vec<Entry> {
    let mut told: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let entries = bytes.split(|&byte| byte == b'\n').filter_map(parse_line);
    entries
        .filter(|entry| {
            let ran_out = has(&entry.message, RAN_OUT.as_bytes());
            let is_told = told.contains_key(&entry.unit);
            if !(is_told || ran_out && told.len() < UNITS) {
                return false;
            }
            let lines = told.entry(entry.unit.clone()).or_default();
            *lines += 1;
            *lines <= LINES
        })
        .collect()
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn parse_line(line: &[u8]) -> Option<Entry> {
    /// Text, or the bytes of what is none; `null` for what is too long to be printed.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Field {
        Text(String),
        Bytes(Vec<u8>),
    }
    #[derive(Deserialize)]
    struct Line {
        #[serde(rename = "__REALTIME_TIMESTAMP")]
        at: String,
        #[serde(rename = "UNIT")]
        unit: Option<Field>,
        #[serde(rename = "MESSAGE")]
        message: Option<Field>,
    }
    let bytes = |field| match field {
        Field::Text(text) => text.into_bytes(),
        Field::Bytes(bytes) => bytes,
    };
    let line: Line = serde_json::from_slice(line).ok()?;
    Some(Entry {
        unix_us: line.at.parse().ok()?,
        unit: bytes(line.unit?),
        message: bytes(line.message?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As systemd 252 prints it.
    const PRINTED: &[u8] = include_bytes!("../../../tests/fixtures/journal/watchdog.json");

    #[test]
    fn of_units_whose_watchdog_ran_out_the_lines_from_then_on_are_kept() {
        let entries = parse(PRINTED);
        let texts: Vec<_> = entries
            .iter()
            .map(|entry| String::from_utf8_lossy(&entry.message).into_owned())
            .collect();
        assert_eq!(
            texts,
            [
                "systemd-oomd.service: Watchdog timeout (limit 3min)!",
                "systemd-oomd.service: Killing process 812 (systemd-oomd) with signal SIGABRT.",
                "systemd-oomd.service: Main process exited, code=dumped, status=6/ABRT",
                "systemd-oomd.service: Failed with result 'watchdog'.",
            ]
        );
        assert!(
            entries
                .iter()
                .all(|entry| entry.unit == b"systemd-oomd.service")
        );
        assert_eq!(entries[0].unix_us, 1_772_356_336_000_250);
    }

    #[test]
    fn what_is_too_much_is_left_out() {
        let line = |unit: usize| {
            format!(
                "{{\"__REALTIME_TIMESTAMP\":\"1\",\"UNIT\":\"{unit}\",\"MESSAGE\":\"{RAN_OUT}1s)!\"}}\n"
            )
        };
        let many: String = (0..400).map(|n| line(n % 40)).collect();
        assert_eq!(parse(many.as_bytes()).len(), UNITS * LINES);
    }

    #[test]
    fn this_machines_journal_is_read_or_said_not_to_be() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_us = i64::try_from(now.expect("after 1970").as_micros()).expect("a time");
        match watchdogs(now_us - 60_000_000, now_us) {
            Ok(entries) => assert!(entries.len() <= UNITS * LINES),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn who_does_not_end_is_ended() {
        let child = Command::new("sleep")
            .arg("600")
            .stdout(Stdio::piped())
            .spawn();
        let error = read(child.expect("sleep")).expect_err("too slow");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let child = Command::new("yes").stdout(Stdio::piped()).spawn();
        let error = read(child.expect("yes")).expect_err("too much");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse_ending(&bytes, 0);
        }
    }
}
