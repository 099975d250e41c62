//! What a diagnosis is made of. How one is reached is `diagnose`'s, how it looks is `render`'s.

use serde::Serialize;

/// One thing that was examined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Stable name for scripts.
    pub id: &'static str,
    /// Under which heading it stands.
    pub group: Group,
    /// What there is, in a few words.
    pub found: String,
    /// What is wrong with it; None when it is fine.
    pub trouble: Option<Trouble>,
}

/// The headings, in the order in which they are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Group {
    Kernel,
    Pressure,
    Cgroups,
    Rights,
    Memory,
    Peers,
}

/// How much is lost. The order is that of the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A comfort, or a second way to the same end.
    Optional,
    /// memwatch protects, but with less.
    Important,
    /// memwatch cannot protect here.
    Fatal,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How much is lost.
    pub severity: Severity,
    /// What is lost: completes "costs you …".
    pub costs: String,
    /// What can be done; None when nothing can, short of another machine.
    pub advice: Option<Advice>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// In words.
    pub text: String,
    /// Shell commands, in order; they can be pasted.
    pub commands: Vec<String>,
}

impl Check {
    pub(super) fn fine(id: &'static str, group: Group, found: impl Into<String>) -> Self {
        Self {
            id,
            group,
            found: found.into(),
            trouble: None,
        }
    }

    /// Turns a check into one that costs something.
    pub(super) fn costs(mut self, severity: Severity, costs: impl Into<String>) -> Self {
        self.trouble = Some(Trouble {
            severity,
            costs: costs.into(),
            advice: None,
        });
        self
    }

    /// Adds what to do about it.
    pub(super) fn advise<C: Into<String>>(
        mut self,
        text: impl Into<String>,
        commands: impl IntoIterator<Item = C>,
    ) -> Self {
        let commands = commands.into_iter().map(Into::into).collect();
        if let Some(trouble) = &mut self.trouble {
            trouble.advice = Some(Advice {
                text: text.into(),
                commands,
            });
        }
        self
    }

    /// How much is lost, if anything.
    pub fn severity(&self) -> Option<Severity> {
        self.trouble.as_ref().map(|trouble| trouble.severity)
    }
}

/// The doctor's exit code: 0 for nothing worse than optional, 1 for important, 2 for fatal.
pub fn exit_code(checks: &[Check]) -> u8 {
    match checks.iter().filter_map(Check::severity).max() {
        None | Some(Severity::Optional) => 0,
        Some(Severity::Important) => 1,
        Some(Severity::Fatal) => 2,
    }
}
