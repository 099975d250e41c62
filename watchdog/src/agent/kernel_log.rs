//! What the kernel's log said of memory since this memwatch began, kept for records: which lines belong into
//! whose.
//!
//! Reading the log and putting reports together is [`crate::host::kmsg`]'s; when that is done is the slow side's,
//! which does not wait for it. What is kept is bounded: the oldest goes, and is counted.

use crate::host::clock;
use crate::host::kmsg::{About, Extent, Kmsg, Line, PATH, Report, Reports, report};
use crate::incident::{FeatureLost, KernelLine, Text};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Records that are taken out of the log at a time: with a look every quarter of a second, far more than are written.
const AT_ONCE: usize = 8192;
/// Lines that are kept.
const KEPT: usize = 2048;
/// Lines in one record.
const TOLD: usize = 512;
/// Tasks that were called hung and that nobody has taken out.
const HUNG: usize = 64;
/// For the last lines of a report that has begun, at the end of a run: its process dies before they are written.
const PATIENCE: Duration = Duration::from_millis(300);

/// The log, and what of it may be wanted.
#[derive(Debug)]
pub struct KernelLog {
    log: io::Result<Kmsg>,
    reports: Reports,
    kept: VecDeque<Report>,
    lines: usize,
    evicted: u64,
    hung: Vec<Hung>,
}

/// A task that the kernel calls hung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hung {
    /// Its thread id.
    pub tid: u32,
    /// Its name.
    pub comm: Vec<u8>,
}

/// Whose record it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// The cgroup, in the hierarchy of the memory controller, below that hierarchy's root as it is seen here.
    pub group: Option<PathBuf>,
    /// Whom the OOM killer is known to have taken.
    pub victims: Vec<u32>,
    /// Whether root reads it. Others are told of their own cgroup, and nothing of the kernel's inside.
    pub is_roots: bool,
}

impl KernelLog {
    /// Begins at the end of what is there.
    pub fn begin() -> Self {
        Self {
            log: Kmsg::open(clock::now()),
            reports: Reports::default(),
            kept: VecDeque::new(),
            lines: 0,
            evicted: 0,
            hung: Vec::new(),
        }
    }

    /// What records lack because the log cannot be read, if it cannot.
    pub fn missing(&self) -> Option<FeatureLost> {
        let error = self.log.as_ref().err()?;
        Some(FeatureLost {
            feature: format!("the kernel's log ({PATH}: {error})").into(),
            fallback: "what the programs in the kernel and the controller's counts tell".into(),
            cost: "the kernel's own reports of OOM kills and hung tasks are not in the record"
                .into(),
        })
    }

    /// Lines that were overwritten before they could be read, or had to go for newer ones.
    pub fn lost(&self) -> u64 {
        self.evicted + self.log.as_ref().map_or(0, Kmsg::lost)
    }

    /// Takes in what was written since this was last called.
    pub fn keep_up(&mut self) {
        let Ok(log) = &mut self.log else { return };
        for (at, record) in log.take(clock::now(), AT_ONCE) {
            let hung = report::hung(&record.text).filter(|_| record.is_kernels);
            if let Some((tid, comm)) = hung
                && self.hung.len() < HUNG
            {
                let comm = comm.to_vec();
                self.hung.push(Hung { tid, comm });
            }
            for report in self.reports.take(at, &record) {
                self.lines += report.lines.len();
                self.kept.push_back(report);
            }
        }
        while self.lines > KEPT
            && let Some(oldest) = self.kept.pop_front()
        {
            self.lines -= oldest.lines.len();
            self.evicted += oldest.lines.len() as u64;
        }
    }

    /// Takes out the tasks that it has called hung since this was last called.
    pub fn take_hung(&mut self) -> Vec<Hung> {
        std::mem::take(&mut self.hung)
    }

    /// The same at the end of a run whose process the kernel has killed, as `expected` says: what it says of that
    /// comes a moment after the death.
    pub fn catch_up(&mut self, expected: impl Fn(&Self) -> bool) {
        let until = clock::now() + PATIENCE;
        self.keep_up();
        while self.log.is_ok()
            && (self.reports.awaits_kill() || expected(self))
            && clock::now() < until
        {
            std::thread::sleep(Duration::from_millis(5));
            self.keep_up();
        }
    }

