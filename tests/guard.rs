//! The guard in the kernel, without an agent: who is hit when the heartbeat stops, who is not, and what
//! is written down. Needs root and BPF, and fails without.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun, loaded_programs};
use lacking::{lacking, lost};
use memwatch::bpf::{Facts, Kill, Name, Programs, Reader, Row, Terms, plan};
use memwatch::host::clock;
use memwatch_ebpf::Reach;
use sandbox::Sandbox;

#[path = "support/lacking.rs"]
mod lacking;
#[path = "support/sandbox.rs"]
mod sandbox;

const PATIENCE: Duration = Duration::from_secs(30);

/// Small enough to be over soon, with a stale heartbeat after a second.
const TERMS: Terms = Terms {
    stale_after: Duration::from_secs(1),
    budget: Duration::from_millis(100),
    window: Duration::from_secs(2),
    pause: Duration::from_millis(500),
    uid: None,
};

struct Guarded {
    sandbox: Sandbox,
    programs: Programs,
    reader: Reader,
    row: Row,
}

impl Guarded {
    fn new() -> Self {
        // SAFETY: reads one number of this process.
        assert_eq!(unsafe { libc::geteuid() }, 0, "the guard's tests need root");
        let sandbox = Sandbox::new();
        let facts = Facts::read();
        let mut programs = Programs::load(&plan(&facts)).expect("the BPF object loads");
        assert_eq!(lost(&programs), lacking(&facts));
        let row = programs
            .add_target(sandbox.id(), Some(sandbox.level()))
            .expect("a row");
        let reader = programs.reader().expect("a reader");
        Self {
            sandbox,
            programs,
            reader,
            row,
        }
    }

    /// Under the guard, with a heart that has just beaten for the last time.
    fn arm(&mut self, terms: &Terms) {
        self.beat();
        self.programs.arm(self.row, terms).expect("armed");
    }

    /// The stall in the window as the guard sees it.
    fn stall(&self) -> Duration {
        self.programs.guarded_stall(self.row).expect("a window")
    }

