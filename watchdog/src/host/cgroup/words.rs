//! What a living memwatch writes on a cgroup for the case that it dies: whoever sweeps up after it ([`super::sweep`])
//! does then what it can no longer do itself.

use super::{Target, lock};
use crate::host::xattr;

/// On a target: on what terms the guard in the kernel may stand over it, in the guard's own words.
pub(super) const TERMS_XATTR: &str = "user.memwatch.guard";
/// On a v2 directory that somebody else made: a memwatch has frozen it, the one that holds its lock.
pub(super) const FROZEN_XATTR: &str = "user.memwatch.frozen";

impl Target {
    /// Leaves word on a target of our own on what terms it may be guarded, in case this memwatch dies before
    /// it can say so to the guard itself: whoever comes next does it then ([`Orphan::terms`]).
    pub fn leave_terms(&self, terms: &str) {
        if self.is_ours()
            && let Some(dir) = self.dir()
        {
            xattr::set(dir, TERMS_XATTR, terms.as_bytes());
        }
    }

    /// Leaves word on a target that was only pointed at that it is this memwatch that freezes it, in case it
    /// dies before it thaws it. A target of our own is known by its name.
    pub fn say_frozen(&mut self) {
        // Somebody else's lock: the target of another memwatch, which is looked after anyway.
        if !self.is_ours()
            && self.freezer.is_none()
            && let Some(dir) = self.dir()
            && let Ok(lock) = lock(dir)
        {
            xattr::set(dir, FROZEN_XATTR, b"1");
            self.freezer = Some(lock);
        }
    }

    /// Takes that word back.
    pub fn say_thawed(&mut self) {
        if self.freezer.take().is_some()
            && let Some(dir) = self.dir()
        {
            xattr::remove(dir, FROZEN_XATTR);
        }
    }
}
