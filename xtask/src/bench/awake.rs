//! The deciding thread under pressure: does it page, and how long is it away? In a cgroup that somebody
//! else fills, with a slow thread that hangs, over a target that need not be looked at often, and beside the
//! process that tells of incidents. Its passes are seen by the signs of life that each ends with.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::held::Held;
use super::maps::Heart;
use super::place::{Place, stalled_us};
use super::programs;
use super::statistics::{judge, percentile};
use super::table;
use super::telling::{INCIDENTS, Telling, Told};
use super::thrash::Ground;
use super::victim::{GRAIN, fields, now_us};
use super::watched::Talker;
use crate::soak::CULPRIT_FILE;
use crate::workspace::Release;

/// Of the cgroup that is filled, and of a target inside of that.
const LIMIT_BYTES: u64 = 128 << 20;
const TIGHT: &str = "48M";
/// So far from what is used that only the stall asks for looks.
const ROOMY: &str = "2G";
const GOAL_MS: f64 = 100.0;
/// By the 15 characters that the kernel keeps of a name.
const THREAD: &str = "memwatch-decide";
const PATIENCE: Duration = Duration::from_secs(20);
const CULPRIT: &str = "culprit";

/// Measures and prints; `time` is how long each part looks on.
///
/// # Errors
/// If it cannot be set up.
pub(crate) fn run(release: &Release, scratch: &Path, time: Duration) -> Result<()> {
    table::headline("loop", "the deciding thread, over a target that thrashes");
    let ground = Ground::new(release, scratch)?;
    in_a_full_cgroup(&ground, time)?;
    // What is asked for there is so much more than what comes on top that a third of the time tells.
    over_a_roomy_target(&ground, time / 3)?;
    beside_receivers(&ground, time / 3)?;
    println!(
        "  A pause is what lies between the ends of two passes. Under pressure memwatch asks for at most a 40th of\n  \
         the stall's window, 75 ms; near a limit for less. In the full cgroup its program was read from disk, so\n  \
         that what is not locked could be taken. The slow thread hangs: v1's freezer holds memwatch's main thread,\n  \
         which does all that may block, in the kernel."
    );
    Ok(())
}

/// memwatch and its target in a cgroup with somebody who fills it.
fn in_a_full_cgroup(ground: &Ground<'_>, time: Duration) -> Result<()> {
    let report = ground.fresh("report.json")?;
    let place = Place::new(LIMIT_BYTES)?;
    let mut memwatch = Talker::start(
        Command::new("sh")
            .args(["-c", "read go; exec \"$0\" \"$@\""])
            .arg(uncached_copy(ground)?)
            .args(attach(ground, TIGHT, &report))
            .env(CULPRIT_FILE, ground.scratch.join(CULPRIT))
            .stderr(Stdio::null()),
    )?;
    place.take(memwatch.pid())?;
    memwatch.tell("go")?;
    target_of(&mut memwatch)?;
    begin_to_thrash(&mut memwatch, ground)?;
    let _hog = Hog::start(&place, ground)?;

    look_on("in a full cgroup", &memwatch, memwatch.pid(), time)?;
    match Held::thread(memwatch.pid())? {
        Some(held) => {
            look_on(
                "there, and its slow thread hangs",
                &memwatch,
                memwatch.pid(),
                time,
            )?;
            ensure!(held.is_held()?, "the slow thread went on meanwhile");
        }
        None => println!("and its slow thread hangs: not tried, there is no v1 freezer here"),
    }
    memwatch.end()?;
    print_report(&report)
}

/// A target with a stall and far from its limit, since somebody else's limit makes it thrash.
fn over_a_roomy_target(ground: &Ground<'_>, time: Duration) -> Result<()> {
    let report = ground.fresh("report.json")?;
    let place = Place::new(LIMIT_BYTES)?;
    let mut memwatch = Talker::start(
        Command::new(&ground.release.memwatch)
            .args(attach(ground, ROOMY, &report))
            .env(CULPRIT_FILE, ground.scratch.join(CULPRIT))
            .stderr(Stdio::null()),
    )?;
    let target = target_of(&mut memwatch)?;
    if place.charge(target)? {
        begin_to_thrash(&mut memwatch, ground)?;
        look_on("over a roomy target", &memwatch, target, time)?;
    } else {
        println!("over a roomy target: not tried, memory has no hierarchy of its own here");
    }
    memwatch.end()?;
    print_report(&report)
}

