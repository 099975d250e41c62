//! The code of a kill is in memory before there is need of it: memwatch's own file is thrown out of the page
//! cache, as far as nobody holds it, and still its deciding thread reads nothing from the disk to kill.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::lab::{Lab, MEMWATCH, is_alive, wait_for, wait_until, workload};

/// Times that a thread waited for a disk: `majflt` of proc_pid_stat(5).
fn major_faults(task: &Path) -> u64 {
    let stat = fs::read_to_string(task.join("stat")).expect("it lives");
    let (_, after) = stat.rsplit_once(')').expect("a name");
    let field = after.split_whitespace().nth(9).expect("a field");
    field.parse().expect("a number")
}

fn thread(pid: i32, name: &str) -> Option<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let mut tasks = tasks.filter_map(|task| Some(task.ok()?.path()));
    let is_it = |task: &PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    tasks.find(is_it)
}

/// Has the kernel throw out what nobody has mapped.
fn evict(file: &File) {
    file.sync_all().expect("written");
    // SAFETY: no pointers are passed.
    let refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(refused, 0);
}

/// How much of a file is in the page cache, in pages.
fn cached_pages(file: &File) -> usize {
    let len = file.metadata().expect("a file").len() as usize;
    let mut pages = vec![0u8; len.div_ceil(4096)];
    // SAFETY: a mapping of the file's length, and a byte for each of its pages.
    unsafe {
        let fd = file.as_raw_fd();
        let mapped = libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd,
            0,
        );
        assert_ne!(mapped, libc::MAP_FAILED);
        assert_eq!(libc::mincore(mapped, len, pages.as_mut_ptr()), 0);
        libc::munmap(mapped, len);
    }
    pages.iter().filter(|page| *page & 1 != 0).count()
}

#[test]
fn to_kill_the_deciding_thread_reads_nothing_from_the_disk() {
    for (hog, limit) in [("leak", "200M"), ("fork-tree --rate 50M", "200M")] {
        let lab = Lab::new();
        // Not in memory, as /tmp may be.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let own = dir.path().join("memwatch");
        fs::copy(MEMWATCH, &own).expect("room");
        let (go, culprit) = (lab.file("go"), lab.file("culprit"));
        let line = format!(
            "until [ -e {} ]; do sleep 0.1; done; {} {hog} --culprit {} --dir {}; sleep 60",
            go.display(),
            workload(),
            culprit.display(),
            env!("CARGO_TARGET_TMPDIR"),
        );
        let mut command = lab.command(&own);
        command.args(["attach", "--memory-max", limit, "--cmd", &line]);
        let started = lab.start(command);
        lab.wait_for_guard(Path::new(MEMWATCH));
        // It gives back what loading took when the guard is armed, and for that lets go of its code once more.
        wait_until("the loader's end", || {
            thread(started.pid(), "memwatch-load").is_none()
        });
        let task = thread(started.pid(), "memwatch-decide").expect("a deciding thread");
        let file = File::open(&own).expect("a file");
        let all = file.metadata().expect("a file").len() as usize / 4096;
        evict(&file);
        let kept = cached_pages(&file);
        assert!(kept < all / 2, "{kept} pages of {all} are still in memory");

        let before = major_faults(&task);
        fs::write(&go, "").expect("room");
        let hog: u32 = wait_for("the hog", || lab.read("culprit").parse().ok());
        wait_until("its end", || !is_alive(hog));
        assert_eq!(
            major_faults(&task) - before,
            0,
            "{hog}: with {kept} pages of {all} in memory"
        );
        started.signal(libc::SIGTERM);
        started.wait();
    }
}
