//! Tells the people at the machine, by the desktop's notifications: whose target it was, or, of what concerns the
//! machine, everybody who is logged in. How one is shown is [`show`]'s, in a process of its own that is that user:
//! root never speaks on a bus that a user owns.

pub mod show;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::geteuid;
use tokio::task::spawn_blocking;

use self::show::Notification;
use super::exporter::Delivered;
use super::refusal::Refusal;
use super::words::headline;
use crate::incident::{Kind, Record, Text};

/// Where users' buses are.
const RUN_USER: &str = "/run/user";
/// For a notification to be shown.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is older when somebody could be told would no longer help them; it is in the incidents.
const STALE: Duration = Duration::from_secs(15 * 60);
/// As many are shown to a user in [`BURST`]; others wait, and may become too old.
const MOST: usize = 5;
const BURST: Duration = Duration::from_secs(60);
/// How long somebody is waited for who is not logged in.
const ABSENT: Duration = Duration::from_secs(30);

/// The desktops of this machine.
#[derive(Debug)]
pub struct Desktop {
    run_user: PathBuf,
    /// When something was shown to whom.
    shown: Mutex<BTreeMap<u32, Vec<Instant>>>,
}

impl Default for Desktop {
    fn default() -> Self {
        Self {
            run_user: RUN_USER.into(),
            shown: Mutex::default(),
        }
    }
}

/// A user with a bus.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat {
    uid: u32,
    gid: u32,
    bus: PathBuf,
}

impl Desktop {
    /// Shows it to whom it concerns.
    ///
    /// # Errors
    /// Nobody of them could be told now.
    pub async fn deliver(&self, record: &Record) -> Result<Delivered, Refusal> {
        if is_stale(record, SystemTime::now()) {
            let note = "too old to be shown; it stays in the incidents";
            return Ok(Delivered {
                note: Some(note.to_owned()),
            });
        }
        let seats = self.concerned(record);
        if seats.is_empty() {
            return Err(Refusal::Later {
                why: "nobody whom it concerns is logged in".to_owned(),
                after: Some(ABSENT),
            });
        }
        let notification = notification(record);
        let (mut told, mut failures) = (Vec::new(), Vec::new());
        for seat in seats {
            let shown = match self.may_show(seat.uid) {
                Ok(()) => show_as(&seat, &notification).await,
                Err(refusal) => Err(refusal),
            };
            match shown {
                Ok(()) => told.push(format!("uid {}", seat.uid)),
                Err(why) => failures.push(format!("uid {}: {why}", seat.uid)),
            }
        }
        // Who was told is not told again because somebody else could not be.
        if told.is_empty() {
            return Err(Refusal::Later {
                why: failures.join("; "),
                after: Some(ABSENT),
            });
        }
        let mut note = format!("shown to {}", told.join(", "));
        if !failures.is_empty() {
            note += &format!("; not to {}", failures.join("; "));
        }
        Ok(Delivered { note: Some(note) })
    }

    /// Those who are to be told and have a bus. Who is not root has only themselves.
    fn concerned(&self, record: &Record) -> Vec<Seat> {
        let own = geteuid();
        let whose = if own.is_root() {
            user_of(record)
        } else {
            Some(own.as_raw())
        };
        match whose {
            Some(uid) => self.seat(uid).into_iter().collect(),
            None => self.all_seats(),
        }
    }

    fn seat(&self, uid: u32) -> Option<Seat> {
        let dir = self.run_user.join(uid.to_string());
        let bus = dir.join("bus");
        let about = dir.symlink_metadata().ok()?;
        // logind makes it for the user, who owns all that is in it.
        let fits = about.is_dir() && about.uid() == uid;
        let is_socket = bus
            .symlink_metadata()
            .is_ok_and(|bus| bus.file_type().is_socket());
        (fits && is_socket).then(|| Seat {
            uid,
            gid: about.gid(),
            bus,
        })
    }

    fn all_seats(&self) -> Vec<Seat> {
        let entries = std::fs::read_dir(&self.run_user).into_iter().flatten();
        let uids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut seats: Vec<Seat> = uids.filter_map(|uid| self.seat(uid)).collect();
        seats.sort_by_key(|seat| seat.uid);
        seats
    }

