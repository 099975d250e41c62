//! What costs while it is looked at, and therefore is not always: samples of page faults, and the programs'
//! own figures.

use super::load::{LoadError, PROGRAMS, SAMPLERS};
use super::programs::Programs;
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{PerfEvent, ProgramInfo};
use aya::util::online_cpus;
use memwatch_ebpf::{MAJOR_FAULT_PERIOD, MINOR_FAULT_PERIOD};

/// What the kernel tells about one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Its name in the object.
    pub program: String,
    /// Instructions that the verifier walked; `None` before 5.16.
    pub verified_instructions: Option<u32>,
    /// Time spent in it, in ns.
    pub run_ns: u64,
    /// How often it ran.
    pub runs: u64,
}

impl Programs {
    /// Samples the page faults of all CPUs, or stops that. Only members of targets are counted, but
    /// every fault on the machine passes the sampling: only while a target is hot. One agent samples for
    /// all.
    ///
    /// # Errors
    /// The events cannot be opened.
    pub fn heat(&mut self, hot: bool) -> Result<(), LoadError> {
        if hot != self.samplers.is_empty() {
            return Ok(());
        }
        if !hot {
            for (mut program, links) in std::mem::take(&mut self.samplers) {
                for link in links {
                    program.detach(link)?;
                }
            }
            return Ok(());
        }
        let kinds = [
            (
                SAMPLERS[0],
                SoftwareEvent::PageFaultsMin,
                MINOR_FAULT_PERIOD,
            ),
            (
                SAMPLERS[1],
                SoftwareEvent::PageFaultsMaj,
                MAJOR_FAULT_PERIOD,
            ),
        ];
        let cpus = online_cpus().map_err(|(_, error)| error)?;
        for (name, event, period) in kinds {
            let pin = self.home.path(PROGRAMS).join(name);
            if !pin.exists() {
                continue;
            }
            let mut program = PerfEvent::from_pin(pin)?;
            let mut links = Vec::new();
            for &cpu in &cpus {
                links.push(program.attach(
                    PerfEventConfig::Software(event),
                    PerfEventScope::AllProcessesOneCpu { cpu },
                    SamplePolicy::Period(period),
                    false,
                )?);
            }
            self.samplers.push((program, links));
        }
        Ok(())
    }

    /// Verified instructions of each loaded program, and its run time and count where
    /// `kernel.bpf_stats_enabled` is on.
    pub fn statistics(&self) -> Vec<Statistics> {
        let names = self.home.names(PROGRAMS).into_iter();
        names
            .filter_map(|program| {
                let info = ProgramInfo::from_pin(self.home.path(PROGRAMS).join(&program)).ok()?;
                Some(Statistics {
                    program,
                    verified_instructions: info.verified_instruction_count(),
                    run_ns: u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX),
                    runs: info.run_count(),
                })
            })
            .collect()
    }
}
