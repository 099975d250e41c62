//! The real journald, in a namespace of the test's own (systemd-journald(8)), and journalctl, which reads back what
//! it wrote. It is started by the test and not by systemd, which need not run here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::SystemTime,
};

use memwatch::{
    export::journal::{Journal, message_id},
    host::{
        clock,
        journal::{Ending, ending},
    },
    incident::{
        BlamedTest, Comm, Culprit, Intervention, KilledBy, Kind, Process, Quantity, Record, Rule,
        Signal, TestPhase, Unit, Verdict, Victim,
    },
};
use serde_json::{Value, json};

use super::lab::{python, wait_until};
use super::receiver::{Running, succeed};
use super::users::block_on;

pub(crate) struct Journald {
    namespace: String,
    /// What is removed at the end.
    left: Vec<PathBuf>,
    running: Option<Running>,
}

impl Journald {
    pub(crate) fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("memwatch-test-{}-{number}", std::process::id());
        let config = PathBuf::from(format!("/run/systemd/journald@{namespace}.conf.d"));
        fs::create_dir_all(&config).expect("root");
        fs::write(config.join("test.conf"), "[Journal]\nStorage=volatile\n").expect("room");
        let machine = fs::read_to_string("/etc/machine-id").expect("a machine");
        let journal = format!("/run/log/journal/{}.{namespace}", machine.trim());
        let mut journald = Self {
            left: vec![
                config,
                PathBuf::from(format!("/run/systemd/journal.{namespace}")),
                PathBuf::from(journal),
            ],
            namespace,
            running: None,
        };
        let mut command = Command::new("/lib/systemd/systemd-journald");
        journald.running = Some(Running::start(command.arg(&journald.namespace)));
        // It listens before it has a file to write to.
        wait_until("journald", || {
            let written = journald.files().map(|files| files.join("system.journal"));
            journald.socket().exists() && written.is_some_and(|file| file.exists())
        });
        journald
    }

    pub(crate) fn socket(&self) -> PathBuf {
        Path::new("/run/systemd").join(format!("journal.{}/socket", self.namespace))
    }

    fn deliver(&self, record: &Record) {
        let delivered = block_on(Journal::at(&self.socket()).deliver(record));
        let note = delivered.expect("taken").note.expect("a note");
        assert!(note.contains(&message_id(record.kind).simple().to_string()));
    }

    fn journalctl(&self) -> Command {
        let mut command = Command::new("journalctl");
        command.arg(format!("--namespace={}", self.namespace));
        command.args(["--no-pager", "--all"]);
        command
    }

    /// The entries that have this field.
    pub(crate) fn entries(&self, field: &str) -> Vec<Value> {
        let mut command = self.journalctl();
        let said = succeed(command.args(["--output=json", field]));
        let entry = |line| serde_json::from_str(line).expect("JSON");
        said.lines().map(entry).collect()
    }

    /// Where its files are, once it has made it.
    fn files(&self) -> Option<PathBuf> {
        let journals = fs::read_dir("/run/log/journal").ok()?;
        let mut journals = journals.flatten().map(|entry| entry.path());
        journals.find(|path| path.extension().is_some_and(|it| *it == *self.namespace))
    }

    /// What a process of that number says, as the kernel attests for it: root may name another.
    fn say_as(&self, pid: u32, fields: &[&str]) {
        let script = "import socket, struct, sys\n\
            said = '\\n'.join(sys.argv[3:]) + '\\n'\n\
            who = struct.pack('3i', int(sys.argv[2]), 0, 0)\n\
            out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
            out.connect(sys.argv[1])\n\
            out.sendmsg([said.encode()], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, who)])\n";
        let mut python = Command::new(python());
        python.args(["-c", script]).arg(self.socket());
        succeed(python.arg(pid.to_string()).args(fields));
    }

    /// The one entry of that record.
    fn entry(&self, record: &Record) -> Value {
        let field = format!("MEMWATCH_INCIDENT_ID={}", record.id);
        wait_until("the entry", || !self.entries(&field).is_empty());
        let mut entries = self.entries(&field);
        assert_eq!(entries.len(), 1);
        entries.remove(0)
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        self.running = None;
        for left in &self.left {
            let _ = fs::remove_dir_all(left);
        }
    }
}

