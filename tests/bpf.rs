//! The BPF programs on the real kernel: what they count for a target, what they leave alone, what
//! comes over the ring. Needs root and BPF, and fails without.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Child,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use lacking::{lacking, lost};
use memwatch::bpf::{Event, Facts, Feature, Programs, Reader, Row, plan};
use memwatch_ebpf::{MAJOR_FAULT_PERIOD, MINOR_FAULT_PERIOD};
use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use sandbox::Sandbox;
use tempfile::NamedTempFile;

#[path = "support/lacking.rs"]
mod lacking;
#[path = "support/sandbox.rs"]
mod sandbox;

/// For what takes milliseconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn load() -> Programs {
    // SAFETY: reads one number of this process.
    assert_eq!(unsafe { libc::geteuid() }, 0, "the BPF tests need root");
    Programs::load(&plan(&Facts::read())).expect("the BPF object loads")
}

/// A target with programs and a reader of its own.
struct Watched {
    sandbox: Sandbox,
    programs: Programs,
    reader: Reader,
    row: Row,
}

impl Watched {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let mut programs = load();
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

    /// The first event that `wanted` takes. Sleeps on the ring as the agent does, so it also proves
    /// that the event wakes its reader.
    fn wait_for<T>(&mut self, wanted: impl Fn(Event) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            while let Some(event) = self.reader.next_event() {
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            let mut ring = [PollFd::new(
                self.reader.fd().expect("a ring"),
                PollFlags::POLLIN,
            )];
            poll(&mut ring, PollTimeout::from(1000u16)).expect("poll");
        }
        panic!("no such event within {PATIENCE:?}");
    }
}

/// Four times the sandbox's limit, and in nobody's cache: reading it is reclaim all along.
fn big_file() -> NamedTempFile {
    let mut file = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a file on disk");
    let block = vec![1u8; 1 << 20];
    for _ in 0..256 {
        file.write_all(&block).expect("256 MiB of disk");
    }
    file.as_file().sync_all().expect("sync");
    forget(file.as_file());
    file
}

fn forget(file: &File) {
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("fadvise");
}

fn read_all(file: &NamedTempFile) -> String {
    format!("exec dd if={} of=/dev/null bs=1M", file.path().display())
}

fn finish(mut child: Child) {
    let status = child.wait().expect("wait");
    assert!(status.success(), "{status}");
}

fn comm_is(comm: [u8; 16], name: &str) -> bool {
    comm.split(|&byte| byte == 0).next() == Some(name.as_bytes())
}

/// What docs/KERNELS.md says the verifier walks: the last column of the program's line.
fn documented_instructions(program: &str) -> u32 {
    let table = include_str!("../docs/KERNELS.md");
    let line = table
        .lines()
        .find(|line| line.starts_with(&format!("| `{program}` |")));
    let line = line.unwrap_or_else(|| panic!("{program} is not in docs/KERNELS.md"));
    let count = line
        .trim_end_matches('|')
        .rsplit('|')
        .next()
        .expect("columns");
    let count: String = count.chars().filter(char::is_ascii_digit).collect();
    count
        .parse()
        .unwrap_or_else(|_| panic!("no count in {line}"))
}

/// No loaded program takes the verifier more than a third longer than docs/KERNELS.md says.
fn hold_to_documentation(programs: &Programs) {
    let mut grown = Vec::new();
    for statistics in programs.statistics() {
        let verified = statistics
            .verified_instructions
            .expect("a kernel since 5.16");
        println!("{:16} {verified}", statistics.program);
        let documented = documented_instructions(&statistics.program);
        if verified > documented / 3 * 4 {
            grown.push((statistics.program, verified, documented));
        }
    }
    assert_eq!(grown, [], "program, counted, in docs/KERNELS.md");
}

#[test]
fn every_program_loads_and_attaches() {
    let start = Instant::now();
    let facts = Facts::read();
    let read = start.elapsed();
    let mut programs = Programs::load(&plan(&facts)).expect("load");
    let loaded = start.elapsed() - read;
    let heating = HEATING.lock();
    programs.heat(true).expect("fault samplers");
    programs.heat(false).expect("fault samplers");
    drop(heating);
    let lacking = lacking(&facts);
    assert_eq!(lost(&programs), lacking);
    let hooks = if lacking.contains(&Feature::GuardStalls) {
        0
    } else {
        2
    };
    assert_eq!(programs.attached().len(), 11 + hooks);
    println!("facts {read:?}, load and attach {loaded:?}");
    hold_to_documentation(&programs);
}

