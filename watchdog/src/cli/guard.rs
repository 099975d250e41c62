//! `memwatch guard`: the targets that the guard in the kernel stands over, for people. The set itself is
//! `bpf::programs`'s.

use crate::bpf::{self, Standing};
use crate::host::cgroup;
use crate::host::layout::Layout;
use crate::incident::Text;
use anyhow::Context;
use clap::{Args, Subcommand};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// The long help.
pub const ABOUT: &str = "\
Show or lift the guard in the kernel.

While memwatch runs it gives signs of life. If they stop and its target stalls, a BPF program kills a member \
of the target. That outlives a memwatch that dies: its target stays under the guard until it is empty. The \
next memwatch tells what the guard did and takes away what has no target any more.";

/// `memwatch guard`.
#[derive(Clone, Debug, Args)]
pub struct GuardArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Action {
    /// List the targets that the guard stands over, and whether their memwatch lives
    List,
    /// Lift the guard from targets whose memwatch is dead
    Disarm,
    /// Make the place for its programs that all see, before a memwatch whose own mounts nobody sees
    #[command(hide = true)]
    Prepare,
}

/// Runs it; the exit code.
///
/// # Errors
/// The programs cannot be reached, or nobody reads what is printed.
pub fn run(args: &GuardArgs) -> anyhow::Result<ExitCode> {
    let base = Path::new(bpf::SHARED);
    let layout = Layout::read(Path::new("/"))?;
    let standing = match args.action {
        Action::List => bpf::standing(base),
        Action::Prepare => {
            bpf::prepare(base).context("the guard's programs have no place that all see")?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::Disarm => {
            // Or the next memwatch would put them under it again.
            cgroup::forget_terms(&layout);
            bpf::disarm_dead(base)
        }
    };
    let standing = standing.context("cannot reach the guard; it is root's")?;
    let mut out = io::stdout().lock();
    print(&mut out, &standing, layout.v2_mount()).context("cannot print the targets")?;
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut impl Write, standing: &[Standing], v2_mount: &Path) -> io::Result<()> {
    if standing.is_empty() {
        return writeln!(out, "the guard stands over no target");
    }
    for target in standing {
        let name = match cgroup::by_id(v2_mount, target.cgroup_id) {
            Some(dir) => Text::of_name(dir.as_os_str().as_encoded_bytes()),
            None => format!("cgroup {} (gone)", target.cgroup_id).into(),
        };
        let armed = if target.armed { "armed" } else { "not armed" };
        let owner = if target.owner_lives {
            "lives"
        } else {
            "is dead"
        };
        writeln!(out, "{name}: {armed}, its memwatch {owner}")?;
    }
    Ok(())
}
