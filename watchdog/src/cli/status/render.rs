//! What a status looks like: a page for a person, or a line for each target. Pure.

use std::cmp::Reverse;
use std::fmt::Write;

use crate::control::status::{GuardedBy, Losses, Oomd, Status, Target};
use crate::incident::{Style, Timestamp, bytes, count, duration, percent, wrap};

const LABEL_COLUMNS: usize = 11;
/// Below this a column of text is harder to read than a line that the terminal wraps.
const NARROWEST: usize = 30;
/// Of a cgroup's path.
const SHORTEST_PATH: usize = 16;
const GAP: &str = "  ";

/// Everything: the machine, the daemon's peers and losses, and a table of the targets, those under pressure
/// first.
#[must_use]
pub fn page(status: &Status, style: Style) -> String {
    let mut page = Page {
        text: String::new(),
        style,
    };
    page.bold(&format!(
        "memwatch {}, process {}, since {}",
        status.memwatch,
        status.pid,
        to_the_second(&status.since)
    ));
    let machine = &status.machine;
    page.row(
        "memory",
        &format!(
            "{} of {} available",
            bytes(machine.available_bytes),
            bytes(machine.total_bytes)
        ),
    );
    page.row(
        "stall",
        &stall(machine.some_permille, machine.full_permille),
    );
    page.row("oomd", &oomd(&status.oomd));
    let exporters = status.exporters.iter();
    let exporters = exporters.map(|exporter| format!("{}: {}", exporter.name, exporter.state));
    page.row("exporters", &listed(exporters.collect()));
    page.row("losses", &listed(losses(&status.losses)));
    for lost in &status.features_lost {
        page.row(
            "without",
            &format!(
                "{}; used instead: {}; that costs: {}",
                lost.feature, lost.fallback, lost.cost
            ),
        );
    }
    page.text.push('\n');
    page.targets(&status.targets);
    page.text
}

/// A line for the machine and one for each target, each beginning with the time.
#[must_use]
pub fn lines(status: &Status, now: &Timestamp) -> String {
    let at = to_the_second(now);
    let machine = &status.machine;
    let mut lines = format!(
        "{at} machine: {} of {} available, {}\n",
        bytes(machine.available_bytes),
        bytes(machine.total_bytes),
        stall(machine.some_permille, machine.full_permille)
    );
    for target in &status.targets {
        let _ = writeln!(
            lines,
            "{at} {}: {} of {}, {}, {} processes, {} interventions",
            target.cgroup,
            target.current_bytes.map_or("?".into(), bytes),
            target.limit_bytes.map_or("no limit".into(), bytes),
            stall(target.some_permille, target.full_permille),
            target.processes,
            target.interventions
        );
    }
    lines
}

struct Page {
    text: String,
    style: Style,
}

