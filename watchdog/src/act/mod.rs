//! Acts: signals by pidfd, whole cgroups by `cgroup.kill` and `cgroup.freeze`.
//!
//! Does what it is told to whom it is told; who and why is `watch`'s. Dry run reaches down to here and
//! no further: everything above behaves as if it were real.

pub mod permission;
pub mod signal;
pub mod target;

pub use permission::may_signal;

use serde::{Deserialize, Serialize};

/// Whether what is ordered is also done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Do it.
    Real,
    /// Only say so.
    DryRun,
}

/// What became of one act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// The kernel took it.
    Delivered,
    /// There was nobody left to act on.
    Gone,
    /// The kernel refused.
    Refused {
        /// Why.
        errno: i32,
    },
    /// It was not tried.
    DryRun,
}

impl Outcome {
    /// The outcome of a system call that returned -1 with `errno`, or did not.
    fn of(failed: bool) -> Self {
        if !failed {
            return Self::Delivered;
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::ESRCH | libc::ENOENT | libc::ENODEV) => Self::Gone,
            errno => Self::Refused {
                errno: errno.unwrap_or(0),
            },
        }
    }
}
