//! Made-up suites and their runs, with the noise of real machines: for the promise that noise is no regression
//! and a doubling is one.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, UNIX_EPOCH};

use super::compare::compare;
use super::limit::{Figure, Limit};
use super::run::{Measured, Run};
use super::sides::RUNS_FOR_WALL;
use crate::incident::suite::{Outcome, Suite, Test};
use crate::incident::{Record, Text, Verdict};

const MIB: f64 = 1048576.0;

/// A record with these tests, all of one process: name and memory in MiB.
pub(crate) fn record(tests: &[(&str, u64)]) -> Record {
    let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH, 1_000_000, Verdict::Finished);
    record.suite = Some(Suite {
        tests: tests
            .iter()
            .map(|(id, mib)| test(id, mib << 20, 100_000))
            .collect(),
        ..Suite::default()
    });
    record
}

/// A test that passed, of process 1.
pub(crate) fn test(id: &str, memory_bytes: u64, wall_us: u64) -> Test {
    Test {
        line: None,
        id: id.into(),
        outcome: Outcome::Passed,
        worker: None,
        pid: 1,
        at_us: 0,
        wall_us,
        cpu_us: Some(wall_us),
        setup_us: None,
        call_us: None,
        teardown_us: None,
        rss_before_bytes: Some(50 << 20),
        rss_after_bytes: Some(50 << 20),
        peak_bytes: Some((50 << 20) + memory_bytes),
        children_peak_bytes: None,
        children_retained_bytes: None,
        minor_faults: None,
        major_faults: None,
        reclaim_us: None,
        leaks: Vec::new(),
        answered_us: None,
        ended_by_memwatch: None,
    }
}

/// What a test takes where nothing disturbs it.
#[derive(Clone, Debug)]
struct Truth {
    id: Text,
    cpu_us: f64,
    waited_us: f64,
    memory: f64,
}

impl Truth {
    /// Whether it waits for longer than it works.
    fn waits(&self) -> bool {
        self.waited_us > self.cpu_us
    }
}

/// 589 tests, most of them small and short, a few large and long; a quarter of them mostly wait.
fn suite(random: &mut Random) -> Vec<Truth> {
    (0..589)
        .map(|n| {
            let wall = 80_000.0 * (1.5 * random.normal()).exp();
            let waits = if random.chance(0.25) {
                random.between(0.5, 0.9)
            } else {
                random.between(0.0, 0.1)
            };
            let memory = if random.chance(0.2) {
                0.0
            } else {
                3.0 * MIB * (1.8 * random.normal()).exp()
            };
            Truth {
                id: format!("tests/test_{}.py::test_{n}", n / 20).into(),
                cpu_us: wall * (1.0 - waits),
                waited_us: wall * waits,
                memory: memory.min(4096.0 * MIB),
            }
        })
        .collect()
}

/// One run of it by four workers. Every fourth file has something that is set up once in each worker, by
/// whichever of its tests comes first there. The machine is slower by up to a half or so in each; one test of
/// fifty waits for something that has nothing to do with it, for a time without a typical length; allocators take
/// and keep arenas.
fn run(suite: &[Truth], random: &mut Random) -> Run {
    let slow = (0.25 * random.normal().abs()).exp();
    let mut started = [false; 4];
    let mut ready = HashSet::new();
    let tests: BTreeMap<_, _> = suite
        .iter()
        .enumerate()
        .map(|(n, truth)| {
            let mut cpu = truth.cpu_us * slow * (0.04 * random.normal()).exp();
            if random.chance(0.01) {
                cpu *= (0.15 * random.normal().abs()).exp();
            }
            let mut waited = truth.waited_us * slow * (0.04 * random.heavy_tailed()).exp();
            if random.chance(0.02) {
                waited += (20_000.0 / random.uniform().powf(1.0 / 1.2)).min(5_000_000.0);
            }
            let mut memory = truth.memory * (0.01 * random.normal()).exp();
            memory += (random.uniform() * 64.0).floor() * 4096.0;
            if random.chance(0.15) {
                memory += if random.chance(0.5) { MIB } else { -MIB };
            }
            if random.chance(0.03) {
                memory += random.between(1.0, 3.0) * MIB;
            }
            let worker = random.below(started.len());
            let sets_up = n / 20 % 4 == 0 && ready.insert((worker, n / 20));
            if sets_up {
                memory += 60.0 * MIB;
                cpu += 500_000.0 * slow;
            }
            let is_first = !std::mem::replace(&mut started[worker], true);
            if is_first {
                memory += 60.0 * MIB;
            }
            let measured = Measured {
                outcome: Outcome::Passed,
                memory_bytes: Some((memory.max(0.0) / 4096.0) as u64 * 4096),
                wall_us: (cpu + waited) as u64,
                cpu_us: Some(cpu as u64),
                is_first,
                sets_up,
            };
            (truth.id.clone(), measured)
        })
        .collect();
    Run {
        id: uuid::Uuid::now_v7(),
        started_at: (UNIX_EPOCH + Duration::from_secs(1)).into(),
        peak_bytes: Some(1 << 30),
        tests,
    }
}

/// Runs of both sides: how many, and the truths behind them.
fn sides(counts: [usize; 2], base: &[Truth], new: &[Truth], random: &mut Random) -> [Vec<Run>; 2] {
    let runs = |count, suite: &[Truth], random: &mut Random| {
        (0..count).map(|_| run(suite, random)).collect()
    };
    let first = runs(counts[0], base, random);
    [first, runs(counts[1], new, random)]
}

