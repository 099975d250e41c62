//! The crowd, and its being moved about: whole processes, single threads, those that were named a moment
//! ago, those that execute or die while they are moved. Where to is `places`'s.

use std::{
    env, fs, io,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::NamedTempFile;

use crate::{
    places::{OUTSIDE, PLACES, Places, THREADED},
    random::XorShift,
    trace::Trace,
};

const PROCESSES: usize = 16;
/// Threads of those that have more than one.
const THREADS: usize = 4;
/// Sixteen times the limit of all of them; a hole.
const FILE_BYTES: u64 = 1 << 30;
/// In which the guard's clock ticks on every CPU: who was named and has left stays away that long.
const SOME_TICKS: Duration = Duration::from_millis(250);

struct Process {
    child: Child,
    /// Index in `THREADED`, while it is there.
    threaded: Option<usize>,
    away_until: Instant,
}

pub(crate) struct Crowd {
    processes: Vec<Process>,
    file: NamedTempFile,
    random: XorShift,
    /// Movements done.
    pub(crate) moved: usize,
    /// Those that were left out because nobody was there any more.
    pub(crate) too_late: usize,
}

impl Crowd {
    pub(crate) fn new(places: &Places, random: XorShift) -> Self {
        let file = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
        file.as_file().set_len(FILE_BYTES).expect("a hole");
        let mut crowd = Self {
            processes: Vec::new(),
            file,
            random,
            moved: 0,
            too_late: 0,
        };
        for _ in 0..PROCESSES {
            let process = crowd.start(places);
            crowd.processes.push(process);
        }
        crowd
    }

    /// One more, outside of all targets, with habits of its own.
    fn start(&mut self, places: &Places) -> Process {
        let workload = env::var("MEMWATCH_TEST_WORKLOAD")
            .expect("MEMWATCH_TEST_WORKLOAD is not set: run these tests with `cargo xtask test`");
        // The mover comes first.
        let mut command = Command::new("nice");
        command.args(["-n", "10", &workload, "restless", "--seconds", "300"]);
        if self.random.next().is_multiple_of(2) {
            command.arg("--file").arg(self.file.path());
        }
        if self.random.next().is_multiple_of(2) {
            command.args(["--others", &(THREADS - 1).to_string()]);
        }
        if self.random.next().is_multiple_of(2) {
            let ms = 100 + self.random.next() % 1_000;
            command.args(["--execute-after-ms", &ms.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        places.pair.confine(&mut command);
        Process {
            child: command.spawn().expect("a process"),
            threaded: None,
            away_until: Instant::now(),
        }
    }

    /// Does something to somebody.
    pub(crate) fn step(&mut self, places: &mut Places, trace: &mut Trace) {
        let index = self.pick(PROCESSES);
        if self.processes[index]
            .child
            .try_wait()
            .expect("ours")
            .is_some()
        {
            self.processes[index] = self.start(places);
        }
        let process = &self.processes[index];
        if Instant::now() < process.away_until {
            return;
        }
        match (self.random.next() % 8, process.threaded) {
            (0, _) => self.name_and_lead_away(index, places, trace),
            (1..4, Some(there)) => self.move_a_thread(index, there, places, trace),
            _ => {
                let place = PLACES[self.pick(PLACES.len())];
                self.move_whole(index, place, places, trace);
            }
        }
        // Whoever that is, and wherever it is now.
        if self.random.next().is_multiple_of(8)
            && let Some(name) = name_of(&self.processes[index].child)
        {
            places.name(name);
        }
    }

    /// Empties the cgroup that is made again and again, and makes it again.
    pub(crate) fn remake(&mut self, places: &mut Places, trace: &mut Trace) {
        let pids = memwatch::host::cgroup::pids(&places.dir("remade"));
        for index in 0..self.processes.len() {
            if pids.contains(&self.processes[index].child.id()) {
                self.move_whole(index, OUTSIDE[0], places, trace);
            }
        }
        places.remake();
    }

    fn name_and_lead_away(&mut self, index: usize, places: &mut Places, trace: &mut Trace) {
        if let Some(name) = name_of(&self.processes[index].child) {
            places.name(name);
        }
        let place = OUTSIDE[self.pick(OUTSIDE.len())];
        self.move_whole(index, place, places, trace);
        self.processes[index].away_until = Instant::now() + SOME_TICKS;
    }

    fn move_whole(&mut self, index: usize, place: &str, places: &Places, trace: &mut Trace) {
        let pid = self.processes[index].child.id();
        trace.moving(pid, true);
        let moved = fs::write(places.dir(place).join("cgroup.procs"), pid.to_string());
        if self.count(moved) {
            self.processes[index].threaded = THREADED.iter().position(|there| there[0] == place);
        }
    }

    fn move_a_thread(&mut self, index: usize, there: usize, places: &Places, trace: &mut Trace) {
        let pid = self.processes[index].child.id();
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        let tids: Vec<u32> = tasks
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| task.file_name().to_str()?.parse().ok())
            .collect();
        // While it still makes its threads nobody can tell where one begins.
        if tids.len() != THREADS {
            return;
        }
        let tid = tids[self.pick(THREADS)];
        let place = THREADED[there][self.pick(THREADED[there].len())];
        trace.moving(tid, false);
        let moved = fs::write(places.dir(place).join("cgroup.threads"), tid.to_string());
        self.count(moved);
    }

    /// Whether it was moved; if not, it was dead by then, or dying: such threads stay where they are.
    fn count(&mut self, moved: io::Result<()>) -> bool {
        match moved.map_err(|error| error.raw_os_error()) {
            Ok(()) => {
                self.moved += 1;
                return true;
            }
            Err(Some(libc::ESRCH | libc::EOPNOTSUPP)) => self.too_late += 1,
            Err(errno) => panic!("cannot be moved: {errno:?}"),
        }
        false
    }

    fn pick(&mut self, of: usize) -> usize {
        (self.random.next() % of as u64) as usize
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// How an agent names a process, while it lives: with field 22 of `/proc/PID/stat`, when it started.
fn name_of(child: &Child) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    let after_comm = stat.rsplit(')').next()?;
    Some((
        child.id(),
        after_comm.split_whitespace().nth(19)?.parse().ok()?,
    ))
}