    /// Whether a user is to be shown one more now; it is counted then.
    fn may_show(&self, uid: u32) -> Result<(), String> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let times = shown.entry(uid).or_default();
        times.retain(|at| at.elapsed() < BURST);
        if times.len() >= MOST {
            return Err(format!("was shown {MOST} within {} s", BURST.as_secs()));
        }
        times.push(Instant::now());
        Ok(())
    }
}

/// By when the record was made, which its id tells. That a machine ended so is news to whoever uses it next, however
/// long it was off.
fn is_stale(record: &Record, now: SystemTime) -> bool {
    if record.kind == Kind::HardReset {
        return false;
    }
    let Some(made) = record.id.get_timestamp() else {
        return false;
    };
    let (seconds, nanos) = made.to_unix();
    let made = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    now.duration_since(made).is_ok_and(|age| age > STALE)
}

/// The user whose target it was; `None` for what concerns the machine.
fn user_of(record: &Record) -> Option<u32> {
    let cgroup = record.target.cgroup_path.as_ref()?.to_name();
    let cgroup = String::from_utf8(cgroup).ok()?;
    let mut parts = Path::new(&cgroup).iter().filter_map(|part| part.to_str());
    parts.find(|part| *part == "user.slice")?;
    let slice = parts.next()?;
    let uid = slice.strip_prefix("user-")?.strip_suffix(".slice")?;
    uid.parse().ok()
}

fn notification(record: &Record) -> Notification {
    let title = match record.kind {
        Kind::Run => "A run under memwatch is over",
        Kind::Test => "memwatch tests its notifications",
        Kind::NearMiss => "Memory was nearly used up",
        Kind::Warn => "Memory runs out",
        Kind::Hang => "The machine was held up",
        Kind::Freeze => "memwatch has frozen what was taking the memory",
        Kind::Abort => "memwatch has failed a test for memory",
        Kind::KernelOom => "The kernel has ended a process for memory",
        Kind::Kill if record.dry_run => "memwatch would have ended a process for memory",
        Kind::Kill => "memwatch has ended a process for memory",
        Kind::Timeout => "A run took longer than it was given",
        Kind::Takeover => "memwatch stands in for systemd-oomd",
        Kind::HandBack => "systemd-oomd is well again",
        Kind::HardReset => "The machine ended without being shut down",
    };
    let is_grave = matches!(record.kind, Kind::Kill | Kind::KernelOom | Kind::HardReset);
    let mut body = headline(record);
    let mut tests = record
        .interventions
        .iter()
        .filter_map(|it| it.test.as_ref());
    if let Some(test) = tests.next_back() {
        body += &format!("\nIt ran {}", test.id);
    }
    if record.kind != Kind::Test {
        body += &format!("\nmemwatch incidents show {}", record.id);
    }
    Notification {
        title: title.to_owned(),
        body,
        is_grave: is_grave && !record.dry_run,
    }
}

/// Has it shown by a process of that user's, which knows the bus and the notification and nothing else.
async fn show_as(seat: &Seat, notification: &Notification) -> Result<(), String> {
    let command = shower(seat);
    let shown = match serde_json::to_vec(notification) {
        // Beside the event loop: tokio's own processes would cost every memwatch a handler of signals.
        Ok(text) => spawn_blocking(move || run(command, &text)).await,
        Err(error) => Ok(Err(error.into())),
    };
    match shown.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(said) if said.status.success() => Ok(()),
        Ok(said) => Err(Text::from(&*String::from_utf8_lossy(&said.stderr)).to_string()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err("its desktop did not answer in time".to_owned())
        }
        Err(error) => Err(format!("cannot start a process to show it: {error}")),
    }
}

fn shower(seat: &Seat) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["export", "show-notification"])
        .env_clear()
        .env("DBUS_SESSION_BUS_ADDRESS", show::address(&seat.bus))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if geteuid().is_root() {
        // Without groups beside its own: the library drops them with the user.
        command.uid(seat.uid).gid(seat.gid);
    }
    command
}

/// Its end, or its kill when [`PATIENCE`] is.
fn run(mut command: Command, input: &[u8]) -> io::Result<Output> {
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let until = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests;
