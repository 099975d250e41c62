//! Asks systemd for a place to make a target in: a transient scope with delegation, of the system's manager
//! for root and of the user's own for everybody else.
//!
//! systemd owns the tree of cgroups where it runs; what is made without asking it may lose its controllers
//! at any reload (systemd.io's "Control Group APIs and Delegation"). Inside a delegated scope the tree is
//! ours. The target itself is made there by [`super::cgroup`].

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, geteuid, getpid, setsid};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use zbus::Connection;
use zbus::Variant;

/// There is no scope to be had.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// The manager's bus cannot be reached, or it refuses.
    #[error("systemd: {0}")]
    Bus(#[from] zbus::Error),
    /// It took the request and did nothing.
    #[error("systemd made no scope within {} s", PATIENCE.as_secs())]
    Late,
    /// A process or a file could not be had.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why, with its errno.
        source: io::Error,
    },
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> ScopeError {
    move |source| ScopeError::Io { doing, source }
}

/// The manager's interface.
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// Longer than a manager takes on a machine in trouble; one that is stuck is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A scope, held open by a process that sleeps in it: systemd removes one that is empty, and with it the
/// figures of what ran there.
#[derive(Debug)]
pub struct Scope {
    /// Its directory below the v2 mount.
    pub dir: PathBuf,
    name: String,
    bus: Bus,
    _keeper: Keeper,
}

impl Scope {
    /// Whether systemd runs here, as sd_booted(3) finds out, and the bus of its manager is there.
    /// `root` is where the machine's root directory is.
    pub fn can_be_had(root: &Path) -> bool {
        let bus = match geteuid() {
            superuser if superuser.is_root() => "run/dbus/system_bus_socket".to_owned(),
            user => format!("run/user/{user}/bus"),
        };
        root.join("run/systemd/system").is_dir() && root.join(bus).exists()
    }

    /// Starts the scope `name` (without suffix). `slice` is the unit to put it into; for the system's
    /// manager only.
    ///
    /// # Errors
    /// systemd does not answer, refuses, or is late.
    pub fn start(v2_mount: &Path, name: &str, slice: Option<&str>) -> Result<Self, ScopeError> {
        let bus = Bus::connect()?;
        let keeper = Keeper::fork().map_err(failed("start a process to hold a scope open"))?;
        let name = format!("{name}.scope");
        let pids = vec![keeper.pid.as_raw() as u32];
        let mut properties = vec![
            ("Description", Variant::from("what memwatch guards")),
            ("PIDs", Variant::from(pids)),
            ("Delegate", Variant::from(true)),
            ("CollectMode", Variant::from("inactive-or-failed")),
        ];
        if let Some(slice) = slice.filter(|_| geteuid().is_root()) {
            properties.push(("Slice", Variant::from(slice)));
        }
        let auxiliary: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        bus.call(
            "StartTransientUnit",
            &(name.as_str(), "fail", properties, auxiliary),
        )?;
        let dir = v2_mount.join(keeper.arrive_in(&name)?);
        let apart = dir.join("keeper");
        let own = || -> io::Result<()> {
            // A cgroup that hands controllers down must not hold processes itself.
            fs::create_dir(&apart)?;
            fs::write(apart.join("cgroup.procs"), keeper.pid.to_string())?;
            fs::write(dir.join("cgroup.subtree_control"), "+memory")
        };
        own().map_err(failed("take over the scope"))?;
        Ok(Self {
            dir,
            name,
            bus,
            _keeper: keeper,
        })
    }

    /// Whether processes must be moved by systemd, as this user may not move them out of where they are.
    pub fn moves(&self) -> bool {
        !geteuid().is_root()
    }

    /// Has systemd move a process of this user into the cgroup `below` the scope.
    ///
    /// # Errors
    /// It does not answer, or refuses: the process is gone, or another user's.
    pub fn attach(&self, below: &str, pid: u32) -> Result<(), ScopeError> {
        self.bus.call(
            "AttachProcessesToUnit",
            &(self.name.as_str(), format!("/{below}"), vec![pid]),
        )
    }
}

/// A connection to the manager.
#[derive(Debug)]
pub(super) struct Bus {
    runtime: Runtime,
    connection: Connection,
}

impl Bus {
    /// Connects to root's or this user's manager.
    ///
    /// # Errors
    /// Its bus cannot be reached, or is late.
    pub(super) fn connect() -> Result<Self, ScopeError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed("start an event loop"))?;
        let uid = geteuid();
        let connecting = async {
            if uid.is_root() {
                return Connection::system().await;
            }
            // Not the environment's, which may be another session's after su(1), or a test's.
            let address = format!("unix:path=/run/user/{uid}/bus");
            zbus::connection::Builder::address(address.as_str())
                .build()
                .await
        };
        let connection = runtime.block_on(in_time(connecting))?;
        Ok(Self {
            runtime,
            connection,
        })
    }

    fn call<Body>(&self, method: &str, body: &Body) -> Result<(), ScopeError>
    where
        Body: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let manager = ("/org/freedesktop/systemd1", MANAGER);
        self.ask(manager, method, body).map(drop)
    }

    /// Calls a method of an object, by its path and interface, and gives the answer.
    ///
    /// # Errors
    /// The manager refuses, or is late.
    pub(super) fn ask<Body>(
        &self,
        (path, interface): (&str, &str),
        method: &str,
        body: &Body,
    ) -> Result<zbus::Message, ScopeError>
    where
        Body: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let service = Some("org.freedesktop.systemd1");
        let call = self
            .connection
            .call_method(service, path, Some(interface), method, body);
        self.runtime.block_on(in_time(call))
    }
}

async fn in_time<T>(call: impl Future<Output = zbus::Result<T>>) -> Result<T, ScopeError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ScopeError::Late),
    }
}

/// A process that sleeps for as long as this one lives.
#[derive(Debug)]
struct Keeper {
    pid: Pid,
}

impl Keeper {
    fn fork() -> io::Result<Self> {
        let parent = getpid();
        // SAFETY: the child makes system calls only: other threads' locks do not matter to it.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self { pid: child }),
            ForkResult::Child => sleep_while(parent),
        }
    }

    /// Waits until systemd has put it into the scope; the scope's path below the v2 mount.
    fn arrive_in(&self, scope: &str) -> Result<PathBuf, ScopeError> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.pid))
                .map_err(failed("read where the scope's process is"))?;
            let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
            if let Some(own) = own.filter(|own| own.ends_with(scope)) {
                return Ok(own.into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(ScopeError::Late)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.pid, nix::sys::signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// The keeper's life: out of reach of the terminal, holding nothing open that somebody may wait for.
fn sleep_while(parent: Pid) -> ! {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
    let _ = setsid();
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL);
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    // It may have died before the wish was made.
    while nix::unistd::getppid() == parent {
        // SAFETY: no signal but the last arrives.
        unsafe { libc::pause() };
    }
    // SAFETY: ends this process at once.
    unsafe { libc::_exit(0) }
}
