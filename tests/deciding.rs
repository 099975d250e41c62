//! The deciding thread's promise, held to a real hog in a real cgroup: from the first pass to the kill
//! and the return of the memory it neither allocates nor frees. Needs root, and fails without.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use memwatch::act::{Mode, Outcome};
use memwatch::agent::channel::{Channel, Notice, Status};
use memwatch::agent::deciding::{Arrival, Decider, Inbox, Way};
use memwatch::agent::eyes::{Eyes, KernelEyes};
use memwatch::agent::flight::Flights;
use memwatch::agent::guarded::{self, Guarded};
use memwatch::agent::inheritance::Inheritance;
use memwatch::agent::launch::{self, Program};
use memwatch::agent::members::Members;
use memwatch::agent::pass::{Charge, Pass};
use memwatch::agent::recorder::Lane;
use memwatch::agent::signals;
use memwatch::bpf::{Facts, Programs, plan};
use memwatch::host::cgroup::{Limits, Target};
use memwatch::host::layout::Layout;
use memwatch::watch::{Policy, Response, Settings};

use counting::calls;

#[path = "support/counting.rs"]
mod counting;

const LIMIT_BYTES: u64 = 200 << 20;

#[test]
fn not_one_allocation_from_the_first_pass_to_the_kill() {
    let workload = std::env::var_os("MEMWATCH_TEST_WORKLOAD")
        .expect("MEMWATCH_TEST_WORKLOAD is not set: run these tests with `cargo xtask test`");
    let layout = Layout::read(Path::new("/")).expect("cgroups");
    let target = Target::create(&layout).expect("a cgroup: these tests need root");
    let limits = Limits {
        max_bytes: Some(LIMIT_BYTES),
        high_bytes: None,
    };
    let guarded = Guarded::new(target, limits).expect("limits");
    let inheritance = Inheritance::take(&signals::taken(), None).expect("a signal mask");
    let program = Program {
        program: workload,
        // Eight children, of which one leaks: members come, go, and have rivals.
        arguments: ["fork-tree", "--rate", "100M", "--seconds", "30"]
            .map(Into::into)
            .to_vec(),
        environment: Vec::new(),
    };
    let entrances = guarded.target.entrances().expect("entrances");
    let mut child = launch::launch(&program, &entrances, &inheritance).expect("the workload");

    let settings = Settings::default();
    let way = Way {
        inbox: Arc::new(Inbox::new(1)),
        channel: Arc::new(Channel::new().expect("descriptors")),
    };
    let status = Arc::new(Status::default());
    let flights = Flights::new(Lane::new(256, 64), 1);
    let charge = Charge {
        id: guarded.target.id,
        leader: Some(child.id()),
        uid: None,
        mode: Mode::Real,
        status: Arc::clone(&status),
        recorder: Some(flights.recorder(guarded.target.id, true)),
        tests: None,
    };
    let eyes = guarded.eyes().expect("the target's files");
    let policy = Policy::new(settings, Response::Kill);
    let mut pass = Pass::new(charge, eyes, policy, Arc::clone(&way.channel));
    let mut programs = Programs::load(&plan(&Facts::read())).expect("the BPF object loads");
    let row = programs
        .add_target(guarded.target.id, Some(guarded.target.level))
        .expect("a row");
    pass.count_in(row);
    let mut decider = Decider::new(
        Eyes::new(guarded::machine_eyes().expect("/proc/meminfo")),
        vec![Members::new(100)],
        1,
        way.clone(),
        None,
    );
    way.send(Arrival::Kernel(KernelEyes {
        reader: programs.reader().expect("a reader"),
        slot: 0,
        names: true,
    }));
    way.send(Arrival::Target(Box::new(pass)));

    let patience = Instant::now() + Duration::from_secs(30);
    let (mut recovered, mut killed) = (false, 0);
    let before = calls();
    while !recovered && Instant::now() < patience {
        let pause = decider.turn();
        while let Some((_, notice)) = way.channel.next() {
            match notice {
                Notice::Hit { outcome, .. } => killed += u32::from(outcome == Outcome::Delivered),
                Notice::Recovered { .. } => recovered = true,
                Notice::Ordered { .. }
                | Notice::Struck { .. }
                | Notice::NearMiss(_)
                | Notice::TargetGone
                | Notice::Departed => {}
            }
        }
        thread::sleep(pause);
    }
    let calls = calls() - before;
    let looks = status.looks.load(Ordering::Relaxed);
    let status = child.wait().expect("ours");
    guarded.target.remove().expect("it is empty");
    assert!(recovered && killed > 0, "{killed} killed in {looks} looks");
    assert!(status.success(), "a bystander was hit: {status}");
    assert!(looks > 20, "{looks} looks prove little");
    let flight = flights.of(guarded.target.id, Duration::ZERO);
    assert!(flight.is_some_and(|flight| flight.looks.len() > 20));
    assert_eq!(calls, 0, "calls to the allocator in {looks} looks");
}
