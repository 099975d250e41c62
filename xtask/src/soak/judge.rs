//! Whether a run ended as it must: a pure judgement on memwatch's report and on what was seen of the
//! run without memwatch's help, which is gathered here too. Making the run is `soak`'s and `demo`'s.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::machine;

/// How a run must end.
#[derive(Clone, Copy)]
pub(crate) enum Ending {
    /// memwatch ends the command itself.
    LeaderKilled,
    /// memwatch ends a process below the command, which goes on and ends by itself.
    ChildKilled { exit_code: i64 },
    /// memwatch has the test of a process fail, or ends the process when it does not heed that, and the suite
    /// goes on.
    TestEnded { exit_code: i64 },
    /// Nobody is touched and the command succeeds.
    Untouched,
}

/// What is known of a run.
pub(crate) struct Evidence {
    /// memwatch's exit code; `None` if a signal ended it.
    pub(crate) exit_code: Option<i32>,
    /// The report, or why there is none.
    pub(crate) report: Result<Value, String>,
    /// The process that ought to have been ended, by its own word.
    pub(crate) culprit: Option<u64>,
    /// How many processes the kernel's OOM killer ended meanwhile, anywhere on the machine.
    pub(crate) oom_kills: u64,
    /// Directories of the target's cgroup, in any hierarchy, that outlived the run.
    pub(crate) left_over: Vec<PathBuf>,
}

impl Evidence {
    /// Collects what a run left in its files and on the machine, right after its end.
    ///
    /// # Errors
    /// If the machine's own counters cannot be read; what memwatch failed to do is for the judge.
    pub(crate) fn gather(
        exit_code: Option<i32>,
        report: &Path,
        culprit: &Path,
        oom_kills_before: u64,
    ) -> anyhow::Result<Self> {
        let report = read_report(report);
        let left_over = report
            .as_ref()
            .ok()
            .and_then(target_name)
            .map(machine::cgroups_named);
        Ok(Self {
            exit_code,
            culprit: fs::read_to_string(culprit)
                .ok()
                .and_then(|pid| pid.parse().ok()),
            oom_kills: machine::oom_kills()? - oom_kills_before,
            left_over: left_over.unwrap_or_default(),
            report,
        })
    }

    fn has_victims(&self) -> bool {
        let victims = self
            .report
            .as_ref()
            .ok()
            .and_then(|report| report["victims"].as_array());
        victims.is_some_and(|victims| !victims.is_empty())
    }

    /// The most memory that the target had, in percent of its limit.
    pub(crate) fn peak_percent(&self) -> Option<u64> {
        let report = self.report.as_ref().ok()?;
        let limit = report["target"]["memory_max_bytes"]
            .as_u64()
            .filter(|&limit| limit > 0)?;
        Some(report["peak_bytes"].as_u64()? * 100 / limit)
    }
}

