//! What stands in a slot: how the machine and its targets were at one moment, with as many of the looks before it as
//! there is room for. Pure.

use crate::host::process::{Comm, comm_text};
use crate::incident::{Host, Machine, Text};
use crate::watch::MachineFacts;
use crate::watch::replay::RecordedLook;
use serde::{Deserialize, Serialize};

/// The text of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Page {
    /// The pressure is over, or memwatch has ended, or what stands before was told: what follows is no crash.
    Clean,
    /// A moment under pressure.
    Frame(Box<Frame>),
}

/// A moment under pressure. Within the version of the slots fields are only added: what an older memwatch did not
/// write is missing, and what a newer one did is passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Which machine, and which of its lives.
    pub host: Host,
    /// The version of memwatch that wrote it.
    pub memwatch_version: String,
    /// Wall-clock time, in µs since 1970.
    pub wall_us: u64,
    /// The same moment on the clock of the looks.
    pub at_us: u64,
    /// The machine.
    pub machine: Machine,
    /// What a look at it saw then, counters among it.
    #[serde(default)]
    pub facts: Option<MachineFacts>,
    /// The targets that stirred, the one that stalls the most first.
    pub targets: Vec<TopOf>,
    /// The biggest processes of the machine.
    pub processes: Vec<Top>,
    /// Looks that were lost on their way.
    pub lost: u64,
}

/// A target, and the looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopOf {
    /// The id of its cgroup.
    pub id: u64,
    /// Its cgroup.
    pub name: Option<Text>,
    /// The user who had the daemon guard it, if one did.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The looks, in the order of time.
    pub looks: Vec<RecordedLook>,
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// Process id.
    pub pid: u32,
    /// Its name.
    #[serde(with = "comm_text")]
    pub comm: Comm,
    /// Its resident memory.
    pub rss_bytes: u64,
}

/// The most targets of a frame: more than these are not what a machine dies of.
const TARGETS: usize = 8;
/// The most processes of the machine.
const PROCESSES: usize = 10;
/// Who stalled so lately stalls.
const LATELY_US: u64 = 10_000_000;
/// A look this much of its age later than the one before it is worth the room.
const SPACED: u64 = 8;

impl Frame {
    /// The frame as text of at most so many bytes: what happened since `last_us`, when another was written, comes
    /// first, then what was before, ever further apart.
    #[must_use]
    pub fn fitted(mut self, last_us: u64, room: usize) -> Vec<u8> {
        let at_us = self.at_us;
        self.targets
            .sort_by_key(|target| std::cmp::Reverse(target.stalled(at_us)));
        self.targets.truncate(TARGETS);
        self.processes
            .sort_by_key(|process| std::cmp::Reverse(process.rss_bytes));
        self.processes.truncate(PROCESSES);
        let mut wanted: Vec<Vec<RecordedLook>> = self
            .targets
            .iter_mut()
            .map(|target| by_worth(std::mem::take(&mut target.looks), self.at_us, last_us))
            .collect();
        let bare = text_of(&self);
        let mut left = room.saturating_sub(bare.len());
        if bare.len() > room {
            self.targets.clear();
            self.processes.clear();
        }
        // The first has as much as all the others together.
        for (target, looks) in self.targets.iter_mut().zip(&mut wanted) {
            let mut share = left / 2 + left / 4;
            for mut look in looks.drain(..) {
                let mut bytes = length(&look);
                if bytes > share {
                    look.members = None;
                    bytes = length(&look);
                }
                if bytes > share {
                    break;
                }
                share -= bytes;
                left -= bytes;
                target.looks.push(look);
            }
            target.looks.sort_by_key(|look| look.at_us);
        }
        text_of(&self)
    }

    /// The target that stalled the most when it was written.
    pub(super) fn foremost(&self) -> Option<&TopOf> {
        // Of equals the first.
        let targets = self.targets.iter().rev();
        targets.max_by_key(|target| target.stalled(self.at_us))
    }
}

impl TopOf {
    /// µs of `some` between its looks: those of the last seconds before, and all.
    fn stalled(&self, at_us: u64) -> (u64, u64) {
        let since = |line_us| {
            let looks = self.looks.iter().filter(|look| look.at_us >= line_us);
            let mut stalls = looks.filter_map(|look| Some(look.target.psi?.some_us));
            let first = stalls.next().unwrap_or(0);
            stalls.next_back().unwrap_or(first).saturating_sub(first)
        };
        (since(at_us.saturating_sub(LATELY_US)), since(0))
    }
}

/// With a comma.
fn length(look: &RecordedLook) -> usize {
    serde_json::to_vec(look).map_or(usize::MAX, |text| text.len() + 1)
}

fn text_of(frame: &Frame) -> Vec<u8> {
    serde_json::to_vec(&Page::Frame(Box::new(frame.clone()))).unwrap_or_default()
}

