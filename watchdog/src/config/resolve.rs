//! Layers, weakest first -> one [`Attach`]. Pure. Owns the rules between options: safe mode's caps,
//! and which limits make no sense together.

use std::path::PathBuf;
use std::time::Duration;

use super::error::{Contradiction, Setting};
use super::{Attach, Limit, Live, OnPressure, OrNone, Size, Span, UseDaemon, Verbosity};
use crate::watch::Settings;

/// Safe mode's memory limit in bytes.
pub const SAFE_MEMORY_MAX: u64 = 2 << 30;
/// Safe mode's time for the whole run.
pub const SAFE_TIMEOUT: Duration = Duration::from_secs(300);
/// Safe mode's time for one test.
pub const SAFE_TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// The least limit in bytes that is believed. A static `true` starts in less, but `--memory-max 2`
/// is a forgotten unit, and obeying it would kill the command at once.
pub(super) const MIN_LIMIT: u64 = 1 << 20;

/// What one source says. `None` is silence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// The source.
    pub origin: Origin,
    /// See [`Attach::memory_max`].
    pub memory_max: Option<Limit>,
    /// See [`Attach::memory_high`].
    pub memory_high: Option<Limit>,
    /// See [`Attach::timeout`].
    pub timeout: Option<OrNone<Span>>,
    /// See [`Attach::test_memory`].
    pub test_memory: Option<OrNone<Size>>,
    /// See [`Attach::test_timeout`].
    pub test_timeout: Option<OrNone<Span>>,
    /// See [`Attach::pytest`].
    pub pytest: Option<bool>,
    /// See [`Attach::on_pressure`].
    pub on_pressure: Option<OnPressure>,
    /// See [`Attach::safe`].
    pub safe: Option<bool>,
    /// See [`Attach::dry_run`].
    pub dry_run: Option<bool>,
    /// See [`Attach::daemon`].
    pub daemon: Option<UseDaemon>,
    /// See [`Attach::live`].
    pub live: Option<Live>,
    /// See [`Attach::report`].
    pub report: Option<PathBuf>,
}

/// Where a layer comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Flags.
    #[default]
    CommandLine,
    /// A file.
    File(PathBuf),
}

/// The policy's numbers come from different files, so their order is checked when all are read.
pub(super) fn check_policy(policy: &Settings) -> Result<(), Box<Contradiction>> {
    let in_order = [
        ("shortest_look", policy.shortest_look),
        ("longest_look", policy.longest_look),
        ("guard_stale_after", policy.guard_stale_after),
    ];
    for pair in in_order.windows(2) {
        let [(shorter, short), (longer, long)] = [pair[0], pair[1]];
        if let (Some(short_span), Some(long_span)) = (Span::new(short), Span::new(long))
            && short > long
        {
            return Err(Box::new(Contradiction::WrongWayRound {
                shorter: (shorter, short_span),
                longer: (longer, long_span),
            }));
        }
    }
    Ok(())
}

/// Combines the layers; verbosity is the command line's alone.
pub(super) fn attach(layers: &[Layer], verbosity: Verbosity) -> Result<Attach, Box<Contradiction>> {
    let layers = Layers(layers);
    let safe = layers
        .strongest("safe", |layer| layer.safe)
        .filter(|safe| safe.value);
    let memory_max = memory_max(layers, safe.as_ref())?;
    let live = layers.value(|layer| layer.live).unwrap_or_default();
    Ok(Attach {
        memory_max,
        memory_high: memory_high(layers, memory_max, safe.as_ref())?,
        timeout: at_most(
            layers,
            safe.as_ref(),
            "timeout",
            |layer| layer.timeout,
            SAFE_TIMEOUT,
        )?,
        test_memory: test_memory(layers)?,
        test_timeout: at_most(
            layers,
            safe.as_ref(),
            "test_timeout",
            |layer| layer.test_timeout,
            SAFE_TEST_TIMEOUT,
        )?,
        pytest: layers.value(|layer| layer.pytest).unwrap_or(true),
        on_pressure: layers.value(|layer| layer.on_pressure).unwrap_or_default(),
        dry_run: layers.value(|layer| layer.dry_run).unwrap_or_default(),
        daemon: layers.value(|layer| layer.daemon).unwrap_or_default(),
        safe: safe.is_some(),
        report: layers.value(|layer| layer.report.clone()),
        live: if verbosity == Verbosity::Quiet {
            Live::Never
        } else {
            live
        },
        verbosity,
    })
}

