//! What a record tells beside its target: the machine, and what the kernel's log said meanwhile. One for all
//! targets of a memwatch. Reads on the slow side alone; the readers are `host`'s.

use super::blocked::{self, Blocked};
use super::kernel_log::{Hung, KernelLog, Whose, below_mount};
use super::watched::Watched;
use crate::host::clock;
use crate::host::layout::Layout;
use crate::host::memory::Controller;
use crate::host::oomd::{self, Glance};
use crate::host::{machine, meminfo, psi, swap, zfs};
use crate::incident::{ArcState, FeatureLost, Machine, Record, SwapState, Text};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For how many looks in a row nothing must stall before a pressure counts as over: 10 s.
const CALM: u32 = 40;

/// Tasks that were blocked for long, of which is told.
const BLOCKED: usize = 64;

/// What is kept from look to look.
#[derive(Debug)]
pub(super) struct Surroundings {
    log: KernelLog,
    v2_mount: PathBuf,
    /// The memory cgroup that memwatch was started in, which is that of a command without one of its own.
    own_group: Option<PathBuf>,
    /// What the ARC held when the present pressure began; `None` while there is none, or no ARC.
    arc_before_bytes: Option<u64>,
    pressed: bool,
    calm_looks: u32,
    /// Tasks in long uninterruptible sleep, and those that lately were, for those who have no list of their own.
    blocked: VecDeque<Blocked>,
}

impl Surroundings {
    /// Begins now.
    pub(super) fn begin(layout: &Layout) -> Self {
        let own = layout.v1_memory.as_ref().or(layout.v2.as_ref());
        Self {
            log: KernelLog::begin(),
            v2_mount: layout.v2_mount().to_owned(),
            own_group: own.map(|own| own.own.trim_start_matches('/').into()),
            arc_before_bytes: None,
            pressed: false,
            calm_looks: 0,
            blocked: VecDeque::new(),
        }
    }

    /// A task of the machine is, or was, blocked for long.
    pub(super) fn see_blocked(&mut self, found: &Blocked) {
        let is_it = |known: &Blocked| (known.task, known.since) == (found.task, found.since);
        self.blocked.retain(|known| !is_it(known));
        if self.blocked.len() >= BLOCKED {
            self.blocked.pop_front();
        }
        self.blocked.push_back(found.clone());
    }

    /// Those of the time since `began`.
    pub(super) fn tell_blocked(&self, began: Duration, record: &mut Record) {
        let ended = |blocked: &Blocked| blocked.lasted.map(|lasted| blocked.since + lasted);
        let since = |blocked: &&Blocked| ended(blocked).is_none_or(|end| end >= began);
        for found in self.blocked.iter().filter(since) {
            blocked::record(&mut record.blocked_tasks, began, found);
        }
    }

    /// What records lack for want of rights.
    pub(super) fn missing(&self) -> Option<FeatureLost> {
        self.log.missing()
    }

    /// Takes in what the kernel's log says by now: before what is told of a kill, which it says before the death.
    pub(super) fn read_log(&mut self) {
        self.log.keep_up();
    }

    /// Takes out the tasks that the kernel's log has called hung.
    pub(super) fn take_hung(&mut self) -> Vec<Hung> {
        self.log.take_hung()
    }

    /// Looks after both. Call a few times a second; `pressed` says whether a target stalls.
    pub(super) fn keep_up(&mut self, pressed: bool) {
        self.log.keep_up();
        if pressed {
            self.calm_looks = 0;
            if !self.pressed {
                self.pressed = true;
                self.arc_before_bytes = arc().map(|arc| arc.size_bytes);
            }
        } else {
            self.calm_looks = self.calm_looks.saturating_add(1);
            if self.calm_looks >= CALM {
                self.pressed = false;
                self.arc_before_bytes = None;
            }
        }
    }

    /// The machine as it is now.
    pub(super) fn machine(&self) -> Machine {
        machine(&self.v2_mount, self.arc_before_bytes)
    }

    /// memwatch has stepped in: the machine as it is at the first time of a record.
    pub(super) fn see_machine(&self, watched: &mut Watched) {
        if watched.machine.is_none() {
            watched.machine = Some(Box::new(self.machine()));
        }
    }

    /// Fills into a record what is told there of the machine and of the kernel's log. `is_roots` says whether root
    /// reads it.
    pub(super) fn tell(&self, watched: &mut Watched, record: &mut Record, is_roots: bool) {
        let machine = watched.machine.take().map(|machine| *machine);
        record.machine = Some(machine.unwrap_or_else(|| self.machine()));
        self.tell_log(watched, record, is_roots);
    }

