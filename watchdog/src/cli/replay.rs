//! `memwatch replay`: recorded looks through the real policy, and what it orders. Reading is here, the
//! driving is `watch::replay`'s, recording is `agent::recorder`'s.

use crate::config::{Config, Quoted, Span};
use crate::incident;
use crate::watch::replay::{RecordedLook, replay};
use anyhow::Context;
use clap::Args;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The long help.
pub const ABOUT: &str = "\
Run the looks that `memwatch attach --record FILE` wrote through the policy again, and say what it \
orders: with other settings (--config), or with looks that come late as on a busy machine (--jitter). \
Nothing is watched and nobody is touched.";

/// Below the long help.
pub const ABOUT_MORE: &str = "\
Exit codes:
  0     nothing was ordered in any replay
  1     something was
  125   the recording cannot be read";

const UNPRINTED: &str = "cannot print the orders";

/// What is replayed.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The recording
    file: PathBuf,
    /// How often to replay it, each time with other delays
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u32,
    /// Let each look come late by up to this: 20ms
    #[arg(long, value_name = "DURATION")]
    jitter: Option<Span>,
}

/// Replays; the exit code.
///
/// # Errors
/// The recording cannot be read, a line of it is no look, or nobody reads what is printed.
pub fn run(args: &ReplayArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let looks = read(&args.file)?;
    let start_us = looks.first().map_or(0, |look| look.at_us);
    let jitter_us = args
        .jitter
        .map_or(0, |span| span.duration().as_micros() as u64);
    let mut acted = 0;
    let mut out = io::stdout().lock();
    for time in 1..=args.times {
        let mut random = SplitMix64(time.into());
        let orders = replay(&looks, config.policy, || random.below(jitter_us + 1));
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

fn read(path: &Path) -> anyhow::Result<Vec<RecordedLook>> {
    let cannot = || format!("cannot read the recording {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let mut looks = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(cannot)?;
        let look = serde_json::from_str(&line).with_context(|| {
            format!(
                "{}:{}: {} is no look; `memwatch attach --record FILE` writes recordings",
                path.display(),
                number + 1,
                Quoted::new(&line)
            )
        })?;
        looks.push(look);
    }
    Ok(looks)
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
