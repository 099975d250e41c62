//! One process as `/proc/PID/stat`, `/proc/PID/statm` and `/proc/PID/status` show it.
//!
//! Only files that never take the process's mmap lock: `cmdline`, `environ`, `maps` and `smaps` do, and
//! can hang for ever behind a process that is stuck in reclaim. Which processes to look at is
//! `agent::members`'.

use crate::host::text;

/// The fields of `/proc/PID/stat` that identify and describe a process (fs/proc/array.c, `do_task_stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process's name as the kernel has it: any bytes but NUL, at most 15.
    pub comm: Comm,
    /// One of `RSDTZXI`, as proc(5) lists them.
    pub state: u8,
    /// Parent's pid.
    pub ppid: u32,
    /// Process group.
    pub pgid: u32,
    /// Major faults of the process itself, without its children's.
    pub major_faults: u64,
    /// Minor faults of the process itself.
    pub minor_faults: u64,
    /// Time in programs, in clock ticks (1/100 s).
    pub user_ticks: u64,
    /// Time in the kernel, in clock ticks (1/100 s).
    pub system_ticks: u64,
    /// Threads of the process.
    pub threads: u32,
    /// Start time in clock ticks since boot: with the pid, the process's identity.
    pub start_ticks: u64,
}

/// A kernel task name: raw bytes, NUL-padded.
pub type Comm = [u8; 16];

/// Reads the text of `/proc/PID/stat`.
///
/// The name stands in parentheses and may itself hold parentheses, blanks and newlines, so the fields
/// start after the *last* `)`.
pub fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|&b| b == b'(')?;
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let name = bytes.get(open + 1..close)?;
    let mut comm = [0; 16];
    let kept = name.len().min(comm.len());
    comm[..kept].copy_from_slice(&name[..kept]);

    let mut fields = bytes.get(close + 2..)?.split(|&b| b == b' ');
    let state = *fields.next()?.first()?;
    // proc(5) counts from 1; `state` was field 3.
    let mut at = 3;
    let mut field = |wanted: usize| {
        let value = fields.nth(wanted - at - 1).and_then(text::number);
        at = wanted;
        value
    };
    Some(Stat {
        comm,
        state,
        ppid: field(4)? as u32,
        pgid: field(5)? as u32,
        minor_faults: field(10)?,
        major_faults: field(12)?,
        user_ticks: field(14)?,
        system_ticks: field(15)?,
        threads: field(20)? as u32,
        start_ticks: field(22)?,
    })
}

/// How often it was taken off a CPU, by itself or not, from the text of `/proc/PID/status` (or a task's). Who
/// has the same count in two looks did not run in between. Unlike the memory in that file the counts are of
/// the task alone.
pub fn parse_switches(status: &[u8]) -> u64 {
    let lines = status.split(|&b| b == b'\n').filter_map(|line| {
        let (name, count) = line.split_at_checked(line.iter().position(|&b| b == b':')? + 1)?;
        name.ends_with(b"ctxt_switches:")
            .then(|| text::number(count))?
    });
    lines.sum()
}

/// Resident memory, from `/proc/PID/statm` (fs/proc/array.c, `proc_pid_statm`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Anonymous pages: what only this process's end gives back.
    pub anon_bytes: u64,
    /// Mapped file and shared-memory pages.
    pub shared_bytes: u64,
}

/// Reads the text of `/proc/PID/statm`. A process that has given up its memory reads as zero.
pub fn parse_statm(bytes: &[u8], page_bytes: u64) -> Option<Resident> {
    let mut fields = bytes.split(|&b| b == b' ');
    let resident = text::number(fields.nth(1)?)?;
    let shared = text::number(fields.next()?)?;
    Some(Resident {
        anon_bytes: resident.saturating_sub(shared).saturating_mul(page_bytes),
        shared_bytes: shared.saturating_mul(page_bytes),
    })
}

