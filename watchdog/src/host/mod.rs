//! Reads the machine: pressure, cgroups, memory, processes.
//!
//! Owns every parser of what the kernel prints and the files they come from. Decides nothing: what
//! the numbers mean is `watch`'s, what is done about them is `act`'s.

pub mod blocked;
pub mod cgroup;
pub mod clock;
pub mod file_error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod journal;
pub mod kmsg;
pub mod layout;
pub mod machine;
pub mod meminfo;
pub mod memory;
pub mod notify;
pub mod oomd;
pub mod place;
pub mod privileges;
pub mod process;
pub mod psi;
pub mod reread;
pub mod swap;
pub mod systemd;
mod text;
pub mod tree;
mod xattr;
pub mod zfs;
