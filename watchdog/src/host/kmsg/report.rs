//! What the kernel says of memory, put together from the records of its log: the report of an OOM kill
//! (mm/oom_kill.c, `dump_header` and `oom_kill_process`) and of a task that hangs (kernel/hung_task.c,
//! `check_hung_task`). Pure. Whose report it is, and who is told, is `agent::kernel_log`'s.
//!
//! A report is bounded while it is gathered: of the memory controller's figures those that are zero are left out,
//! of the table of tasks all but the largest, and registers and code always, which hold what a program computed
//! with.

use super::Record;
use crate::host::text;
use std::time::Duration;

/// Lines of a report, the table of tasks apart.
const LINES: usize = 64;
/// Tasks of the table that are kept: the largest.
const TASKS: usize = 10;
/// Bytes of one line.
const LINE_BYTES: usize = 400;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, on the monotonic clock.
    pub at: Duration,
    /// 0 (emergency) to 7 (debug).
    pub severity: u8,
    /// Its bytes, without a newline.
    pub text: Vec<u8>,
}

/// What the kernel said in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What of.
    pub about: About,
    /// Its lines, in order.
    pub lines: Vec<Line>,
    /// How many more it had.
    pub left_out: usize,
}

/// What a report is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A kill of the OOM killer's.
    OutOfMemory {
        /// What had run out.
        extent: Extent,
        /// Who was killed, if it came to that.
        victim: Option<u32>,
    },
    /// A task that hangs.
    Hang,
}

/// What had run out of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The machine, or a part of it that has no cgroup.
    Machine,
    /// A cgroup; that of who was killed, in the hierarchy of the memory controller.
    Cgroup(Vec<u8>),
    /// A cgroup that was not named: of kills in quick succession the kernel reports some in one line.
    SomeCgroup,
}

/// Reports under way: of OOM kills there is one at a time, and a task can be found hanging meanwhile.
#[derive(Debug, Default)]
pub struct Reports {
    oom: Option<Gathering>,
    hang: Option<Gathering>,
}

#[derive(Clone, Debug)]
struct Gathering {
    report: Report,
    caller: Option<Vec<u8>>,
    section: Section,
    tasks: Vec<(u64, Line)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    /// Everything else.
    Text,
    /// The memory controller's figures, a line each.
    Figures,
    /// The table of tasks.
    Tasks,
}

impl Reports {
    /// Takes a record in; the reports that are whole by it.
    pub fn take(&mut self, at: Duration, record: &Record) -> Vec<Report> {
        let mut whole = Vec::new();
        // What a program has written to the log is not the kernel's word.
        if record.is_kernels {
            for text in record.text.split(|&b| b == b'\n') {
                let line = Line {
                    at,
                    severity: record.severity,
                    text: text[..text.len().min(LINE_BYTES)].to_vec(),
                };
                self.take_line(line, record.caller.as_deref(), &mut whole);
            }
        }
        whole
    }

    /// What is there of those that are not whole.
    pub fn under_way(&self) -> impl Iterator<Item = Report> {
        let gathered = [&self.oom, &self.hang].into_iter().flatten();
        gathered.map(|gathering| gathering.clone().end())
    }

    /// Whether one has begun of a kill and is not whole.
    pub fn awaits_kill(&self) -> bool {
        self.oom.is_some()
    }

    fn take_line(&mut self, line: Line, caller: Option<&[u8]>, whole: &mut Vec<Report>) {
        let text = line.text.as_slice();
        if has(text, b" invoked oom-killer: ") {
            whole.extend(self.oom.take().map(Gathering::end));
            self.oom = Some(Gathering::new(oom(Extent::Machine), line, caller));
        } else if hung(text).is_some() {
            whole.extend(self.hang.take().map(Gathering::end));
            self.hang = Some(Gathering::new(About::Hang, line, caller));
        } else if let Some(path) = killed_with_its_group(text) {
            let path = path.to_vec();
            whole.push(one_line(oom(Extent::Cgroup(path)), line));
        } else if let Some((extent, pid)) = killed(text) {
            match self.oom.take() {
                Some(mut gathering) => {
                    gathering.section = Section::Text;
                    gathering.add_last(line);
                    if let About::OutOfMemory { victim, .. } = &mut gathering.report.about {
                        *victim = Some(pid);
                    }
                    whole.push(gathering.end());
                }
                None => {
                    let victim = Some(pid);
                    whole.push(one_line(About::OutOfMemory { extent, victim }, line));
                }
            }
        } else {
            self.go_on(line, caller, whole);
        }
    }

