//! An incident as an entry of systemd's journal, in its native protocol: one datagram with all fields, or a sealed
//! file in memory where that is too small. Every value goes in the protocol's binary form, with its length before
//! it, so that no name that somebody chose can end a field and begin another.
//!
//! Fields have the names of docs/INCIDENTS.md. Kinds have message ids, by which `journalctl` finds them and their
//! explanations (systemd/memwatch.catalog); they never change.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use std::time::Duration;
use uuid::{Uuid, uuid};

use super::exporter::Delivered;
use super::refusal::Refusal;
use super::words::{body, headline, word};
use crate::incident::{Kind, Record};

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// A record that is longer than this as JSON stays where it is; its entry says how long it is.
const RECORD_BYTES: usize = 1 << 20;
/// As many of a list are told; the record has all.
const TOLD: usize = 16;
/// For journald to have read what waits for it.
const SOON: Duration = Duration::from_secs(1);

/// The journal of this machine.
#[derive(Clone, Debug)]
pub struct Journal {
    socket: PathBuf,
}

impl Default for Journal {
    fn default() -> Self {
        Self::at(Path::new(SOCKET))
    }
}

/// It could not be handed over.
#[derive(Debug, thiserror::Error)]
enum HandOverError {
    #[error("cannot {doing}: {source}")]
    Io {
        doing: &'static str,
        source: io::Error,
    },
    #[error(
        "journald does not listen at {}: {source}; see how it is: systemctl status systemd-journald",
        path.display()
    )]
    Nobody { path: PathBuf, source: io::Error },
}

impl Journal {
    /// That whose journald listens at `socket`.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Hands it to journald. It answers nothing: what it has in its socket it writes, unless it is killed before.
    ///
    /// # Errors
    /// Nobody takes it now.
    pub async fn deliver(&self, record: &Record) -> Result<Delivered, Refusal> {
        // It never waits: who does not read has a full socket, which says so.
        self.hand_over(&entry(record))
            .map_err(|error| Refusal::Later {
                why: error.to_string(),
                after: Some(SOON),
            })?;
        let note = format!(
            "in the journal as MESSAGE_ID={}",
            message_id(record.kind).simple()
        );
        Ok(Delivered { note: Some(note) })
    }

    fn hand_over(&self, entry: &[u8]) -> Result<(), HandOverError> {
        let io = |doing| {
            move |errno: Errno| HandOverError::Io {
                doing,
                source: errno.into(),
            }
        };
        let socket = UnixDatagram::unbound().map_err(|source| HandOverError::Io {
            doing: "make a socket for the journal",
            source,
        })?;
        match self.send(&socket, entry, &[]) {
            Err(Errno::EMSGSIZE | Errno::ENOBUFS) => {
                let file = sealed(entry)?;
                self.send(&socket, &[], &[file.as_raw_fd()])
            }
            sent => sent,
        }
        .map_err(|errno| match errno {
            Errno::ENOENT | Errno::ECONNREFUSED => HandOverError::Nobody {
                path: self.socket.clone(),
                source: errno.into(),
            },
            errno => io("write to the journal")(errno),
        })
    }

    fn send(&self, socket: &UnixDatagram, data: &[u8], files: &[RawFd]) -> Result<(), Errno> {
        let to = UnixAddr::new(&self.socket)?;
        let control = [ControlMessage::ScmRights(files)];
        let control = if files.is_empty() { &[][..] } else { &control };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let data = [IoSlice::new(data)];
        sendmsg(socket.as_raw_fd(), &data, control, flags, Some(&to)).map(drop)
    }
}

/// A file in memory that nobody can change any more, as journald wants it.
fn sealed(entry: &[u8]) -> Result<File, HandOverError> {
    let failed = |source: io::Error| HandOverError::Io {
        doing: "put an entry for the journal into memory",
        source,
    };
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(c"memwatch-journal-entry", flags).map_err(|e| failed(e.into()))?;
    let mut file = File::from(file);
    file.write_all(entry).map_err(failed)?;
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals)).map_err(|e| failed(e.into()))?;
    Ok(file)
}

/// The message id of a kind.
#[must_use]
pub const fn message_id(kind: Kind) -> Uuid {
    match kind {
        Kind::Run => uuid!("a0cd423359e743e99a1cb42233aff346"),
        Kind::Test => uuid!("5e2ae2b117834be9a91f5619247af87b"),
        Kind::NearMiss => uuid!("20b955072b01413892522310396a7c6b"),
        Kind::Warn => uuid!("55bdb1631e1c438f8051e111ddfa34c2"),
        Kind::Hang => uuid!("a85c562ce4d34274b4c1f83017e99724"),
        Kind::Freeze => uuid!("7b2fc221adbc428eacc30140ee92e64a"),
        Kind::Abort => uuid!("443b0bc05ef74d5faa4b03eb7877e73e"),
        Kind::KernelOom => uuid!("56410ad8270c4223aca32cab04ca88d4"),
        Kind::Kill => uuid!("cbcb7063bbe7480cbf823d1111733dbb"),
        Kind::Timeout => uuid!("d375ea3fade140508f2773a3611f8344"),
        Kind::Takeover => uuid!("846aa3c9c9564c66a22d2f3e27e144ab"),
        Kind::HandBack => uuid!("7c0a2619095d4f5682bc24201cf3958a"),
        Kind::HardReset => uuid!("9a48b3cba54f4266b46f075a867014ed"),
    }
}