/// The report in a file; the error is for people.
fn read_report(path: &Path) -> Result<Value, String> {
    let bytes = fs::read(path).map_err(|error| format!("no report ({error})"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("the report is no JSON ({error})"))
}

/// What memwatch called the target's cgroup.
fn target_name(report: &Value) -> Option<&str> {
    Path::new(report["target"]["cgroup_path"].as_str()?)
        .file_name()?
        .to_str()
}

/// What was wrong with a run: nothing if the list is empty.
pub(crate) fn judge(ending: Ending, evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |holds: bool, otherwise: String| {
        if !holds {
            wrong.push(otherwise);
        }
    };
    // The counter is the whole machine's, where others may fill their cgroups meanwhile. Of an innocent its
    // own exit code tells: none of them ends well if the kernel has taken one of its processes.
    check(
        evidence.oom_kills == 0 || matches!(ending, Ending::Untouched),
        "the kernel's OOM killer was there first".to_owned(),
    );
    let report = match &evidence.report {
        Ok(report) => report,
        Err(reason) => {
            check(
                false,
                format!("{reason}; exit code {:?}", evidence.exit_code),
            );
            return wrong;
        }
    };

    let (verdict, exit_code) = match ending {
        Ending::LeaderKilled => ("killed_by_memwatch", 137),
        Ending::ChildKilled { exit_code } => ("finished_with_kills", exit_code),
        // Where everything is slow the test may not have had the time that it takes.
        Ending::TestEnded { exit_code } if evidence.has_victims() => {
            ("finished_with_kills", exit_code)
        }
        Ending::TestEnded { exit_code } => ("finished", exit_code),
        Ending::Untouched => ("finished", 0),
    };
    check(
        report["verdict"] == verdict,
        format!("verdict {} for {verdict}", report["verdict"]),
    );
    check(
        report["exit_code"] == exit_code,
        format!(
            "exit code in the report {} for {exit_code}",
            report["exit_code"]
        ),
    );
    check(
        evidence.exit_code.map(i64::from) == Some(exit_code),
        format!("exit code {:?} for {exit_code}", evidence.exit_code),
    );
    check(
        report["kernel_oom"].as_array().is_some_and(Vec::is_empty),
        format!("the report's kernel_oom is {}", report["kernel_oom"]),
    );
    check(
        report["peak_bytes"].as_u64() > Some(0),
        "no peak_bytes".to_owned(),
    );
    check(
        evidence
            .peak_percent()
            .is_some_and(|percent| percent <= 100),
        format!("peak at {:?} percent of the limit", evidence.peak_percent()),
    );
    check(
        target_name(report).is_some(),
        "the target's cgroup is not named".to_owned(),
    );
    check(
        evidence.left_over.is_empty(),
        format!("left behind: {:?}", evidence.left_over),
    );
    wrong.extend(judge_victims(ending, report, evidence.culprit));
    wrong
}

fn judge_victims(ending: Ending, report: &Value, culprit: Option<u64>) -> Vec<String> {
    let Some(victims) = report["victims"].as_array() else {
        return vec!["the report has no victims".to_owned()];
    };
    if matches!(ending, Ending::Untouched) {
        let touched = victims
            .iter()
            .map(|victim| format!("touched an innocent: {victim}"));
        return touched.collect();
    }
    let Some(culprit) = culprit else {
        return vec!["the workload did not get to name its culprit".to_owned()];
    };
    let mut wrong = Vec::new();
    if matches!(ending, Ending::TestEnded { .. }) {
        let asked = &report["interventions"][0]["rungs"][0];
        if asked["rung"] != "abort" || asked["pid"] != culprit {
            wrong.push(format!("the first step was {asked}, for {culprit}"));
        }
    } else if victims.is_empty() {
        wrong.push("no victim named".to_owned());
    }
    for victim in victims {
        let said = |field: &str| victim[field].as_str().is_some_and(|text| !text.is_empty());
        if victim["pid"] != culprit {
            wrong.push(format!(
                "victim {} ({}) for {culprit}",
                victim["pid"], victim["comm"]
            ));
        } else if victim["killed_by"] != "memwatch" {
            wrong.push(format!("killed by {}", victim["killed_by"]));
        } else if !["SIGTERM", "SIGKILL"]
            .iter()
            .any(|&signal| victim["signal"] == signal)
        {
            wrong.push(format!("ended by {}", victim["signal"]));
        } else if !said("comm") || !said("reason") {
            wrong.push("a victim without comm or reason".to_owned());
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Evidence {
        Evidence {
            exit_code: Some(137),
            report: Ok(json!({
                "verdict": "killed_by_memwatch",
                "exit_code": 137,
                "kernel_oom": [],
                "peak_bytes": 90,
                "target": { "memory_max_bytes": 100, "cgroup_path": "/memwatch/run-1" },
                "victims": [{
                    "pid": 7, "comm": "hog", "signal": "SIGKILL", "reason": "it grew",
                    "killed_by": "memwatch",
                }],
            })),
            culprit: Some(7),
            oom_kills: 0,
            left_over: Vec::new(),
        }
    }

    #[test]
    fn a_kill_as_it_must_be_passes() {
        assert_eq!(judge(Ending::LeaderKilled, &good()), Vec::<String>::new());
    }

    #[test]
    fn the_kernel_may_not_be_first() {
        let evidence = Evidence {
            oom_kills: 1,
            ..good()
        };
        assert_eq!(
            judge(Ending::LeaderKilled, &evidence),
            ["the kernel's OOM killer was there first"]
        );
    }

    #[test]
    fn nothing_may_be_left() {
        let evidence = Evidence {
            left_over: vec!["/sys/fs/cgroup/memory/memwatch/run-1".into()],
            ..good()
        };
        assert_eq!(judge(Ending::LeaderKilled, &evidence).len(), 1);
    }

    #[test]
    fn every_field_counts() {
        let spoil = [
            ("/verdict", json!("finished")),
            ("/exit_code", json!(0)),
            ("/kernel_oom", json!([{ "pid": 7 }])),
            ("/kernel_oom", Value::Null),
            ("/peak_bytes", Value::Null),
            ("/peak_bytes", json!(101)),
            ("/victims", json!([])),
            ("/victims", Value::Null),
            ("/victims/0/pid", json!(8)),
            ("/victims/0/signal", json!("SIGHUP")),
            ("/victims/0/reason", json!("")),
            ("/victims/0/killed_by", json!("guard")),
            ("/target/cgroup_path", Value::Null),
        ];
        for (pointer, value) in spoil {
            let mut evidence = good();
            let report = evidence.report.as_mut().expect("there is a report");
            *report.pointer_mut(pointer).expect(pointer) = value.clone();
            let wrong = judge(Ending::LeaderKilled, &evidence);
            assert!(!wrong.is_empty(), "{pointer} = {value} passed");
        }
    }

    #[test]
    fn an_innocent_has_no_victims() {
        assert!(!judge(Ending::Untouched, &good()).is_empty());
    }

    #[test]
    fn without_a_report_nothing_passes() {
        let evidence = Evidence {
            report: Err("no report".to_owned()),
            ..good()
        };
        assert!(!judge(Ending::LeaderKilled, &evidence).is_empty());
    }
}