    /// Whether there is a report of such a kill.
    pub fn has_kill_of(&self, whose: &Whose) -> bool {
        self.kept.iter().any(|report| {
            matches!(report.about, About::OutOfMemory { .. }) && whose.is_told_of(&report.about)
        })
    }

    /// What it said since `began`, for that record; and how many lines found no room.
    pub fn tell(&self, began: Duration, whose: &Whose) -> (Vec<KernelLine>, u64) {
        let under_way: Vec<Report> = self.reports.under_way().collect();
        let all = self.kept.iter().chain(&under_way);
        let wanted = all.filter(|report| {
            report.lines.last().is_some_and(|line| line.at >= began)
                && whose.is_told_of(&report.about)
        });
        let mut lines: Vec<KernelLine> = Vec::new();
        for report in wanted {
            let shown = report
                .lines
                .iter()
                .filter(|line| whose.may_see(line, report));
            lines.extend(shown.map(|line| told(line, began)));
            if let (1.., Some(last)) = (report.left_out, report.lines.last()) {
                let text = format!("[memwatch left out {} lines of this]", report.left_out);
                lines.push(KernelLine {
                    text: text.into(),
                    ..told(last, began)
                });
            }
        }
        let too_many = lines.len().saturating_sub(TOLD);
        lines.drain(..too_many);
        (lines, too_many as u64)
    }
}

fn told(line: &Line, began: Duration) -> KernelLine {
    let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    KernelLine {
        at_us: us(line.at) - us(began),
        severity: line.severity,
        text: Text::of_name(&line.text),
    }
}

impl Whose {
    fn is_told_of(&self, about: &About) -> bool {
        match about {
            About::Hang => self.is_roots,
            About::OutOfMemory { extent, victim } => {
                let is_known = victim.is_some_and(|pid| self.victims.contains(&pid));
                match extent {
                    _ if is_known => true,
                    Extent::Machine => self.is_roots,
                    Extent::Cgroup(path) => self
                        .group
                        .as_deref()
                        .is_some_and(|group| is_inside(Path::new(OsStr::from_bytes(path)), group)),
                    Extent::SomeCgroup => false,
                }
            }
        }
    }

    /// Of a report about the machine whose process was killed is told that, and why; not who else there is.
    fn may_see(&self, line: &Line, report: &Report) -> bool {
        if self.is_roots {
            return true;
        }
        let text = line.text.as_slice();
        let starts = |with: &[&[u8]]| with.iter().any(|with| text.starts_with(with));
        let has = |wanted: &[u8]| text.windows(wanted.len()).any(|part| part == wanted);
        let is_frame = starts(&[b" ", b"Call ", b"CPU: ", b"Hardware name: "]);
        let is_the_kill = has(b" invoked oom-killer: ") || has(b": Killed process ");
        match &report.about {
            About::OutOfMemory {
                extent: Extent::Machine,
                ..
            } => is_the_kill || starts(&[b"oom-kill:"]),
            _ => !is_frame,
        }
    }
}

/// Whether the kernel's `path` is that group or below it. In a cgroup namespace what is seen here as the root is
/// somewhere below the kernel's.
fn is_inside(path: &Path, group: &Path) -> bool {
    let parts = |path: &Path| -> Vec<Vec<u8>> {
        let normal = path.components().filter_map(|part| match part {
            std::path::Component::Normal(name) => Some(name.as_bytes().to_vec()),
            _ => None,
        });
        normal.collect()
    };
    let (path, group) = (parts(path), parts(group));
    group.is_empty() || path.windows(group.len()).any(|part| part == group)
}

