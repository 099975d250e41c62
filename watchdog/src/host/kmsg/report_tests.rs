//! Reports put together from lines as kernels write them.

use super::*;
use crate::host::kmsg::record;

/// The log of a 6.18 while a limit of 64 MiB was hit by tail(1), from /dev/kmsg.
const MEMCG: &str = include_str!("../../../../tests/fixtures/kmsg/memcg-oom-6.18.txt");

/// The machine's, as a 6.8 prints it, and what came before and after.
const MACHINE: &[&str] = &[
    "eth0: link up",
    "python3 invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0",
    "CPU: 3 PID: 4250 Comm: python3 Tainted: P           O       6.8.0-52-generic #53-Ubuntu",
    "Call Trace:",
    " <TASK>",
    " dump_stack_lvl+0x76/0xa0",
    " </TASK>",
    "RIP: 0033:0x7f7953e3c109",
    "Code: 8d 34 19 48",
    "RAX: 0000000000010cc1 RBX: 0000000000002020 RCX: 000055dd3ade7330",
    "Mem-Info:",
    "active_anon:7340032 inactive_anon:300000 isolated_anon:0",
    "Tasks state (memory values in pages):",
    "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
    "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/user.slice,task=python3,pid=4250,uid=1000",
    "Out of memory: Killed process 4250 (python3) total-vm:31457280kB, anon-rss:29360128kB, file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:60000kB oom_score_adj:0",
    "eth0: link down",
];

const HANG: &[&str] = &[
    "INFO: task txg_sync:611 blocked for more than 122 seconds.",
    "      Tainted: P           O       6.8.0-52-generic #53-Ubuntu",
    "\"echo 0 > /proc/sys/kernel/hung_task_timeout_secs\" disables this message.",
    "task:txg_sync        state:D stack:0     pid:611   tgid:611   ppid:2      flags:0x00004000",
    "Call Trace:",
    " <TASK>",
    " __schedule+0x27c/0x6b0",
    " cv_wait_common+0xa9/0x140 [spl]",
    " </TASK>",
];

fn by(caller: Option<&str>, text: &str) -> Record {
    Record {
        severity: 4,
        is_kernels: true,
        number: 0,
        at: Duration::ZERO,
        caller: caller.map(|caller| caller.as_bytes().to_vec()),
        text: text.as_bytes().to_vec(),
    }
}

fn take_all<'t>(reports: &mut Reports, lines: impl IntoIterator<Item = &'t str>) -> Vec<Report> {
    let lines = lines.into_iter().enumerate();
    lines
        .flat_map(|(n, text)| reports.take(Duration::from_millis(n as u64), &by(None, text)))
        .collect()
}

fn texts(report: &Report) -> Vec<String> {
    let text = |line: &Line| String::from_utf8_lossy(&line.text).into_owned();
    report.lines.iter().map(text).collect()
}

#[test]
fn a_real_report_of_a_limit_is_whole_and_short() {
    let mut reports = Reports::default();
    let records = MEMCG.lines().map(|line| record::parse(line.as_bytes()));
    let whole: Vec<Report> = records
        .flat_map(|record| reports.take(Duration::ZERO, &record.expect("a record")))
        .collect();
    let [report] = whole.as_slice() else {
        panic!("{whole:?}");
    };
    let about = About::OutOfMemory {
        extent: Extent::Cgroup(b"/lab/memwatch-0123abcd".to_vec()),
        victim: Some(5902),
    };
    assert_eq!(report.about, about);
    let lines = texts(report);
    assert!(lines[0].starts_with("tail invoked oom-killer: "));
    assert!(
        lines
            .last()
            .is_some_and(|last| last.contains("Killed process 5902 (tail)"))
    );
    let holds = |wanted: &str| lines.iter().any(|line| line.starts_with(wanted));
    for wanted in [
        "memory: usage 65536kB, limit 65536kB",
        "Memory cgroup stats for /lab/",
        "rss 66916352",
        "[   5902]",
        "oom-kill:",
        " mem_cgroup_out_of_memory+",
    ] {
        assert!(holds(wanted), "{wanted}: {lines:#?}");
    }
    for unwanted in ["RIP:", "RAX:", "Code:", "R13:", "swap 0"] {
        assert!(!holds(unwanted), "{unwanted}: {lines:#?}");
    }
    assert_eq!(lines.len() + report.left_out, MEMCG.lines().count());
    assert_eq!(reports.under_way().count(), 0);
}