impl Page {
    fn bold(&mut self, line: &str) {
        let (on, off) = if self.style.color {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        self.text.extend([on, line, off, "\n"]);
    }

    fn row(&mut self, label: &str, text: &str) {
        let room = self.style.width.map_or(usize::MAX, |width| {
            width.saturating_sub(LABEL_COLUMNS).max(NARROWEST)
        });
        for (n, line) in wrap(text, room).iter().enumerate() {
            let label = if n == 0 { label } else { "" };
            let _ = writeln!(self.text, "{label:<LABEL_COLUMNS$}{line}");
        }
    }

    fn targets(&mut self, targets: &[Target]) {
        if targets.is_empty() {
            self.text
                .push_str("No targets. Attach one: memwatch attach -- COMMAND\n");
            return;
        }
        let mut targets: Vec<_> = targets.iter().collect();
        targets.sort_by_key(|target| Reverse((target.full_permille, target.some_permille)));
        let figures: Vec<_> = targets.iter().map(|target| figures(target)).collect();
        let widths: [usize; COLUMNS] = std::array::from_fn(|n| {
            let cells = figures.iter().map(|row| row[n].len());
            cells.chain([HEADS[n].len()]).max().unwrap_or(0)
        });
        let paths = targets
            .iter()
            .map(|target| target.cgroup.as_str().chars().count());
        let longest = paths.chain(["TARGET".len()]).max().unwrap_or(0);
        let taken: usize = widths.iter().map(|width| GAP.len() + width).sum();
        let room = self
            .style
            .width
            .map_or(longest, |width| width.saturating_sub(taken));
        let room = room.clamp(SHORTEST_PATH.min(longest), longest);

        let line = |path: &str, cells: &[String]| {
            let cells = cells
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{GAP}{cell:>width$}"));
            format!("{path:<room$}{}", cells.collect::<String>())
        };
        self.bold(&line("TARGET", &HEADS.map(str::to_owned)));
        for (target, figures) in targets.iter().zip(&figures) {
            let path = shortened(target.cgroup.as_str(), room);
            let _ = writeln!(self.text, "{}", line(&path, figures));
        }
    }
}

const COLUMNS: usize = 8;
const HEADS: [&str; COLUMNS] = [
    "MEMORY", "LIMIT", "SOME", "FULL", "PROCS", "ACTS", "UID", "GUARD",
];

fn figures(target: &Target) -> [String; COLUMNS] {
    let unknown = || "-".to_owned();
    [
        target.current_bytes.map_or_else(unknown, bytes),
        target.limit_bytes.map_or_else(unknown, bytes),
        target.some_permille.map_or_else(unknown, share),
        target.full_permille.map_or_else(unknown, share),
        count(target.processes),
        count(target.interventions),
        target.uid.map_or_else(unknown, |uid| uid.to_string()),
        match target.guarded_by {
            GuardedBy::Daemon => "daemon".to_owned(),
            GuardedBy::DaemonAndKernelGuard => "both".to_owned(),
        },
    ]
}

/// The end of a path tells more than its beginning.
fn shortened(path: &str, room: usize) -> String {
    let length = path.chars().count();
    if length <= room {
        return path.to_owned();
    }
    let end = path.chars().skip(length - room.saturating_sub(1));
    std::iter::once('…').chain(end).collect()
}

pub(crate) fn share(permille: u32) -> String {
    percent(permille.into(), 1000).unwrap_or_default()
}

fn stall(some: Option<u32>, full: Option<u32>) -> String {
    match (some, full) {
        (Some(some), Some(full)) => format!("some {}, full {}", share(some), share(full)),
        _ => "not told by this kernel".to_owned(),
    }
}

fn oomd(oomd: &Oomd) -> String {
    let mut text = oomd.state.to_string();
    if let Some(since) = &oomd.since {
        let _ = write!(text, " since {}", to_the_second(since));
    }
    if let Some(reason) = &oomd.reason {
        let _ = write!(text, " ({reason})");
    }
    let units = match oomd.managed_units {
        0 => return text,
        1 => "1 unit".to_owned(),
        n => format!("{n} units"),
    };
    let whose = if oomd.taken_over {
        "of its looked after by memwatch"
    } else {
        "left to it"
    };
    let _ = write!(text, "; {units} {whose}");
    if oomd.kills > 0 {
        let _ = write!(text, "; memwatch has ended {} in them", count(oomd.kills));
    }
    text
}

pub(crate) fn losses(losses: &Losses) -> Vec<String> {
    let Losses {
        late_looks,
        longest_delay_us,
        dropped_notices,
        ring_drops,
        hung_helpers,
        dropped_jobs,
        lost_incidents,
        untracked_processes,
        dropped_events,
    } = *losses;
    let late = format!("late looks (by up to {})", duration(longest_delay_us));
    [
        (late_looks, late.as_str()),
        (dropped_notices, "dropped notices"),
        (ring_drops, "events lost in the kernel"),
        (hung_helpers, "threads that hang"),
        (dropped_jobs, "jobs for which no thread was free"),
        (lost_incidents, "incidents that are not on the disk"),
        (untracked_processes, "processes beyond what is tracked"),
        (dropped_events, "events that clients did not read"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{} {what}", count(n)))
    .collect()
}

fn listed(parts: Vec<String>) -> String {
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join("; ")
    }
}

pub(crate) fn to_the_second(time: &Timestamp) -> String {
    let time = time.to_string();
    match time.split_once('.') {
        Some((second, _)) => format!("{second}Z"),
        None => time,
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
