//! Whether systemd-oomd is there and runs: no D-Bus, which hangs just when the answer matters.
//!
//! This is one look. A daemon that pages itself is seen only by looking on for seconds, as `watch::peer` does.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::{Look, parse_look};
use crate::host::machine::ReadError;

/// Between two looks at a process in D state. A healthy disk answers within it.
const SECOND_LOOK: Duration = Duration::from_millis(300);
/// Both places a distribution's unit may lie in.
const UNITS: [&str; 2] = [
    "usr/lib/systemd/system/systemd-oomd.service",
    "lib/systemd/system/systemd-oomd.service",
];

/// What systemd-oomd is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Oomd {
    /// Neither a process nor a unit.
    NotInstalled,
    /// There is a unit, but no living process.
    NotRunning,
    /// It runs, or sleeps until there is something to do.
    Active {
        /// Its process.
        pid: u32,
    },
    /// Somebody sent it SIGSTOP, or traces it.
    Stopped {
        /// Its process.
        pid: u32,
    },
    /// It was in D state in two looks and did not run between them.
    Stalled {
        /// Its process.
        pid: u32,
    },
}

/// What one look at systemd-oomd's cgroup shows: no verdict, but cheap, and it waits for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// Neither a process nor a unit.
    NotInstalled,
    /// There is a unit, but no living process.
    NotRunning,
    /// Somebody sent it SIGSTOP, or traces it.
    Stopped,
    /// It is in D state, as everybody is now and then.
    Waiting,
    /// It runs, or sleeps until there is something to do.
    Well,
}

/// Looks for systemd-oomd once, where the unit's cgroup is below `v2_mount`, instead of among all processes.
pub fn glance(root: &Path, v2_mount: &Path) -> Glance {
    let group = v2_mount.join("system.slice/systemd-oomd.service/cgroup.procs");
    let pids = std::fs::read_to_string(group).unwrap_or_default();
    let pids = pids.lines().filter_map(|pid| pid.parse().ok());
    match pids.filter_map(|pid| look(root, pid)).next() {
        None if has_unit(root) => Glance::NotRunning,
        None => Glance::NotInstalled,
        Some(look) => match look.state {
            b'T' | b't' => Glance::Stopped,
            b'Z' | b'X' => Glance::NotRunning,
            b'D' => Glance::Waiting,
            _ => Glance::Well,
        },
    }
}

fn has_unit(root: &Path) -> bool {
    UNITS.iter().any(|unit| root.join(unit).exists())
}

/// Looks for systemd-oomd; sleeps for 300 ms if the first look finds it in D state.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn read(root: &Path) -> Result<Oomd, ReadError> {
    let proc = root.join("proc");
    let entries = std::fs::read_dir(&proc).map_err(|source| ReadError { path: proc, source })?;
    let found = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, look(root, pid)?)))
        .find(|(pid, _)| is_the_service(root, *pid));
    Ok(match found {
        None if has_unit(root) => Oomd::NotRunning,
        None => Oomd::NotInstalled,
        Some((pid, first)) => match first.state {
            b'T' | b't' => Oomd::Stopped { pid },
            b'Z' | b'X' => Oomd::NotRunning,
            b'D' => {
                std::thread::sleep(SECOND_LOOK);
                match look(root, pid) {
                    Some(second) if second == first => Oomd::Stalled { pid },
                    Some(_) => Oomd::Active { pid },
                    None => Oomd::NotRunning,
                }
            }
            _ => Oomd::Active { pid },
        },
    })
}

/// One look at a process of oomd's name.
fn look(root: &Path, pid: u32) -> Option<Look> {
    let file = |name| std::fs::read(root.join(format!("proc/{pid}/{name}"))).ok();
    parse_look(pid, &file("stat")?, &file("status")?)
}

/// Anybody can call a process systemd-oomd, but only the system's manager can put it into the service's
/// cgroup.
fn is_the_service(root: &Path, pid: u32) -> bool {
    let groups = std::fs::read(root.join(format!("proc/{pid}/cgroup"))).unwrap_or_default();
    text_lines(&groups).any(|line| {
        let path = line.splitn(3, |&b| b == b':').nth(2).unwrap_or_default();
        path.ends_with(b"/systemd-oomd.service") && !path.starts_with(b"/user.slice/")
    })
}