#[test]
fn the_machines_report_begins_and_ends_where_it_does() {
    let whole = take_all(&mut Reports::default(), MACHINE.iter().copied());
    let [report] = whole.as_slice() else {
        panic!("{whole:?}");
    };
    let about = About::OutOfMemory {
        extent: Extent::Machine,
        victim: Some(4250),
    };
    assert_eq!(report.about, about);
    let lines = texts(report);
    assert_eq!(lines.len(), MACHINE.len() - 2 - 3, "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("eth0")));
}

#[test]
fn of_a_thousand_tasks_the_largest_are_kept() {
    let tasks: Vec<String> = (1..=1000u64)
        .map(|n| {
            format!(
                "[{n:7}]  1000 {n:5}    17037 {:8} 1  0  0  0 name",
                (n * 7919) % 1000
            )
        })
        .collect();
    let (head, tail) = MACHINE.split_at(14);
    let lines = head.iter().copied();
    let lines = lines
        .chain(tasks.iter().map(String::as_str))
        .chain(tail.iter().copied());
    let whole = take_all(&mut Reports::default(), lines);
    assert_eq!(whole.len(), 1);
    let lines = texts(&whole[0]);
    assert!(lines.len() < LINES + TASKS + 3, "{}", lines.len());
    let kept = lines
        .iter()
        .filter_map(|line| resident_pages(line.as_bytes()));
    let kept: Vec<u64> = kept.collect();
    assert_eq!(kept.len(), TASKS);
    assert!(kept.iter().all(|&pages| pages >= 990), "{kept:?}");
    assert_eq!(whole[0].left_out, 990 + 3);
}

#[test]
fn a_flood_inside_a_report_does_not_take_its_end() {
    let flood = std::iter::repeat_n("Node 0 DMA free:1kB", 5000);
    let (head, tail) = MACHINE.split_at(12);
    let lines = head
        .iter()
        .copied()
        .chain(flood)
        .chain(tail.iter().copied());
    let whole = take_all(&mut Reports::default(), lines);
    let lines = texts(&whole[0]);
    assert!(lines.len() <= LINES + TASKS + 2, "{}", lines.len());
    assert!(
        lines
            .last()
            .is_some_and(|last| last.contains("Killed process"))
    );
}

#[test]
fn kills_in_quick_succession_have_one_line_each() {
    let line = "Memory cgroup out of memory: Killed process 5863 (tail) total-vm:3896kB";
    let whole = take_all(&mut Reports::default(), [line]);
    let about = About::OutOfMemory {
        extent: Extent::SomeCgroup,
        victim: Some(5863),
    };
    assert_eq!(whole[0].about, about);
    assert_eq!(texts(&whole[0]), [line]);
    let group = "Tasks in /a/b are going to be killed due to memory.oom.group set";
    let whole = take_all(&mut Reports::default(), [group]);
    assert_eq!(whole[0].about, oom(Extent::Cgroup(b"/a/b".to_vec())));
}

#[test]
fn a_task_that_hangs_with_its_stack_and_who_holds_the_lock() {
    let mut reports = Reports::default();
    let owner = "INFO: task txg_sync:611 is blocked on a mutex likely owned by task z_wr:612.";
    let lines = HANG.iter().copied().chain([owner, " z_wr+0x1/0x2"]);
    let whole = take_all(&mut reports, lines);
    assert!(whole.is_empty(), "more may come");
    let so_far: Vec<Report> = reports.under_way().collect();
    assert_eq!(texts(&so_far[0]).len(), HANG.len() + 2);
    let whole = take_all(&mut reports, ["eth0: link up"]);
    assert_eq!(whole, so_far);
    assert_eq!(whole[0].about, About::Hang);
}

#[test]
fn a_hang_told_while_a_kill_is_is_kept_apart_where_the_kernel_says_who_writes() {
    let mut reports = Reports::default();
    let mut whole = Vec::new();
    let mut take = |caller, text: &str| {
        whole.extend(reports.take(Duration::ZERO, &by(Some(caller), text)));
    };
    take("T4250", MACHINE[1]);
    take("T40", HANG[0]);
    take("T4250", " one");
    take("T40", " two");
    take("T77", "sda: a word of somebody else");
    take("T4250", MACHINE[14]);
    take("T4250", MACHINE[15]);
    take("T40", "the end");
    let texts: Vec<_> = whole.iter().map(texts).collect();
    assert_eq!(texts[0], [MACHINE[1], " one", MACHINE[14], MACHINE[15]]);
    assert_eq!(texts[1], [HANG[0], " two"]);
}

#[test]
fn a_program_cannot_make_the_kernel_say_anything() {
    let mut reports = Reports::default();
    for text in MACHINE {
        let mut record = by(None, text);
        record.is_kernels = false;
        assert!(reports.take(Duration::ZERO, &record).is_empty());
    }
    assert_eq!(reports.under_way().count(), 0);
}

#[test]
fn a_name_cannot_pass_for_a_path_nor_a_pid() {
    let line = |comm: &str| {
        format!(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/a,task_memcg=/a/b,task={comm},pid=7,uid=0"
        )
    };
    for comm in ["tail", "x,task=y,pid=1", ",task_memcg=/c", ""] {
        let extent = constraint(line(comm).as_bytes());
        assert_eq!(extent, Some(Extent::Cgroup(b"/a/b".to_vec())), "{comm}");
    }
    let cut = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/aaaa";
    assert_eq!(constraint(cut.as_bytes()), Some(Extent::SomeCgroup));
    let name = b"Memory cgroup out of memory: Killed process 7 (Killed process 8) total-vm:1kB";
    assert_eq!(killed(name), Some((Extent::SomeCgroup, 7)));
    assert_eq!(killed(b"x: Killed process 7 (a)"), None);
}

#[test]
fn what_a_victim_held_is_read_whatever_its_name_says() {
    let line = |comm: &str| {
        format!(
            "Memory cgroup out of memory: Killed process 7 ({comm}) total-vm:90kB, anon-rss:60kB, file-rss:4kB, shmem-rss:1kB, UID:0 pgtables:60kB oom_score_adj:0"
        )
    };
    for comm in ["tail", "a) total-vm:1kB", " anon-rss:1kB, "] {
        let size = victims_size(line(comm).as_bytes());
        assert_eq!(size, Some((7, 65 * 1024)), "{comm}");
    }
    assert_eq!(
        victims_size(b"Out of memory: Killed process 7 (a) total-vm:9kB, anon-rss:5kB"),
        None,
        "it is cut"
    );
}

#[test]
fn several_lines_in_one_record_are_several() {
    let mut reports = Reports::default();
    reports.take(Duration::ZERO, &by(None, MACHINE[1]));
    reports.take(Duration::ZERO, &by(None, "Mem-Info:\nNode 0"));
    let so_far: Vec<Report> = reports.under_way().collect();
    assert_eq!(texts(&so_far[0]), [MACHINE[1], "Mem-Info:", "Node 0"]);
}

#[test]
fn a_hung_task_is_read_whatever_it_is_called() {
    let read = |line: &str| {
        let told = hung(line.as_bytes());
        told.map(|(tid, comm)| (tid, String::from_utf8_lossy(comm).into_owned()))
    };
    for (task, tid, comm) in [
        ("txg_sync:611 blocked for more than 122", 611, "txg_sync"),
        ("a b:c:9 blocked in I/O wait for more than 241", 9, "a b:c"),
        (
            "x blocked for :8 blocked for more than 5",
            8,
            "x blocked for ",
        ),
    ] {
        let line = format!("INFO: task {task} seconds.");
        assert_eq!(read(&line), Some((tid, comm.to_owned())), "{line}");
    }
    for line in [
        "",
        "INFO: task x:8 blocked for more than 5 seconds",
        "INFO: task x:y blocked for more than 5 seconds.",
        "INFO: task x blocked for more than 5 seconds.",
        "INFO: task  for more than  seconds.",
    ] {
        assert_eq!(read(line), None, "{line}");
    }
}
