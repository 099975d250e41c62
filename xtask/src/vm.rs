//! `cargo xtask vm`: memwatch on the kernels that users have, in virtual machines. The scenarios are the
//! scripts in `tests/vm`; how one is written stands in OPERATIONS.

mod accelerator;
mod apt;
mod boot;
mod cache;
mod console;
mod disks;
mod image;
mod kernel;
mod scenario;
mod table;
mod verdict;

pub(crate) use apt::Archive;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::dist;
use crate::workspace::{Release, root, target_dir};
use accelerator::accelerator;
use boot::{Disks, boot};
use kernel::Kernel;
use scenario::Scenario;
use verdict::{Outcome, columns, machine_row, outcomes, row};

const TOOLS: [(&str, &str); 3] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel, or `all` of them.
    #[arg(long, default_value = "6.12", value_parser = parse_kernels)]
    kernel: Kernels,
    /// Only these; without, all that are meant for the kernel.
    scenario: Vec<String>,
    /// What has to hold before a change is taken: scenarios and kernels as the headers say.
    #[arg(long, conflicts_with_all = ["kernel", "scenario"])]
    ci: bool,
}

#[derive(Clone)]
struct Kernels(Vec<Kernel>);

fn parse_kernels(text: &str) -> Result<Kernels, String> {
    if text == "all" {
        return Ok(Kernels(Kernel::ALL.to_vec()));
    }
    <Kernel as clap::ValueEnum>::from_str(text, false).map(|kernel| Kernels(vec![kernel]))
}

/// Runs the scenarios asked for.
///
/// # Errors
/// If something is missing, or a single scenario failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "guests are x86-64 only");
    let scenarios = scenario::all(&root().join("tests/vm"))?;
    let scenarios = scenario::chosen(scenarios, &args.scenario)?;
    let dir = target_dir().join("vm");
    fs::create_dir_all(&dir)?;
    // One run at a time: images and results have one place each. Freed with this process.
    let lock = File::create(dir.join("lock"))?;
    lock.lock().context("waiting for another run")?;

    let archive = apt::Archive::of_this_machine(dir.join("apt"))?;
    install_tools(&archive)?;
    let lab = Lab {
        package: dist::package()?,
        workload: Release::build()?.workload,
        root: image::provide(&archive, &dir)?,
        dir,
    };
    let wanted: &[Kernel] = if args.ci {
        &Kernel::ALL
    } else {
        &args.kernel.0
    };
    let kernels = wanted
        .iter()
        .map(|kernel| Ok((*kernel, kernel.provide(&archive, &lab.dir)?)))
        .collect::<Result<Vec<_>>>()?;

    println!("\n{}", columns());
    let mut failed = 0;
    for (kernel, vmlinuz) in &kernels {
        let meant = scenarios.iter().filter(|scenario| {
            let kernels = if args.ci {
                &scenario.in_ci
            } else {
                &scenario.kernels
            };
            kernels.contains(kernel)
        });
        failed += lab.run_on(*kernel, vmlinuz, &meant.collect::<Vec<_>>())?;
    }
    if failed > 0 {
        bail!(
            "{failed} scenarios failed; what they left is in {}",
            lab.out().display()
        );
    }
    table::renew(&lab.out(), wanted)
}

fn install_tools(archive: &apt::Archive) -> Result<()> {
    let found = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|(program, _)| !found(program))
        .map(|&(_, package)| package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("\n── install {}", missing.join(", "));
    archive.install(&missing)
}

/// What every boot needs.
struct Lab {
    /// memwatch as users get it: scenarios install it.
    package: PathBuf,
    workload: PathBuf,
    root: PathBuf,
    dir: PathBuf,
}

impl Lab {
    fn out(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// Runs scenarios on one kernel, in as few machines as may be, and prints their rows; how many failed.
    fn run_on(&self, kernel: Kernel, vmlinuz: &Path, scenarios: &[&Scenario]) -> Result<usize> {
        let out = self.out().join(kernel.series());
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        fs::create_dir_all(&out)?;
        let (alone, mut shared): (Vec<&Scenario>, Vec<&Scenario>) =
            scenarios.iter().partition(|s| s.needs_fresh_machine);
        let mut machines = 0;
        let mut failed = 0;
        let mut boot_with = |scenarios: &[&Scenario]| -> Result<usize> {
            machines += 1;
            let log = out.join(format!("console-{machines}.log"));
            let start = Instant::now();
            let outcomes = self.boot(vmlinuz, &out, &log, scenarios)?;
            let seconds = start.elapsed().as_secs_f64();
            println!("{}", machine_row(kernel.series(), machines, seconds));
            for (scenario, outcome) in scenarios.iter().zip(&outcomes) {
                println!("{}", row(kernel.series(), outcome));
                if !outcome.wrong.is_empty() {
                    println!("{:36}was to show: {}", "", scenario.shows);
                    failed += 1;
                }
            }
            Ok(outcomes.len())
        };
        // Whoever takes the machine down is the last in it; the others get another.
        while !shared.is_empty() {
            let ran = boot_with(&shared)?;
            shared.drain(..ran);
        }
        for scenario in alone {
            boot_with(&[scenario])?;
        }
        Ok(failed)
    }

    /// One machine; the outcomes of those scenarios that had their turn, which is at least one.
    fn boot(
        &self,
        vmlinuz: &Path,
        out: &Path,
        log: &Path,
        scenarios: &[&Scenario],
    ) -> Result<Vec<Outcome>> {
        let disks = Disks {
            kernel: vmlinuz,
            root: &self.root,
            payload: &disks::payload(&self.dir, &[&self.package, &self.workload], scenarios)?,
            out: &disks::out(&self.dir)?,
        };
        let (console, end) = boot(accelerator(vmlinuz), &disks, log, scenarios)?;
        let mut outcomes = outcomes(scenarios, &console, &end);
        let ran: Vec<_> = outcomes.iter().map(|o| o.name.as_str()).collect();
        disks::take(disks.out, &ran, out)?;
        for outcome in &mut outcomes {
            outcome.wrong.extend(complaints(&out.join(&outcome.name)));
        }
        Ok(outcomes)
    }
}

/// What a scenario itself said was not as it must be.
fn complaints(dir: &Path) -> Vec<String> {
    // A scenario that was cut off left no log.
    let log = fs::read_to_string(dir.join("log.txt")).unwrap_or_default();
    let complaints = log.lines().filter_map(|line| line.strip_prefix("not so: "));
    complaints.map(str::to_owned).collect()
}

/// What a command prints, of which nobody wants to see more than an error.
fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