/// The looks in the order in which they are worth the room; only the newest that has processes keeps them.
fn by_worth(mut looks: Vec<RecordedLook>, now_us: u64, last_us: u64) -> Vec<RecordedLook> {
    let crowded = looks.iter().rposition(|look| look.members.is_some());
    for (at, look) in looks.iter_mut().enumerate() {
        if Some(at) != crowded {
            look.members = None;
        }
    }
    let mut before_us = u64::MAX;
    let mut picked: Vec<RecordedLook> = Vec::new();
    for (at, look) in looks.into_iter().enumerate().rev() {
        let age_us = now_us.saturating_sub(look.at_us);
        let is_new = look.at_us > last_us;
        let is_spaced = before_us.saturating_sub(look.at_us) >= age_us / SPACED;
        if is_new || is_spaced || Some(at) == crowded {
            before_us = look.at_us;
            picked.push(look);
        }
    }
    if let Some(at) = picked.iter().position(|look| look.members.is_some()) {
        picked[..=at].rotate_right(1);
    }
    picked
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::host::psi::Psi;
    use crate::watch::{MachineFacts, Member, TargetFacts};

    pub(crate) fn look(at_us: u64, some_us: u64) -> RecordedLook {
        RecordedLook {
            at_us,
            target: TargetFacts {
                current_bytes: at_us,
                psi: Some(Psi {
                    some_us,
                    full_us: 0,
                }),
                ..TargetFacts::default()
            },
            machine: Some(MachineFacts::default()),
            members: Some(vec![Member::default(); 16]),
            victim_gone: false,
        }
    }

    pub(crate) fn frame(at_us: u64, looks: Vec<RecordedLook>) -> Frame {
        let target = |id, looks| TopOf {
            id,
            name: Some(format!("/sys/fs/cgroup/{id}").into()),
            uid: Some(1000 + id as u32),
            looks,
        };
        let still = vec![look(1, 0), look(at_us, 0)];
        Frame {
            host: Host {
                boot_id: Some("an-older-boot".into()),
                ..Host::default()
            },
            memwatch_version: "0.0.1".into(),
            wall_us: 1_772_356_336_000_000 + at_us,
            at_us,
            machine: Machine {
                memory_available_bytes: Some(7),
                ..Machine::default()
            },
            facts: Some(MachineFacts {
                psi: Some(Psi {
                    some_us: at_us / 2,
                    full_us: 0,
                }),
                ..MachineFacts::default()
            }),
            targets: vec![target(1, still), target(2, looks)],
            processes: (1..50)
                .map(|pid| Top {
                    pid,
                    comm: *b"python3\0\0\0\0\0\0\0\0\0",
                    rss_bytes: pid.into(),
                })
                .collect(),
            lost: 0,
        }
    }

    fn read(text: &[u8]) -> Frame {
        match serde_json::from_slice(text).expect("a page") {
            Page::Frame(frame) => *frame,
            Page::Clean => panic!("a frame"),
        }
    }

    #[test]
    fn what_fits_is_the_newest_and_a_picture_of_before() {
        let looks: Vec<_> = (0..240).map(|n| look(n * 1_000_000, n * 900_000)).collect();
        let whole = frame(239_000_000, looks);
        let text = whole.clone().fitted(235_000_000, 16_000);
        assert!(text.len() <= 16_000 && text.len() > 8_000, "{}", text.len());
        let read = read(&text);
        assert_eq!((read.targets[0].id, read.processes.len()), (2, PROCESSES));
        assert_eq!(read.processes[0].pid, 49, "the biggest");
        let looks = &read.targets[0].looks;
        let at: Vec<u64> = looks.iter().map(|look| look.at_us / 1_000_000).collect();
        assert!(at.ends_with(&[236, 237, 238, 239]), "{at:?}");
        assert!(at.is_sorted() && at[0] < 200, "{at:?}");
        assert_eq!(read.targets[1].looks.len(), 2, "the other is there, too");
        let crowds = looks.iter().filter(|look| look.members.is_some());
        assert_eq!(
            crowds.map(|look| look.at_us).collect::<Vec<_>>(),
            [239_000_000]
        );
    }

    #[test]
    fn the_foremost_is_who_stalls_now() {
        let mut frame = frame(100_000_000, Vec::new());
        let stalls = |from_us, to_us| vec![look(from_us, 0), look(to_us, to_us - from_us)];
        frame.targets[0].looks = stalls(10_000_000, 70_000_000);
        frame.targets[1].looks = stalls(95_000_000, 100_000_000);
        assert_eq!(frame.foremost().map(|target| target.id), Some(2));
        let read = read(&frame.clone().fitted(0, 16_000));
        assert_eq!(read.targets[0].id, 2, "and has the most room");
        // Nobody does any more.
        frame.at_us = 200_000_000;
        assert_eq!(frame.foremost().map(|target| target.id), Some(1));
        frame.targets.clear();
        assert_eq!(frame.foremost(), None);
    }

    #[test]
    fn where_nothing_fits_the_machine_is_told() {
        let looks: Vec<_> = (0..240).map(|n| look(n, n)).collect();
        let text = frame(240, looks).fitted(0, 600);
        assert!(text.len() <= 600, "{}", text.len());
        assert_eq!(read(&text).machine.memory_available_bytes, Some(7));
    }

    #[test]
    fn a_clean_page_reads_as_one() {
        let text = serde_json::to_vec(&Page::Clean).expect("text");
        assert_eq!(
            serde_json::from_slice::<Page>(&text).expect("a page"),
            Page::Clean
        );
    }
}
