//! The descendants of this process, in place of a cgroup where none can be had.
//!
//! A child subreaper gets every orphan among its descendants as a child, so that whoever forks twice stays
//! below it (prctl(2), PR_SET_CHILD_SUBREAPER). Owns becoming one, listing and burying; what is done about who
//! is listed is others' business.

use crate::host::reread::Reread;
use std::ffi::CStr;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};

/// The descendants of this process, from now on with all orphans among them.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    root: u32,
}

impl Tree {
    /// Makes this process the parent of its descendants' orphans.
    ///
    /// # Errors
    /// This kernel does not list children (CONFIG_PROC_CHILDREN), or refuses.
    pub fn take_root() -> io::Result<Self> {
        let root = std::process::id();
        Reread::open_c(path(
            &mut [0; 64],
            format_args!("/proc/{root}/task/{root}/children"),
        ))?;
        // SAFETY: takes numbers only.
        match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
            0 => Ok(Self { root }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Lists the descendants, nearest first, into what room there is in `found`; how many of those that were
    /// come to had none.
    ///
    /// Makes no allocation and takes no lock of anybody's memory: the deciding thread does this. Who is made
    /// meanwhile, or stands behind one who ends meanwhile, may be missed until the next time.
    pub fn list(&self, found: &mut Vec<u32>) -> u64 {
        found.clear();
        let mut left_out = list_children(self.root, found);
        let mut at = 0;
        while let Some(&pid) = found.get(at) {
            left_out += list_children(pid, found);
            at += 1;
        }
        left_out
    }
}

/// Buries the children of this process that have ended. Stops at `leader`: how that one ended others want to
/// know, and there is little to bury after it.
pub fn bury_orphans(leader: u32) {
    loop {
        // SAFETY: a zeroed siginfo is valid, and the call fills it; its pid stays 0 if there is nothing. A child
        // that sends no SIGCHLD, as memwatch makes for itself, is nothing here (waitid(2), __WALL).
        let ended = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let what = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            libc::waitid(libc::P_ALL, 0, &mut info, what);
            info.si_pid()
        };
        if ended == 0 || ended as u32 == leader {
            return;
        }
        // SAFETY: null is for a status that nobody wants.
        unsafe { libc::waitpid(ended, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

/// Adds the children of every thread of a process, if it is there; how many found no room.
fn list_children(pid: u32, found: &mut Vec<u32>) -> u64 {
    let mut left_out = 0;
    let Ok(threads) = Reread::open_c(path(&mut [0; 64], format_args!("/proc/{pid}/task"))) else {
        return 0;
    };
    for_each_number_in(&threads, |tid| {
        let mut buf = [0; 64];
        let name = path(&mut buf, format_args!("/proc/{pid}/task/{tid}/children"));
        if let Ok(children) = Reread::open_c(name) {
            left_out += read_numbers(&children, found);
        }
    });
    left_out
}

/// The numbers in a file.
fn read_numbers(file: &Reread, found: &mut Vec<u32>) -> u64 {
    let mut numbers = Numbers::default();
    let (mut left_out, mut offset) = (0, 0);
    let mut buf = [0; 1024];
    while let Ok(text @ [_, ..]) = file.read_on(&mut buf, offset) {
        offset += text.len() as u64;
        numbers.take(text, |pid| {
            if found.len() < found.capacity() {
                found.push(pid);
            } else {
                left_out += 1;
            }
        });
    }
    left_out
}

/// Numbers in a text that comes in pieces: one may begin in one piece and end in the next. Something else stands
/// behind each. 0, and what is none of ours since it does not fit, is passed over.
#[derive(Default)]
pub(super) struct Numbers {
    digits: u64,
}

impl Numbers {
    pub(super) fn take(&mut self, piece: &[u8], mut each: impl FnMut(u32)) {
        for &byte in piece {
            if byte.is_ascii_digit() {
                let digit = u64::from(byte - b'0');
                self.digits = self.digits.saturating_mul(10).saturating_add(digit);
                continue;
            }
            match u32::try_from(std::mem::take(&mut self.digits)) {
                Ok(0) | Err(_) => {}
                Ok(number) => each(number),
            }
        }
    }
}

/// The entries of a directory that are numbers, without an allocation.
fn for_each_number_in(directory: &impl AsFd, mut act: impl FnMut(u32)) {
    let fd = directory.as_fd().as_raw_fd();
    let mut buf = [0u8; 1024];
    loop {
        // SAFETY: the buffer is writable and as long as said.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, fd, buf.as_mut_ptr(), buf.len()) };
        let Some(entries @ [_, ..]) = usize::try_from(read).ok().and_then(|n| buf.get(..n)) else {
            return;
        };
        for_each_number_among(entries, &mut act);
    }
}

/// Each entry is an inode, an offset, its own length, a type and a name (linux/dirent.h).
pub(super) fn for_each_number_among(mut entries: &[u8], mut act: impl FnMut(u32)) {
    while let Some(&[low, high]) = entries.get(16..18) {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some((entry @ [_, ..], rest)) = entries.split_at_checked(length) else {
            return;
        };
        let name = entry
            .get(19..)
            .and_then(|name| CStr::from_bytes_until_nul(name).ok());
        let number = name.and_then(|name| name.to_str().ok()?.parse().ok());
        number.into_iter().for_each(&mut act);
        entries = rest;
    }
}

/// A path without an allocation; an empty one if there is no room.
fn path<'b>(buf: &'b mut [u8; 64], name: fmt::Arguments<'_>) -> &'b CStr {
    let mut rest = &mut buf[..63];
    let written = rest.write_fmt(name).map(|()| rest.len());
    let len = 63 - written.unwrap_or(63);
    buf[len] = 0;
    CStr::from_bytes_until_nul(buf).unwrap_or(c"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// A shell that says so when `script` has come to its `echo`.
    fn shell(script: &str) -> std::process::Child {
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let out = shell.stdout.take().expect("piped");
        io::BufRead::read_line(&mut io::BufReader::new(out), &mut line).expect("a line");
        shell
    }

    fn below(root: u32, room: usize) -> (Vec<u32>, u64) {
        let mut found = Vec::with_capacity(room);
        let left_out = Tree { root }.list(&mut found);
        (found, left_out)
    }

    #[test]
    fn descendants_are_listed_at_every_depth_and_as_far_as_there_is_room() {
        // Two that read until the shell's input ends, one of them a child of a child.
        let mut shell = shell("exec 3<&0; cat <&3 & sh -c 'cat <&3 & wait' & echo; wait");
        let root = shell.id();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while below(root, 8).0.len() != 3 && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        let (found, left_out) = below(root, 8);
        assert_eq!((found.len(), left_out), (3, 0), "{found:?}");
        for &pid in &found {
            let stat = std::fs::read(format!("/proc/{pid}/stat")).expect("it lives");
            let stat = crate::host::process::parse_stat(&stat).expect("a stat");
            assert!(stat.ppid == root || found.contains(&stat.ppid));
        }
        let (few, left_out) = below(root, 1);
        assert_eq!((few.len(), left_out), (1, 1), "{few:?}");
        drop(shell.stdin.take());
        shell.wait().expect("it ends");
        assert_eq!(below(root, 8), (vec![], 0));
    }

    #[test]
    fn children_of_any_thread_are_listed() {
        let (began, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut child = Command::new("cat")
                .stdin(Stdio::piped())
                .spawn()
                .expect("cat");
            began.send(child.id()).expect("heard");
            (child.stdin.take(), child)
        });
        let pid = told.recv().expect("it began");
        let (found, _) = below(std::process::id(), 4096);
        assert!(found.contains(&pid), "{found:?}");
        let (stdin, mut child) = thread.join().expect("no panic");
        drop(stdin);
        child.wait().expect("it ends");
    }

    #[test]
    fn numbers_are_read_across_pieces() {
        use std::io::Write as _;
        let mut list = tempfile::NamedTempFile::new().expect("a file");
        let pids: Vec<u32> = (1_000_000..1_001_000).collect();
        for pid in &pids {
            write!(list, "{pid} ").expect("room");
        }
        let file = Reread::open(list.path()).expect("it is there");
        let mut found = Vec::with_capacity(900);
        let left_out = read_numbers(&file, &mut found);
        assert_eq!((found.as_slice(), left_out), (&pids[..900], 100));
    }

    #[test]
    fn what_fits_no_pid_and_what_is_cut_is_passed_over() {
        let mut found = Vec::new();
        let mut numbers = Numbers::default();
        for piece in ["1 42949", "67296 0 99999999999999999999999 ", "2 3"] {
            numbers.take(piece.as_bytes(), |number| found.push(number));
        }
        assert_eq!(found, [1, 2]);
    }

    #[test]
    fn an_entry_without_a_length_ends_the_list() {
        let mut entry = [0; 24];
        entry[16] = 24;
        entry[19..21].copy_from_slice(b"42");
        let mut found = Vec::new();
        for_each_number_among(&[entry, [0; 24]].concat(), |number| found.push(number));
        assert_eq!(found, [42]);
    }
}
