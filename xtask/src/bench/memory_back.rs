//! Memory back: from a hog's SIGKILL until what it held can be used again, when memwatch kills it and
//! when anybody does. Seen from outside, in the same way for both.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::place::{Place, Usage};
use super::rounds::{Side, interleave};
use super::table;
use crate::soak::CULPRIT_FILE;
use crate::workspace::Release;

const LIMIT: &str = "512M";
const LIMIT_BYTES: u64 = 512 << 20;
const GOAL: f64 = 1.10;
/// Between two looks at the usage. A hog takes half a MiB meanwhile.
const GRAIN: Duration = Duration::from_micros(200);
/// Longer than a hog takes to fill its limit and to be gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of a hog's memory.
struct End {
    /// The most that it held: a hog grows until the signal reaches it.
    peak_bytes: u64,
    /// From then until less than a tenth of that was left.
    back_ms: f64,
}

/// Measures and prints.
///
/// # Errors
/// If a hog does not start, or does not end.
pub(crate) fn run(release: &Release, scratch: &Path, rounds: usize) -> Result<()> {
    table::headline("memory-back", "a leak's memory after its SIGKILL");
    table::ratio_columns("kill -9, and memwatch's");
    // Each plain kill comes at the size at which memwatch's last one came.
    let mut size = killed_by_memwatch(release, scratch)?.peak_bytes;
    let [measured] = interleave(rounds, |side| {
        let end = match side {
            Side::With => killed_by_memwatch(release, scratch)?,
            Side::Without | Side::Again => killed_at(size, release)?,
        };
        if matches!(side, Side::With) {
            size = end.peak_bytes;
        }
        Ok([end.back_ms])
    })?;
    table::ratio("until 10 % are left, ms", &measured, GOAL);
    println!(
        "  Counted from the most that the hog held, {} MiB, since it grows until SIGKILL reaches it. It is\n  \
         deaf to SIGTERM, so that it does come to that.",
        size >> 20
    );
    Ok(())
}

fn killed_by_memwatch(release: &Release, scratch: &Path) -> Result<End> {
    let culprit = scratch.join("culprit");
    if culprit.exists() {
        fs::remove_file(&culprit)?;
    }
    let mut memwatch = Command::new(&release.memwatch)
        .args(["attach", "--quiet", "--memory-max", LIMIT, "--"])
        .args(["sh", "-c", "trap '' TERM; exec \"$0\" leak --seconds 20"])
        .arg(&release.workload)
        .env(CULPRIT_FILE, &culprit)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let end = usage_of_culprit(&culprit).and_then(|usage| follow(&usage, |_| Ok(())));
    // Whatever happened: its target is a hog that ends by itself, and then memwatch cleans up.
    memwatch.wait()?;
    end
}

fn killed_at(size: u64, release: &Release) -> Result<End> {
    let place = Place::new(LIMIT_BYTES)?;
    let mut hog = Command::new("sh")
        .args(["-c", "read go; exec \"$0\" leak --seconds 20"])
        .arg(&release.workload)
        .stdin(Stdio::piped())
        .spawn()?;
    let end = fill_and_kill(&mut hog, &place, size);
    hog.kill()?;
    hog.wait()?;
    end
}

fn fill_and_kill(hog: &mut Child, place: &Place, size: u64) -> Result<End> {
    place.take(hog.id())?;
    writeln!(hog.stdin.take().expect("piped"), "go")?;
    let mut killed = false;
    follow(&place.usage()?, |bytes| {
        if bytes >= size && !killed {
            killed = true;
            hog.kill()?;
        }
        Ok(())
    })
}

fn usage_of_culprit(culprit: &Path) -> Result<Usage> {
    let started = Instant::now();
    loop {
        let named = fs::read_to_string(culprit).ok();
        if let Some(pid) = named.and_then(|text| text.parse().ok()) {
            return Usage::of_process(pid);
        }
        ensure!(started.elapsed() < PATIENCE, "the hog did not start");
        sleep(GRAIN);
    }
}

/// Follows a hog's memory up and down again, and shows `seen` how much there is on the way.
fn follow(usage: &Usage, mut seen: impl FnMut(u64) -> Result<()>) -> Result<End> {
    /// Less than that is a program that is starting.
    const HOG_BYTES: u64 = LIMIT_BYTES / 2;
    let started = Instant::now();
    let (mut peak_bytes, mut peak_at) = (0, started);
    while started.elapsed() < PATIENCE {
        // memwatch removes the cgroup once it is empty.
        let bytes = usage.bytes().unwrap_or(0);
        let now = Instant::now();
        if bytes > peak_bytes {
            (peak_bytes, peak_at) = (bytes, now);
        }
        if peak_bytes > HOG_BYTES && bytes < peak_bytes / 10 {
            let back_ms = (now - peak_at).as_secs_f64() * 1000.0;
            return Ok(End {
                peak_bytes,
                back_ms,
            });
        }
        seen(bytes)?;
        sleep(GRAIN);
    }
    None.context("the hog's memory did not come back")
}
