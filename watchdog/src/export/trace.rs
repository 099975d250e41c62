//! An incident as a trace in the Trace Event Format, which Perfetto and Chromium's `about:tracing` open: counters for
//! what the looks say, a slice for each process and each test, an instant for each step. Pure.

use serde_json::{Value, json};

use crate::incident::Record;
use crate::incident::timeline::{Curve, Curves, Lane, Mark, Window, lanes, marks, thinned, whole};

/// The process that the target's and the machine's counters are put under: no process has this number.
const ALL: u32 = 0;
/// Points of a counter, at about four each.
const COLUMNS: usize = 400;

/// The file's content. Its times are in µs from the first thing that is known, which is never after the start.
#[must_use]
pub fn render(record: &Record) -> Vec<u8> {
    let marks = marks(record);
    let window = whole(record);
    let trace = Trace {
        window,
        events: Vec::new(),
    }
    .with_target(record)
    .with_lanes(&lanes(record, &marks), record)
    .with_marks(&marks);
    let file = json!({
        "displayTimeUnit": "ms",
        "otherData": {
            "incident": record.id,
            "kind": record.kind,
            "memwatch": record.memwatch_version,
            "started_at": record.started_at,
            "start_us": -window.from_us,
        },
        "traceEvents": trace.events,
    });
    let mut bytes = serde_json::to_vec(&file).expect("a value serialises");
    bytes.push(b'\n');
    bytes
}

struct Trace {
    window: Window,
    events: Vec<Value>,
}

impl Trace {
    fn with_target(mut self, record: &Record) -> Self {
        let what = record
            .command
            .as_ref()
            .map_or("target", |command| command.program.as_str());
        self.name(ALL, &format!("{what}: target and machine"));
        let Some(flight) = &record.flight else {
            return self;
        };
        let curves = Curves::of(flight);
        let percent = |curve: &Curve| {
            curve
                .iter()
                .map(|&(at, share)| (at, share * 100.0))
                .collect::<Curve>()
        };
        for (name, unit, curve) in [
            ("target memory", "bytes", &curves.current_bytes),
            ("target memory limit", "bytes", &curves.limit_bytes),
            ("target memory brake", "bytes", &curves.high_bytes),
            ("target anonymous memory", "bytes", &curves.anon_bytes),
            ("target swap", "bytes", &curves.swap_bytes),
            (
                "target pressure some",
                "percent",
                &percent(&curves.target_some),
            ),
            (
                "target pressure full",
                "percent",
                &percent(&curves.target_full),
            ),
            (
                "machine pressure some",
                "percent",
                &percent(&curves.machine_some),
            ),
            (
                "machine pressure full",
                "percent",
                &percent(&curves.machine_full),
            ),
            ("machine memory available", "bytes", &curves.available_bytes),
            ("machine swap", "bytes", &curves.machine_swap_bytes),
            ("ZFS ARC", "bytes", &curves.arc_bytes),
            ("faults", "a second", &curves.faults),
            ("major faults", "a second", &curves.major_faults),
            ("refaults", "a second", &curves.refaults),
            ("reclaim scanned", "pages a second", &curves.scanned),
            ("reclaim freed", "pages a second", &curves.reclaimed),
            ("tasks in reclaim", "tasks", &curves.reclaim_tasks),
        ] {
            self.counter(ALL, name, unit, curve);
        }
        self
    }

    fn with_lanes(mut self, lanes: &[Lane], record: &Record) -> Self {
        let tests = record.suite.as_ref().map_or(&[][..], |suite| &suite.tests);
        for lane in lanes {
            let comm = lane
                .comm
                .map_or("process".to_owned(), |comm| comm.to_string());
            let worker = lane
                .worker
                .as_ref()
                .map_or(String::new(), |worker| format!(" {worker}"));
            self.name(lane.pid, &format!("{comm}{worker}"));
            if let Some((from, to)) = span(lane) {
                let args = json!({ "peak_bytes": lane.peak_bytes, "victim": lane.is_victim });
                self.slice(lane.pid, "process", &comm, (from, to), args);
            }
            for bar in &lane.bars {
                let test = &tests[bar.number];
                let args = json!({
                    "outcome": bar.outcome,
                    "growth_bytes": test.growth_bytes(),
                    "retained_bytes": test.retained_bytes(),
                    "ended_by_memwatch": test.ended_by_memwatch,
                });
                self.slice(
                    lane.pid,
                    "test",
                    bar.id.as_str(),
                    (bar.from_us, bar.to_us),
                    args,
                );
            }
            self.counter(lane.pid, "anonymous memory", "bytes", &lane.anon_bytes);
        }
        self
    }

