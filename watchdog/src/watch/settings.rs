//! The numbers of the policy and the reason for each. The policy that reads them is `policy`; the
//! file and the flags that change them are `config`'s.

use std::time::Duration;

/// What the policy may be tuned by. Every default has its reason here and in docs/POLICY.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Sliding window over which stall is judged.
    pub stall_window: Duration,
    /// PSI `full` share of the window, in permille, from which a target counts as stalled.
    pub stall_full_permille: u32,
    /// How long SIGTERM is given before SIGKILL, when the slope leaves time.
    pub term_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stall_window: Duration::from_secs(3),
            stall_full_permille: 250,
            term_grace: Duration::from_secs(1),
        }
    }
}
