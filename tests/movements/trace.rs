//! What the kernel tells about signals and cgroups, from its own tracepoints: a trace of the test's own in
//! a tracefs that nobody else sees, read while it goes on, complete or not at all. What it means is
//! `judge`'s.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::Mode,
};

use crate::judge::{Event, What};

/// Events, with what of them is wanted.
const EVENTS: [(&str, &str); 5] = [
    ("signal/signal_generate", "sig == 9"),
    // The v2 hierarchy is number 0.
    ("cgroup/cgroup_attach_task", "dst_root == 0"),
    ("task/task_newtask", ""),
    ("sched/sched_process_exec", ""),
    ("oom/mark_victim", ""),
];

/// For each CPU: a hundred times what comes between two looks of the reader.
const BUFFER_KIB: &str = "8192";

/// A trace under way. Dropped, nothing of it is left.
pub(crate) struct Trace {
    _tracefs: OwnedFd,
    instance: PathBuf,
    marker: Option<File>,
    over: Arc<AtomicBool>,
    reader: Option<JoinHandle<String>>,
}

impl Trace {
    pub(crate) fn begin() -> Self {
        let tracefs = tracefs();
        let name = format!("memwatch-test-{}", std::process::id());
        let instance =
            PathBuf::from(format!("/proc/self/fd/{}/instances", tracefs.as_raw_fd())).join(name);
        fs::create_dir(&instance).expect("a trace of our own");
        let set = |file: &str, value: &str| {
            fs::write(instance.join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
        };
        set("buffer_size_kb", BUFFER_KIB);
        set("trace_clock", "mono");
        for (event, filter) in EVENTS {
            if !filter.is_empty() {
                set(&format!("events/{event}/filter"), filter);
            }
            set(&format!("events/{event}/enable"), "1");
        }
        let marker = OpenOptions::new()
            .write(true)
            .open(instance.join("trace_marker"));
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(instance.join("trace_pipe"))
            .expect("the trace");
        let over = Arc::new(AtomicBool::new(false));
        let reader = thread::spawn({
            let over = Arc::clone(&over);
            move || read_all(pipe, &over)
        });
        Self {
            _tracefs: tracefs,
            marker: Some(marker.expect("its marker")),
            instance,
            over,
            reader: Some(reader),
        }
    }

    /// Says in the trace that a task is about to be moved: alone, or with all of its process.
    pub(crate) fn moving(&mut self, task: u32, whole: bool) {
        let line = format!("moving {task} {whole}");
        let marker = self.marker.as_mut().expect("it is under way");
        marker.write_all(line.as_bytes()).expect("a mark");
    }

    /// All that was told, in order. Fails if anything was lost.
    pub(crate) fn end(mut self) -> Vec<Event> {
        let text = self.stop().expect("it was under way");
        for cpu in fs::read_dir(self.instance.join("per_cpu"))
            .expect("CPUs")
            .flatten()
        {
            let statistics = fs::read_to_string(cpu.path().join("stats")).expect("statistics");
            for lost in ["overrun: ", "dropped events: "] {
                let count = statistics.lines().find_map(|line| line.strip_prefix(lost));
                assert_eq!(count, Some("0"), "{lost}in {statistics}");
            }
        }
        let mut events: Vec<Event> = text.lines().filter_map(parse).collect();
        // Two CPUs may have told in another order than things happened.
        events.sort_by_key(|event| event.at_us);
        events
    }

    fn stop(&mut self) -> Option<String> {
        let _ = fs::write(self.instance.join("tracing_on"), "0");
        self.over.store(true, Ordering::Release);
        // What has a file open cannot be removed.
        self.marker = None;
        self.reader.take()?.join().ok()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.stop();
        if let Err(error) = fs::remove_dir(&self.instance)
            && !thread::panicking()
        {
            panic!("the trace is left behind: {error}");
        }
    }
}

/// A tracefs in a mount namespace of one thread, which is gone when this returns: what is left is the
/// descriptor.
fn tracefs() -> OwnedFd {
    const AT: &str = "/sys/kernel/tracing";
    let opened = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("none"), AT, Some("tracefs"), MsFlags::empty(), none)?;
        open(
            AT,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
    });
    opened
        .join()
        .expect("no panic")
        .expect("root mounts tracefs")
}