/// A target that thrashes at its own limit while a thousand incidents are told.
fn beside_receivers(ground: &Ground<'_>, time: Duration) -> Result<()> {
    let report = ground.fresh("report.json")?;
    let mut memwatch = Talker::start(
        Command::new(&ground.release.memwatch)
            .args(attach(ground, TIGHT, &report))
            .env(CULPRIT_FILE, ground.scratch.join(CULPRIT))
            .stderr(Stdio::null()),
    )?;
    let target = target_of(&mut memwatch)?;
    begin_to_thrash(&mut memwatch, ground)?;
    let telling = Telling::start(ground.release, ground.scratch)?;
    let what = format!("while {INCIDENTS} incidents are told to six bad receivers");
    look_on(&what, &memwatch, target, time)?;
    let Told { taken, kills } = telling.end()?;
    println!("  (they took {taken} meanwhile; memwatch export run was killed {kills} times)");
    memwatch.end()?;
    print_report(&report)
}

/// memwatch's arguments: its target is a shell that says who it is, then has a child thrash until nobody can
/// ask it any more.
fn attach(ground: &Ground<'_>, limit: &str, report: &Path) -> Vec<OsString> {
    let target = format!(
        "read who; echo $$; read go; {} thrash --seconds 600 --dir {} & cat > /dev/null; kill $!; wait",
        ground.release.workload.display(),
        ground.scratch.display()
    );
    let arguments: [&OsStr; 11] = [
        "attach".as_ref(),
        "--quiet".as_ref(),
        "--memory-max".as_ref(),
        limit.as_ref(),
        "--config".as_ref(),
        ground.config.as_ref(),
        "--report".as_ref(),
        report.as_ref(),
        "--".as_ref(),
        "sh".as_ref(),
        "-c".as_ref(),
    ];
    let arguments = arguments.into_iter().map(OsStr::to_owned);
    arguments.chain([target.into()]).collect()
}

/// The shell in the target, once the guard stands over it.
fn target_of(memwatch: &mut Talker) -> Result<u32> {
    programs::wait_for_links(memwatch.pid(), PATIENCE)?;
    Ok(memwatch.ask("who")?.parse()?)
}

/// Has the target thrash, and waits until it does.
fn begin_to_thrash(memwatch: &mut Talker, ground: &Ground<'_>) -> Result<()> {
    let culprit = ground.fresh(CULPRIT)?;
    memwatch.tell("go")?;
    wait_for_file(&culprit)
}

/// A copy that is on disk and not in memory: pages belong to the cgroup of whoever reads them first.
fn uncached_copy(ground: &Ground<'_>) -> Result<PathBuf> {
    let copy = ground.fresh("memwatch")?;
    fs::copy(&ground.release.memwatch, &copy)?;
    let file = File::open(&copy)?;
    file.sync_all()?;
    // SAFETY: no pointers; 0 is to the end.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    ensure!(error == 0, "cannot drop {} from memory", copy.display());
    Ok(copy)
}

/// A thrasher in memwatch's own cgroup, outside of the target. Gone when this is dropped.
struct Hog(Child);

