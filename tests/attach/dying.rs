//! memwatch killed by SIGKILL at a random moment of its life, be it the start, the run, a kill, a freeze or
//! the end: what the next memwatch finds and what it leaves. Fixed moments are `leftovers`'s.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use memwatch::host::cgroup::pids;

use super::lab::{Lab, MEMWATCH, Pair, is_alive, wait_until, workload};
use super::random::XorShift;

/// How many moments there are in `cargo xtask test`; `MEMWATCH_TEST_MOMENTS` asks for more.
const MOMENTS: u32 = 25;
/// When a memwatch that would hold on is told to end.
const TOLD_TO_END: Duration = Duration::from_millis(350);

/// What it does in its life.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// Runs a command, kills a leak in it, and sees its end.
    Command,
    /// Freezes a command that leaks, and lets it run on when it is told to end.
    Frozen,
    /// Adopts a busy tree of processes, and gives it back.
    Pid,
    /// Guards a cgroup that somebody else made.
    Cgroup,
    /// Freezes such a one.
    FrozenCgroup,
}

const LIVES: [Life; 5] = [
    Life::Command,
    Life::Frozen,
    Life::Pid,
    Life::Cgroup,
    Life::FrozenCgroup,
];

/// A tree that is always about to fork.
const TREE: &str = "sleep 300 & sleep 300 & while :; do sleep 0.01; done";

/// What a life is about, beside memwatch.
struct Scene {
    /// The cgroup that somebody else made.
    held: Option<Pair>,
    /// Who runs without memwatch.
    other: Option<Child>,
    arguments: Vec<String>,
}

impl Scene {
    fn of(life: Life, lab: &Lab) -> Self {
        let leak = format!("sleep 0.15; {} leak --rate 1G --seconds 3", workload());
        let dies = |line: String| {
            vec![
                "--memory-max".to_owned(),
                "64M".into(),
                "--cmd".into(),
                line,
            ]
        };
        match life {
            Life::Command => Self::alone(dies(format!("{leak}; sleep 0.05"))),
            Life::Frozen => {
                let mut arguments = vec!["--on-pressure".to_owned(), "freeze".into()];
                arguments.extend(dies(leak.replace("; ", "; exec ")));
                Self::alone(arguments)
            }
            Life::Pid => {
                let tree = start(lab.command("sh"), TREE);
                Self {
                    held: None,
                    arguments: vec!["--pid".into(), tree.id().to_string()],
                    other: Some(tree),
                }
            }
            Life::Cgroup => Self::with_held(lab, TREE, &[]),
            Life::FrozenCgroup => {
                let freeze = ["--on-pressure", "freeze", "--memory-max", "32M"];
                Self::with_held(lab, &leak, &freeze)
            }
        }
    }

    fn alone(arguments: Vec<String>) -> Self {
        Self {
            held: None,
            other: None,
            arguments,
        }
    }

    fn with_held(lab: &Lab, script: &str, more: &[&str]) -> Self {
        let held = lab.pair.below("held", "128M");
        let mut shell = Command::new("sh");
        held.confine(&mut shell);
        let mut arguments = vec!["--cgroup".to_owned(), held.v2.display().to_string()];
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        Self {
            other: Some(start(shell, script)),
            held: Some(held),
            arguments,
        }
    }

    /// Ends whoever still runs.
    fn end(self, lab: &Lab) {
        fs::write(lab.pair.v2.join("cgroup.kill"), "1").expect("our cgroup");
        wait_until("end of all", || lab.pair.pids().is_empty());
        if let Some(mut other) = self.other {
            other.wait().expect("ours");
        }
    }
}

fn start(mut shell: Command, script: &str) -> Child {
    shell.args(["-c", script]).spawn().expect("sh")
}

