//! What the service manager is told: sd_notify(3)'s protocol, and how often it wants a sign of life.
//!
//! Nothing here waits or allocates after the start, so that the deciding thread itself can give the signs
//! of life: a thread of their own would go on giving them while nobody decides. What libraries there are
//! open a socket for each message.

use super::clock;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Why the service manager that started this process cannot be told anything.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the service manager at NOTIFY_SOCKET={}", address.display())]
pub struct NotifyError {
    address: OsString,
    source: io::Error,
}

/// The way to the service manager, open since the start.
///
/// Every message goes out at once or fails: with [`io::ErrorKind::WouldBlock`] where the manager has not
/// yet read those before it.
#[derive(Debug)]
pub struct Notifier {
    socket: OwnedFd,
    address: UnixAddr,
}

/// Bytes of the longest status that is passed on whole.
const LONGEST_STATUS: usize = 512;

impl Notifier {
    /// Connects to `NOTIFY_SOCKET`; `None` if nobody wants to be told.
    ///
    /// # Errors
    /// There is no such socket, or it is of a kind that is not known here.
    pub fn of_this_process() -> Result<Option<Self>, NotifyError> {
        match env::var_os("NOTIFY_SOCKET") {
            Some(address) if !address.is_empty() => match Self::at(&address) {
                Ok(notifier) => Ok(Some(notifier)),
                Err(source) => Err(NotifyError { address, source }),
            },
            _ => Ok(None),
        }
    }

    /// A path, or `@` and a name in the abstract namespace.
    fn at(address: &OsStr) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
            [b'/', ..] => UnixAddr::new(address)?,
            _ => return Err(Errno::EAFNOSUPPORT.into()),
        };
        let socket = socket(
            AddressFamily::Unix,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(Self { socket, address })
    }

    /// The service is up, or has read its configuration again.
    ///
    /// # Errors
    /// It did not go out.
    pub fn ready(&self) -> io::Result<()> {
        self.say(b"READY=1")
    }

    /// The configuration is being read again; [`Self::ready`] ends it.
    ///
    /// # Errors
    /// It did not go out.
    pub fn reloading(&self) -> io::Result<()> {
        let now_us = clock::now().as_micros();
        self.say(format!("RELOADING=1\nMONOTONIC_USEC={now_us}").as_bytes())
    }

    /// The service is ending by itself.
    ///
    /// # Errors
    /// It did not go out.
    pub fn stopping(&self) -> io::Result<()> {
        self.say(b"STOPPING=1")
    }

    /// One line for `systemctl status`; what comes after the first line's end, or after 512 bytes, is cut.
    ///
    /// # Errors
    /// It did not go out.
    pub fn status(&self, text: &str) -> io::Result<()> {
        // A line of its own would be another message.
        let line = text.lines().next().unwrap_or_default();
        let cut = line.floor_char_boundary(LONGEST_STATUS);
        let mut message = Vec::with_capacity(LONGEST_STATUS);
        write!(message, "STATUS={}", &line[..cut])?;
        self.say(&message)
    }

    /// A sign of life. Neither waits nor allocates.
    ///
    /// # Errors
    /// It did not go out; the next one may.
    pub fn feed(&self) -> io::Result<()> {
        self.say(b"WATCHDOG=1")
    }

    fn say(&self, message: &[u8]) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let fd = self.socket.as_raw_fd();
        let sent = match send(fd, message, flags) {
            // The manager has made its socket anew.
            Err(Errno::ECONNREFUSED | Errno::ENOTCONN) => {
                connect(fd, &self.address)?;
                send(fd, message, flags)
            }
            other => other,
        };
        // A datagram goes out whole or not at all.
        sent.map(drop).map_err(io::Error::from)
    }
}

/// How long the service manager waits for a sign of life before it ends this process; `None` if it does
/// not. Give one at least twice in that time.
pub fn watchdog_interval() -> Option<Duration> {
    interval(
        env::var_os("WATCHDOG_USEC").as_deref(),
        env::var_os("WATCHDOG_PID").as_deref(),
        std::process::id(),
    )
}