fn process(pid: u32, comm: &[u8]) -> Process {
    Process {
        pid,
        comm: Comm::new(comm),
        ..Process::default()
    }
}

/// A test that filled memory: its worker was ended by memwatch, another by the kernel.
fn kill() -> Record {
    let now = SystemTime::now();
    let mut record = Record::new(now, now, 134_000_000, Verdict::FinishedWithKills);
    record.kind = Kind::Kill;
    record.host.boot_id = Some("0c5e1a1e-7d35-4d0e-9a43-6a8f3f0b5a11".into());
    record.target.cgroup_path = Some("/sys/fs/cgroup/memwatch-0123abcd".into());
    record.target.cgroup_id = Some(7431);
    record.target.memory_max_bytes = Some(2 << 30);
    record.exit_code = Some(1);
    record.peak_bytes = Some(2000 << 20);
    let quantity = |text: &str| Quantity {
        value: 35_000,
        unit: Unit::Us,
        text: text.into(),
    };
    let observed = quantity("limit full in 35ms");
    let threshold = quantity("50ms or less");
    record.interventions.push(Intervention {
        memory_before_bytes: Some(2000 << 20),
        memory_after_bytes: Some(566 << 20),
        test: Some(BlamedTest {
            id: "tests/test_index.py::test_search[größe]".into(),
            worker: None,
            phase: TestPhase::Call,
            elapsed_us: None,
            growth_bytes: None,
            culprit: Some(Culprit {
                id: "tests/test_index.py::test_build".into(),
                growth_bytes: 1 << 30,
                sure_permille: 900,
            }),
        }),
        ..Intervention::new(12_345_000, Rule::Exhaustion, observed, threshold)
    });
    let victim = |process, killed_by| Victim {
        process,
        signal: Signal::KILL,
        reason: "exhaustion: limit full in 35ms".into(),
        killed_by,
        at_us: None,
    };
    let hostile = process(4300, b"x\nPRIORITY=0\xff");
    record
        .victims
        .push(victim(process(4250, b"python3"), KilledBy::Memwatch));
    record.victims.push(victim(hostile, KilledBy::KernelOom));
    record.notes.push("a\nMEMWATCH_KIND=run".into());
    record
}

