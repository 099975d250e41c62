//! What each peer may do. A user may have guarded what the kernel says is that user's, and touch what that
//! user attached; root may do all. Checked when a request is carried out, on the descriptor that came with it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::stat::fstat;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use tokio::net::UnixStream;
use uuid::Uuid;

use super::protocol::Refusal;
use crate::causes::with_causes;
use crate::host::cgroup;
use crate::host::layout::Hierarchy;
use crate::incident::Text;

/// Who is at the other end, as the kernel knows since it connected (SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process; it may have ended, and its number be another's. For logs alone.
    pub pid: u32,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let known = stream.peer_cred()?;
        Ok(Self {
            uid: known.uid(),
            gid: known.gid(),
            pid: known
                .pid()
                .and_then(|pid| u32::try_from(pid).ok())
                .unwrap_or(0),
        })
    }

    fn is_root(self) -> bool {
        self.uid == 0
    }

    /// Whether this peer may detach and watch what `owner` attached; `None` is the configuration.
    #[must_use]
    pub fn may_touch(self, owner: Option<u32>) -> bool {
        self.is_root() || owner == Some(self.uid)
    }

    /// The refusal to who may not touch a target. It does not tell whether there is one.
    #[must_use]
    pub fn no_such_target(self, id: u64) -> Refusal {
        Refusal::new(
            format!("uid {} has attached no target {id}", self.uid),
            "see which there are, and whose: memwatch status",
        )
    }

    /// The refusal to who may not read an incident. It does not tell whether there is one.
    #[must_use]
    pub fn no_such_incident(self, id: Uuid) -> Refusal {
        Refusal::new(
            format!("there is no incident {id} of a target of uid {}", self.uid),
            "see which there are: memwatch incidents list",
        )
    }

    /// Whether this peer may attach one more, having `held`, where a user may have `most`.
    ///
    /// # Errors
    /// That would be more, and it is not root.
    pub fn within_quota(self, held: usize, most: usize) -> Result<(), Refusal> {
        if self.is_root() || held < most {
            return Ok(());
        }
        Err(Refusal::new(
            format!("uid {} has {held} targets, and may have no more", self.uid),
            "let one end or detach it, or guard a cgroup that holds several",
        ))
    }
}

/// A cgroup that a peer has handed over and may have guarded.
#[derive(Debug)]
pub struct Handed {
    /// Its id.
    pub id: u64,
    /// Where it is, as this process sees it, and as it was at the check.
    pub dir: PathBuf,
    /// The directory, held open: it stays this cgroup whatever becomes of the path.
    pub descriptor: OwnedFd,
}

impl Handed {
    /// Checks what came with an attach: a cgroup of `v2`, the peer's own, and none that memwatch is in.
    ///
    /// # Errors
    /// It is none, or not the peer's to have guarded.
    pub fn check(descriptor: OwnedFd, peer: Peer, v2: &Hierarchy) -> Result<Self, Refusal> {
        let owner = owner_of_cgroup(descriptor.as_fd())?;
        if !peer.is_root() && owner.uid != peer.uid {
            return Err(Refusal::new(
                format!(
                    "this cgroup belongs to uid {}, not to uid {}",
                    owner.uid, peer.uid
                ),
                "give a cgroup that is yours, as systemd-run --user --scope makes one, or ask as root",
            ));
        }
        let own = v2.own_dir();
        let holds_us = own
            .ancestors()
            .take_while(|dir| dir.starts_with(&v2.mount))
            .any(|dir| cgroup::id(dir).is_ok_and(|id| id == owner.cgroup));
        if holds_us {
            return Err(Refusal::new(
                "this cgroup holds the daemon itself, which must stay outside of what it guards",
                "give a cgroup below it",
            ));
        }
        let dir = path_of(descriptor.as_fd(), owner.cgroup, v2)?;
        Ok(Self {
            id: owner.cgroup,
            dir,
            descriptor,
        })
    }

    /// The process that the client says leads, if it is in there.
    #[must_use]
    pub fn leader(&self, claimed: Option<u32>) -> Option<u32> {
        let members = || cgroup::pids(&self.dir);
        claimed.filter(|leader| members().contains(leader))
    }
}

struct Owner {
    cgroup: u64,
    uid: u32,
}

fn owner_of_cgroup(descriptor: BorrowedFd<'_>) -> Result<Owner, Refusal> {
    let what_to_do = "open a directory below the cgroup2 mount and send its descriptor";
    let unknown = |error: nix::Error| {
        Refusal::new(
            format!(
                "cannot look at the descriptor that came: {}",
                io::Error::from(error)
            ),
            what_to_do,
        )
    };
    let system = fstatfs(descriptor).map_err(unknown)?;
    let file = fstat(descriptor).map_err(unknown)?;
    let is_dir = file.st_mode & libc::S_IFMT == libc::S_IFDIR;
    if system.filesystem_type() != CGROUP2_SUPER_MAGIC || !is_dir {
        return Err(Refusal::new(
            "the descriptor that came is not that of a cgroup v2 directory",
            what_to_do,
        ));
    }
    Ok(Owner {
        cgroup: file.st_ino,
        uid: file.st_uid,
    })
}

/// Where the kernel says that it is, if it is the same there: a client may have opened it through a mount of
/// its own.
fn path_of(descriptor: BorrowedFd<'_>, id: u64, v2: &Hierarchy) -> Result<PathBuf, Refusal> {
    let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let dir = fs::read_link(link).map_err(|error| {
        let reason = format!("cannot tell where this cgroup is: {error}");
        Refusal::new(reason, "mount /proc")
    })?;
    // Elsewhere lies what a user may have put there; below the mount lie cgroups.
    let there = dir.starts_with(&v2.mount).then(|| cgroup::id(&dir));
    let reason = match there {
        Some(Ok(there)) if there == id => return Ok(dir),
        Some(Ok(_)) => "another is there".to_owned(),
        Some(Err(error)) => with_causes(&error),
        None => "that is another mount".to_owned(),
    };
    Err(Refusal::new(
        format!(
            "this cgroup is not at {}, where it was opened ({reason})",
            Text::of_name(dir.as_os_str().as_encoded_bytes())
        ),
        format!("open it below {}", v2.mount.display()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Peer = Peer {
        uid: 1000,
        gid: 1000,
        pid: 7,
    };
    const ROOT: Peer = Peer {
        uid: 0,
        gid: 0,
        pid: 8,
    };

    #[test]
    fn a_user_touches_only_what_that_user_attached() {
        assert!(USER.may_touch(Some(1000)));
        assert!(!USER.may_touch(Some(1001)));
        assert!(!USER.may_touch(Some(0)));
        assert!(!USER.may_touch(None));
        assert!(ROOT.may_touch(Some(1000)) && ROOT.may_touch(None));
    }

    #[test]
    fn only_root_has_no_quota() {
        assert!(USER.within_quota(15, 16).is_ok());
        let refusal = USER.within_quota(16, 16).expect_err("too many");
        assert_eq!(
            refusal.to_string(),
            "uid 1000 has 16 targets, and may have no more; let one end or detach it, or guard a cgroup that holds several"
        );
        assert!(ROOT.within_quota(10_000, 16).is_ok());
    }
}