fn read_all(mut pipe: File, over: &AtomicBool) -> String {
    let mut text = Vec::new();
    loop {
        let was_over = over.load(Ordering::Acquire);
        match pipe.read_to_end(&mut text) {
            Ok(_) if was_over => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && was_over => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("trace_pipe: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// `COMM-PID [CPU] FLAGS SECONDS.MICROSECONDS: EVENT: FIELDS`
fn parse(line: &str) -> Option<Event> {
    assert!(!line.contains("LOST"), "{line}");
    let (head, event) = line.split_once(": ")?;
    let (event, fields) = event.split_once(": ")?;
    let mut head = head.split_whitespace().rev();
    let (seconds, micros) = head.next()?.split_once('.')?;
    let at_us = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    let current = head.nth(2)?.rsplit_once('-')?.1.parse().ok()?;
    let field = |name: &str| -> Option<&str> {
        let value = fields.split(' ').find_map(|word| word.strip_prefix(name))?;
        value.strip_prefix('=')
    };
    let number = |name: &str| field(name)?.parse::<u32>().ok();
    let what = match event {
        // By the kernel itself: si_code is SI_KERNEL.
        "signal_generate" if field("code") == Some("128") => What::Killed {
            task: number("pid")?,
        },
        "cgroup_attach_task" => What::Attached {
            task: number("pid")?,
            cgroup: field("dst_id")?.parse().ok()?,
        },
        "task_newtask" => What::Born {
            task: number("pid")?,
            maker: current,
            is_thread: u64::from_str_radix(field("clone_flags")?, 16).ok()?
                & libc::CLONE_THREAD as u64
                != 0,
        },
        "sched_process_exec" => What::Executed {
            task: number("pid")?,
            before: number("old_pid")?,
        },
        "mark_victim" => What::OomVictim {
            task: number("pid")?,
        },
        "tracing_mark_write" => {
            let mut words = fields.strip_prefix("moving ")?.split(' ');
            What::Moving {
                task: words.next()?.parse().ok()?,
                whole: words.next()?.trim().parse().ok()?,
            }
        }
        _ => return None,
    };
    Some(Event { at_us, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_trace_are_read_as_they_come() {
        let lines = [
            "        workload-1234    [001] d.h1.  1234.000005: signal_generate: sig=9 errno=0 code=128 comm=a b pid=77 grp=1 res=0",
            "            bash-88      [000] .....    12.999999: signal_generate: sig=9 errno=0 code=0 comm=a b pid=77 grp=1 res=0",
            "  two words - 1-9        [001] .....     7.000001: cgroup_attach_task: dst_root=0 dst_id=5000000001 dst_level=2 dst_path=/a pid=77 comm=x",
            "            bash-1234    [000] .....     7.000001: task_newtask: pid=78 comm=bash clone_flags=3d0f00 oom_score_adj=0",
            "            bash-1234    [000] .....     7.000001: sched_process_exec: filename=/bin/x pid=78 old_pid=79",
            "       movements-1234    [000] .....     7.000001: tracing_mark_write: moving 78 false",
        ];
        let at = |seconds: u64, micros, what| {
            let at_us = seconds * 1_000_000 + micros;
            Some(Event { at_us, what })
        };
        assert_eq!(
            lines.map(parse),
            [
                at(1234, 5, What::Killed { task: 77 }),
                None,
                at(
                    7,
                    1,
                    What::Attached {
                        task: 77,
                        cgroup: 5_000_000_001
                    }
                ),
                at(
                    7,
                    1,
                    What::Born {
                        task: 78,
                        maker: 1234,
                        is_thread: true
                    }
                ),
                at(
                    7,
                    1,
                    What::Executed {
                        task: 78,
                        before: 79
                    }
                ),
                at(
                    7,
                    1,
                    What::Moving {
                        task: 78,
                        whole: false
                    }
                ),
            ]
        );
    }
}