/// Whose a process is, from `/proc/PID/status` (fs/proc/array.c, `task_state`), as user ids of the reader's
/// user namespace. The first, where the daemon runs, knows every user; in another one those that it does not
/// know read as 65534.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uids {
    /// Who started it.
    pub real: u32,
    /// Whose rights it has.
    pub effective: u32,
    /// Whose rights it may take back.
    pub saved: u32,
}

/// Reads the beginning of the text of `/proc/PID/status`, up to the line in question; the process's name
/// stands before it, with newlines escaped.
pub fn parse_uids(bytes: &[u8]) -> Option<Uids> {
    let line = bytes
        .split_inclusive(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:\t")?.strip_suffix(b"\n"))?;
    let mut uids = line
        .split(|&b| b == b'\t')
        .map(|uid| u32::try_from(text::number(uid)?).ok());
    Some(Uids {
        real: uids.next()??,
        effective: uids.next()??,
        saved: uids.next()??,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(name: &[u8]) -> Vec<u8> {
        let mut text = b"42 (".to_vec();
        text.extend_from_slice(name);
        text.extend_from_slice(
            b") D 7 41 41 0 -1 4194304 100 0 20 0 11 22 0 0 20 0 1 0 9876 1000 50 18446744073709551615 1\n",
        );
        text
    }

    #[test]
    fn reads_every_field_it_uses() {
        let stat = parse_stat(&line(b"python3")).expect("well formed");
        assert_eq!(&stat.comm[..8], b"python3\0");
        assert_eq!((stat.state, stat.ppid, stat.pgid), (b'D', 7, 41));
        assert_eq!((stat.minor_faults, stat.major_faults), (100, 20));
        assert_eq!((stat.user_ticks, stat.system_ticks), (11, 22));
        assert_eq!(stat.start_ticks, 9876);
        assert_eq!(stat.threads, 1);
    }

    #[test]
    fn a_name_cannot_forge_fields() {
        let stat = parse_stat(&line(b") S 1 (x\n\x1b[2J")).expect("well formed");
        assert_eq!((stat.state, stat.ppid, stat.start_ticks), (b'D', 7, 9876));
        assert_eq!(&stat.comm[..8], b") S 1 (x");
    }

    #[test]
    fn our_own_entry_parses_and_has_memory() {
        let stat = parse_stat(&std::fs::read("/proc/self/stat").expect("procfs")).expect("stat");
        assert_eq!(stat.ppid, std::os::unix::process::parent_id());
        let statm = std::fs::read("/proc/self/statm").expect("procfs");
        let resident = parse_statm(&statm, 4096).expect("statm");
        assert!(resident.anon_bytes + resident.shared_bytes > 100 * 1024);
    }

    #[test]
    fn both_kinds_of_switches_count() {
        let status =
            b"Name:\tx\nThreads:\t3\nvoluntary_ctxt_switches:\t80\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(parse_switches(status), 82);
        assert_eq!(parse_switches(b""), 0);
    }

    #[test]
    fn uids_are_read_whole_and_not_from_a_name() {
        let status =
            b"Name:\tx\\nUid:\t0\t0\t0\t0\nUmask:\t0022\nUid:\t1000\t0\t7\t0\nGid:\t5\t5\t5\t5\n";
        let uids = parse_uids(status).expect("well formed");
        assert_eq!((uids.real, uids.effective, uids.saved), (1000, 0, 7));
        let cut = &status[..status.len() - 23];
        assert_eq!(parse_uids(cut), None, "{:?}", String::from_utf8_lossy(cut));
        let own = std::fs::read("/proc/self/status").expect("procfs");
        // SAFETY: reads one number of this process.
        let real = unsafe { libc::getuid() };
        assert_eq!(parse_uids(&own).map(|uids| uids.real), Some(real));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_stat(&bytes);
            let _ = parse_switches(&bytes);
            let _ = parse_statm(&bytes, 4096);
            let _ = parse_uids(&bytes);
        }

        #[test]
        fn any_name_leaves_the_fields_alone(name in proptest::collection::vec(1u8.., 0..16)) {
            let stat = parse_stat(&line(&name)).expect("well formed");
            prop_assert_eq!((stat.ppid, stat.start_ticks), (7, 9876));
        }
    }
}
