//! Tasks in uninterruptible sleep, over the whole machine: who they are, and what they wait in.
//!
//! Reads `stat`, `status`, `wchan` and `stack` of single threads. None of these takes a lock of the process's
//! memory, which is what such a task may hold for ever; `stack` takes the one of an execve(2) under way, so
//! that reading it can hang, but ends with a signal. How long is long, and who is told, is `agent::blocked`'s.

use crate::host::process::{self, Comm};
use crate::host::reread::Reread;
use std::io;
use std::path::{Path, PathBuf};

/// A thread of the machine. Pid, tid and start time together name one for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its process.
    pub pid: u32,
    /// Itself.
    pub tid: u32,
    /// Its name as the kernel has it.
    pub comm: Comm,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

/// A task that a look found in uninterruptible sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleeper {
    /// Who.
    pub task: Task,
    /// How often it had been taken off a CPU. While that stays the same it is one and the same sleep.
    pub switches: u64,
}

/// What a task waits in, as far as these privileges show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// The kernel's function, from `wchan`.
    pub function: Option<String>,
    /// The functions that led there, innermost first, from `stack`: root's to read.
    pub stack: Vec<String>,
}

/// Looks at one thread; `None` if it is gone or not in uninterruptible sleep.
pub fn look(root: &Path, pid: u32, tid: u32) -> Option<Sleeper> {
    let dir = task_dir(root, pid, tid);
    let stat = read_stat(&dir)?;
    (stat.state == b'D').then(|| sleeper(&dir, pid, tid, &stat))?
}

/// What a task waits in now. Reading it can take as long as an execve(2) of its process.
pub fn wait(root: &Path, task: &Task) -> Wait {
    let dir = task_dir(root, task.pid, task.tid);
    let file = |name| std::fs::read_to_string(dir.join(name)).ok();
    Wait {
        // `0` where nothing is to be said, or not to us.
        function: file("wchan").filter(|name| !name.is_empty() && name != "0"),
        stack: file("stack").map_or_else(Vec::new, |text| parse_stack(&text)),
    }
}

/// The functions in the text of `/proc/PID/stack`: lines like `[<0>] io_schedule+0x46/0x80`.
pub fn parse_stack(text: &str) -> Vec<String> {
    let frames = text.lines().filter_map(|line| {
        let (address, function) = line.split_once("] ")?;
        (address.starts_with("[<") && !function.is_empty()).then(|| function.to_owned())
    });
    frames.collect()
}

/// A walk over every task of the machine that may stop at any place and goes on from there.
#[derive(Debug, Default)]
pub struct Survey {
    next: (u32, u32),
}

impl Survey {
    /// Looks at up to `most` tasks, from where the last call stopped, and at none twice: who of them is in
    /// uninterruptible sleep.
    ///
    /// A process shows the state of its first thread only; the others are listed where it has any.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub fn go_on(&mut self, root: &Path, most: usize) -> io::Result<Vec<Sleeper>> {
        let pids = numbers(&root.join("proc"))?;
        let start = pids.partition_point(|&pid| pid < self.next.0);
        let first_tid = match pids.get(start) {
            Some(&pid) if pid == self.next.0 => self.next.1,
            _ => 0,
        };
        let mut found = Vec::new();
        let mut left = most;
        let in_turn = pids[start..].iter().chain(&pids[..start]);
        for (nth, &pid) in in_turn.enumerate() {
            let from = if nth == 0 { first_tid } else { 0 };
            if let Some(tid) = look_at_threads(root, pid, from, &mut left, &mut found) {
                self.next = (pid, tid);
                return Ok(found);
            }
        }
        self.next = (0, 0);
        Ok(found)
    }
}

/// Looks at the threads of a process while there are some `left` to look at: at its first one, which has its
/// number, then at the others in order; at those from `from` on only if that is not 0. The first for which there
/// were none left.
fn look_at_threads(
    root: &Path,
    pid: u32,
    from: u32,
    left: &mut usize,
    found: &mut Vec<Sleeper>,
) -> Option<u32> {
    let mut look_at = |tid| {
        *left = left.checked_sub(1)?;
        let dir = task_dir(root, pid, tid);
        let stat = read_stat(&dir);
        let asleep = stat.filter(|stat| stat.state == b'D');
        found.extend(asleep.and_then(|stat| sleeper(&dir, pid, tid, &stat)));
        Some(stat.map_or(0, |stat| stat.threads))
    };
    if from == 0 {
        match look_at(pid) {
            None => return Some(0),
            Some(0 | 1) => return None,
            Some(_) => {}
        }
    }
    // A process that is gone by now has no threads to list.
    let tids = numbers(&root.join(format!("proc/{pid}/task"))).unwrap_or_default();
    let mut others = tids.into_iter().filter(|&tid| tid != pid && tid >= from);
    others.find(|&tid| look_at(tid).is_none())
}