    /// The same of the log alone.
    pub(super) fn tell_log(&self, watched: &Watched, record: &mut Record, is_roots: bool) {
        let whose = self.whose(watched, record, is_roots);
        let (lines, without_room) = self.log.tell(watched.began.0, &whose);
        record.kernel_log = lines;
        record.losses.kernel_lines = self.log.lost() + without_room;
    }

    /// The same where memwatch guards no target: in a unit that was systemd-oomd's to look after, or anywhere. For
    /// root.
    pub(super) fn tell_of_machine(&self, record: &mut Record) {
        let lasted = Duration::from_micros(record.duration_us);
        let group = record.target.cgroup_path.as_ref();
        let group = group.map(|path| PathBuf::from(OsString::from_vec(path.to_name())));
        let whose = Whose {
            group: group.and_then(|dir| below_mount(&dir)),
            victims: Vec::new(),
            is_roots: true,
        };
        let began = clock::now().saturating_sub(lasted);
        record.machine = Some(self.machine());
        (record.kernel_log, record.losses.kernel_lines) = self.log.tell(began, &whose);
        self.tell_blocked(began, record);
    }

    /// At the end of a run: what the kernel says of a kill comes a moment after the death.
    pub(super) fn catch_up(&mut self, watched: &Watched, record: &Record) {
        let was_killed = !record.kernel_oom.is_empty() || record.unnamed_kills() > 0;
        let whose = self.whose(watched, record, true);
        self.log
            .catch_up(|log| was_killed && !log.has_kill_of(&whose));
    }

    fn whose(&self, watched: &Watched, record: &Record, is_roots: bool) -> Whose {
        let target = &watched.guarded.target;
        let dir = match &target.memory {
            Some(Controller::V1(dir) | Controller::V2(dir)) => Some(dir.as_path()),
            None => None,
        };
        let group = match dir {
            Some(dir) => below_mount(dir),
            None => self.own_group.clone(),
        };
        let by_kernel = record.kernel_oom.iter().map(|victim| victim.pid);
        Whose {
            group,
            victims: by_kernel.collect(),
            is_roots,
        }
    }
}

/// The machine as it is now. `arc_before_bytes` is what the ARC held when a pressure began.
pub(super) fn machine(v2_mount: &Path, arc_before_bytes: Option<u64>) -> Machine {
    let root = Path::new("/");
    let file = |name: &str| std::fs::read(root.join(name)).ok();
    let memory = file("proc/meminfo").and_then(|text| meminfo::parse(&text));
    let pressure = file("proc/pressure/memory").unwrap_or_default();
    let permille = |share: Option<u32>| share.map(|permyriad| permyriad / 10);
    let areas = swap::read(root).unwrap_or_default();
    let settings = machine::settings(root).unwrap_or_default();
    Machine {
        memory_total_bytes: memory.map(|memory| memory.total_bytes),
        memory_available_bytes: memory.map(|memory| memory.available_bytes),
        swap_total_bytes: memory.map(|memory| memory.swap_total_bytes),
        swap_free_bytes: memory.map(|memory| memory.swap_free_bytes),
        swaps: areas
            .iter()
            .map(|area| SwapState {
                path: Text::of_name(area.path.as_bytes()),
                size_bytes: area.size_bytes,
                medium: area.medium,
            })
            .collect(),
        mglru: settings.mglru_bits.map(|bits| bits != 0),
        some_permille: permille(psi::some_avg10_permyriad(&pressure)),
        full_permille: permille(psi::full_avg10_permyriad(&pressure)),
        arc: arc().map(|arc| ArcState {
            size_bytes: arc.size_bytes,
            c_bytes: arc.c_bytes,
            c_min_bytes: arc.c_min_bytes,
            c_max_bytes: arc.c_max_bytes,
            shrank: arc_before_bytes.map(|before| arc.size_bytes < before),
        }),
        oomd: Some(words(oomd::glance(root, v2_mount)).into()),
    }
}

/// The ZFS ARC, where there is one.
pub(super) fn arc() -> Option<zfs::ArcStats> {
    zfs::read(Path::new("/")).ok().flatten()
}

fn words(oomd: Glance) -> &'static str {
    match oomd {
        Glance::NotInstalled => "not installed",
        Glance::NotRunning => "not running",
        Glance::Stopped => "stopped by a signal or a debugger",
        Glance::Waiting => "in uninterruptible sleep when it was looked at",
        Glance::Well => "well",
    }
}