/// The path of a group's directory below the mount that it is in.
pub fn below_mount(dir: &Path) -> Option<PathBuf> {
    let device = |dir: &Path| dir.metadata().ok().map(|about| about.st_dev());
    let own = device(dir)?;
    let mount = dir
        .ancestors()
        .take_while(|dir| device(dir) == Some(own))
        .last()?;
    dir.strip_prefix(mount).ok().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(about: About, texts: &[&str]) -> Report {
        let line = |text: &&str| Line {
            at: Duration::from_secs(20),
            severity: 4,
            text: text.as_bytes().to_vec(),
        };
        Report {
            about,
            lines: texts.iter().map(line).collect(),
            left_out: 0,
        }
    }

    fn oom(extent: Extent, victim: u32) -> About {
        About::OutOfMemory {
            extent,
            victim: Some(victim),
        }
    }

    fn log(reports: Vec<Report>) -> KernelLog {
        KernelLog {
            log: Err(io::ErrorKind::NotFound.into()),
            reports: Reports::default(),
            kept: reports.into(),
            lines: 0,
            evicted: 0,
            hung: Vec::new(),
        }
    }

    fn whose(is_roots: bool) -> Whose {
        Whose {
            group: Some("lab/memwatch-0123abcd".into()),
            victims: vec![7],
            is_roots,
        }
    }

    fn texts(log: &KernelLog, whose: &Whose) -> Vec<String> {
        let (lines, _) = log.tell(Duration::from_secs(5), whose);
        lines.iter().map(|line| line.text.to_string()).collect()
    }

    #[test]
    fn everybody_gets_what_is_theirs() {
        let inside = Extent::Cgroup(b"/ns/lab/memwatch-0123abcd/nested".to_vec());
        let outside = Extent::Cgroup(b"/lab/memwatch-0123abcd2".to_vec());
        let log = log(vec![
            report(
                oom(inside, 1),
                &["x invoked oom-killer: ", " frame", "anon 5"],
            ),
            report(oom(outside, 2), &["another's"]),
            report(oom(Extent::SomeCgroup, 7), &["known by its pid"]),
            report(oom(Extent::SomeCgroup, 8), &["nobody's"]),
            report(oom(Extent::Machine, 9), &["the machine's"]),
            report(oom(Extent::Machine, 7), &["oom-kill:", "Mem-Info:"]),
            report(About::Hang, &["INFO: task"]),
        ]);
        assert_eq!(
            texts(&log, &whose(true)),
            [
                "x invoked oom-killer: ",
                " frame",
                "anon 5",
                "known by its pid",
                "the machine's",
                "oom-kill:",
                "Mem-Info:",
                "INFO: task"
            ]
        );
        assert_eq!(
            texts(&log, &whose(false)),
            [
                "x invoked oom-killer: ",
                "anon 5",
                "known by its pid",
                "oom-kill:"
            ],
            "and nothing of the machine's to a user"
        );
    }

    #[test]
    fn what_was_before_is_left_out_and_of_too_much_the_newest_is_told() {
        let many: Vec<Report> = (0..600)
            .map(|_| report(About::Hang, &["one", "two"]))
            .collect();
        let log = log(many);
        let (lines, lost) = log.tell(Duration::from_secs(5), &whose(true));
        assert_eq!((lines.len(), lost), (TOLD, 1200 - TOLD as u64));
        assert_eq!(lines[0].at_us, 15_000_000);
        let (lines, lost) = log.tell(Duration::from_secs(21), &whose(true));
        assert_eq!((lines.len(), lost), (0, 0));
    }

    #[test]
    fn a_path_is_compared_by_whole_names() {
        let inside = |path: &str, group: &str| is_inside(Path::new(path), Path::new(group));
        assert!(inside("/a/b", "a/b"));
        assert!(inside("/ns/a/b/c", "a/b"));
        assert!(inside("/a", ""), "the root");
        assert!(!inside("/a/bc", "a/b"));
        assert!(!inside("/a", "a/b"));
    }

    #[test]
    fn a_directory_is_named_from_its_mount() {
        let root = below_mount(Path::new("/proc/sys/kernel"));
        assert_eq!(root.as_deref(), Some(Path::new("sys/kernel")));
        assert_eq!(below_mount(Path::new("/proc/no/such")), None);
    }
}