/// As syslog(3) counts.
const fn priority(kind: Kind) -> u8 {
    match kind {
        Kind::HardReset => 2,
        Kind::Kill | Kind::KernelOom | Kind::Timeout => 3,
        Kind::NearMiss | Kind::Warn | Kind::Hang | Kind::Freeze | Kind::Abort | Kind::Takeover => 4,
        Kind::HandBack => 5,
        Kind::Run | Kind::Test => 6,
    }
}

/// An entry while it is put together.
#[derive(Default)]
struct Entry {
    bytes: Vec<u8>,
}

impl Entry {
    fn field(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string();
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b'\n');
        self.bytes
            .extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(b'\n');
    }

    fn maybe(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// A field for each value that is another: an entry may have several of one name, and is found by any of them.
    fn each(&mut self, name: &str, values: impl Iterator<Item = String>) {
        let mut told = Vec::new();
        for value in values {
            if told.len() < TOLD && !told.contains(&value) {
                self.field(name, &value);
                told.push(value);
            }
        }
    }
}

/// All fields of a record.
fn entry(record: &Record) -> Vec<u8> {
    let mut entry = Entry::default();
    entry.field("MESSAGE", headline(record));
    entry.field("MESSAGE_ID", message_id(record.kind).simple());
    entry.field("PRIORITY", priority(record.kind));
    entry.field("SYSLOG_IDENTIFIER", "memwatch");
    entry.field("MEMWATCH_INCIDENT_ID", record.id);
    entry.field("MEMWATCH_KIND", word(&record.kind));
    entry.field("MEMWATCH_VERDICT", word(&record.verdict));
    entry.field("MEMWATCH_STARTED_AT", &record.started_at);
    entry.field("MEMWATCH_ENDED_AT", &record.ended_at);
    entry.field("MEMWATCH_DURATION_USEC", record.duration_us);
    entry.field("MEMWATCH_DRY_RUN", u8::from(record.dry_run));
    entry.field("MEMWATCH_VERSION", &record.memwatch_version);
    entry.maybe("MEMWATCH_BOOT_ID", record.host.boot_id.as_ref());
    entry.maybe("MEMWATCH_EXIT_CODE", record.exit_code);
    let program = record.command.as_ref().map(|command| &command.program);
    entry.maybe("MEMWATCH_PROGRAM", program);
    entry.maybe("MEMWATCH_TARGET", record.target.cgroup_path.as_ref());
    entry.maybe("MEMWATCH_TARGET_ID", record.target.cgroup_id);
    entry.maybe("MEMWATCH_LIMIT_BYTES", record.target.memory_max_bytes);
    entry.maybe("MEMWATCH_PEAK_BYTES", record.peak_bytes);
    interventions(&mut entry, record);
    let victims = || record.victims.iter();
    entry.each(
        "MEMWATCH_VICTIM_PID",
        victims().map(|it| it.process.pid.to_string()),
    );
    entry.each(
        "MEMWATCH_VICTIM_COMM",
        victims().map(|it| it.process.comm.to_string()),
    );
    entry.each(
        "MEMWATCH_KILLED_BY",
        victims().map(|it| word(&it.killed_by)),
    );
    entry.each(
        "MEMWATCH_NOTE",
        record.notes.iter().map(ToString::to_string),
    );
    entry.field("MEMWATCH_SUMMARY", body(record));
    let json = serde_json::to_string(record).unwrap_or_default();
    if json.len() <= RECORD_BYTES {
        entry.field("MEMWATCH_RECORD", json);
    } else {
        entry.field("MEMWATCH_RECORD_BYTES", json.len());
    }
    entry.bytes
}

fn interventions(entry: &mut Entry, record: &Record) {
    let all = || record.interventions.iter();
    entry.each("MEMWATCH_RULE", all().map(|it| word(&it.rule)));
    entry.each(
        "MEMWATCH_OBSERVED",
        all().map(|it| it.observed.text.to_string()),
    );
    entry.each(
        "MEMWATCH_THRESHOLD",
        all().map(|it| it.threshold.text.to_string()),
    );
    let rungs = all().flat_map(|it| &it.rungs).map(|it| word(&it.rung));
    entry.each("MEMWATCH_RUNG", rungs);
    let tests = || all().filter_map(|it| it.test.as_ref());
    entry.each("MEMWATCH_TEST", tests().map(|test| test.id.to_string()));
    let culprits = tests().filter_map(|test| test.culprit.as_ref());
    entry.each("MEMWATCH_CULPRIT", culprits.map(|test| test.id.to_string()));
    let first = record.interventions.first();
    let before = first.and_then(|it| it.memory_before_bytes);
    entry.maybe("MEMWATCH_MEMORY_BEFORE_BYTES", before);
    let last = record.interventions.last();
    let after = last.and_then(|it| it.memory_after_bytes);
    entry.maybe("MEMWATCH_MEMORY_AFTER_BYTES", after);
}

#[cfg(test)]
mod tests;