#[test]
fn journalctl_reads_every_field_as_it_was_told() {
    let journald = Journald::start();
    let record = kill();
    journald.deliver(&record);
    let entry = journald.entry(&record);
    let json = serde_json::to_value(&record).expect("JSON");
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let expected = json!({
        "MESSAGE": "python3 (pid 4250) (and 1 more) was ended by memwatch: exhaustion: limit full in 35ms",
        "MESSAGE_ID": "cbcb7063bbe7480cbf823d1111733dbb",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "memwatch",
        "MEMWATCH_INCIDENT_ID": record.id.to_string(),
        "MEMWATCH_KIND": "kill",
        "MEMWATCH_VERDICT": "finished_with_kills",
        "MEMWATCH_STARTED_AT": text(&json["started_at"]),
        "MEMWATCH_ENDED_AT": text(&json["ended_at"]),
        "MEMWATCH_DURATION_USEC": "134000000",
        "MEMWATCH_DRY_RUN": "0",
        "MEMWATCH_VERSION": env!("CARGO_PKG_VERSION"),
        "MEMWATCH_BOOT_ID": "0c5e1a1e-7d35-4d0e-9a43-6a8f3f0b5a11",
        "MEMWATCH_EXIT_CODE": "1",
        "MEMWATCH_TARGET": "/sys/fs/cgroup/memwatch-0123abcd",
        "MEMWATCH_TARGET_ID": "7431",
        "MEMWATCH_LIMIT_BYTES": "2147483648",
        "MEMWATCH_PEAK_BYTES": "2097152000",
        "MEMWATCH_RULE": "exhaustion",
        "MEMWATCH_OBSERVED": "limit full in 35ms",
        "MEMWATCH_THRESHOLD": "50ms or less",
        "MEMWATCH_TEST": "tests/test_index.py::test_search[größe]",
        "MEMWATCH_CULPRIT": "tests/test_index.py::test_build",
        "MEMWATCH_MEMORY_BEFORE_BYTES": "2097152000",
        "MEMWATCH_MEMORY_AFTER_BYTES": "593494016",
        "MEMWATCH_VICTIM_PID": ["4250", "4300"],
        "MEMWATCH_VICTIM_COMM": ["python3", r"x\nPRIORITY=0\xff"],
        "MEMWATCH_KILLED_BY": ["memwatch", "kernel_oom"],
        "MEMWATCH_NOTE": r"a\nMEMWATCH_KIND=run",
    });
    let expected = expected.as_object().expect("an object");
    for (name, value) in expected {
        let mut told = entry[name].clone();
        if let Some(list) = told.as_array_mut() {
            list.sort_by_key(text); // the journal keeps no order within a name
        }
        let mut value = value.clone();
        if let Some(list) = value.as_array_mut() {
            list.sort_by_key(text);
        }
        assert_eq!(told, value, "{name}");
    }
    let summary = entry["MEMWATCH_SUMMARY"].as_str().expect("text");
    assert!(summary.lines().count() > 3, "{summary}");
    let whole = entry["MEMWATCH_RECORD"].as_str().expect("text");
    let whole = Record::from_json(whole.as_bytes()).expect("whole");
    assert_eq!(whole, record);
    let also = ["MEMWATCH_SUMMARY", "MEMWATCH_RECORD"];
    for name in entry.as_object().expect("an object").keys() {
        let known = expected.contains_key(name) || also.contains(&&name[..]);
        assert!(known || !name.starts_with("MEMWATCH"), "{name}");
    }

    // Any of several is enough to find it.
    for field in ["MEMWATCH_VICTIM_COMM=python3", "MEMWATCH_VICTIM_PID=4300"] {
        assert_eq!(journald.entries(field).len(), 1, "{field}");
    }
    assert!(journald.entries("MEMWATCH_KIND=run").is_empty());
}

#[test]
fn what_is_too_large_for_a_datagram_arrives_whole() {
    let journald = Journald::start();
    let mut record = kill();
    let stack = |n| format!("  File \"/src/{n}.py\", line {n}, in f{n}").into();
    record.interventions[0].python_stack = (0..10_000).map(stack).collect();
    let json = serde_json::to_string(&record).expect("JSON");
    assert!(json.len() > 400_000, "{}", json.len());
    journald.deliver(&record);
    let entry = journald.entry(&record);
    let told = entry["MEMWATCH_RECORD"].as_str().expect("text");
    assert!(told == json, "{} of {} bytes", told.len(), json.len());
}

#[test]
fn a_record_that_is_too_large_for_a_journal_is_told_without_it() {
    let journald = Journald::start();
    let mut record = kill();
    record.interventions[0].python_stack = vec!["x".repeat(4096).into(); 1000];
    let json = serde_json::to_string(&record).expect("JSON");
    journald.deliver(&record);
    let entry = journald.entry(&record);
    assert_eq!(entry["MEMWATCH_RECORD"], Value::Null);
    assert_eq!(entry["MEMWATCH_RECORD_BYTES"], json.len().to_string());
    assert_eq!(entry["MEMWATCH_KIND"], "kill");
}

