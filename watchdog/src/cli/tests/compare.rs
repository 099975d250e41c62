//! `memwatch tests compare`: reads both sides, and says what is worse. Judging is `crate::tests`'s.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::history::Place;
use crate::history::History;
use crate::incident::suite::Outcome;
use crate::incident::{Text, bytes, duration};
use crate::tests::{Change, Comparison, Doubt, Ended, Figure, Limit, Run, compare};

/// The long help.
pub(super) const ABOUT: &str = "\
Say which tests got worse since the runs of a base.

A test is worse if it takes more by a limit, and by more than the noise: how far the figures of the other tests \
moved between the same runs, and how far its own do where it ran often. What slows all tests alike is the machine, \
and taken out. With one or two runs on a side a test's time is its CPU time; with three or more on both it is \
wall-clock time. docs/TESTS.md has the numbers.";

/// The forms.
pub(super) const USAGE: &str = "\
memwatch tests compare [OPTIONS] BASE RUN...
       memwatch tests compare [OPTIONS] --base BASE [--base BASE]... RUN...
       memwatch tests compare [OPTIONS] --base-history N RUN...";

/// Below the long help.
pub(super) const ABOUT_MORE: &str = "\
Limits:
  +20% memory        a test's memory is a fifth above the base's, or more
  +100MiB memory     so much above
  +50% time, +2s time
                     the same for its time
  +20% total time, +1G total memory
                     of the run: the time of all tests together, the most
                     memory that it held at once. As noisy as the machine;
                     with several runs all new ones must be above all of the
                     base's
  +1 failed          so many tests fail that did not before
  By default: '+50% memory' and '+60% time'. A test's change below 8 MiB or
  50 ms is never a regression.

Examples:
  memwatch tests compare main.json branch.json
  memwatch tests compare --base m1.json --base m2.json --base m3.json \\
      --fail-on '+20% memory' --fail-on '+1 failed' b1.json b2.json b3.json

Exit codes:
  0     no limit was crossed
  1     one was
  125   a record cannot be read or has no tests, or the options make no sense";

/// Names of each sort that are printed; --json has all.
const SHOWN: usize = 20;

/// What is compared.
#[derive(Clone, Debug, Args)]
pub(super) struct CompareArgs {
    /// Records of new runs; the first is the base if nothing else names one
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// A record of the base; repeat it for several
    #[arg(long, value_name = "BASE")]
    base: Vec<PathBuf>,
    /// Take the last N runs of the project's history for the base
    #[arg(long, value_name = "N", conflicts_with = "base", value_parser = clap::value_parser!(u32).range(1..))]
    base_history: Option<u32>,
    /// Where and whose the history is.
    #[command(flatten)]
    place: Place,
    /// What is too much; repeat it for several
    #[arg(long, value_name = "LIMIT")]
    fail_on: Vec<Limit>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Compares; the exit code.
pub(super) fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let (base, new) = sides(args)?;
    let limits = match &args.fail_on[..] {
        [] => &Limit::DEFAULT[..],
        limits => limits,
    };
    let found = compare(&base, &new, limits);
    super::print(&if args.json {
        serde_json::to_string_pretty(&found)? + "\n"
    } else {
        page(&found)
    })?;
    Ok(ExitCode::from(u8::from(found.is_regression())))
}

/// The runs of the base, and the new ones.
fn sides(args: &CompareArgs) -> anyhow::Result<(Vec<Run>, Vec<Run>)> {
    let (base, new) = match (&args.base[..], &args.runs[..]) {
        (_, new) if args.base_history.is_some() => (&[][..], new),
        ([], [_]) => {
            bail!("nothing to compare with; name the base first: memwatch tests compare BASE RUN")
        }
        ([], [base, new @ ..]) => (std::slice::from_ref(base), new),
        (base, new) => (base, new),
    };
    let new = super::read_runs(new)?;
    let base = match args.base_history {
        Some(count) => kept(&args.place, count as usize, &new)?,
        None => super::read_runs(base)?,
    };
    if let Some(run) = new.iter().find(|run| base.iter().any(|it| it.id == run.id)) {
        bail!(
            "run {} is on both sides; compare it with others than itself",
            run.id
        );
    }
    Ok((base, new))
}

