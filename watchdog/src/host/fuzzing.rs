//! What must hold of the parsers of what the kernel prints. See [`crate::fuzzing`].

use super::oomd::{defaults, files, units};
use super::tree::{Numbers, for_each_number_among};
use super::{
    blocked, journal, kmsg, layout, machine, meminfo, memory, oomd, process, psi, swap, text, zfs,
};
use crate::fuzzing::{Check, torn, torn_lines};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub(crate) const CHECKS: &[Check] = &[
    ("/proc/PID/stat", stat),
    ("/proc/PID/statm", statm),
    ("/proc/PID/status", status),
    ("/proc/meminfo", of_meminfo),
    ("/proc/swaps", swaps),
    ("arcstats", arcstats),
    ("pressure files", pressure),
    ("memory.stat, v2", memory_v2),
    ("memory.stat, v1", memory_v1),
    ("cgroup.procs", procs),
    ("/proc/self/mountinfo", mountinfo),
    ("/proc/self/cgroup", groups),
    ("children", children),
    ("entries of a directory", entries),
    ("/proc/PID/stack", stack),
    ("the kernel's release", release),
    ("oomd.conf", oomd_conf),
    ("what systemd says of a unit", unit),
    ("a record of /dev/kmsg", kernel_record),
    ("the log of a kernel in trouble", kernel_log),
    ("what journalctl prints", journal_lines),
];

fn stat(bytes: &[u8]) {
    let Some(stat) = process::parse_stat(bytes) else {
        return;
    };
    // The fields stand behind the name, whatever that is.
    let end = bytes.iter().rposition(|&b| b == b')').expect("a name");
    torn(&bytes[end + 1..], |rest| {
        process::parse_stat(&[&bytes[..=end], rest].concat())
    });
    let name = &bytes[bytes.iter().position(|&b| b == b'(').expect("a name") + 1..end];
    assert!(name.starts_with(&stat.comm[..name.len().min(16)]));
    let look = oomd::parse_look(1, bytes, bytes);
    assert_eq!(look.is_some(), stat.comm.starts_with(b"systemd-oomd\0"));
}

fn statm(bytes: &[u8]) {
    torn(bytes, |text| process::parse_statm(text, 4096));
    if let Some(held) = process::parse_statm(bytes, 4096) {
        assert!(held.anon_bytes.checked_add(held.shared_bytes).is_some());
    }
}

fn status(bytes: &[u8]) {
    torn_lines(bytes, process::parse_switches);
    torn_lines(bytes, process::parse_uids);
    if process::parse_uids(bytes).is_some() {
        torn(bytes, process::parse_uids);
    }
}

fn of_meminfo(bytes: &[u8]) {
    torn_lines(bytes, meminfo::parse);
    let keys = text::keyed_lines(bytes);
    assert!(keys.count() <= bytes.split(|&b| b == b'\n').count());
}

fn swaps(bytes: &[u8]) {
    torn_lines(bytes, swap::parse);
    let areas = swap::parse(bytes);
    assert!(areas.len() <= bytes.iter().filter(|&&b| b == b'\n').count());
    assert!(areas.iter().all(|area| !area.path.is_empty()));
}

fn arcstats(bytes: &[u8]) {
    torn_lines(bytes, zfs::parse);
    torn(bytes, zfs::parse);
}

fn pressure(bytes: &[u8]) {
    torn_lines(bytes, psi::parse);
    torn_lines(bytes, psi::full_avg10_permyriad);
    torn(bytes, psi::full_avg10_permyriad);
    assert!(psi::full_avg10_permyriad(bytes).is_none_or(|share| share <= 10_000));
}

fn memory_v2(bytes: &[u8]) {
    torn_lines(bytes, memory::parse_v2);
    torn_lines(bytes, files::parse_stat);
}

fn memory_v1(bytes: &[u8]) {
    torn_lines(bytes, memory::parse_v1);
}

fn procs(bytes: &[u8]) {
    torn_lines(bytes, |text| files::parse_procs(text).collect::<Vec<_>>());
}

fn mountinfo(bytes: &[u8]) {
    torn_lines(bytes, layout::parse_mounts);
    for mount in layout::parse_mounts(bytes) {
        let below = layout::below(OsStr::from_bytes(bytes), &mount.root);
        assert!(below.is_none_or(stays_below), "{below:?}");
    }
}

