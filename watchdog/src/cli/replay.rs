//! `memwatch replay`: recorded looks through the real policy, and what it orders. Reading is here, the
//! driving is `watch::replay`'s, recording is `agent::flight`'s.

use super::incidents;
use crate::agent::identity::settings_of;
use crate::config::{self, Config, Quoted, Span};
use crate::incident::store::LAST;
use crate::incident::{self, Record};
use crate::watch::Settings;
use crate::watch::replay::{RecordedLook, replay};
use anyhow::{Context, bail};
use clap::Args;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The long help.
pub const ABOUT: &str = "\
Run looks through the policy again, and say what it orders: the looks that `memwatch record FILE` or `memwatch \
attach --record FILE` wrote, or those of the flight recorder in an incident. As it was decided then, with other \
settings (--set, --config), or with looks that come late as on a busy machine (--jitter). Nothing is watched and \
nobody is touched.";

/// Below the long help.
pub const ABOUT_MORE: &str = "\
An incident is replayed with the settings that were in force then, unless --config names others; a recording with \
those of the configuration.

Exit codes:
  0     nothing was ordered in any replay
  1     something was
  125   the recording cannot be read";

const UNPRINTED: &str = "cannot print the orders";

/// What is replayed.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The recording, an incident's file, the beginning of an incident's id, or `last`
    file: PathBuf,
    /// How often to replay it, each time with other delays
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u32,
    /// Let each look come late by up to this: 20ms
    #[arg(long, value_name = "DURATION")]
    jitter: Option<Span>,
    /// Change a number of the policy: a key of [policy] in the configuration; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// What was read.
pub(crate) struct Recording {
    pub(crate) looks: Vec<RecordedLook>,
    /// Those that were in force, if it tells.
    pub(crate) settings: Option<Settings>,
}

/// Replays; the exit code. `named` is whether the configuration is one that was named.
///
/// # Errors
/// The recording cannot be read, a line of it is no look, or nobody reads what is printed.
pub fn run(args: &ReplayArgs, config: &Config, named: bool) -> anyhow::Result<ExitCode> {
    let Recording { looks, settings } = read(&args.file)?;
    let mut settings = settings.filter(|_| !named).unwrap_or(config.policy);
    for assignment in &args.set {
        config::set_policy(assignment, &mut settings)?;
    }
    let start_us = looks.first().map_or(0, |look| look.at_us);
    let jitter_us = args
        .jitter
        .map_or(0, |span| span.duration().as_micros() as u64);
    let mut acted = 0;
    let mut out = io::stdout().lock();
    for time in 1..=args.times {
        let mut random = SplitMix64(time.into());
        let orders = replay(&looks, settings, || random.below(jitter_us + 1));
        acted += u32::from(!orders.is_empty());
        for (at_us, order) in orders {
            let at = Duration::from_micros(at_us.saturating_sub(start_us));
            let order = incident::order(&order, false);
            writeln!(out, "replay {time}, {at:.3?}: {order}").context(UNPRINTED)?;
        }
    }
    let (count, times) = (looks.len(), args.times);
    writeln!(
        out,
        "{count} looks, {times} replays, {acted} of them with orders"
    )
    .context(UNPRINTED)?;
    Ok(ExitCode::from(u8::from(acted > 0)))
}

fn read(path: &Path) -> anyhow::Result<Recording> {
    if !path.exists()
        && let Some(id) = path.to_str().filter(|typed| is_id(typed))
    {
        return of_incident(incidents::read(id)?, id);
    }
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, path)
}

/// What was read from `path`: an incident, or looks in lines.
pub(crate) fn parse(text: &[u8], path: &Path) -> anyhow::Result<Recording> {
    if is_incident(text) {
        let record = Record::from_json(text).with_context(|| path.display().to_string())?;
        return of_incident(record, &path.display().to_string());
    }
    let lines = text.split(|&byte| byte == b'\n').enumerate();
    let looks = lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| {
            serde_json::from_slice(line).with_context(|| {
                format!(
                    "{}:{}: {} is no look; `memwatch record FILE` writes recordings",
                    path.display(),
                    number + 1,
                    Quoted::new(&String::from_utf8_lossy(line))
                )
            })
        });
    Ok(Recording {
        looks: looks.collect::<anyhow::Result<_>>()?,
        settings: None,
    })
}

fn of_incident(record: Record, name: &str) -> anyhow::Result<Recording> {
    let Some(flight) = record.flight else {
        bail!(
            "{name}: the incident has no looks of the flight recorder, so there is nothing to replay"
        );
    };
    Ok(Recording {
        looks: flight.looks,
        settings: Some(settings_of(&record.settings)),
    })
}

/// Whether it is one object with the version of a record, and not one to a line.
fn is_incident(text: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Versioned {
        #[serde(rename = "schema_version")]
        _version: u32,
    }
    serde_json::from_slice::<Versioned>(text).is_ok()
}

/// Whether it may be meant as an incident's.
fn is_id(text: &str) -> bool {
    let of_id = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    text == LAST || (text.len() >= 4 && text.bytes().all(of_id))
}

/// Steele, Lea and Flood's generator: the same delays in each replay of the same number.
struct SplitMix64(u64);

impl SplitMix64 {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
