//! Each figure of a test against what the test itself saw by other means.

use super::{Suite, test};
use serde_json::Value;

const SUITE: &str = r#"
import json, mmap, os, resource, signal, subprocess, sys, time

MIB = 1 << 20
kept = []
truth = {}

def status(name):
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024

def test_warm_up():
    subprocess.run([sys.executable, "-c", ""])

def test_grows():
    before = status("VmRSS")
    block = bytearray(b"x") * (96 * MIB)
    truth["grows"] = status("VmRSS") - before
    truth["peak"] = status("VmRSS")
    del block

def test_keeps():
    before = status("VmRSS")
    kept.append(bytearray(b"x") * (48 * MIB))
    truth["keeps"] = status("VmRSS") - before

SCRIPT = """if 1:
    import time
    block = bytearray(b"x") * (64 << 20)
    with open("/proc/self/status") as file:
        print(next(line for line in file if line.startswith("VmRSS:")).split()[1], flush=True)
    time.sleep(%s)"""

def test_child():
    done = subprocess.run([sys.executable, "-c", SCRIPT % 0.7], stdout=subprocess.PIPE)
    truth["child"] = int(done.stdout) * 1024

left = []

def test_leaves_a_child():
    # Below another: it is the test's all the same.
    command = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, SCRIPT % 60]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    left.append(child)
    truth["left"] = int(child.stdout.readline()) * 1024

def test_ends_it():
    os.killpg(left[0].pid, signal.SIGKILL)
    left[0].communicate()

def test_spins():
    began = time.process_time()
    while time.process_time() < began + 0.3:
        pass
    truth["cpu_us"] = int((time.process_time() - began) * 1e6)

def test_sleeps():
    began = time.monotonic()
    time.sleep(0.2)
    truth["wall_us"] = int((time.monotonic() - began) * 1e6)

def test_faults():
    page = mmap.PAGESIZE
    area = mmap.mmap(-1, 4000 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, len(area), page):
        area[at] = 1
    area.close()

def test_writes_it_down():
    with open(os.environ["OUT"], "w") as file:
        json.dump(truth, file)
"#;

#[test]
fn every_figure_is_what_the_test_itself_saw() {
    let suite = Suite::of(&[("test_figures.py", SUITE)]);
    let ran = suite.run(&[], &[]).expect(0);
    let truth: Value = serde_json::from_str(&suite.lab.read("truth.json")).expect("JSON");
    let figure = |name: &str, field: &str| {
        test(&ran, name)[field]
            .as_u64()
            .unwrap_or_else(|| panic!("no {field} of {name}: {:#}", test(&ran, name)))
    };
    let true_of = |what: &str| truth[what].as_u64().expect("a number");
    let near = |found: u64, truth: u64, percent: u64| {
        let off = found.abs_diff(truth) * 100 / truth;
        assert!(off <= percent, "{found} for {truth}: {off}% off");
    };
    const MIB: u64 = 1 << 20;

    let growth = figure("test_grows", "peak_bytes") - figure("test_grows", "rss_before_bytes");
    near(growth, true_of("grows"), 3);
    near(figure("test_grows", "peak_bytes"), true_of("peak"), 3);
    let retained =
        |name| figure(name, "rss_after_bytes").saturating_sub(figure(name, "rss_before_bytes"));
    assert!(
        retained("test_grows") < 4 * MIB,
        "{}",
        retained("test_grows")
    );
    near(retained("test_keeps"), true_of("keeps"), 3);
    near(
        figure("test_child", "children_peak_bytes"),
        true_of("child"),
        5,
    );
    near(
        figure("test_leaves_a_child", "children_retained_bytes"),
        true_of("left"),
        5,
    );
    for name in ["test_child", "test_ends_it"] {
        assert!(test(&ran, name)["children_retained_bytes"].is_null());
    }
    let child = figure("test_child", "peak_bytes") - figure("test_child", "rss_before_bytes");
    assert!(
        child < 8 * MIB,
        "a child's memory is not its parent's: {child}"
    );

    // What the test did is in it; setup, teardown and memwatch's own looks come to little beside.
    let cpu = figure("test_spins", "cpu_us");
    assert!(cpu >= true_of("cpu_us"), "{cpu}");
    near(cpu, true_of("cpu_us"), 20);
    let slept = figure("test_sleeps", "cpu_us");
    assert!(slept < true_of("cpu_us") / 4, "{slept}");
    assert!(figure("test_sleeps", "wall_us") >= true_of("wall_us"));
    assert!(figure("test_sleeps", "call_us") >= true_of("wall_us"));
    let faults = figure("test_faults", "minor_faults");
    assert!((4000..6000).contains(&faults), "{faults}");
}