    fn go_on(&mut self, line: Line, caller: Option<&[u8]>, whole: &mut Vec<Report>) {
        if let Some(gathering) = &mut self.hang
            && gathering.is_by(caller)
            && (self.oom.is_none() || caller.is_some())
        {
            // Who holds the lock that it waits for may follow its own stack.
            if goes_on_about_a_hang(&line.text) {
                gathering.add(line);
            } else {
                whole.extend(self.hang.take().map(Gathering::end));
            }
        } else if let Some(gathering) = &mut self.oom
            && gathering.is_by(caller)
        {
            if line
                .text
                .starts_with(b"Out of memory and no killable processes")
            {
                gathering.add_last(line);
                whole.extend(self.oom.take().map(Gathering::end));
            } else {
                gathering.add_to_oom(line);
            }
        }
    }
}

impl Gathering {
    fn new(about: About, first: Line, caller: Option<&[u8]>) -> Self {
        Self {
            report: one_line(about, first),
            caller: caller.map(<[u8]>::to_vec),
            section: Section::Text,
            tasks: Vec::new(),
        }
    }

    /// Where the kernel does not say who writes, a line is taken for what is under way.
    fn is_by(&self, caller: Option<&[u8]>) -> bool {
        caller.is_none() || self.caller.as_deref() == caller
    }

    fn add(&mut self, line: Line) {
        if has_registers(&line.text) || self.report.lines.len() >= LINES {
            self.report.left_out += 1;
        } else {
            self.report.lines.push(line);
        }
    }

    /// What must not be missing, however long it was before.
    fn add_last(&mut self, line: Line) {
        self.put_tasks();
        self.report.lines.push(line);
    }

    fn add_to_oom(&mut self, line: Line) {
        let text = line.text.as_slice();
        if let Some(extent) = constraint(text) {
            if let About::OutOfMemory { extent: found, .. } = &mut self.report.about {
                *found = extent;
            }
            self.section = Section::Text;
            self.add_last(line);
        } else if text.starts_with(b"Memory cgroup stats for ") {
            self.section = Section::Figures;
            self.add(line);
        } else if text.starts_with(b"Tasks state ") {
            self.section = Section::Tasks;
            self.add(line);
        } else {
            match self.section {
                Section::Figures if text.ends_with(b" 0") => self.report.left_out += 1,
                Section::Tasks if resident_pages(text).is_some() => self.add_task(line),
                _ => self.add(line),
            }
        }
    }

    fn add_task(&mut self, line: Line) {
        let pages = resident_pages(&line.text).unwrap_or(0);
        self.tasks.push((pages, line));
        if self.tasks.len() > TASKS {
            let least = (0..self.tasks.len()).min_by_key(|&n| self.tasks[n].0);
            self.tasks.remove(least.unwrap_or(0));
            self.report.left_out += 1;
        }
    }

    fn put_tasks(&mut self) {
        let tasks = self.tasks.drain(..).map(|(_, line)| line);
        self.report.lines.extend(tasks);
    }

    fn end(mut self) -> Report {
        self.put_tasks();
        self.report
    }
}

fn oom(extent: Extent) -> About {
    About::OutOfMemory {
        extent,
        victim: None,
    }
}

