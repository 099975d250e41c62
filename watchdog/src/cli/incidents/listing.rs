//! `memwatch incidents list`: a line for each incident.

use std::str::FromStr;
use std::time::SystemTime;

use clap::Args;

use super::sources::Sources;
use crate::config::Span;
use crate::incident::store::shortest;
use crate::incident::{Headline, Record, Text, Timestamp, Verdict, duration};

/// Letters of an id at the least.
const LEAST: usize = 8;

/// `memwatch incidents list`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ListArgs {
    /// Those that began since then: 2h, 7d ago; or a date and time in UTC, 2026-03-01 or 2026-03-01T09:00
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

/// A time in UTC, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Since(String);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = text.parse::<Span>() {
            let then = SystemTime::now().checked_sub(span.duration());
            let then = then.unwrap_or(SystemTime::UNIX_EPOCH);
            return Ok(Self(Timestamp::from(then).to_string()));
        }
        let text = text.trim_end_matches('Z').replacen(' ', "T", 1);
        let form = "0000-00-00T00:00:00.000000";
        let fits = |(given, form): (u8, u8)| match form {
            b'0' => given.is_ascii_digit(),
            other => given == other,
        };
        let is_time =
            (10..=form.len()).contains(&text.len()) && text.bytes().zip(form.bytes()).all(fits);
        if !is_time {
            return Err("write a time ago such as 2h or 7d, or a date and time in UTC such as 2026-03-01 or 2026-03-01T09:00".to_owned());
        }
        Ok(Self(text))
    }
}

impl Since {
    /// Both are in UTC and in one form, so that their order is that of their letters.
    fn covers(&self, headline: &Headline) -> bool {
        headline.started_at.to_string() >= self.0
    }
}

/// Prints it.
pub(super) fn run(args: &ListArgs, sources: &Sources) -> anyhow::Result<()> {
    let all = sources.list();
    let ids: Vec<_> = all.iter().map(|headline| headline.id).collect();
    let letters = shortest(&ids, LEAST);
    let since = args.since.as_ref();
    let shown: Vec<_> = all
        .into_iter()
        .filter(|headline| since.is_none_or(|since| since.covers(headline)))
        .collect();
    if args.json {
        let json = serde_json::to_string_pretty(&shown)?;
        return super::print(&(json + "\n"));
    }
    if shown.is_empty() {
        return super::print("No incidents.\n");
    }
    super::print(&table(&shown, letters))
}

/// What is told of an incident before its summary.
pub(super) fn identity(record: &Record) -> String {
    let host = record.host.hostname.as_ref();
    let host = host.map_or(String::new(), |host| format!(", on {host}"));
    let kernel = record.host.kernel_release.as_ref();
    let kernel = kernel.map_or(String::new(), |kernel| format!(" (Linux {kernel})"));
    format!(
        "incident {}: {}, {} to {}{host}{kernel}\n",
        record.id,
        record.kind.phrase(),
        to_the_second(&record.started_at),
        to_the_second(&record.ended_at),
    )
}

const HEADS: [&str; 6] = ["ID", "WHEN", "KIND", "TOOK", "VERDICT", "VICTIM"];

fn table(shown: &[Headline], letters: usize) -> String {
    let rows: Vec<[String; 6]> = shown.iter().map(|it| cells(it, letters)).collect();
    let widths: [usize; 6] = std::array::from_fn(|n| {
        let cells = rows.iter().map(|row| row[n].chars().count());
        cells.chain([HEADS[n].len()]).max().unwrap_or(0)
    });
    let line = |cells: [&str; 6], last: &str| {
        let cells = cells.into_iter().zip(widths);
        let cells: String = cells
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        format!("{}\n", format!("{cells}{last}").trim_end())
    };
    let mut table = line(HEADS, "WHAT");
    for (row, headline) in rows.iter().zip(shown) {
        let what = headline.what.as_ref().map_or("", Text::as_str);
        table += &line(row.each_ref().map(String::as_str), what);
    }
    table
}

fn cells(it: &Headline, letters: usize) -> [String; 6] {
    let mut victims: Vec<String> = it
        .victims
        .iter()
        .map(|victim| format!("{} ({})", victim.comm, victim.pid))
        .collect();
    let more = it.victim_count.saturating_sub(victims.len() as u64);
    if more > 0 {
        victims.push(format!("{more} more"));
    }
    let dry = if it.dry_run { ", dry run" } else { "" };
    [
        it.id.to_string()[..letters].to_owned(),
        to_the_second(&it.started_at),
        it.kind.phrase().to_owned(),
        duration(it.duration_us),
        format!("{}{dry}", verdict(it)),
        if victims.is_empty() {
            "-".to_owned()
        } else {
            victims.join(", ")
        },
    ]
}

fn verdict(it: &Headline) -> String {
    let code = it
        .exit_code
        .map_or(String::new(), |code| format!(" ({code})"));
    let verdict = match it.verdict {
        Verdict::Ongoing => return "went on".to_owned(),
        verdict => verdict.phrase(),
    };
    format!("{verdict}{code}")
}

/// For people: `2026-03-01 09:12:16Z`.
pub(super) fn to_the_second(time: &Timestamp) -> String {
    let time = time.to_string().replacen('T', " ", 1);
    match time.split_once('.') {
        Some((second, _)) => format!("{second}Z"),
        None => time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample;

    #[test]
    fn a_line_has_what_an_incident_is_found_by() {
        let mut killed = sample::killed();
        killed.id = "01970000-0000-7000-8000-000000000001"
            .parse()
            .expect("an id");
        let headlines = [Headline::from(&killed), Headline::from(&sample::grave())];
        let table = table(&headlines, 8);
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("ID        WHEN"), "{table}");
        assert!(
            lines[1].starts_with("01970000  2026-03-01 09:12:16Z  kill"),
            "{table}"
        );
        assert!(lines[1].contains("finished with kills (1)"), "{table}");
        assert!(
            lines[1].ends_with("python3 (4250)                           pytest"),
            "{table}"
        );
        assert!(lines[2].contains(r"a\nb\x1b[31m\xff (4300)"), "{table}");
        assert!(lines.iter().all(|line| !line.ends_with(' ')), "{table}");
    }

    #[test]
    fn since_takes_a_time_ago_or_a_date() {
        let headline = Headline::from(&sample::killed()); // 2026-03-01T09:12:16Z
        let covers = |text: &str| text.parse::<Since>().expect("a time").covers(&headline);
        assert!(
            covers("2026-03-01") && covers("2026-03-01T09:12") && covers("2026-03-01 09:12:16Z")
        );
        assert!(!covers("2026-03-01T09:13") && !covers("2026-03-02") && !covers("1s"));
        for text in ["", "yesterday", "2026-3-1", "2026-03-01T09:12:16.000000000"] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }
}