fn text_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| b == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "0::/system.slice/systemd-oomd.service\n";

    fn add(root: &Path, pid: u32, comm: &str, state: char, cgroup: &str) {
        let dir = root.join(format!("proc/{pid}"));
        std::fs::create_dir_all(&dir).unwrap();
        let stat = format!(
            "{pid} ({comm}) {state} 1 {pid} {pid} 0 -1 4194560 900 0 3 0 5 7 0 0 20 0 1 0 712 17000000 1700\n"
        );
        std::fs::write(dir.join("stat"), stat).unwrap();
        std::fs::write(
            dir.join("status"),
            "voluntary_ctxt_switches:\t80\nnonvoluntary_ctxt_switches:\t2\n",
        )
        .unwrap();
        std::fs::write(dir.join("cgroup"), cgroup).unwrap();
    }

    #[test]
    fn every_state() {
        for (state, expected) in [
            ('S', Oomd::Active { pid: 812 }),
            ('R', Oomd::Active { pid: 812 }),
            ('T', Oomd::Stopped { pid: 812 }),
            ('t', Oomd::Stopped { pid: 812 }),
            ('Z', Oomd::NotRunning),
        ] {
            let root = tempfile::tempdir().unwrap();
            add(root.path(), 7, "systemd-oomdx", 'T', GROUP);
            add(root.path(), 812, "systemd-oomd", state, GROUP);
            let unit = root.path().join(UNITS[0]);
            std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
            std::fs::write(unit, "").unwrap();
            assert_eq!(read(root.path()).unwrap(), expected, "{state}");
        }
    }

    #[test]
    fn a_glance_looks_into_the_units_cgroup_alone() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("cgroup/system.slice/systemd-oomd.service");
        let mount = root.path().join("cgroup");
        assert_eq!(glance(root.path(), &mount), Glance::NotInstalled);
        let unit = root.path().join(UNITS[1]);
        std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
        std::fs::write(unit, "").unwrap();
        assert_eq!(glance(root.path(), &mount), Glance::NotRunning);
        std::fs::create_dir_all(&group).unwrap();
        std::fs::write(group.join("cgroup.procs"), "812\n").unwrap();
        for (state, expected) in [
            ('S', Glance::Well),
            ('T', Glance::Stopped),
            ('D', Glance::Waiting),
            ('Z', Glance::NotRunning),
        ] {
            add(root.path(), 812, "systemd-oomd", state, GROUP);
            assert_eq!(glance(root.path(), &mount), expected, "{state}");
        }
    }

    #[test]
    fn stalled_only_if_it_did_not_run_between_two_looks() {
        let root = tempfile::tempdir().unwrap();
        add(root.path(), 812, "systemd-oomd", 'D', GROUP);
        assert_eq!(read(root.path()).unwrap(), Oomd::Stalled { pid: 812 });

        let status = root.path().join("proc/812/status");
        let next = root.path().join("next");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let runs = std::thread::spawn(move || {
            for switches in 81.. {
                // Whole at any moment.
                let line = format!("voluntary_ctxt_switches:\t{switches}\n");
                std::fs::write(&next, line).unwrap();
                std::fs::rename(&next, &status).unwrap();
                if stopped.recv_timeout(SECOND_LOOK / 30)
                    != Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    break;
                }
            }
        });
        assert_eq!(read(root.path()).unwrap(), Oomd::Active { pid: 812 });
        drop(stop);
        runs.join().unwrap();
    }

    #[test]
    fn a_name_alone_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        add(
            root.path(),
            4000,
            "systemd-oomd",
            'T',
            "0::/user.slice/x/systemd-oomd.service\n",
        );
        add(
            root.path(),
            4001,
            "systemd-oomd",
            'T',
            "0::/system.slice/ssh.service\n",
        );
        assert_eq!(read(root.path()).unwrap(), Oomd::NotInstalled);
    }
}