    /// Waits until it thrashes; the workload writes what it reads first.
    fn wait_for_stall(&self, meanwhile: impl Fn(&Self)) {
        let patience = Instant::now() + PATIENCE;
        while self.stall() <= TERMS.budget {
            assert!(Instant::now() < patience, "it does not thrash");
            meanwhile(self);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn beat(&self) {
        self.reader.beat(0, clock::now());
    }

    fn kills(&mut self) -> Vec<(Name, Kill)> {
        let id = self.sandbox.id();
        let kills = self.programs.take_kills(|target| target == id);
        kills.expect("kills")
    }
}

/// Waits for the end of `child` without giving a sign of life; how long it took.
fn left_alone(child: &mut Child, patience: Duration) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if child.try_wait().expect("ours").is_some() {
            return Some(start.elapsed());
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

/// A script that thrashes: a mapped file of twice the sandbox's limit, read at random.
fn thrash() -> String {
    let workload = std::env::var("MEMWATCH_TEST_WORKLOAD")
        .expect("MEMWATCH_TEST_WORKLOAD is not set: run these tests with `cargo xtask test`");
    format!(
        "exec {workload} thrash --seconds 60 --dir {}",
        env!("CARGO_TARGET_TMPDIR")
    )
}

/// A shell script outside of any target.
fn elsewhere(script: &str) -> Child {
    Command::new("sh").args(["-c", script]).spawn().expect("sh")
}

/// Ends a child of this test.
fn end(mut child: Child) {
    child.kill().expect("ours");
    child.wait().expect("ours");
}

/// How the agent names a process: with field 22 of `/proc/PID/stat`, when it started.
fn name_of(child: &Child) -> (u32, u64) {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it lives");
    let after_comm = stat.rsplit(')').next().expect("a comm");
    let start = after_comm.split_whitespace().nth(19).expect("22 fields");
    (child.id(), start.parse().expect("a number"))
}

#[test]
fn who_thrashes_with_no_agent_alive_is_killed_and_written_down_once() {
    let mut guarded = Guarded::new();
    guarded.arm(&TERMS);
    let mut child = guarded.sandbox.start(&thrash());
    let took = left_alone(&mut child, PATIENCE).expect("the guard acts");
    assert_eq!(child.wait().expect("ours").signal(), Some(libc::SIGKILL));
    assert!(
        took >= TERMS.stale_after - Duration::from_millis(100),
        "{took:?}"
    );

    let kills = guarded.kills();
    let [(name, kill)] = kills[..] else {
        panic!("{kills:?}")
    };
    assert_eq!(name.tgid, child.id());
    assert_eq!(kill.cgroup_id, guarded.sandbox.id());
    assert!(kill.comm.starts_with(b"workload"), "{kill:?}");
    assert!(kill.stall_ns >= TERMS.budget.as_nanos() as u64, "{kill:?}");
    assert!(
        kill.heartbeat_age_ns >= TERMS.stale_after.as_nanos() as u64,
        "{kill:?}"
    );
    assert!(
        [Reach::Reclaim as u32, Reach::Running as u32].contains(&kill.reach),
        "{kill:?}"
    );
    assert_eq!(guarded.kills(), []);
}

#[test]
fn nobody_else_dies_for_the_stall_of_one_who_was_killed() {
    let mut guarded = Guarded::new();
    guarded.arm(&TERMS);
    let hog = thrash().replacen("exec ", "", 1);
    let script = format!("{hog} || :; while :; do :; done");
    let mut shell = guarded.sandbox.start(&script);
    let patience = Instant::now() + PATIENCE;
    let mut kills = Vec::new();
    while kills.is_empty() && Instant::now() < patience {
        kills = guarded.kills();
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(kills.len(), 1, "{kills:?}");
    assert_ne!(kills[0].0.tgid, shell.id());
    // The shell runs whenever the clock ticks, and the window still holds what the hog stalled.
    assert_eq!(left_alone(&mut shell, 3 * TERMS.window), None);
    assert_eq!(guarded.kills(), []);
    end(shell);
}

#[test]
fn while_the_heart_beats_nobody_is_touched() {
    let mut guarded = Guarded::new();
    guarded.arm(&TERMS);
    let mut child = guarded.sandbox.start(&thrash());
    guarded.wait_for_stall(Guarded::beat);
    for _ in 0..100 {
        guarded.beat();
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(child.try_wait().expect("ours"), None);
    assert_eq!(guarded.kills(), []);
    end(child);
}

/// Runs a program for a tracepoint without arguments' meaning, as the kernel does when this thread comes by:
/// of the set that was loaded last, this test's own.
fn pass_by(program: &str) {
    let infos = loaded_programs().filter_map(Result::ok);
    let named = infos.filter(|info| info.name_as_str() == Some(program));
    let newest = named.max_by_key(|info| info.id()).expect("it is loaded");
    RawTracePoint::from_program_info(newest, program.to_owned().into())
        .expect("of its type")
        .test_run(RawTracePointRunOptions::default())
        .expect("it runs");
}

#[test]
fn a_stall_counts_whole_though_shorter_ones_begin_and_end_in_it() {
    let mut guarded = Guarded::new();
    guarded.arm(&Terms {
        stale_after: Duration::from_secs(3600),
        ..TERMS
    });
    let _inside = guarded.sandbox.enter();
    let before = Instant::now();
    pass_by("memcg_begin");
    let begun = Instant::now();
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(100));
        let shorter = thread::spawn(|| {
            pass_by("memcg_begin");
            pass_by("memcg_end");
        });
        shorter.join().expect("no panic");
    }
    let at_least = begun.elapsed();
    pass_by("memcg_end");
    let at_most = before.elapsed();
    let stall = guarded.stall();
    assert!(
        at_least <= stall && stall <= at_most,
        "{stall:?} of {at_least:?} to {at_most:?}"
    );
    thread::sleep(Duration::from_millis(100));
    assert_eq!(guarded.stall(), stall, "it has ended");
}

#[test]
fn nobody_is_touched_who_is_not_armed() {
    let mut guarded = Guarded::new();
    guarded.arm(&TERMS);
    guarded.programs.disarm(guarded.row).expect("disarmed");
    let mut child = guarded.sandbox.start(&thrash());
    assert_eq!(left_alone(&mut child, 3 * TERMS.stale_after), None);
    end(child);
}

#[test]
fn a_stranger_that_thrashes_is_not_hit_and_does_not_count() {
    let mut guarded = Guarded::new();
    let elsewhere = Sandbox::new();
    guarded.arm(&TERMS);
    let sleeper = guarded.sandbox.start("exec sleep 60");
    let mut stranger = elsewhere.start(&thrash());
    assert_eq!(left_alone(&mut stranger, 3 * TERMS.stale_after), None);
    assert_eq!(guarded.kills(), []);
    end(stranger);
    end(sleeper);
}

#[test]
fn another_users_process_is_not_hit_on_a_users_behalf() {
    let mut guarded = Guarded::new();
    guarded.arm(&Terms {
        uid: Some(65_534),
        ..TERMS
    });
    let mut child = guarded.sandbox.start(&thrash());
    guarded.wait_for_stall(|_| ());
    assert_eq!(left_alone(&mut child, 3 * TERMS.stale_after), None);
    end(child);
}

/// The stall was there, and whoever is left in the target sleeps. Somebody else is busy: a signal to another
/// task goes out from a tick that interrupts a running one.
fn after_a_thrash(name: impl FnOnce(&Child) -> (u32, u64)) -> (Guarded, Child, Child) {
    let mut guarded = Guarded::new();
    let sleeper = guarded.sandbox.start("exec sleep 60");
    guarded.arm(&Terms {
        window: Duration::from_secs(30),
        ..TERMS
    });
    let thrasher = guarded.sandbox.start(&thrash());
    let patience = Instant::now() + PATIENCE;
    while guarded.stall() < 2 * TERMS.budget && Instant::now() < patience {
        guarded.beat();
        thread::sleep(Duration::from_millis(20));
    }
    // The shell has become `sleep` by now.
    guarded
        .reader
        .name_victims(guarded.row, [Some(name(&sleeper)), None, None, None]);
    guarded.beat();
    end(thrasher);
    (guarded, sleeper, elsewhere("while :; do :; done"))
}

#[test]
fn a_sleeper_is_reached_by_its_name() {
    let (mut guarded, mut sleeper, busy) = after_a_thrash(name_of);
    left_alone(&mut sleeper, PATIENCE).expect("the guard reaches it");
    end(busy);
    let kills = guarded.kills();
    let [(name, kill)] = kills[..] else {
        panic!("{kills:?}")
    };
    assert_eq!((name.tgid, kill.reach), (sleeper.id(), Reach::Named as u32));
    assert!(kill.comm.starts_with(b"sleep"), "{kill:?}");
}

#[test]
fn a_name_that_somebody_else_has_now_reaches_nobody() {
    let (mut guarded, mut sleeper, busy) = after_a_thrash(|sleeper| {
        let (pid, start_ticks) = name_of(sleeper);
        (pid, start_ticks - 1)
    });
    assert_eq!(left_alone(&mut sleeper, 3 * TERMS.stale_after), None);
    assert_eq!(guarded.kills(), []);
    end(sleeper);
    end(busy);
}

#[test]
fn who_was_named_and_has_left_is_not_reached() {
    let (mut guarded, mut sleeper, busy) = after_a_thrash(|sleeper| {
        let own = fs::read_to_string("/proc/self/cgroup").expect("own groups");
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .expect("v2");
        let procs = Path::new("/sys/fs/cgroup/unified")
            .join(own)
            .join("cgroup.procs");
        fs::write(procs, sleeper.id().to_string()).expect("moved out");
        name_of(sleeper)
    });
    assert_eq!(left_alone(&mut sleeper, 3 * TERMS.stale_after), None);
    assert_eq!(guarded.kills(), []);
    end(sleeper);
    end(busy);
}
