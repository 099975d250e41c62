//! The shared set from outside, for those who take no part in it: which targets stand in it, and what
//! becomes of what the dead have left. Taking part is `programs`'s.

use super::home::{Home, OWNERS};
use super::load::{COMPLETE, LINKS, LoadError, MAPS, PROGRAMS};
use super::programs::Programs;
use super::sys;
use aya::maps::{Array, HashMap, Map, MapData};
use memwatch_ebpf::{Kill, MAX_TARGETS, Name, TargetRow};
use std::os::fd::AsFd;
use std::path::Path;

/// Takes away sets that nobody alive uses and that guard nobody: of memwatches that died, those of other
/// builds too. What their guards did and nobody has read is returned. For those that have not joined one.
///
/// # Errors
/// They cannot be locked.
pub fn tidy(base: &Path, populated: impl Fn(u64) -> bool) -> Result<Vec<(Name, Kill)>, LoadError> {
    if !base.exists() {
        return Ok(Vec::new());
    }
    let (own, _lock) = Home::shared(base)?;
    let mut left_behind = Vec::new();
    for home in Home::others(base).into_iter().chain([own]) {
        // What cannot be read may guard somebody, or have something to tell: it stays.
        if in_use(&home) || guards_somebody(&home, &populated).unwrap_or(true) {
            continue;
        }
        if let Ok(kills) = kills_in(&home) {
            left_behind.extend(kills);
            take_away(&home);
        }
    }
    Ok(left_behind)
}

/// What a set's guard has written down. Sets of another ABI are not understood, half of one has nothing.
fn kills_in(home: &Home) -> Result<Vec<(Name, Kill)>, LoadError> {
    if !home.is_of_this_abi() {
        return Ok(Vec::new());
    }
    match MapData::from_pin(home.path(MAPS).join("KILLS")) {
        Ok(kills) => {
            let kills: HashMap<_, Name, Kill> = HashMap::try_from(Map::HashMap(kills))?;
            Ok(kills.iter().collect::<Result<_, _>>()?)
        }
        Err(_) => Ok(Vec::new()),
    }
}

/// Whether a target in a set's rows still has processes. A row begins with the target's id, whatever the
/// layout of the build that made it.
fn guards_somebody(home: &Home, populated: impl Fn(u64) -> bool) -> Result<bool, LoadError> {
    let Ok(rows) = MapData::from_pin(home.path(MAPS).join("ROWS")) else {
        return Ok(false); // half of a set
    };
    let info = rows.info()?;
    let mut value = vec![0; info.value_size() as usize];
    for row in 0..info.max_entries() {
        // SAFETY: the buffer was made as long as the map's values.
        unsafe { sys::look_up_bytes(rows.fd().as_fd(), &row, &mut value) }?;
        let id = value
            .first_chunk()
            .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        if id != 0 && populated(id) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A target that has a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The target.
    pub cgroup_id: u64,
    /// Whether the guard may act there.
    pub armed: bool,
    /// Whether its memwatch lives.
    pub owner_lives: bool,
}

/// The targets of all memwatches, living and dead. Changes nothing.
///
/// # Errors
/// The set cannot be locked or read.
pub fn standing(base: &Path) -> Result<Vec<Standing>, LoadError> {
    if !base.exists() {
        return Ok(Vec::new());
    }
    let (home, _lock) = Home::shared(base)?;
    if !home.path(COMPLETE).exists() {
        return Ok(Vec::new());
    }
    let rows: Array<_, TargetRow> =
        Array::try_from(Map::Array(MapData::from_pin(home.path(MAPS).join("ROWS"))?))?;
    let mut standing = Vec::new();
    for row in 0..MAX_TARGETS {
        let target = rows.get(&row, 0)?;
        if !is_free(&target) {
            standing.push(Standing {
                cgroup_id: target.cgroup_id,
                armed: target.guard.stale_after_ns != 0,
                owner_lives: home.lives(target.heartbeat_slot),
            });
        }
    }
    Ok(standing)
}

/// Lifts the guard from the targets of the dead, whether something runs in them or not, and takes away a place
/// that was prepared for nobody. What stands after that is returned.
///
/// # Errors
/// The set cannot be locked or changed.
pub fn disarm_dead(base: &Path) -> Result<Vec<Standing>, LoadError> {
    if base.exists() {
        let (home, lock) = Home::shared(base)?;
        if home.path(COMPLETE).exists() {
            let mut programs = Programs::take_part(home, Vec::new())?;
            programs.sweep(|_| false)?;
            drop(lock);
            drop(programs);
        } else if !in_use(&home) {
            take_away(&home);
        }
    }
    standing(base)
}

/// Whether a row has no target.
pub(super) fn is_free(target: &TargetRow) -> bool {
    target.cgroup_id == 0
}

/// Whether anybody alive takes part in a set.
pub(super) fn in_use(home: &Home) -> bool {
    let slots = home
        .names(OWNERS)
        .into_iter()
        .filter_map(|name| name.parse().ok());
    slots.into_iter().any(|slot| home.lives(slot))
}

/// Takes a set away, with its home.
pub(super) fn take_away(home: &Home) {
    clear(home);
    home.leave();
}

/// Takes away all that is pinned in a home.
pub(super) fn clear(home: &Home) {
    let _ = std::fs::remove_dir(home.path(COMPLETE));
    home.clear(&[LINKS, PROGRAMS, MAPS, OWNERS]);
}
