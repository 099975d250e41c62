//! Asks systemd what systemd-oomd was given, on a thread of its own, which may hang: what is done with the
//! answers is [`super::policies`]'.

use crate::host::oomd::defaults::Defaults;
use crate::host::oomd::units::{Learned, Units};
use crossbeam_queue::ArrayQueue;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::Duration;

/// Between two questions to systemd, which answers each time some fifty of them: what a unit is managed by changes
/// seldom, and the cgroups below it are found without.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The same while there is no systemd-oomd to stand in for.
const ASK_SELDOM: Duration = Duration::from_secs(60);

/// What systemd said, or why it did not.
pub(super) type Answer = Result<(Learned, Defaults), String>;

/// The thread, and the latest answer.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) answers: Arc<ArrayQueue<Answer>>,
    /// `None` where there is no systemd.
    thread: Option<Thread>,
}

impl Asker {
    /// Begins to ask systemd, where it runs, until this is dropped.
    ///
    /// # Errors
    /// No thread could be started.
    pub(super) fn start() -> std::io::Result<Self> {
        let answers = Arc::new(ArrayQueue::new(1));
        let mut thread = None;
        if Path::new("/run/systemd/system").is_dir() {
            let answers = Arc::downgrade(&answers);
            let started = std::thread::Builder::new()
                .name("memwatch-oomd".into())
                .stack_size(512 << 10)
                .spawn(move || keep_asking(&answers))?;
            thread = Some(started.thread().clone());
        }
        Ok(Self { answers, thread })
    }

    /// Does not wait until it is time again.
    pub(super) fn ask_now(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }

    /// What was heard since the last time.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.answers.pop()
    }
}

/// Asks again and again, until nobody wants to know.
fn keep_asking(answers: &Weak<ArrayQueue<Answer>>) {
    let mut units = None;
    while answers.strong_count() > 0 {
        let answer = ask(&mut units);
        let seldom = answer.as_ref().is_ok_and(|(learned, _)| !learned.is_wanted);
        if let Some(answers) = answers.upgrade() {
            drop(answers.force_push(answer));
        }
        std::thread::park_timeout(if seldom { ASK_SELDOM } else { ASK_EVERY });
    }
}

/// A connection that has failed is not used again.
fn ask(connected: &mut Option<Units>) -> Answer {
    let reason = |error: &dyn std::error::Error| error.to_string();
    let defaults = Defaults::read(Path::new("/")).map_err(|e| reason(&e))?;
    let mut units = match connected.take() {
        Some(units) => units,
        None => Units::connect().map_err(|e| reason(&e))?,
    };
    let learned = units.learn(&defaults).map_err(|e| reason(&e))?;
    *connected = Some(units);
    Ok((learned, defaults))
}
