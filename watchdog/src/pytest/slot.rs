//! The page in which a process of pytest says which test it runs, as the plugin's `Slot` writes it. Pure.

/// Length of the page.
pub const BYTES: usize = 4096;

/// A test, or a collector, that runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The process, as it sees itself.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Whether it listens when it is asked to fail its test.
    pub can_abort: bool,
    /// Counts tests and collectors of this process; 0 while none runs.
    pub serial: u64,
    /// Where it is.
    pub phase: Phase,
    /// When the test began, on the monotonic clock, in ns.
    pub began_ns: u64,
    /// When the phase did.
    pub phase_began_ns: u64,
    /// What the process held resident when the test began.
    pub rss_bytes: u64,
    /// The most by which it may grow; `None` for no limit.
    pub memory_limit_bytes: Option<u64>,
    /// The longest that it may take, in µs.
    pub timeout_us: Option<u64>,
    /// Worker of pytest-xdist; empty without.
    pub worker: Vec<u8>,
    /// Where the test is defined, if that is known and in the file that its id names.
    pub line: Option<u32>,
    /// Node id; the beginning of one that does not fit.
    pub id: Vec<u8>,
}

/// Where a process of pytest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between tests.
    Idle,
    /// Importing a module, to find its tests.
    Collect,
    /// In fixtures, before the test.
    Setup,
    /// In the test.
    Call,
    /// In fixtures, after it.
    Teardown,
    /// The session has ended.
    Over,
}

impl Slot {
    /// Reads a page; `None` if it is none, or is cut, or was being written to.
    #[must_use]
    pub fn decode(page: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(page.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(u32::from_le_bytes(page.get(at..at + 4)?.try_into().ok()?));
        let some = |value: u64| (value > 0).then_some(value);
        if page.len() < BYTES || !page.starts_with(b"memwtst1") || word(8)? % 2 == 1 {
            return None;
        }
        let id_bytes = (half(96)? as usize).min(BYTES - 104);
        let worker = page.get(81..96)?;
        Some(Self {
            pid: half(16)?,
            can_abort: half(20)? & 1 != 0,
            start_ticks: word(24)?,
            serial: word(32)?,
            began_ns: word(40)?,
            phase_began_ns: word(48)?,
            rss_bytes: word(56)?,
            memory_limit_bytes: some(word(64)?),
            timeout_us: some(word(72)?),
            phase: match page.get(80)? {
                0 => Phase::Idle,
                1 => Phase::Collect,
                2 => Phase::Setup,
                3 => Phase::Call,
                4 => Phase::Teardown,
                5 => Phase::Over,
                _ => return None,
            },
            worker: worker.split(|&byte| byte == 0).next()?.to_vec(),
            line: half(BYTES - 4).filter(|&line| line > 0),
            id: page.get(100..100 + id_bytes)?.to_vec(),
        })
    }

    /// Whether something runs that could be to blame.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.serial != 0 && !matches!(self.phase, Phase::Idle | Phase::Over)
    }
}

impl Phase {
    /// As the record has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Collect => "collect",
            Self::Setup => "setup",
            Self::Call => "call",
            Self::Teardown => "teardown",
            Self::Over => "over",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(seq: u64, id: &[u8]) -> Vec<u8> {
        let mut page = vec![0; BYTES];
        page[..8].copy_from_slice(b"memwtst1");
        page[8..16].copy_from_slice(&seq.to_le_bytes());
        page[16..20].copy_from_slice(&42u32.to_le_bytes());
        page[20] = 1;
        page[32] = 7;
        page[80] = 3;
        page[81..84].copy_from_slice(b"gw1");
        page[96..100].copy_from_slice(&(id.len() as u32).to_le_bytes());
        let kept = id.len().min(BYTES - 104);
        page[100..100 + kept].copy_from_slice(&id[..kept]);
        page[BYTES - 4] = 9;
        page
    }

    #[test]
    fn a_whole_page_reads_and_one_half_written_does_not() {
        let slot = Slot::decode(&page(2, b"t.py::test_a")).expect("whole");
        assert_eq!((slot.pid, slot.serial, slot.can_abort), (42, 7, true));
        assert_eq!((slot.phase, slot.memory_limit_bytes), (Phase::Call, None));
        assert_eq!(
            (&slot.worker[..], &slot.id[..]),
            (&b"gw1"[..], &b"t.py::test_a"[..])
        );
        assert!(slot.runs());
        assert_eq!(Slot::decode(&page(2, b"t.py::test_a")[..BYTES - 1]), None);
        assert_eq!(Slot::decode(&page(3, b"t.py::test_a")), None);
    }

    #[test]
    fn an_id_that_does_not_fit_is_cut() {
        let slot = Slot::decode(&page(2, &[b'x'; 9000])).expect("whole");
        assert_eq!(slot.id.len(), BYTES - 104);
        assert_eq!(slot.line, Some(9));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..5000), honest: bool) {
            if honest && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(b"memwtst1");
            }
            let _ = Slot::decode(&bytes);
        }
    }
}