fn groups(bytes: &[u8]) {
    torn_lines(bytes, layout::parse_groups);
    for group in layout::parse_groups(bytes) {
        for root in ["/", "/a", "", "/user.slice"] {
            let below = layout::below(&group.path, OsStr::new(root));
            assert!(below.is_none_or(stays_below), "{below:?}");
        }
    }
}

fn stays_below(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|name| name != "..")
}

/// However the kernel cuts the list into pieces, the numbers are the same.
fn children(bytes: &[u8]) {
    let pieces = |size: usize| {
        let mut found = Vec::new();
        let mut numbers = Numbers::default();
        for piece in bytes.chunks(size) {
            numbers.take(piece, |number| found.push(number));
        }
        found
    };
    let whole = pieces(bytes.len().max(1));
    assert!(whole.iter().all(|&number| number > 0));
    for size in [1, 3, 16] {
        assert_eq!(pieces(size), whole, "in pieces of {size}");
    }
}

fn entries(bytes: &[u8]) {
    let mut found = 0;
    for_each_number_among(bytes, |_| found += 1);
    assert!(found * 19 <= bytes.len());
}

fn stack(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let functions = blocked::parse_stack(&text);
    assert!(
        functions
            .iter()
            .all(|function| !function.is_empty() && !function.contains('\n'))
    );
}

fn release(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some((major, minor)) = machine::kernel_version(&text) {
        let again = format!("{major}.{minor}.0-generic");
        assert_eq!(machine::kernel_version(&again), Some((major, minor)));
    }
}

fn oomd_conf(bytes: &[u8]) {
    let mut read = defaults::Defaults::default();
    read.apply(bytes);
    assert!(read.swap_used_permyriad <= 10_000 && read.pressure.permyriad <= 10_000);
    assert!(read.pressure.duration.as_secs() >= 1);
    let text = String::from_utf8_lossy(bytes);
    if let Some(share) = defaults::permyriad(text.trim()) {
        assert_eq!(defaults::permyriad(&format!("{share}‱")), Some(share));
    }
    // Floating point may cost a microsecond in a century.
    if let Some(span) = defaults::time_span(&text)
        && let Some(again) = defaults::time_span(&format!("{}us", span.as_micros()))
    {
        let apart = span.abs_diff(again).as_secs_f64();
        assert!(
            apart <= 2e-6 + span.as_secs_f64() * 1e-12,
            "{span:?} {again:?}"
        );
    }
}

fn unit(bytes: &[u8]) {
    if let Some((limit, rest)) = bytes.split_first_chunk() {
        let duration = rest.first_chunk().map(|us| u64::from_le_bytes(*us));
        let limit = u32::from_le_bytes(*limit);
        let limit = units::pressure_limit(limit, duration, &defaults::Defaults::default());
        assert!(limit.permyriad <= 10_000);
    }
}

fn kernel_record(bytes: &[u8]) {
    let Some(record) = kmsg::record::parse(bytes) else {
        return;
    };
    assert!(record.severity < 8 && record.text.len() <= bytes.len());
    // The lines behind it do not matter.
    let more = [bytes, b"\n SUBSYSTEM=memory\n"].concat();
    assert_eq!(kmsg::record::parse(&more), Some(record));
}

/// A record a line, each with its head or with one that is made up.
fn kernel_log(bytes: &[u8]) {
    let mut reports = kmsg::Reports::default();
    let mut told = Vec::new();
    let lines = bytes.split(|&b| b == b'\n');
    let mut count = 0;
    for (line, number) in lines.zip(0..) {
        let made_up = || {
            let head = format!("4,{number},{number},-;");
            kmsg::record::parse(&[head.as_bytes(), line].concat())
        };
        if let Some(record) = kmsg::record::parse(line).or_else(made_up) {
            count += record.text.split(|&b| b == b'\n').count();
            told.extend(reports.take(record.at, &record));
        }
    }
    told.extend(reports.under_way());
    // No line is told twice, and no report is without bounds.
    let lines: usize = told
        .iter()
        .map(|report| report.lines.len() + report.left_out)
        .sum();
    assert!(lines <= count, "{lines} lines of {count}");
    for report in &told {
        assert!(
            !report.lines.is_empty() && report.lines.len() < 100,
            "{report:?}"
        );
        assert!(
            report
                .lines
                .iter()
                .all(|line| line.text.len() <= 400 && !line.text.contains(&b'\n'))
        );
    }
}

fn journal_lines(bytes: &[u8]) {
    let entries = journal::parse(bytes);
    assert!(entries.len() <= bytes.split(|&b| b == b'\n').count());
}