#[test]
fn reclaim_is_counted_for_the_target_and_for_nobody_else() {
    let mut watched = Watched::new();
    let bystander = Sandbox::new();
    let other_row = {
        let empty = Sandbox::new();
        watched
            .programs
            .add_target(empty.id(), Some(empty.level()))
            .expect("a row")
    };
    let file = big_file();

    finish(bystander.start(&read_all(&file)));
    assert_eq!(watched.reader.totals(watched.row), Default::default());

    forget(file.as_file());
    let child = watched.sandbox.start(&read_all(&file));
    let pid = child.id();
    finish(child);

    let totals = watched.reader.totals(watched.row);
    assert!(totals.memcg_reclaims > 0, "{totals:?}");
    assert!(totals.stall_ns > 0, "{totals:?}");
    // 192 MiB had to go for the file to pass; kswapd plays no part inside a limit.
    assert!(totals.reclaimed_pages > 10_000, "{totals:?}");
    assert!(totals.scanned_pages >= totals.stolen_pages, "{totals:?}");
    assert_eq!(totals.unmatched_ends, 0, "{totals:?}");
    assert_eq!(watched.reader.totals(other_row), Default::default());

    assert_eq!(watched.reader.process(pid), None, "its entry went with it");
}

#[test]
fn a_process_is_counted_while_it_lives() {
    let watched = Watched::new();
    let file = big_file();
    let path = file.path().display();
    let read_and_stay = format!(
        "import time; f = open('{path}', 'rb', 0)\nwhile f.read(1 << 20): pass\ntime.sleep(60)"
    );
    let script = format!("exec python3 -c \"{read_and_stay}\"");
    let child = watched.sandbox.start(&script);
    let until = Instant::now() + PATIENCE;
    let process = loop {
        assert!(Instant::now() < until, "no reclaim by {}", child.id());
        match watched.reader.process(child.id()) {
            Some(process) if process.reclaims > 10 => break process,
            _ => thread::sleep(Duration::from_millis(5)),
        }
    };
    assert!(
        process.stall_ns > 0 && process.scanned_pages > 0,
        "{process:?}"
    );
    assert!(process.last_seen_ns > 0, "{process:?}");
    assert_eq!(watched.reader.process(std::process::id()), None);
    drop(watched);
    reap(child);
}

#[test]
fn a_nested_cgroup_counts() {
    let watched = Watched::new();
    let file = big_file();
    finish(watched.sandbox.start_nested(&read_all(&file)));
    let totals = watched.reader.totals(watched.row);
    assert!(totals.memcg_reclaims > 0 && totals.exits > 0, "{totals:?}");
}

#[test]
fn the_first_reclaim_wakes_the_reader_and_the_next_do_not() {
    let mut watched = Watched::new();
    let file = big_file();
    let child = watched.sandbox.start(&read_all(&file));
    let pid = child.id();
    let row = watched.wait_for(|event| match event {
        Event::ReclaimStarted {
            row, pid: found, ..
        } if found == pid => Some(row),
        _ => None,
    });
    assert_eq!(row, watched.row);
    finish(child);
    let mut started = 1;
    while let Some(event) = watched.reader.next_event() {
        started += u64::from(matches!(event, Event::ReclaimStarted { .. }));
    }
    let reclaims = watched.reader.totals(watched.row).memcg_reclaims;
    assert!(
        started * 20 < reclaims,
        "{started} events of {reclaims} reclaims"
    );
}

#[test]
fn exits_are_counted_and_wake_nobody() {
    let mut watched = Watched::new();
    finish(watched.sandbox.start("for i in 1 2 3 4 5; do (:); done"));
    assert_eq!(watched.reader.totals(watched.row).exits, 6);
    assert_eq!(watched.reader.next_event(), None);
}

#[test]
fn a_removed_target_is_counted_no_more() {
    let mut watched = Watched::new();
    finish(watched.sandbox.start("exec true"));
    let before = watched.reader.totals(watched.row);
    assert!(before.exits > 0);
    watched.programs.remove_target(watched.row).expect("remove");
    finish(watched.sandbox.start("exec true"));
    assert_eq!(watched.reader.totals(watched.row), before);

    let again = watched
        .programs
        .add_target(watched.sandbox.id(), Some(watched.sandbox.level()))
        .expect("a row");
    assert_eq!(
        watched.reader.totals(again),
        Default::default(),
        "a row starts at zero"
    );
}