impl Hog {
    fn start(place: &Place, ground: &Ground<'_>) -> Result<Self> {
        let culprit = ground.fresh(CULPRIT)?;
        let mut hog = Self(
            Command::new("sh")
                .args([
                    "-c",
                    "read go; exec \"$0\" thrash --seconds 600 --dir \"$1\"",
                ])
                .arg(&ground.release.workload)
                .arg(ground.scratch)
                .env(CULPRIT_FILE, &culprit)
                .stdin(Stdio::piped())
                .spawn()?,
        );
        place.take(hog.0.id())?;
        // Closed: `read` ends.
        drop(hog.0.stdin.take());
        wait_for_file(&culprit)?;
        Ok(hog)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for_file(path: &Path) -> Result<()> {
    let patience = Instant::now() + PATIENCE;
    while !path.exists() {
        ensure!(Instant::now() < patience, "{} did not come", path.display());
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Looks on for `time`, and prints what the deciding thread did while the cgroup of `pressed` stalled.
fn look_on(what: &str, memwatch: &Talker, pressed: u32, time: Duration) -> Result<()> {
    let heart = Heart::of_the_only_memwatch()?;
    let (faults, stalled) = (major_faults(memwatch.pid())?, stalled_us(pressed)?);
    let Passes { pauses, blind } = Passes::watch(heart, time);
    let faults = major_faults(memwatch.pid())? - faults;
    let now = stalled_us(pressed)?;
    let share = |us: u64| us as f64 / time.as_micros() as f64 * 100.0;
    println!(
        "{what}, {} s, with memory stall of {:.0} % (some) and {:.0} % (full):",
        time.as_secs(),
        share(now.0 - stalled.0),
        share(now.1 - stalled.1)
    );
    table::figure(
        "  its major faults",
        &faults.to_string(),
        "0",
        judge(faults as f64, 0.0),
    );
    let [p50, p99, longest] = [50, 99, 100].map(|percent| percentile(&pauses, percent));
    table::figure(
        "  longest pause",
        &format!(
            "{longest:.1} ms (p50 {p50:.1}, p99 {p99:.1}, {} passes)",
            pauses.len()
        ),
        &format!("<= {GOAL_MS} ms"),
        judge(longest, GOAL_MS),
    );
    println!(
        "  (nobody looked for {blind:.1} ms at most, by which a pause may look longer than it was)"
    );
    Ok(())
}

/// Prints what memwatch itself says of all that.
fn print_report(report: &Path) -> Result<()> {
    let report: Value = serde_json::from_slice(&fs::read(report)?)?;
    let losses = &report["losses"];
    println!(
        "  (by its own report: {} looks more than 50 ms late, none by more than {} us)",
        losses["missed_looks"], losses["longest_delay_us"]
    );
    for lost in report["features_lost"].as_array().into_iter().flatten() {
        println!("  (it had to do without {})", lost["feature"]);
    }
    Ok(())
}

/// What was seen of the deciding thread's passes, in ms.
struct Passes {
    /// What lay between the ends of one and the next.
    pauses: Vec<f64>,
    /// The longest that nobody looked: an end that was not seen makes two pauses one, and none shorter.
    blind: f64,
}

impl Passes {
    /// Looks on for `time`.
    fn watch(heart: Heart, time: Duration) -> Self {
        // On a thread of its own, before which nobody else's turn comes, the deciding thread's included.
        let watcher = std::thread::spawn(move || {
            run_first();
            Self::look(&heart, time)
        });
        watcher.join().expect("it does not panic")
    }

    fn look(heart: &Heart, time: Duration) -> Self {
        let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1000.0;
        let mut passes = Self {
            pauses: Vec::new(),
            blind: 0.0,
        };
        let mut looked = now_us();
        let until = looked + time.as_micros() as u64;
        let mut last = heart.last_beat_us();
        while looked < until {
            sleep(GRAIN);
            let now = now_us();
            passes.blind = passes.blind.max(ms(looked, now));
            looked = now;
            let beat = heart.last_beat_us();
            if beat != last {
                passes.pauses.push(ms(last, beat));
                last = beat;
            }
        }
        // The one that is under way.
        passes.pauses.push(ms(last, now_us()));
        passes
    }
}

/// Above memwatch's own priority. Where that is refused, `blind` shows what came of it.
fn run_first() {
    let first = libc::sched_param { sched_priority: 50 };
    // SAFETY: `first` is valid; 0 is this thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &first) };
}

/// Of the deciding thread, since its start.
fn major_faults(pid: u32) -> Result<u64> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        if fs::read_to_string(thread.join("comm"))?.trim_end() == THREAD {
            let stat = fs::read_to_string(thread.join("stat"))?;
            // majflt, the 12th of all.
            return Ok(fields(&stat).nth(9).context("a short stat")?.parse()?);
        }
    }
    None.with_context(|| format!("process {pid} has no thread {THREAD}"))
}