#[test]
fn killed_at_any_moment_of_its_life_it_leaves_nothing_and_nobody_alone() {
    let number = |name: &str, otherwise| {
        env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let seed = number("MEMWATCH_TEST_SEED", std::process::id());
    println!("MEMWATCH_TEST_SEED={seed}");
    let mut random = XorShift::new(seed);
    let lab = Lab::new();
    // Whatever others have left behind is none of this test's.
    lab.run(lab.memwatch(&["--", "true"])).expect(0);
    let before = shared();
    let spans = LIVES.map(|life| span(&lab, life));
    println!("{LIVES:?} take {spans:?}");
    for moment in 0..number("MEMWATCH_TEST_MOMENTS", MOMENTS) {
        let which = (random.next() % LIVES.len() as u64) as usize;
        // A little beyond the end, too.
        let at = spans[which].mul_f64(1.1 * (random.next() % 1000) as f64 / 1000.0);
        println!("moment {moment}: {:?}, killed after {at:?}", LIVES[which]);
        die(&lab, LIVES[which], at);
        assert_eq!(shared(), before, "what is shared");
    }
}

/// How long a life is that nobody cuts short.
fn span(lab: &Lab, life: Life) -> Duration {
    let scene = Scene::of(life, lab);
    let start = Instant::now();
    let mut memwatch = live(lab, life, &scene, Duration::MAX);
    memwatch.wait().expect("ours");
    let span = start.elapsed();
    scene.end(lab);
    span
}

/// Starts memwatch and leaves it to itself until `at`; it may be told to end before.
fn live(lab: &Lab, life: Life, scene: &Scene, at: Duration) -> Child {
    let mut memwatch = lab.memwatch(&scene.arguments);
    // Its command goes on writing there.
    memwatch.stdout(Stdio::null());
    memwatch.stderr(File::create(lab.file("died")).expect("a file"));
    let memwatch = memwatch.spawn().expect("memwatch");
    thread::sleep(at.min(TOLD_TO_END));
    if at > TOLD_TO_END && !matches!(life, Life::Command) {
        // SAFETY: no pointers are passed; the child is ours and not reaped yet.
        unsafe { libc::kill(memwatch.id() as i32, libc::SIGTERM) };
    }
    if at != Duration::MAX {
        thread::sleep(at.saturating_sub(TOLD_TO_END));
    }
    memwatch
}

fn die(lab: &Lab, life: Life, at: Duration) {
    let scene = Scene::of(life, lab);
    let mut memwatch = live(lab, life, &scene, at);
    memwatch.kill().expect("ours");
    memwatch.wait().expect("ours");
    // A fork of it that has not become its command yet holds its locks.
    let is_memwatch = |pid| {
        let program = fs::read_link(format!("/proc/{pid}/exe"));
        program.is_ok_and(|program| program == Path::new(MEMWATCH))
    };
    wait_until("end of its forks", || {
        !lab.pair.pids().into_iter().any(is_memwatch)
    });
    let next = lab.run(lab.memwatch(&["--", "true"])).expect(0);
    look(lab, life, &scene, &next.err);
    scene.end(lab);
    let last = lab.run(lab.memwatch(&["--", "true"])).expect(0);
    let left: [PathBuf; 0] = [];
    assert_eq!(lab.targets(), left, "{}\n{}", next.err, last.err);
}

/// What is left when the next memwatch, which said `next`, is over.
fn look(lab: &Lab, life: Life, scene: &Scene, next: &str) {
    let said = format!("{}\nthe next said: {next}", lab.read("died"));
    let guarded = guarded(lab);
    let targets = lab.targets().into_iter();
    for target in targets.filter(|target| target.starts_with(&lab.pair.v2)) {
        let name = target.display();
        if pids(&target).is_empty() {
            // Whoever the next one found in it may have ended since.
            let was_left = format!("{name} was left by a memwatch that died");
            assert!(next.contains(&was_left), "{name} is empty: {said}");
            continue;
        }
        // The guard kills, and that is not what was asked for there.
        let is_guarded = guarded.contains(&target) || matches!(life, Life::Frozen);
        assert!(is_guarded, "nobody guards {name}: {guarded:?}: {said}");
        assert_runs(&target, &said);
    }
    match (life, &scene.held, &scene.other) {
        (Life::Command | Life::Frozen, ..) => {
            let outside = fs::read_to_string(lab.pair.v2.join("cgroup.procs"));
            assert_eq!(outside.expect("ours"), "", "the command is outside: {said}");
        }
        (Life::Pid | Life::Cgroup, held, Some(tree)) => {
            assert!(is_alive(tree.id()), "nobody had a reason to end it: {said}");
            held.iter().for_each(|held| assert_runs(&held.v2, &said));
        }
        (_, held, _) => held.iter().for_each(|held| assert_runs(&held.v2, &said)),
    }
}

#[track_caller]
fn assert_runs(cgroup: &Path, all: &str) {
    let freeze = fs::read_to_string(cgroup.join("cgroup.freeze")).expect("it is there");
    assert_eq!(freeze, "0\n", "{} is frozen: {all}", cgroup.display());
}

/// The targets that the guard stands over, armed.
fn guarded(lab: &Lab) -> Vec<PathBuf> {
    let mut list = lab.command(MEMWATCH);
    list.args(["guard", "list"]);
    let listed = lab.run(list).expect(0).text();
    let armed = listed
        .lines()
        .filter_map(|line| line.split_once(": armed,"));
    armed.map(|(target, _)| target.into()).collect()
}

/// What memwatch has mounted and made for all memwatches of the machine.
fn shared() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let home = fs::read_dir("/run/memwatch")
        .into_iter()
        .flatten()
        .flatten();
    let home = home.map(|entry| entry.path().display().to_string());
    let ours = mounts.lines().filter(|line| line.contains(" - bpf "));
    ours.map(str::to_owned).chain(home).collect()
}