#[test]
fn the_kernels_oom_victim_is_named() {
    let mut watched = Watched::new();
    let mut child = watched.sandbox.start("exec tail /dev/zero");
    let pid = child.id();
    let (row, comm) = watched.wait_for(|event| match event {
        Event::OomVictim {
            pid: found,
            row,
            comm,
            ..
        } if found == pid => Some((row, comm)),
        _ => None,
    });
    assert_eq!(row, Some(watched.row), "the victim itself asked for memory");
    assert!(comm_is(comm, "tail"), "{comm:?}");
    assert!(!child.wait().expect("wait").success());
}

#[test]
fn events_that_find_no_room_are_counted() {
    let watched = Watched::new();
    assert_eq!(watched.programs.totals().dropped_events(), 0);
    // 64 KiB hold 1365 victims, and nobody reads. Under a low limit each is there soon. Who counts
    // them stands outside: the kernel chooses among all who are inside.
    watched.sandbox.limit("6M");
    for _ in 0..1600 {
        let mut victim = watched.sandbox.start("exec tail /dev/zero");
        assert!(!victim.wait().expect("wait").success());
    }
    let dropped = watched.programs.totals().dropped_events();
    assert!((1600 - 1365..1000).contains(&dropped), "{dropped}");
}

#[test]
fn faults_are_sampled_while_hot_and_nothing_is_left_behind() {
    let mut watched = Watched::new();
    // A buffer of 32 MiB, touched for the first time: 8192 faults of 4 KiB.
    let touch = "GLIBC_TUNABLES=glibc.malloc.hugetlb=0 dd if=/dev/zero of=/dev/null bs=32M count=1";
    let _heating = HEATING.lock();
    let cold = perf_events();
    finish(watched.sandbox.start(touch));
    assert_eq!(
        watched.reader.totals(watched.row).minor_faults,
        0,
        "not hot"
    );

    watched.programs.heat(true).expect("heat");
    watched.programs.heat(true).expect("again is no error");
    assert!(perf_events() > cold);
    for _ in 0..8 {
        finish(watched.sandbox.start(touch));
    }
    let hot = watched.reader.totals(watched.row);
    assert!(hot.minor_faults >= MINOR_FAULT_PERIOD, "{hot:?}");
    assert_eq!(hot.minor_faults % MINOR_FAULT_PERIOD, 0, "{hot:?}");
    assert_eq!(hot.major_faults % MAJOR_FAULT_PERIOD, 0, "{hot:?}");

    watched.programs.heat(false).expect("cool");
    assert_eq!(perf_events(), cold);
    finish(watched.sandbox.start(touch));
    assert_eq!(
        watched.reader.totals(watched.row).minor_faults,
        hot.minor_faults
    );
}

#[test]
fn what_the_kernel_lacks_costs_its_feature_alone() {
    let mut facts = Facts::read();
    facts.types = None;
    let programs = Programs::load(&plan(&facts)).expect("load");
    assert_eq!(
        lost(&programs),
        [
            Feature::OomVictim,
            Feature::Hang,
            Feature::GuardNames,
            Feature::GuardStalls
        ]
    );
    assert_eq!(programs.attached().len(), 9);
    // The guard's clock is the one without names here.
    hold_to_documentation(&programs);
}

/// Held by whoever heats: what the tests of one process have open is seen by all of them.
static HEATING: Mutex<()> = Mutex::new(());

/// Descriptors of this process that keep a perf event alive: the event itself, or a BPF link to one.
fn perf_events() -> usize {
    fs::read_dir("/proc/self/fdinfo")
        .expect("/proc/self/fdinfo")
        .filter_map(|entry| {
            let info = entry.ok()?;
            let target = fs::read_link(Path::new("/proc/self/fd").join(info.file_name())).ok()?;
            let is_link = fs::read_to_string(info.path())
                .ok()?
                .contains("link_type:\tperf");
            (is_link || target.as_os_str() == "anon_inode:[perf_event]").then_some(())
        })
        .count()
}

fn reap(mut child: Child) {
    child.wait().expect("wait");
}