fn one_line(about: About, line: Line) -> Report {
    Report {
        about,
        lines: vec![line],
        left_out: 0,
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

fn has(text: &[u8], wanted: &[u8]) -> bool {
    find(text, wanted).is_some()
}

/// The task of `INFO: task txg_sync:611 blocked for more than 122 seconds.` (kernel/hung_task.c): its id and its name,
/// which may hold blanks and colons. Newer kernels say in what it is blocked.
pub fn hung(text: &[u8]) -> Option<(u32, &[u8])> {
    let last = |text: &[u8], part: &[u8]| text.windows(part.len()).rposition(|at| at == part);
    let text = text
        .strip_prefix(b"INFO: task ")?
        .strip_suffix(b" seconds.")?;
    let text = &text[..last(text, b" for more than ")?];
    // What it is blocked in comes behind, and this blank is that of the part before.
    let text = &text[..last(&[text, b" "].concat(), b" blocked ")?];
    let colon = last(text, b":")?;
    let tid = std::str::from_utf8(&text[colon + 1..]).ok()?.parse().ok()?;
    Some((tid, &text[..colon]))
}

fn goes_on_about_a_hang(text: &[u8]) -> bool {
    text.starts_with(b" ")
        || text.starts_with(b"task:")
        || text.starts_with(b"INFO: task ")
        || text.starts_with(b"Call ")
        || text.starts_with(b"Workqueue: ")
        || text.starts_with(b"\"echo 0 > ")
        || has_registers(text)
}

/// `Memory cgroup out of memory: Killed process 5902 (tail) total-vm:...`; without a cgroup `Out of memory: `.
fn killed(text: &[u8]) -> Option<(Extent, u32)> {
    let (why, who) = text.split_at_checked(find(text, b": Killed process ")?)?;
    let extent = match why {
        b"Memory cgroup out of memory" => Extent::SomeCgroup,
        b"Out of memory" | b"Out of memory (oom_kill_allocating_task)" => Extent::Machine,
        _ => return None,
    };
    let pid = text::number(&who[b": Killed process ".len()..])?;
    Some((extent, u32::try_from(pid).ok()?))
}

/// Whom the OOM killer took, and what it held resident then: ... `(tail) total-vm:66924kB, anon-rss:65348kB,
/// file-rss:1024kB, shmem-rss:0kB, UID:0 ...`.
pub fn victims_size(text: &[u8]) -> Option<(u32, u64)> {
    const NAME_ENDS: &[u8] = b") total-vm:";
    let (_, pid) = killed(text)?;
    let mut ends = text.windows(NAME_ENDS.len());
    let figures = &text[ends.rposition(|at| at == NAME_ENDS)?..];
    let kib = [&b"anon-rss:"[..], b"file-rss:", b"shmem-rss:"]
        .map(|key| text::after(figures, key))
        .into_iter()
        .try_fold(0u64, |sum, kib| sum.checked_add(kib?))?;
    Some((pid, kib.checked_mul(1024)?))
}

/// `Tasks in /a/b are going to be killed due to memory.oom.group set`.
fn killed_with_its_group(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"Tasks in ")?
        .strip_suffix(b" are going to be killed due to memory.oom.group set")
}

/// `oom-kill:constraint=CONSTRAINT_MEMCG,...,oom_memcg=/a,task_memcg=/a/b,task=tail,pid=5902,uid=0`. A name that
/// was cut, or that hides the end of the path, tells of a cgroup and not of which.
fn constraint(text: &[u8]) -> Option<Extent> {
    let rest = text.strip_prefix(b"oom-kill:constraint=")?;
    if !rest.starts_with(b"CONSTRAINT_MEMCG") {
        return Some(Extent::Machine);
    }
    let path = find(rest, b",task_memcg=").and_then(|at| {
        let path = &rest[at + b",task_memcg=".len()..];
        Some(&path[..find(path, b",task=")?])
    });
    Some(path.map_or(Extent::SomeCgroup, |path| Extent::Cgroup(path.to_vec())))
}

/// The column `rss` of a line of the table: `[   5902]     0  5902    17037    16718 ...`.
fn resident_pages(text: &[u8]) -> Option<u64> {
    let text = text.strip_prefix(b"[")?;
    let end = text.iter().position(|&b| b == b']')?;
    text::number(&text[..end])?;
    let mut columns = text[end + 1..]
        .split(|&b| b == b' ')
        .filter(|column| !column.is_empty());
    text::number(columns.nth(3)?)
}

/// `RIP: 0033:0x7f...`, `RAX: 000... RBX: ...`, `Code: 8d 34 ...`, `x29: ffff...`, `pc : ...`.
fn has_registers(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let Some(colon) = text.iter().position(|&b| b == b':') else {
        return false;
    };
    let name = text[..colon].trim_ascii_end();
    let is_x86 = name.len() == 3 && name.starts_with(b"R") && name[1..].iter().all(is_of_a_name);
    let is_arm = name.len() <= 3
        && name.starts_with(b"x")
        && name.len() > 1
        && name[1..].iter().all(u8::is_ascii_digit);
    is_x86 || is_arm || matches!(name, b"Code" | b"pc" | b"lr" | b"sp" | b"pstate" | b"CR2")
}

fn is_of_a_name(byte: &u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
