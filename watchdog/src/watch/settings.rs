//! The numbers of the policy and the reason for each. The policy that reads them is [`super::policy`];
//! the file and the flags that change them are `config`'s. docs/POLICY.md tells the same to users.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What the policy may be tuned by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How long a stall must last. 3 s: long enough that one slow read or a burst of faults at the
    /// start of a program is over, short enough that an interactive machine has not become useless
    /// (systemd-oomd's 20 to 30 s have).
    pub stall_window: Duration,
    /// Share of the window lost to memory, in permille, from which a target counts as stalled: PSI
    /// memory `full`, and I/O `full` on top while the target thrashes, for then it is its own pages
    /// that it waits for. A thrasher on a fast disk shows 100 + 650, a stream through the page cache
    /// 10 + 630 but it does not thrash.
    pub stall_full_permille: u32,
    /// The same for memory `some`, which is what a wide target shows when only a part of it stalls.
    /// Higher, because in a target of many processes some is easily raised by one.
    pub stall_some_permille: u32,
    /// Memory `full`, in permille, from which a target that refaults is said to thrash. The kernel
    /// counts there only waits for pages that it knew for a part of the working set, so reading a large
    /// file over and over stays below.
    pub thrash_full_permille: u32,
    /// Refaults a second, in pages, from which a stall is one of memory that is really short: 2 MiB/s
    /// come back that should never have left. An I/O stall with memory free shows none.
    pub refault_pages_per_s: u64,
    /// Memory `full`, in permille of the window, from which a target at its limit need not refault: what
    /// fills `memory.high` with anonymous memory never does, and a slow disk brings back fewer pages than
    /// [`Settings::refault_pages_per_s`]; both show 950. A task waits for memory there and not for its
    /// files, of which a target with memory free shows none.
    pub hang_full_permille: u32,
    /// How near its limit, or `memory.high`, a target must be, in permille of the limit and page cache included, for a
    /// stall to be its own. At a limit reclaim keeps usage within a batch of it.
    pub near_limit_permille: u32,

    /// Availability of the machine, in permille of its memory, below which its memory is short. 50:
    /// earlyoom's SIGKILL line, which its users found right over years.
    pub machine_low_permille: u32,
    /// The most that [`Settings::machine_low_permille`] may ask for: on a large machine 5 % is more
    /// than any burst needs. 1 GiB.
    pub machine_low_max_bytes: u64,

    /// The fastest that memory can fill: bounds how long the deciding thread may look away. 8 GiB/s:
    /// measured 2.5 GiB/s a core with 4 KiB pages and about three times that with huge ones.
    pub fastest_fill_bytes_per_s: u64,
    /// The shortest time between two looks. 2 ms: a look costs 30 to 60 µs, so the worst case is 3 %
    /// of a core.
    pub shortest_look: Duration,
    /// The longest time between two looks.
    pub longest_look: Duration,
    /// From the decision to the victim's last page fault: signal delivery and one pass of the
    /// scheduler, with room to spare on a loaded machine.
    pub reaction: Duration,
    /// How much longer a filling must have been going on, in time and in bytes at the present rate,
    /// than the time that is left, before SIGTERM is tried: a steady growth of 16 s foretells the next
    /// second, a burst of 50 ms foretells 3 ms. From empty this acts at 16/17 (94 %) of the limit, so
    /// that a program that fills nine tenths and stays there is not touched.
    pub foresight: u32,
    /// The most time before exhaustion at which SIGTERM is tried.
    pub longest_foresight: Duration,
    /// How long SIGTERM is given at most before SIGKILL.
    pub term_grace: Duration,
    /// How long a test that was asked to fail is given at most before its process is killed. Code in C
    /// answers when it returns: the calls that were measured and return by themselves take up to a fifth of a
    /// second, and ten times that under reclaim.
    pub abort_grace: Duration,

    /// The window over which a process's growth is measured: long enough for a slow leak to stand out
    /// from its neighbours, short enough to forget how a program started.
    pub growth_window: Duration,
    /// How long after a SIGKILL the process may take to die before another may be chosen; a process in
    /// uninterruptible sleep takes as long as its I/O.
    pub death_grace: Duration,
    /// How long after a death memory is given to come back before anything else is judged. Memory
    /// returns after the process has vanished, and its pressure averages are stale.
    pub settle: Duration,
    /// How long memwatch may give no sign of life before the guard in the kernel acts in its place:
    /// three times the longest pause that it makes by itself.
    pub guard_stale_after: Duration,
    /// Share of the stall window, in permille, in which at least one task stalled, from which the guard
    /// acts. Less than for the rules above: not every kernel lets it see waits for pages that come back,
    /// and of a thrasher's time a fifth is reclaim itself.
    pub guard_stall_permille: u32,
    /// How long a process that was asked is not asked again but killed; how long nobody is hit in the
    /// place of one that was killed and is still to blame; how long a warning, or the SIGKILL of a dry
    /// run, holds. Longer than [`Settings::growth_window`] and [`Settings::stall_window`] together, so
    /// that what was seen before has no part in what comes after.
    pub cooldown: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stall_window: Duration::from_secs(3),
            stall_full_permille: 300,
            stall_some_permille: 600,
            thrash_full_permille: 50,
            refault_pages_per_s: 512,
            hang_full_permille: 800,
            near_limit_permille: 950,
            machine_low_permille: 50,
            machine_low_max_bytes: 1 << 30,
            fastest_fill_bytes_per_s: 8 << 30,
            shortest_look: Duration::from_millis(2),
            longest_look: Duration::from_secs(1),
            reaction: Duration::from_millis(3),
            foresight: 16,
            longest_foresight: Duration::from_secs(1),
            term_grace: Duration::from_secs(1),
            abort_grace: Duration::from_secs(2),
            growth_window: Duration::from_secs(4),
            death_grace: Duration::from_millis(500),
            settle: Duration::from_millis(100),
            guard_stale_after: Duration::from_secs(3),
            guard_stall_permille: 100,
            cooldown: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// The last moment before exhaustion at which a SIGKILL still comes in time: two looks, because
    /// the next may just have been missed, and the reaction.
    pub fn last_moment(&self) -> Duration {
        2 * self.shortest_look + self.reaction
    }

    /// Availability below which a machine of `total_bytes` is short of memory.
    pub fn machine_low_bytes(&self, total_bytes: u64) -> u64 {
        (total_bytes / 1000 * u64::from(self.machine_low_permille)).min(self.machine_low_max_bytes)
    }
}