fn task_dir(root: &Path, pid: u32, tid: u32) -> PathBuf {
    root.join(format!("proc/{pid}/task/{tid}"))
}

/// Of one thread: the file of that name for the whole process adds up all of its threads.
fn read_stat(dir: &Path) -> Option<process::Stat> {
    let mut text = [0; 512];
    let file = Reread::open(&dir.join("stat")).ok()?;
    process::parse_stat(file.read_short(&mut text).ok()?)
}

fn sleeper(dir: &Path, pid: u32, tid: u32, stat: &process::Stat) -> Option<Sleeper> {
    let status = std::fs::read(dir.join("status")).ok()?;
    let task = Task {
        pid,
        tid,
        comm: stat.comm,
        start_ticks: stat.start_ticks,
    };
    Some(Sleeper {
        task,
        switches: process::parse_switches(&status),
    })
}

/// The entries of a directory that are numbers, in order.
fn numbers(dir: &Path) -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir(dir)?.flatten();
    let mut numbers: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn add(root: &Path, pid: u32, tid: u32, threads: u32, state: char) {
        let dir = task_dir(root, pid, tid);
        fs::create_dir_all(&dir).expect("a directory");
        let stat = format!(
            "{tid} (task {tid}) {state} 1 {pid} {pid} 0 -1 0 0 0 0 0 5 7 0 0 20 0 {threads} 0 {tid}00 0 0\n"
        );
        fs::write(dir.join("stat"), stat).expect("a file");
        fs::write(dir.join("status"), "voluntary_ctxt_switches:\t8\n").expect("a file");
    }

    fn tids(found: &[Sleeper]) -> Vec<u32> {
        found.iter().map(|sleeper| sleeper.task.tid).collect()
    }

    #[test]
    fn a_survey_goes_on_where_it_stopped_and_finds_threads_that_their_process_does_not_show() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path();
        add(root, 2, 2, 1, 'D');
        add(root, 10, 10, 3, 'S');
        // Threads may have smaller numbers than their process, once numbers have gone round.
        add(root, 10, 4, 3, 'D');
        add(root, 10, 11, 3, 'D');
        add(root, 30, 30, 1, 'D');
        add(root, 31, 31, 1, 'R');

        let whole = Survey::default().go_on(root, 100).expect("a list");
        assert_eq!(tids(&whole), [2, 4, 11, 30]);
        assert_eq!(whole[1].task.pid, 10);
        assert_eq!((whole[1].task.start_ticks, whole[1].switches), (400, 8));
        assert_eq!(&whole[1].task.comm[..7], b"task 4\0");

        for most in 1..6 {
            let mut survey = Survey::default();
            let mut seen = Vec::new();
            // Six tasks: after so many calls each had its turn at least once.
            for _ in 0..6 {
                let found = survey.go_on(root, most).expect("a list");
                assert!(found.len() <= most, "{found:?}");
                seen.extend(tids(&found));
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen, [2, 4, 11, 30], "by {most}");
        }
    }

    #[test]
    fn a_look_sees_sleepers_only() {
        let root = tempfile::tempdir().expect("a directory");
        add(root.path(), 2, 2, 1, 'D');
        add(root.path(), 3, 3, 1, 'S');
        let sleeper = look(root.path(), 2, 2).expect("it sleeps");
        assert_eq!(wait(root.path(), &sleeper.task), Wait::default());
        assert_eq!(look(root.path(), 3, 3), None);
        assert_eq!(look(root.path(), 4, 4), None);
    }

    #[test]
    fn a_stack_is_its_functions() {
        let text =
            "[<0>] cv_wait_common+0xa9/0x140 [spl]\n[<0>] txg_sync_thread+0x2f/0x4d0 [zfs]\n";
        assert_eq!(
            parse_stack(text),
            [
                "cv_wait_common+0xa9/0x140 [spl]",
                "txg_sync_thread+0x2f/0x4d0 [zfs]"
            ]
        );
        assert_eq!(parse_stack("nonsense\n"), [""; 0]);
    }
}
