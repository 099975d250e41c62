//! What the shell offers to complete: the command line's own words, and the names of targets. A shell asks by
//! running memwatch with [`ASKED_BY`] set, as the script that the package installs makes it do.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::{Bash, EnvCompleter, Fish, Shells, Zsh};

use super::Cli;
use crate::control::{self, Client, ClientError};
use crate::host::cgroup;
use crate::host::layout::Layout;

/// The environment variable that holds the shell's name.
pub const ASKED_BY: &str = "MEMWATCH_COMPLETE";

/// Whoever types does not wait longer.
const PATIENCE: Duration = Duration::from_millis(500);

const SHELLS: Shells<'static> = Shells(&[&Bash, &Zsh, &Fish]);

/// zsh loads the installed script when it completes for the first time, and wants an answer of it then.
const ZSH_FIRST_TIME: &str = "\
if [[ ${funcstack[1]-} == _memwatch ]]; then _clap_dynamic_completer_memwatch; fi
";

/// Answers a shell that asks, and ends; does nothing if none does.
pub fn answer_a_shell() {
    CompleteEnv::with_factory(Cli::command)
        .var(ASKED_BY)
        .shells(SHELLS)
        .complete();
}

/// The script that makes `shell` ask `memwatch`.
///
/// # Errors
/// There is none for that shell.
pub fn script(shell: &str) -> io::Result<Vec<u8>> {
    let mut script = Vec::new();
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "no such shell");
    let completer: &dyn EnvCompleter = SHELLS.completer(shell).ok_or_else(unknown)?;
    completer.write_registration(ASKED_BY, "memwatch", "memwatch", "memwatch", &mut script)?;
    if completer.is("zsh") {
        script.extend(ZSH_FIRST_TIME.as_bytes());
    }
    Ok(script)
}

/// The cgroups that begin with `typed` and that this user may attach: one's own, of root's all.
pub(super) fn cgroups(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Ok(layout) = Layout::read(Path::new("/")) else {
        return Vec::new();
    };
    // SAFETY: reads one number of this process.
    let user = unsafe { libc::geteuid() };
    let is_ours =
        |dir: &Path| user == 0 || dir.metadata().is_ok_and(|metadata| metadata.uid() == user);
    let mut dirs = cgroup::descendants(layout.v2_mount());
    dirs.retain(|dir| dir.as_os_str().as_bytes().starts_with(typed.as_bytes()) && is_ours(dir));
    dirs.sort();
    dirs.into_iter().map(CompletionCandidate::new).collect()
}

/// What the daemon guards; nothing if it does not say.
pub(super) fn targets() -> Vec<CompletionCandidate> {
    let targets = targets_of(Path::new(control::SOCKET)).unwrap_or_default();
    targets.into_iter().map(CompletionCandidate::new).collect()
}

/// The ids of this user's incidents, the newest first; nothing if they cannot be listed in time.
pub(super) fn incidents() -> Vec<CompletionCandidate> {
    let (tell, told) = std::sync::mpsc::channel();
    // A daemon that does not answer is waited for longer than anybody types.
    std::thread::spawn(move || tell.send(super::incidents::ids()));
    let ids = told.recv_timeout(PATIENCE).unwrap_or_default();
    ids.into_iter().map(CompletionCandidate::new).collect()
}

/// The cgroups that the daemon at `socket` guards.
///
/// # Errors
/// It cannot be asked.
pub fn targets_of(socket: &Path) -> Result<Vec<String>, ClientError> {
    let ask = async {
        let status = Client::connect(socket).await?.status().await?;
        let names = status.targets.into_iter();
        // `status` takes the name of the directory itself, in which a backslash is one.
        Ok(names
            .map(|target| target.cgroup.as_str().replace(r"\\", r"\"))
            .collect())
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return Ok(Vec::new());
    };
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, ask).await })
        .unwrap_or(Ok(Vec::new()))
}