/// `pid` says who is meant: the variables are inherited.
fn interval(usec: Option<&OsStr>, pid: Option<&OsStr>, own_pid: u32) -> Option<Duration> {
    let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
    let is_meant = pid.is_none_or(|pid| number(pid) == Some(own_pid.into()));
    let usec = usec.and_then(number).filter(|&usec| usec > 0 && is_meant)?;
    Some(Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counting;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    fn heard(manager: &UnixDatagram) -> String {
        let mut message = [0; 4096];
        let length = manager.recv(&mut message).expect("a message");
        String::from_utf8(message[..length].to_vec()).expect("text")
    }

    #[test]
    fn every_message_is_heard_as_systemd_reads_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let notifier = Notifier::at(path.as_os_str()).expect("connected");
        notifier.ready().expect("sent");
        assert_eq!(heard(&manager), "READY=1");
        let before = counting::calls();
        notifier.feed().expect("sent");
        assert_eq!(counting::calls(), before, "the deciding thread gives it");
        assert_eq!(heard(&manager), "WATCHDOG=1");
        notifier.stopping().expect("sent");
        assert_eq!(heard(&manager), "STOPPING=1");

        let before_us = clock::now().as_micros();
        notifier.reloading().expect("sent");
        let message = heard(&manager);
        let said = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let said_us: u128 = said.expect(&message).parse().expect("microseconds");
        assert!((before_us..=clock::now().as_micros()).contains(&said_us));
    }

    #[test]
    fn a_status_is_one_line_of_bounded_length() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let notifier = Notifier::at(path.as_os_str()).expect("connected");
        notifier
            .status("guards 2 targets\nMAINPID=1")
            .expect("sent");
        assert_eq!(heard(&manager), "STATUS=guards 2 targets");
        notifier.status(&"ü".repeat(10_000)).expect("sent");
        assert_eq!(heard(&manager), format!("STATUS={}", "ü".repeat(256)));
    }

    #[test]
    fn an_abstract_name_is_reached_too() {
        let name = format!("memwatch-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("a socket");
        let notifier = Notifier::at(format!("@{name}").as_ref()).expect("connected");
        notifier.ready().expect("sent");
        assert_eq!(heard(&manager), "READY=1");
    }

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let notifier = Notifier::at(path.as_os_str()).expect("connected");
        let refused = (0..100_000).find_map(|_| notifier.feed().err());
        let refused = refused.expect("a queue has an end");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        heard(&manager);
        notifier.feed().expect("there is room again");
    }

    #[test]
    fn a_manager_that_made_its_socket_anew_is_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let notifier = Notifier::at(path.as_os_str()).expect("connected");
        drop(manager);
        std::fs::remove_file(&path).expect("removed");
        let alone = notifier.feed().expect_err("nobody is there");
        assert_eq!(alone.kind(), io::ErrorKind::NotFound);
        let manager = UnixDatagram::bind(&path).expect("a socket");
        notifier.feed().expect("sent");
        assert_eq!(heard(&manager), "WATCHDOG=1");
    }

    #[test]
    fn what_is_no_socket_is_refused_with_its_address() {
        for address in ["/nowhere/notify", "vsock:2:1234", "relative"] {
            let source = Notifier::at(address.as_ref()).expect_err(address);
            assert!(source.raw_os_error().is_some(), "{address}");
        }
        let too_long = format!("/{}", "x".repeat(200));
        Notifier::at(too_long.as_ref()).expect_err("longer than an address");
    }

    #[test]
    fn the_watchdog_is_heeded_by_whom_it_means() {
        let interval = |usec: &str, pid: Option<&str>| {
            super::interval(Some(usec.as_ref()), pid.map(OsStr::new), 42)
        };
        assert_eq!(
            interval("10000000", Some("42")),
            Some(Duration::from_secs(10))
        );
        assert_eq!(interval("10000000", None), Some(Duration::from_secs(10)));
        assert_eq!(interval("10000000", Some("43")), None);
        assert_eq!(interval("10000000", Some("")), None);
        assert_eq!(interval("0", None), None);
        assert_eq!(interval("soon", None), None);
        assert_eq!(super::interval(None, None, 42), None);
    }
}
