//! Ten thousand hostile movements between cgroups with the guard armed and its agent dead: nobody is hit who
//! was in no target when the guard looked. What happened is told by the kernel's tracepoints, not by
//! memwatch. Whom the guard reaches, and on what terms, is `guard`'s. Needs root and BPF, and fails without.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use crowd::Crowd;
use judge::judge;
use places::Places;
use random::XorShift;
use trace::Trace;

#[path = "support/cgroups.rs"]
mod cgroups;
#[path = "movements/crowd.rs"]
mod crowd;
#[path = "movements/judge.rs"]
mod judge;
#[path = "movements/places.rs"]
mod places;
#[path = "workloads/random.rs"]
mod random;
#[path = "movements/trace.rs"]
mod trace;

const MOVEMENTS: usize = 10_000;
/// Of the guard's kills, so that there is something to judge.
const KILLS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(150);
/// Between two of them: time for the guard to find somebody where they are.
const PACE: Duration = Duration::from_millis(1);

#[test]
fn nobody_is_hit_who_was_no_member_at_the_check() {
    let seed = env::var("MEMWATCH_TEST_SEED").map_or_else(
        |_| std::process::id(),
        |seed| seed.parse().expect("a number"),
    );
    println!("MEMWATCH_TEST_SEED={seed}");
    let mut places = Places::new();
    let mut trace = Trace::begin();
    let mut crowd = Crowd::new(&places, XorShift::new(seed));
    let until = Instant::now() + PATIENCE;
    let mut step = 0;
    while crowd.moved < MOVEMENTS && Instant::now() < until {
        crowd.step(&mut places, &mut trace);
        step += 1;
        if step % 200 == 0 {
            crowd.remake(&mut places, &mut trace);
            places.reached();
        }
        thread::sleep(PACE);
    }
    let events = trace.end();
    let (moved, too_late) = (crowd.moved, crowd.too_late);
    drop(crowd);

    let verdict = judge(&events, &places.inside);
    let reached = places.reached();
    println!(
        "{moved} movements, {too_late} too late; {} hit; by the guard's account {reached:?}",
        verdict.members
    );
    assert_eq!(verdict.strangers, []);
    assert!(moved >= MOVEMENTS, "{moved} movements within {PATIENCE:?}");
    assert_eq!(
        verdict.movements, moved,
        "the kernel tells of every movement"
    );
    assert!(verdict.members >= KILLS, "{}", verdict.members);
    assert!(
        reached.reclaim > 0 && reached.running > 0 && reached.named > 0,
        "{reached:?}"
    );
}
