//! Stand-in until the programs land.
#![allow(missing_docs)]
use std::os::fd::BorrowedFd;
#[derive(Debug)]
pub struct Reader;
#[derive(Clone, Copy, Debug)]
pub struct Row(pub u32);
#[derive(Clone, Copy, Debug)]
pub enum Event { ReclaimStarted { row: Row }, OomVictim { row: Option<Row>, tgid: u32, comm: [u8; 16] }, Hang { tid: u32, comm: [u8; 16] }, Exit }
#[derive(Clone, Copy, Debug, Default)]
pub struct TargetTotals { pub stall_ns: u64, pub direct_reclaims: u64, pub memcg_reclaims: u64, pub reclaimed_pages: u64, pub scanned_pages: u64, pub kswapd_wakeups: u64 }
pub struct ProcessTotals { pub stall_ns: u64 }
impl Reader {
    pub fn fd(&self) -> BorrowedFd<'_> { unreachable!() }
    pub fn next_event(&mut self) -> Option<Event> { None }
    pub fn totals(&self, _: Row) -> TargetTotals { TargetTotals::default() }
    pub fn process(&self, _: u32) -> Option<ProcessTotals> { None }
}