/// The last `count` runs that are kept, without those that they are compared with.
fn kept(place: &Place, count: usize, new: &[Run]) -> anyhow::Result<Vec<Run>> {
    let project = place.project()?;
    let except: Vec<_> = new.iter().map(|run| run.id).collect();
    let runs = History::open(&place.file()?)?.last(&project, count, &except)?;
    if runs.is_empty() {
        bail!(
            "the history has no runs of {project} to compare with; keep some first: memwatch tests history add RUN"
        );
    }
    Ok(runs)
}

fn page(found: &Comparison) -> String {
    let mut page = String::new();
    let runs = |count| super::counted(count, "run");
    let _ = writeln!(
        page,
        "{} compared, {} with {} of the base; the machine took {:.2} times as long",
        super::counted(found.compared, "test"),
        runs(found.new_runs),
        runs(found.base_runs),
        found.slowdown
    );
    let totals = found.totals.iter().map(|total| {
        let shown = |value| shown(total.figure, value);
        format!(
            "total {}: {} -> {}",
            total.figure,
            shown(total.base),
            shown(total.new)
        )
    });
    let _ = writeln!(page, "{}", totals.collect::<Vec<_>>().join("; "));
    section(&mut page, "REGRESSIONS", changes(&found.regressions));
    for (why, head) in [
        (
            Doubt::Waited,
            "UNSURE: it took longer, but not of the CPU; three runs on both sides tell",
        ),
        (
            Doubt::SetUp,
            "UNSURE: it may have set up for others what others had set up for it; more runs tell",
        ),
    ] {
        let unsure = found.unsure.iter().filter(|it| it.why == why);
        let unsure: Vec<_> = unsure.map(|it| it.change.clone()).collect();
        section(&mut page, head, changes(&unsure));
    }
    section(
        &mut page,
        "ENDED DIFFERENTLY",
        ended(&found.ended_differently),
    );
    section(&mut page, "NEW", names(&found.new_tests));
    section(&mut page, "GONE", names(&found.gone_tests));
    let verdict = match &found.crossed[..] {
        [] => "no limit crossed".to_owned(),
        crossed => format!("limits crossed: {}", crossed.join("; ")),
    };
    let _ = writeln!(page, "\n{verdict}");
    page
}

fn section(page: &mut String, head: &str, lines: Vec<String>) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(page, "\n{head} ({})", lines.len());
    for line in lines.iter().take(SHOWN) {
        let _ = writeln!(page, "  {line}");
    }
    if lines.len() > SHOWN {
        let _ = writeln!(
            page,
            "  and {} more; --json has them all",
            lines.len() - SHOWN
        );
    }
}

fn changes(changes: &[Change]) -> Vec<String> {
    let line = |change: &Change| {
        let shown = |value| shown(change.figure, value);
        format!(
            "{:<6}  {:>8} -> {:<8}  {:>7}  {}",
            change.figure.to_string(),
            shown(change.base),
            shown(change.new),
            grown(change),
            change.id
        )
    };
    changes.iter().map(line).collect()
}

/// `+104%`; `x12` from ten times on.
fn grown(change: &Change) -> String {
    let factor = change.new as f64 / change.base.max(1) as f64;
    if change.base == 0 {
        "from 0".to_owned()
    } else if factor >= 10.0 {
        format!("x{factor:.0}")
    } else {
        format!("+{:.0}%", (factor - 1.0) * 100.0)
    }
}

fn shown(figure: Figure, value: u64) -> String {
    match figure {
        Figure::Memory => bytes(value),
        Figure::Time => duration(value),
    }
}

fn ended(ended: &[Ended]) -> Vec<String> {
    let line = |it: &Ended| {
        let base = it.base.map_or("new", Outcome::name);
        format!("{base} -> {}  {}", it.new.name(), it.id)
    };
    ended.iter().map(line).collect()
}

fn names(names: &[Text]) -> Vec<String> {
    names.iter().map(Text::to_string).collect()
}
