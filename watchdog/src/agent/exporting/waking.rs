//! Who is told that something new lies in a queue: by inotify, where the kernel gives one; else everybody looks
//! for themselves, now and then.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// The directories, and whom to wake for each.
pub(super) struct Waking {
    kernel: Option<AsyncFd<Kernel>>,
    sleepers: HashMap<WatchDescriptor, Arc<Notify>>,
}

/// What tokio asks for is not what nix gives.
struct Kernel(Inotify);

impl AsRawFd for Kernel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Waking {
    /// Within the event loop.
    pub(super) fn new() -> Self {
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let kernel = Inotify::init(flags).ok().and_then(|kernel| {
            // SAFETY: it is owned here, registered once, and closed when the registration is dropped.
            unsafe { AsyncFd::register_with_interest(Kernel(kernel), Interest::READABLE) }.ok()
        });
        if kernel.is_none() {
            tracing::warn!(
                "the kernel does not tell of new incidents; they are looked for every 30 s"
            );
        }
        Self {
            kernel,
            sleepers: HashMap::new(),
        }
    }

    /// Who is woken when a file comes into this directory.
    pub(super) fn watch(&mut self, dir: &Path) -> Arc<Notify> {
        let wake = Arc::new(Notify::new());
        if let Some(kernel) = &self.kernel {
            let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
            match kernel.get_ref().0.add_watch(dir, flags) {
                Ok(number) => _ = self.sleepers.insert(number, Arc::clone(&wake)),
                Err(error) => tracing::warn!(
                    "the kernel does not tell of new files in {} ({error}); they are looked for every 30 s",
                    dir.display()
                ),
            }
        }
        wake
    }

    /// Waits until the kernel tells something, and wakes whom it concerns; never returns without a kernel.
    pub(super) async fn hear(&self) {
        let Some(kernel) = &self.kernel else {
            return std::future::pending().await;
        };
        let Ok(mut ready) = kernel.readable().await else {
            return std::future::pending().await;
        };
        while let Ok(events) = kernel.get_ref().0.read_events() {
            for event in events {
                match self.sleepers.get(&event.wd) {
                    Some(sleeper) => sleeper.notify_one(),
                    // More happened than the kernel could hold.
                    None => self.sleepers.values().for_each(|all| all.notify_one()),
                }
            }
        }
        ready.clear_ready();
    }
}