/// So many histories for each number of runs.
fn histories() -> u64 {
    let asked = std::env::var("MEMWATCH_TEST_HISTORIES").ok();
    asked.map_or(200, |count| {
        count.parse().expect("a number in MEMWATCH_TEST_HISTORIES")
    })
}

/// At the default settings, with so many runs on each side: at most one history in a hundred in which nothing
/// had changed has a regression, and no doubling of one test's memory or time is missed, whatever the others do.
fn assert_promise(counts: [usize; 2]) {
    let [mut alarms, mut memory, mut time, mut unknown] = [0; 4];
    for seed in 0..histories() {
        let mut random = Random(seed * 1000 + counts[0] as u64);
        let suite = suite(&mut random);
        let [base, new] = sides(counts, &suite, &suite, &mut random);
        alarms += u64::from(compare(&base, &new, &Limit::DEFAULT).is_regression());

        let (worse, large, long) = doubled(&suite, counts, &mut random);
        let [base, new] = sides(counts, &suite, &worse, &mut random);
        let found = compare(&base, &new, &Limit::DEFAULT);
        let misses = |at: usize, figure| {
            let mut changes = found.regressions.iter();
            !changes.any(|it| it.id == suite[at].id && it.figure == figure)
        };
        // What a test takes itself is known of runs in which it set up nothing for others; what it waited, of
        // three of them.
        let is_known_of = |at: usize, runs: usize| {
            let alone = |run: &&Run| {
                let test = &run.tests[&suite[at].id];
                !test.is_first && !test.sets_up
            };
            let sides = [&base, &new];
            sides
                .into_iter()
                .all(|side| side.iter().filter(alone).count() >= runs)
        };
        let runs_for_time = if suite[long].waits() {
            RUNS_FOR_WALL
        } else {
            1
        };
        for (is_known, is_missed, missed) in [
            (
                is_known_of(large, 1),
                misses(large, Figure::Memory),
                &mut memory,
            ),
            (
                is_known_of(long, runs_for_time),
                misses(long, Figure::Time),
                &mut time,
            ),
        ] {
            *missed += u64::from(is_known && is_missed);
            unknown += u64::from(!is_known);
        }
    }
    println!(
        "{counts:?}: {alarms} false alarms, missed: {memory} of memory, {time} of time; {unknown} not known"
    );
    assert!(
        unknown * 10 <= histories() * 2,
        "{unknown} doublings not known"
    );
    assert!(
        alarms * 100 <= histories(),
        "{alarms} false alarms with {counts:?} runs"
    );
    assert_eq!(
        (memory, time),
        (0, 0),
        "doublings missed with {counts:?} runs"
    );
}

/// The suite with one test's memory doubled, and one test's time; which.
fn doubled(suite: &[Truth], counts: [usize; 2], random: &mut Random) -> (Vec<Truth>, usize, usize) {
    let few = counts.into_iter().any(|count| count < RUNS_FOR_WALL);
    let is_large = |truth: &Truth| truth.memory >= 16.0 * MIB;
    // Of few runs it is CPU time that is believed.
    let is_long =
        |truth: &Truth| truth.cpu_us + truth.waited_us >= 100_000.0 && !(few && truth.waits());
    let mut worse = suite.to_vec();
    let large = random.one_of(suite, is_large);
    worse[large].memory *= 2.0;
    let long = random.one_of(suite, is_long);
    worse[long].cpu_us *= 2.0;
    worse[long].waited_us *= 2.0;
    (worse, large, long)
}

#[test]
fn of_200_histories_no_noise_is_a_regression_and_no_doubling_is_missed_with_one_run_a_side() {
    assert_promise([1, 1]);
}

#[test]
fn of_200_histories_no_noise_is_a_regression_and_no_doubling_is_missed_with_three_runs_a_side() {
    assert_promise([3, 3]);
}

#[test]
fn of_200_histories_no_noise_is_a_regression_and_no_doubling_is_missed_with_ten_runs_before_one() {
    assert_promise([10, 1]);
}

#[test]
fn of_200_histories_no_noise_is_a_regression_and_no_doubling_is_missed_with_five_runs_a_side() {
    assert_promise([5, 5]);
}

#[test]
fn of_200_histories_no_noise_is_a_fifth_more_of_a_tests_memory() {
    let fifth = ["+20% memory".parse().expect("a limit")];
    for counts in [[1, 1], [3, 3], [10, 1]] {
        let alarm = |seed: u64| {
            let mut random = Random(seed * 1000 + counts[0] as u64);
            let suite = suite(&mut random);
            let [base, new] = sides(counts, &suite, &suite, &mut random);
            compare(&base, &new, &fifth).is_regression()
        };
        let alarms = (0..histories()).filter(|&seed| alarm(seed)).count() as u64;
        println!("{counts:?} runs: {alarms} false alarms of {}", histories());
        assert!(alarms * 100 <= histories(), "{alarms}");
    }
}

/// Steele, Lea and Flood's generator: the same histories in every run of the tests.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Above 0, up to 1.
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    fn chance(&mut self, of: f64) -> bool {
        self.uniform() <= of
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    /// Box and Muller's.
    fn normal(&mut self) -> f64 {
        let (u, v) = (self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Student's with three degrees of freedom.
    fn heavy_tailed(&mut self) -> f64 {
        let squares: f64 = (0..3).map(|_| self.normal().powi(2)).sum();
        self.normal() / (squares / 3.0).sqrt()
    }

    fn one_of<T>(&mut self, all: &[T], fits: impl Fn(&T) -> bool) -> usize {
        loop {
            let at = self.below(all.len());
            if fits(&all[at]) {
                return at;
            }
        }
    }
}