/// `auto` under safe mode is safe mode's own limit.
fn memory_max(layers: Layers<'_>, safe: Option<&Said<bool>>) -> Result<Limit, Box<Contradiction>> {
    let said = layers.strongest("memory_max", |layer| layer.memory_max);
    if let Some(Said {
        value: Limit::Bytes(bytes),
        setting,
        ..
    }) = &said
    {
        check_least(*bytes, setting)?;
    }
    let (Some(safe), Some(said)) = (safe, &said) else {
        let unsaid = if safe.is_some() {
            Limit::Bytes(SAFE_MEMORY_MAX)
        } else {
            Limit::Auto
        };
        return Ok(said.map_or(unsaid, |said| said.value));
    };
    let looser = match said.value {
        Limit::Bytes(bytes) if bytes <= SAFE_MEMORY_MAX => return Ok(said.value),
        Limit::Bytes(bytes) => Some(size_text(bytes)),
        Limit::None => Some("none".into()),
        Limit::Auto => None,
    };
    match looser {
        Some(value) if !safe.outranks(said) => Err(Box::new(Contradiction::LooserThanSafe {
            setting: said.setting.clone(),
            value,
            cap: size_text(SAFE_MEMORY_MAX),
            safe: safe.setting.clone(),
        })),
        _ => Ok(Limit::Bytes(SAFE_MEMORY_MAX)),
    }
}

fn memory_high(
    layers: Layers<'_>,
    max: Limit,
    safe: Option<&Said<bool>>,
) -> Result<Limit, Box<Contradiction>> {
    let Some(said) = layers.strongest("memory_high", |layer| layer.memory_high) else {
        return Ok(Limit::Auto);
    };
    let Limit::Bytes(high) = said.value else {
        return Ok(said.value);
    };
    check_least(high, &said.setting)?;
    match max {
        Limit::Bytes(max) if high >= max => {
            // Safe mode's limit is tighter than the brake that a weaker source asked for.
            if safe.is_some_and(|safe| safe.outranks(&said)) {
                return Ok(Limit::Auto);
            }
            let size = |bytes| Size::new(bytes).expect("checked to be at least MIN_LIMIT");
            Err(Box::new(Contradiction::HighNotBelowMax {
                setting: said.setting,
                high: size(high),
                max: size(max),
            }))
        }
        _ => Ok(said.value),
    }
}

/// A time that safe mode caps.
fn at_most(
    layers: Layers<'_>,
    safe: Option<&Said<bool>>,
    key: &'static str,
    get: fn(&Layer) -> Option<OrNone<Span>>,
    cap: Duration,
) -> Result<Option<Duration>, Box<Contradiction>> {
    let said = layers.strongest(key, get);
    let (Some(safe), Some(said)) = (safe, &said) else {
        let unsaid = safe.map(|_| cap);
        return Ok(said.map_or(unsaid, |said| said.value.0.map(Span::duration)));
    };
    match said.value.0.map(Span::duration) {
        Some(time) if time <= cap => Ok(Some(time)),
        _ if safe.outranks(said) => Ok(Some(cap)),
        _ => Err(Box::new(Contradiction::LooserThanSafe {
            setting: said.setting.clone(),
            value: said.value.to_string(),
            cap: Span::new(cap).expect("not zero, not a year").to_string(),
            safe: safe.setting.clone(),
        })),
    }
}

fn test_memory(layers: Layers<'_>) -> Result<Option<u64>, Box<Contradiction>> {
    let said = layers.strongest("test_memory", |layer| layer.test_memory);
    let Some(Said {
        value: OrNone(Some(size)),
        setting,
        ..
    }) = said
    else {
        return Ok(None);
    };
    check_least(size.bytes(), &setting)?;
    Ok(Some(size.bytes()))
}

fn check_least(bytes: u64, setting: &Setting) -> Result<(), Box<Contradiction>> {
    match Size::new(bytes) {
        Some(size) if bytes < MIN_LIMIT => Err(Box::new(Contradiction::TooSmall {
            setting: setting.clone(),
            size,
        })),
        _ => Ok(()),
    }
}

fn size_text(bytes: u64) -> String {
    Size::new(bytes).map_or_else(|| bytes.to_string(), |size| size.to_string())
}

/// A value and who said it.
struct Said<T> {
    value: T,
    /// The layer's place in the order; a larger one is stronger.
    rank: usize,
    setting: Setting,
}

impl<T> Said<T> {
    /// Safe mode tightens what weaker sources say; beside an equal or a stronger one, a looser
    /// value is a contradiction that only the user can resolve.
    fn outranks<U>(&self, other: &Said<U>) -> bool {
        self.rank > other.rank
    }
}

/// All layers, weakest first.
#[derive(Clone, Copy)]
struct Layers<'a>(&'a [Layer]);

impl Layers<'_> {
    /// What the strongest layer that does not keep silent says.
    fn strongest<T>(self, key: &'static str, get: fn(&Layer) -> Option<T>) -> Option<Said<T>> {
        self.0.iter().enumerate().rev().find_map(|(rank, layer)| {
            let setting = Setting {
                key,
                origin: layer.origin.clone(),
            };
            get(layer).map(|value| Said {
                value,
                rank,
                setting,
            })
        })
    }

    /// The same without who said it.
    fn value<T>(self, get: fn(&Layer) -> Option<T>) -> Option<T> {
        self.0.iter().rev().find_map(get)
    }
}
