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
    /// What children that are over and were waited for have spent, and theirs, in clock ticks (1/100 s).
    pub children_ticks: u64,
    /// Threads of the process.
    pub threads: u32,
    /// Start time in clock ticks since boot: with the pid, the process's identity.
    pub start_ticks: u64,
}

/// A kernel task name: raw bytes, NUL-padded.
pub type Comm = [u8; 16];

/// A [`Comm`] as text that reads as the name and loses nothing of it: printable ASCII as it is, a backslash as
/// `\\`, any other byte as `\xff`; the NULs at its end are left out. Once it was written as sixteen numbers, which is
/// still read.
pub mod comm_text {
    use super::Comm;
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};
    use std::fmt::{self, Write};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(comm: &Comm, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_text(comm))
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is neither such a text nor sixteen numbers.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Comm, D::Error> {
        deserializer.deserialize_any(Name)
    }

    struct Name;

    impl<'de> Visitor<'de> for Name {
        type Value = Comm;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the name of a task, of at most 16 bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Comm, E> {
            from_text(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Comm, A::Error> {
            let mut comm = Comm::default();
            for (at, byte) in comm.iter_mut().enumerate() {
                let next = numbers.next_element()?;
                *byte = next.ok_or_else(|| A::Error::invalid_length(at, &self))?;
            }
            match numbers.next_element::<u8>()? {
                None => Ok(comm),
                Some(_) => Err(A::Error::invalid_length(17, &self)),
            }
        }
    }

    fn to_text(comm: &Comm) -> String {
        let len = comm
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |at| at + 1);
        let mut text = String::with_capacity(len);
        for &byte in &comm[..len] {
            match byte {
                b'\\' => text.push_str("\\\\"),
                b' '..=b'~' => text.push(byte.into()),
                _ => {
                    write!(text, "\\x{byte:02x}").expect("a String takes all that is written to it")
                }
            }
        }
        text
    }

    fn from_text(text: &str) -> Option<Comm> {
        let mut comm = Comm::default();
        let mut places = comm.iter_mut();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            *places.next()? = match byte {
                b'\\' => match bytes.next()? {
                    b'\\' => b'\\',
                    b'x' => {
                        let mut digit = || char::from(bytes.next()?).to_digit(16);
                        u8::try_from(digit()? * 16 + digit()?).ok()?
                    }
                    _ => return None,
                },
                b' '..=b'~' => byte,
                _ => return None,
            };
        }
        Some(comm)
    }
}

/// What `/proc/PID/stat` says now; `None` of one that is no more. Opens a file: nothing for the deciding thread.
pub fn stat_of(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads the text of `/proc/PID/stat`.
///
/// The name stands in parentheses and may itself hold parentheses, blanks and newlines, so the fields
/// start after the *last* `)`. Of a text that is cut, what is whole counts.
pub fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|&b| b == b'(')?;
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let name = bytes.get(open + 1..close)?;
    let mut comm = [0; 16];
    let kept = name.len().min(comm.len());
    comm[..kept].copy_from_slice(&name[..kept]);

    let mut fields = text::whole_words(bytes.get(close + 2..)?).split(|&b| b == b' ');
    let state = *fields.next()?.first()?;
    // proc(5) counts from 1; `state` was field 3.
    let mut at = 3;
    let mut field = |wanted: usize| {
        let value = fields.nth(wanted - at - 1).and_then(text::number);
        at = wanted;
        value
    };
    let small = |number: Option<u64>| u32::try_from(number?).ok();
    Some(Stat {
        comm,
        state,
        ppid: small(field(4))?,
        pgid: small(field(5))?,
        minor_faults: field(10)?,
        major_faults: field(12)?,
        user_ticks: field(14)?,
        system_ticks: field(15)?,
        children_ticks: field(16)?.saturating_add(field(17)?),
        threads: small(field(20))?,
        start_ticks: field(22)?,
    })
}

/// How often it was taken off a CPU, by itself or not, from the text of `/proc/PID/status` (or a task's). Who
/// has the same count in two looks did not run in between. Unlike the memory in that file the counts are of
/// the task alone.
pub fn parse_switches(status: &[u8]) -> u64 {
    let lines = text::whole_lines(status);
    let counts = lines.split(|&b| b == b'\n').filter_map(|line| {
        let (name, count) = line.split_at_checked(line.iter().position(|&b| b == b':')? + 1)?;
        name.ends_with(b"ctxt_switches:")
            .then(|| text::number(count))?
    });
    counts.fold(0, u64::saturating_add)
}

/// What the process has in swap, from the text of `/proc/PID/status` (`VmSwap`; fs/proc/task_mmu.c, `task_mem`, which
/// takes no lock). `None` if it has given up its memory.
pub fn parse_swap(status: &[u8]) -> Option<u64> {
    let mut lines = text::keyed_lines(status);
    let kib = lines.find_map(|(name, kib)| (name == b"VmSwap").then_some(kib))?;
    Some(kib.saturating_mul(1024))
}

