//! A command under memwatch, ready to be measured: started, its BPF programs attached, and ended with
//! all that belongs to it. What is attached is read by `programs`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::programs;

/// Loading takes some tens of milliseconds, ten times that on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Processor time of a process's living threads.
///
/// # Errors
/// If `/proc` cannot be read.
pub(super) fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_cpu = schedstat.split(' ').next().context("an empty schedstat")?;
        sum += on_cpu.parse::<u64>()?;
    }
    Ok(sum)
}

/// A process that answers a line with a line, and ends when nobody can ask it any more.
pub(crate) struct Talker {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Talker {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let (questions, answers) = child.stdin.take().zip(child.stdout.take()).expect("piped");
        Ok(Self {
            child,
            questions: Some(questions),
            answers: BufReader::new(answers),
        })
    }

    /// Starts `command` below memwatch and waits until the programs are attached.
    ///
    /// # Errors
    /// If memwatch ends, or attaches nothing.
    pub(crate) fn start_watched(
        memwatch: &Path,
        options: &[&str],
        command: &[&Path],
    ) -> Result<Self> {
        let talker = Self::start(
            Command::new(memwatch)
                .args(["attach", "--quiet"])
                .args(options)
                .arg("--")
                .args(command)
                // What it tells of its target is none of the figures.
                .stderr(Stdio::null()),
        )?;
        programs::wait_for_links(talker.pid(), PATIENCE)?;
        Ok(talker)
    }

    /// Of the process that was started: memwatch's own for a watched command.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Time on a CPU of all its threads. By the scheduler's count: that of `/proc/PID/stat` has a grain of
    /// 10 ms and misses what is over before the next tick.
    pub(crate) fn cpu_ns(&self) -> Result<u64> {
        cpu_ns(self.pid())
    }

    /// Gives it a line that it does not answer.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let questions = self.questions.as_mut().context("it was told to end")?;
        Ok(writeln!(questions, "{line}")?)
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(&mut self, question: &str) -> Result<String> {
        self.tell(question)?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(answer.ends_with('\n'), "no answer to `{question}`");
        Ok(answer.trim_end().to_owned())
    }

    /// Has it end, which it does when nobody can ask it any more.
    ///
    /// # Errors
    /// If it failed, or does not end.
    pub(crate) fn end(mut self) -> Result<()> {
        self.questions = None;
        let status = self.status_within(PATIENCE)?;
        let status = status.with_context(|| format!("process {} does not end", self.pid()))?;
        ensure!(status.success(), "a measured command failed ({status})");
        Ok(())
    }

    fn status_within(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let started = Instant::now();
        while started.elapsed() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            sleep(Duration::from_millis(2));
        }
        Ok(None)
    }
}

impl Drop for Talker {
    /// After a failure. memwatch takes its target with it when it is told to end.
    fn drop(&mut self) {
        self.questions = None;
        for signal in [libc::SIGTERM, libc::SIGKILL] {
            if let Ok(Some(_)) = self.status_within(Duration::from_secs(2)) {
                return;
            }
            // SAFETY: no pointers; a child that was not waited for keeps its pid.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
        let _ = self.child.wait();
    }
}