#[test]
fn journalctl_explains_what_it_finds() {
    let journald = Journald::start();
    let record = kill();
    journald.deliver(&record);
    journald.entry(&record);
    // The machine's own catalog stays as it is: this one lies over it in a view of journalctl's own.
    let root = tempfile::tempdir().expect("a directory");
    for dir in ["usr/lib/systemd/catalog", "var/lib/systemd/catalog"] {
        fs::create_dir_all(root.path().join(dir)).expect("room");
    }
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/memwatch.catalog");
    let place = root.path().join("usr/lib/systemd/catalog/memwatch.catalog");
    fs::copy(ours, place).expect("copied");
    let mut update = Command::new("journalctl");
    update.arg("--update-catalog");
    let said = succeed(update.arg(format!("--root={}", root.path().display())));
    assert_eq!(said, "");
    let script = format!(
        "mkdir -p /var/lib/systemd/catalog && mount --bind {}/var/lib/systemd/catalog /var/lib/systemd/catalog && \
         exec journalctl --namespace={} --no-pager --catalog MESSAGE_ID=cbcb7063bbe7480cbf823d1111733dbb",
        root.path().display(),
        journald.namespace
    );
    let mut explain = Command::new("unshare");
    let said = succeed(explain.args(["--mount", "sh", "-c", &script]));
    for line in [
        "Subject: memwatch has ended a process for memory",
        "It was the one that was taking the memory of /sys/fs/cgroup/memwatch-0123abcd.",
        &format!("memwatch incidents show {}", record.id),
    ] {
        assert!(said.contains(line), "{line} in\n{said}");
    }
}

#[test]
fn a_shutdown_is_told_from_an_end_without_one_by_what_systemd_said() {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
    let boot = boot.trim().parse().expect("an id");
    let journald = Journald::start();
    let files = journald.files().expect("it runs");
    let ended = |after_us: u64| ending(boot, after_us, Some(&files));
    let now_us = || clock::now().as_micros() as u64;
    // journald itself has spoken, and whoever may not read what systemd says sees no more than that.
    assert_eq!(ended(0).expect("read"), Ending::Unknown);
    let begin = now_us();
    let started = ["MESSAGE_ID=39f53479d3a045ac8e11786248231fbf", "PRIORITY=6"];
    let reached = |unit: &str, what: &str| {
        let fields = [
            format!("UNIT={unit}"),
            format!("MESSAGE=Reached target {unit} - {what}."),
        ];
        [&started[..], &fields.each_ref().map(String::as_str)]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let say = |pid: u32, fields: &[String]| {
        // journald itself speaks, too, whenever it likes: what was said is known by a mark.
        let mark = format!("MEMWATCH_SAID_AT={}", now_us());
        let mut fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        fields.push(&mark);
        journald.say_as(pid, &fields);
        wait_until("the entry", || !journald.entries(&mark).is_empty());
    };
    say(1, &reached("graphical.target", "Graphical Interface"));
    assert_eq!(ended(begin).expect("read"), Ending::Abrupt);
    // Of another process the same words are none of systemd's.
    say(
        std::process::id(),
        &reached("shutdown.target", "System Shutdown"),
    );
    assert_eq!(ended(begin).expect("read"), Ending::Abrupt);

    say(1, &reached("shutdown.target", "System Shutdown"));
    assert_eq!(ended(begin).expect("read"), Ending::InOrder);
    let after = now_us();
    assert_eq!(
        ended(after).expect("read"),
        Ending::Abrupt,
        "not the end of what came later"
    );
    let logind = [
        "MESSAGE_ID=98268866d1d54a499c4e98921d93bc40",
        "PRIORITY=6",
        "MESSAGE=System is rebooting.",
    ];
    say(std::process::id(), &logind.map(str::to_owned));
    assert_eq!(ended(after).expect("read"), Ending::InOrder);
    let other = uuid::Uuid::from_u128(7);
    let of_other = ending(other, 0, Some(&files));
    assert_eq!(of_other.expect("read"), Ending::Unknown);
}
