//! A family of eight in which one child leaks. The others hold their memory and touch it now and
//! then; the parent tells by their exit codes whether anybody but the culprit was ended.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::leak::{Pace, leak};
use crate::memory::{PAGE, Region};
use crate::safety::{Deadline, memory_limit};
use crate::{Common, Failure};

const CHILDREN: usize = 8;
/// In the middle, so that neither the oldest nor the youngest child is guessed right.
const LEAKER: usize = 4;

pub(crate) fn run(
    common: &Common,
    deadline: Deadline,
    pace: Pace,
    bystander_size: u64,
) -> Result<(), Failure> {
    memory_limit()?;
    let (end_of_family, family) = io::pipe()?;
    let mut children = Vec::new();
    for index in 0..CHILDREN {
        // SAFETY: this program has one thread, so the child may do anything.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => children.push(child),
            ForkResult::Child => {
                drop(family);
                set_pdeathsig(Signal::SIGKILL)?;
                deadline.arm_backstop();
                return if index == LEAKER {
                    // Once the others hold what they hold, only this one grows.
                    sleep(Duration::from_millis(500));
                    common.announce_culprit()?;
                    leak(deadline, pace)
                } else {
                    stand_by(deadline, &end_of_family, bystander_size as usize)
                };
            }
        }
    }
    let leaker = children.remove(LEAKER);
    waitpid(leaker, None)?;
    // A kill that takes the siblings too would come in this time.
    sleep(Duration::from_millis(500));
    drop(family);
    children.into_iter().try_for_each(expect_clean_exit)
}

/// Holds and uses `size` bytes until the parent closes its end of the pipe.
fn stand_by(deadline: Deadline, end: &PipeReader, size: usize) -> Result<(), Failure> {
    let region = Region::anonymous(size)?;
    while !deadline.passed() {
        (0..region.pages()).for_each(|page| region.write_page(page));
        let mut ready = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(100_u8))? > 0 {
            let at_end = (&mut &*end).read(&mut [0; PAGE])? == 0;
            assert!(at_end, "nobody writes to this pipe");
            break;
        }
    }
    Ok(())
}

fn expect_clean_exit(child: Pid) -> Result<(), Failure> {
    match waitpid(child, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        other => Err(Failure::BystanderDied(format!(
            "a sibling of the leak ({other:?})"
        ))),
    }
}