/// Resident memory, from `/proc/PID/statm` (fs/proc/array.c, `proc_pid_statm`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Anonymous pages: what only this process's end gives back.
    pub anon_bytes: u64,
    /// Mapped file and shared-memory pages.
    pub shared_bytes: u64,
}

/// Reads the text of `/proc/PID/statm`. A process that has given up its memory reads as zero. Both parts together
/// fit into a number.
pub fn parse_statm(bytes: &[u8], page_bytes: u64) -> Option<Resident> {
    let mut fields = text::whole_words(bytes).split(|&b| b == b' ');
    let resident = text::number(fields.nth(1)?)?;
    let shared = text::number(fields.next()?)?;
    resident.max(shared).checked_mul(page_bytes)?;
    Some(Resident {
        anon_bytes: resident.saturating_sub(shared) * page_bytes,
        shared_bytes: shared * page_bytes,
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

    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Named {
        #[serde(with = "comm_text")]
        comm: Comm,
    }

    #[test]
    fn a_name_reads_as_it_is() {
        let mut comm = Comm::default();
        comm[..9].copy_from_slice(b"py \\\n\0\xff3x");
        let text = serde_json::to_value(Named { comm }).expect("text");
        assert_eq!(text["comm"], r"py \\\x0a\x00\xff3x");
        for wrong in ["12345678901234567", r"\", r"\x0", r"\q", "\u{e9}"] {
            let json = serde_json::json!({ "comm": wrong });
            assert!(serde_json::from_value::<Named>(json).is_err(), "{wrong}");
        }
        for wrong in [15, 17] {
            let json = serde_json::json!({ "comm": vec![1; wrong] });
            assert!(serde_json::from_value::<Named>(json).is_err(), "{wrong}");
        }
    }

    fn line(name: &[u8]) -> Vec<u8> {
        let mut text = b"42 (".to_vec();
        text.extend_from_slice(name);
        text.extend_from_slice(
            b") D 7 41 41 0 -1 4194304 100 0 20 0 11 22 5 6 20 0 1 0 9876 1000 50 18446744073709551615 1\n",
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
        assert_eq!(stat.children_ticks, 11);
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
        assert_eq!(
            parse_switches(b"voluntary_ctxt_switches:\t80\nnonvoluntary_ctxt_switches:\t2"),
            80
        );
        let most = format!("a_ctxt_switches:\t{0}\nb_ctxt_switches:\t{0}\n", u64::MAX);
        assert_eq!(parse_switches(most.as_bytes()), u64::MAX);
    }

    #[test]
    fn a_number_that_is_cut_is_not_read_and_one_that_does_not_fit_is_none() {
        let whole = line(b"x");
        let end = whole
            .windows(6)
            .position(|at| at == b" 9876 ")
            .expect("its start");
        assert_eq!(parse_stat(&whole[..end + 4]), None);
        assert!(parse_stat(&whole[..end + 6]).is_some());
        assert_eq!(
            parse_stat(b"1 (x) R 4294967296 41 41 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 5 0\n"),
            None
        );
        assert_eq!(parse_statm(b"9 12 3", 4096), None);
        assert!(parse_statm(b"9 12 3 0", 4096).is_some());
        let most = format!("0 {0} {0} 0\n", u64::MAX / 4096 + 1);
        assert_eq!(parse_statm(most.as_bytes(), 4096), None);
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
        fn a_name_survives_its_text(name in any::<[u8; 16]>()) {
            let text = serde_json::to_string(&Named { comm: name }).expect("text");
            prop_assert!(text.is_ascii() && !text.chars().any(|c| c.is_ascii_control()));
            prop_assert_eq!(serde_json::from_str::<Named>(&text).expect("read").comm, name);
            let numbers = serde_json::json!({ "comm": name });
            prop_assert_eq!(serde_json::from_value::<Named>(numbers).expect("read").comm, name);
        }

        #[test]
        fn what_is_no_name_is_refused(text in "[a-z\\\\x0-9\u{0}-\u{1f}é]{0,24}") {
            let read = serde_json::from_value::<Named>(serde_json::json!({ "comm": text }));
            if let Ok(named) = read {
                let again = serde_json::to_value(&named).expect("text");
                let again = serde_json::from_value::<Named>(again).expect("read");
                prop_assert_eq!(again.comm, named.comm);
            }
        }

        #[test]
        fn any_name_leaves_the_fields_alone(name in proptest::collection::vec(1u8.., 0..16)) {
            let stat = parse_stat(&line(&name)).expect("well formed");
            prop_assert_eq!((stat.ppid, stat.start_ticks), (7, 9876));
        }
    }
}