    fn with_marks(mut self, marks: &[Mark]) -> Self {
        for mark in marks {
            let pid = mark.pid.unwrap_or(ALL);
            self.events.push(json!({
                "ph": "i",
                "s": if mark.sort.is_kill() { "g" } else { "p" },
                "name": mark.sort.phrase(),
                "cat": "memwatch",
                "ts": self.at(mark.at_us),
                "pid": pid,
                "tid": pid,
                "args": { "text": mark.text },
            }));
        }
        self
    }

    fn name(&mut self, pid: u32, name: &str) {
        self.events.push(
            json!({ "ph": "M", "name": "process_name", "pid": pid, "args": { "name": name } }),
        );
        // The target before its processes.
        self.events.push(json!({ "ph": "M", "name": "process_sort_index", "pid": pid, "args": { "sort_index": pid } }));
    }

    fn slice(&mut self, pid: u32, category: &str, name: &str, (from, to): (i64, i64), args: Value) {
        self.events.push(json!({
            "ph": "X",
            "name": name,
            "cat": category,
            "ts": self.at(from),
            "dur": to.saturating_sub(from).max(0),
            "pid": pid,
            "tid": pid,
            "args": args,
        }));
    }

    fn counter(&mut self, pid: u32, name: &str, unit: &str, curve: &Curve) {
        for (at, value) in thinned(curve, self.window, COLUMNS) {
            let value = (value * 1000.0).round() / 1000.0;
            self.events.push(json!({
                "ph": "C",
                "name": name,
                "ts": self.at(at),
                "pid": pid,
                "args": { unit: value },
            }));
        }
    }

    fn at(&self, at_us: i64) -> i64 {
        at_us.saturating_sub(self.window.from_us)
    }
}

/// From when to when a process is known to have been there, all of its tests within.
fn span(lane: &Lane) -> Option<(i64, i64)> {
    let seen = lane.anon_bytes.iter().map(|&(at, _)| (at, at));
    let tested = lane.bars.iter().map(|bar| (bar.from_us, bar.to_us));
    seen.chain(tested)
        .reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample;
    use crate::storm::storm;

    fn events(record: &Record) -> Vec<Value> {
        let file: Value = serde_json::from_slice(&render(record)).expect("JSON");
        file["traceEvents"].as_array().expect("events").clone()
    }

    #[test]
    fn counters_slices_and_instants_are_all_there_at_times_from_zero() {
        let record = storm(6, 20);
        let events = events(&record);
        let of = |phase: &str, name: &str| {
            let alike = events
                .iter()
                .filter(|event| event["ph"] == phase && event["name"] == name);
            alike.collect::<Vec<_>>()
        };
        assert!(of("C", "target memory").len() > 50);
        assert!(of("C", "anonymous memory").len() > 100);
        assert_eq!(of("i", "SIGKILL").len(), 1);
        let tests = events.iter().filter(|event| event["cat"] == "test").count();
        assert_eq!(tests, 20);
        let processes = events
            .iter()
            .filter(|event| event["cat"] == "process")
            .count();
        assert_eq!(processes, 6);
        for event in events.iter().filter(|event| event["ph"] != "M") {
            assert!(event["ts"].as_i64().is_some_and(|ts| ts >= 0), "{event}");
        }
    }

    #[test]
    fn a_process_holds_its_tests_so_that_they_nest() {
        let events = events(&storm(6, 40));
        let span = |event: &Value| {
            let from = event["ts"].as_i64().expect("a time");
            (from, from + event["dur"].as_i64().expect("a time"))
        };
        for test in events.iter().filter(|event| event["cat"] == "test") {
            let of_it = |event: &&Value| event["cat"] == "process" && event["pid"] == test["pid"];
            let process = events.iter().find(of_it).expect("its process");
            let ((from, to), (begin, end)) = (span(test), span(process));
            assert!(begin <= from && to <= end, "{test} in {process}");
        }
    }

    #[test]
    fn a_record_without_looks_is_a_trace_too() {
        for record in [sample::quiet(), sample::killed(), sample::grave()] {
            let events = events(&record);
            assert!(events.iter().any(|event| event["ph"] == "M"));
        }
    }
}
