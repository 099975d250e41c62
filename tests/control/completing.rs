//! A shell that completes memwatch's command line, with the script that the package installs.

use std::{fs, process::Command};

use memwatch::cli::complete;

use super::daemon::{Daemon, NOBODY, OTHER, cgroup_of};

const MEMWATCH: &str = env!("CARGO_BIN_EXE_memwatch");

/// Of whoever asks.
const INCIDENT: &str = "01970000-0000-7000-8000-000000000001";

/// What bash offers `uid` after `line`, whose last word is being typed.
fn offered(uid: u32, line: &[&str]) -> Vec<String> {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path();
    let script = complete::script("bash").expect("bash is known");
    fs::write(dir.join("memwatch.bash"), script).expect("a file");
    fs::copy(MEMWATCH, dir.join("memwatch")).expect("a copy that anybody may run");
    let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(dir, open).expect("ours");
    let incidents = dir.join("state/memwatch/incidents");
    fs::create_dir_all(&incidents).expect("ours");
    let incident = incidents.join(format!("{INCIDENT}.json"));
    fs::write(incident, "{}").expect("a file");
    let ask = r#"
        source "$0/memwatch.bash"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9
        complete -p memwatch > /dev/null || exit 1
        _clap_complete_memwatch memwatch "${!#}" "${@:$#-1:1}" 2> /dev/null
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let uid = uid.to_string();
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            &uid,
            "--regid",
            &uid,
            "--clear-groups",
            "bash",
            "-c",
            ask,
        ])
        .arg(dir)
        .args(line)
        .env("PATH", format!("{}:/usr/bin:/bin", dir.display()))
        .env("MEMWATCH_STATE", dir.join("state/memwatch"))
        .output();
    let output = output.expect("setpriv and bash");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[test]
fn bash_offers_the_cgroups_that_a_user_owns() {
    let pair = cgroup_of(NOBODY);
    let dir = pair.v2.to_str().expect("text");
    let typed = &dir[..dir.len() - 1];
    let attach = ["memwatch", "attach", "--cgroup", typed];
    assert_eq!(offered(NOBODY, &attach), [dir]);
    assert_eq!(offered(0, &attach), [dir]);
    assert!(!offered(OTHER, &attach).contains(&dir.to_owned()));
}

#[test]
fn bash_offers_the_words_of_the_command_line() {
    assert_eq!(offered(NOBODY, &["memwatch", "sta"]), ["status"]);
    assert_eq!(
        offered(NOBODY, &["memwatch", "attach", "--on-pressure", "f"]),
        ["freeze"]
    );
}

#[test]
fn the_names_of_targets_come_from_the_daemon() {
    let mut daemon = Daemon::start();
    let socket = daemon.socket();
    assert_eq!(
        complete::targets_of(&socket).expect("it answers"),
        [r"/sys/fs/cgroup/app-a\x2db.scope"]
    );
    daemon.stop();
    assert!(complete::targets_of(&socket).is_err());
    for shell in ["bash", "zsh", "fish"] {
        let script = complete::script(shell).expect("it is known");
        let script = String::from_utf8(script).expect("text");
        assert!(script.contains("MEMWATCH_COMPLETE"), "{script}");
    }
}

#[test]
fn bash_offers_incidents_by_their_ids() {
    for uid in [NOBODY, 0] {
        let show = offered(uid, &["memwatch", "incidents", "show", "0197"]);
        assert!(show.contains(&INCIDENT.to_owned()), "{show:?}");
        let html = offered(uid, &["memwatch", "incidents", "html", "la"]);
        assert_eq!(html, ["last"]);
    }
}
