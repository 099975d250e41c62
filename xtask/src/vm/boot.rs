//! One machine from its start to its end: qemu, with the console read while it runs. What the console says
//! is `console`'s to understand; the disks are `image`'s and
//! `disks`'.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::console::Console;
use super::image::DISK_SIGNATURE;
use super::scenario::Scenario;

/// What a guest is given: little enough that a hog fills it soon.
const MEMORY: &str = "2G";
const CPUS: &str = "2";

/// For the way to the first scenario, on a busy machine without KVM.
const UNTIL_THE_FIRST: Duration = Duration::from_secs(180);
/// For what comes after a scenario: its log, its archive, the end of the machine. A scenario that is over
/// its time is ended in the guest, which may be slow to do so.
const AFTERWARDS: Duration = Duration::from_secs(60);

/// No logs of good news; the kernel's complaints go to the console, and a panic ends the machine.
const KERNEL_ARGUMENTS: &str = "rootwait rw console=ttyS0 loglevel=5 panic=-1 \
    printk.devkmsg=on mitigations=off audit=0 psi=1 systemd.show_status=0";

/// What is booted with what.
pub(super) struct Disks<'a> {
    pub(super) kernel: &'a Path,
    pub(super) root: &'a Path,
    pub(super) payload: &'a Path,
    /// Takes what scenarios leave; the only one that is written to.
    pub(super) out: &'a Path,
}

/// How a machine ended.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    /// By itself.
    Off,
    /// It had to be ended, after this long without progress.
    Hung(Duration),
}

/// The most lives of one machine: a scenario that never has enough is wrong.
const LIVES: u32 = 64;

/// Boots, and waits for the end of it; `log` is the console's file. Where a scenario has the power cut, the machine
/// is booted again with the same disks, and its console is in files beside it.
///
/// # Errors
/// If qemu cannot be started, or refuses.
pub(super) fn boot(
    accelerator: &str,
    disks: &Disks<'_>,
    log: &Path,
    scenarios: &[&Scenario],
) -> Result<(Console, End)> {
    let mut console = Console::default();
    for life in 1..=LIVES {
        let log = match life {
            1 => log.to_owned(),
            life => log.with_extension(format!("{life}.log")),
        };
        if let Some(end) = live(accelerator, disks, &log, scenarios, &mut console)? {
            return Ok((console, end));
        }
    }
    bail!("a scenario had the power cut {LIVES} times")
}

/// One life of a machine; how it ended, or `None` if its power was cut.
fn live(
    accelerator: &str,
    disks: &Disks<'_>,
    log: &Path,
    scenarios: &[&Scenario],
    console: &mut Console,
) -> Result<Option<End>> {
    let mut machine = Machine(
        qemu(accelerator, disks, log)
            .spawn()
            .context("cannot start qemu")?,
    );
    let mut file = Tail::of(log);
    let (mut marks, mut since) = (console.marks(), Instant::now());
    let marks_before = marks;
    loop {
        let ended = machine.0.try_wait()?;
        console.read(&file.grown()?);
        if let Some(status) = ended {
            ensure!(status.success(), "qemu failed ({status})");
            return Ok(Some(End::Off));
        }
        if console.take_cut() {
            return Ok(None);
        }
        if console.marks() > marks {
            (marks, since) = (console.marks(), Instant::now());
        }
        let patience = if marks == marks_before {
            UNTIL_THE_FIRST
        } else {
            patience(console, scenarios)
        };
        if since.elapsed() > patience {
            return Ok(Some(End::Hung(patience)));
        }
        sleep(Duration::from_millis(50));
    }
}

/// How long the console may stay without a mark.
fn patience(console: &Console, scenarios: &[&Scenario]) -> Duration {
    match console.running() {
        Some(name) => {
            let running = scenarios.iter().find(|scenario| scenario.name == name);
            running.map_or(Duration::ZERO, |scenario| scenario.limit) + AFTERWARDS
        }
        None => AFTERWARDS,
    }
}

/// A running qemu, ended with this.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It has ended by itself, or nobody needs it any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn qemu(accelerator: &str, disks: &Disks<'_>, log: &Path) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-m", MEMORY, "-smp", CPUS])
        .args(["-machine", "q35", "-cpu", "max"])
        .args(["-accel", accelerator])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .arg("-kernel")
        .arg(disks.kernel)
        .arg("-append")
        .arg(format!(
            "root=PARTUUID={DISK_SIGNATURE:08x}-01 {KERNEL_ARGUMENTS}"
        ))
        .args(["-device", "nvme,id=disk,serial=memwatch"]);
    let disks = [
        (disks.root, "snapshot=on"),
        (disks.payload, "readonly=on"),
        (disks.out, "snapshot=off"),
    ];
    for (number, (image, mode)) in (1..).zip(disks) {
        // What a guest has given to a disk outlives its own power cuts, though not this machine's: nothing has to wait
        // for a real disk.
        qemu.arg("-drive").arg(format!(
            "if=none,id=d{number},format=raw,cache=unsafe,{mode},file={}",
            image.display()
        ));
        qemu.arg("-device")
            .arg(format!("nvme-ns,bus=disk,nsid={number},drive=d{number}"));
    }
    // Where it keeps what a guest writes to its root; the file has no name.
    qemu.env("TMPDIR", log.with_file_name(""));
    qemu.stdin(Stdio::null());
    // SAFETY: takes numbers only.
    let end_with_parent = || match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // No machine outlives this process, however it ends.
    // SAFETY: only a system call between fork and exec.
    unsafe { qemu.pre_exec(end_with_parent) };
    qemu
}

/// A file that grows, and may not be there yet.
struct Tail {
    path: PathBuf,
    file: Option<File>,
}

impl Tail {
    fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
        }
    }

    /// What has come since the last time.
    fn grown(&mut self) -> Result<Vec<u8>> {
        if self.file.is_none() && self.path.exists() {
            self.file = Some(File::open(&self.path)?);
        }
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut bytes)
                .with_context(|| format!("reading {}", self.path.display()))?;
        }
        Ok(bytes)
    }
}
