//! One file that is wrong: the words and the place of the error, and that none is waited for.

use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::Mode;
use proptest::prelude::*;

use super::*;

#[test]
fn numbers_mean_what_they_mean_at_the_command_line() {
    let home = Home::new().system("[attach]\nmemory_max = 1_048_576\ntimeout = 1.5");
    let attach = home.load(silent()).expect("right").attach;
    assert_eq!(attach.memory_max, Limit::Bytes(1 << 20));
    assert_eq!(attach.timeout, Some(Duration::from_millis(1500)));
}

#[test]
fn a_wrong_line_is_named_with_a_right_one() {
    for (text, message) in [
        (
            "[attach]\n\nmemroy_max = '2G'",
            "system.toml:3:1: there is no key \"memroy_max\" in [attach]; did you mean `memory_max`?",
        ),
        (
            "[attach]\ncolour = 1",
            "system.toml:2:1: there is no key \"colour\" in [attach]; there are memory_max, \
             memory_high, timeout, test_memory, test_timeout, pytest, on_pressure, safe, dry_run, \
             daemon, live, report",
        ),
        (
            "[polciy]",
            "system.toml:1:2: there is no table \"polciy\"; did you mean `policy`?",
        ),
        (
            "memory_max = '2G'",
            "system.toml:1:1: there is no key \"memory_max\" outside of a table; \
             put it below a line that says [attach]",
        ),
        (
            "attach = 3",
            "system.toml:1:10: attach cannot be an integer; \
             write [attach] on a line of its own and its keys below it",
        ),
        (
            "[attach]\nmemory_max = '2 gigs'",
            "system.toml:2:14: memory_max: \"2 gigs\" is not a size; \
             write for example 2G, 1.5GiB or 512M",
        ),
        (
            "[attach]\nmemory_max = ['2G']",
            "system.toml:2:14: memory_max cannot be an array; \
             write for example memory_max = \"2G\"",
        ),
        (
            "[attach]\nmemory_max = 0x10000000",
            "system.toml:2:14: memory_max cannot be a hexadecimal, octal or binary number; \
             write for example memory_max = \"2G\"",
        ),
        (
            "[attach]\ntimeout = nan",
            "system.toml:2:11: timeout: \"nan\" is not a duration; \
             write for example 300s, 5m, 1h30m or 250ms",
        ),
        (
            "[attach]\nsafe = 'yes'",
            "system.toml:2:8: safe cannot be a string; write for example safe = true",
        ),
        (
            "[attach]\non_pressure = 'explode'",
            "system.toml:2:15: on_pressure: \"explode\" is not one of kill, freeze, warn",
        ),
        (
            "[attach]\nreport = ''",
            "system.toml:2:10: report: an empty path names no file; leave the key out to write none",
        ),
        (
            "[[watch]]\nunits = ['docker']",
            "system.toml:2:9: units: \"docker\" has no type of unit at its end; \
             write for example \"docker.service\" or \"user@*.service\"",
        ),
        (
            "[[watch]]\nunits = 'docker.service'",
            "system.toml:2:9: units cannot be a string; \
             write for example units = [\"docker.service\", \"user@*.service\"]",
        ),
        (
            "[[watch]]\non_pressure = 'warn'",
            "system.toml:1:1: this [[watch]] names nothing; \
             give it units = [\"docker.service\"] or cgroups = [\"/ci/*\"]",
        ),
        (
            "[watch]\nunits = []",
            "system.toml:1:1: watch cannot be a table; \
             write [[watch]] on a line of its own and its keys below it",
        ),
        (
            "[[watch]]\nunit = ['docker.service']",
            "system.toml:2:1: there is no key \"unit\" in [[watch]]; did you mean `units`?",
        ),
        (
            "takeover = true",
            "system.toml:1:1: there is no key \"takeover\" outside of a table; \
             put it below a line that says [oomd]",
        ),
        (
            "[users]\ntargets_per_user = 0",
            "system.toml:2:20: targets_per_user: \"0\" is not a whole number from 1 to 1000000",
        ),
        (
            "[policy]\nstall_full_permille = 1_001",
            "system.toml:2:23: stall_full_permille: \"1001\" is not a whole number from 1 to 1000",
        ),
    ] {
        assert_eq!(line_error(text), message, "{text}");
    }
}

#[test]
fn the_topmost_error_is_the_one_reported_and_columns_count_characters() {
    let message = line_error("[policy]\nzzz = 1\n[attach]\naaa = 1");
    assert!(message.starts_with("system.toml:2:1:"), "{message}");
    let message = line_error("[policy]\n'ü' = 1; nonsense");
    assert!(message.starts_with("system.toml:2:7: "), "{message}");
    let message = line_error("attach = { 'timeout' = 'ü', 'ä' = 1 }");
    assert!(message.starts_with("system.toml:1:24:"), "{message}");
}

#[test]
fn hostile_text_does_not_reach_the_terminal() {
    for text in [
        "[attach]\n\"a\\u001b[31m\\n\" = 1",
        "[attach]\nmemory_max = \"\\u001b[31m\"",
        "[attach]\non_pressure = \"\\u001b]0;x\\u0007\"",
        "[\"\\u001b[2J\"]",
    ] {
        let message = line_error(text);
        assert!(!message.contains(char::is_control), "{message:?}");
    }
    let long = line_error(&format!("[attach]\n{} = 1", "k".repeat(100_000)));
    assert!(long.len() < 400, "{long}");
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let home = Home::new();
    let path = home.0.path().join("system.toml");
    fs::write(&path, b"# caf\xe9\n").expect("written");
    assert_eq!(
        home.refusal(silent()),
        "system.toml is not UTF-8: the byte at offset 5 is wrong; save the file as UTF-8"
    );
    fs::write(&path, vec![b'#'; 1 << 20]).expect("written");
    home.load(silent()).expect("a comment of the largest size");
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("written");
    assert!(matches!(
        home.load(silent()),
        Err(ConfigError::TooLarge { .. })
    ));
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let home = Home::new();
    let fifo = home.0.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRUSR).expect("a fifo");
    for (path, kind) in [
        (fifo.as_path(), "a fifo"),
        (Path::new("/dev/zero"), "a device"),
        (home.0.path(), "a directory"),
    ] {
        let flags = Flags {
            config: Some(path.to_owned()),
            ..Flags::default()
        };
        let error = Config::load(&flags, &home.environment())
            .unwrap_err()
            .to_string();
        let said = format!(
            "{} (named by --config) is {kind}, not a regular file",
            path.display()
        );
        assert!(error.starts_with(&said), "{error}");
    }
    let socket = home.0.path().join("socket");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let flags = Flags {
        config: Some(socket),
        ..Flags::default()
    };
    assert!(matches!(
        Config::load(&flags, &home.environment()),
        Err(ConfigError::Read { source, .. }) if source.raw_os_error() == Some(libc::ENXIO)
    ));
}

#[test]
fn a_file_that_was_named_must_exist_and_is_the_only_one() {
    let home = Home::new().system("[attach]\nmemory_max = '8G'");
    let mut environment = home.environment();
    environment.memwatch_config = Some(home.0.path().join("absent").into());
    let error = Config::load(&Flags::default(), &environment).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("absent (named by MEMWATCH_CONFIG)"),
        "{error}"
    );

    let own = home.0.path().join("own.toml");
    fs::write(&own, "[attach]\ntimeout = '1m'").expect("written");
    let flags = Flags {
        config: Some(own),
        ..Flags::default()
    };
    let attach = Config::load(&flags, &environment).expect("right").attach;
    assert_eq!(attach.timeout, Some(Duration::from_secs(60)));
    assert_eq!(
        attach.memory_max,
        Limit::Auto,
        "the machine's file was not asked for"
    );
}

#[test]
fn nesting_without_end_is_refused_and_does_not_end_the_stack() {
    const DEEP: usize = 100_000;
    for text in [
        format!("a{} = 1", ".a".repeat(DEEP)),
        format!("[a{}]", ".a".repeat(DEEP)),
        format!("[attach]\nmemory_max = {}", "[".repeat(DEEP)),
        format!("[attach]\nmemory_max{} = 1", ".a".repeat(DEEP)),
        format!("attach = {}", "{ a = ".repeat(DEEP)),
    ] {
        let message = line_error(&text);
        assert!(
            message.starts_with("system.toml:") && message.len() < 200,
            "{message}"
        );
    }
}

/// Whatever comes of it.
fn parse(text: &str) {
    let found = search::Found {
        path: "x".into(),
        what: search::What::File,
        named_by: NamedBy::Machine,
    };
    let _ = keys::parse(&found, text, &mut Daemon::default());
}

proptest! {
    #[test]
    fn no_file_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(text) = String::from_utf8(bytes) {
            parse(&text);
        }
    }

    #[test]
    fn no_near_miss_panics(
        text in "(\\[\\[?(attach|policy|watch|users|x)\\]\\]?\n|(memory_max|timeout|safe|stall_window|units|é) ?= ?['\"\\[{]{0,2}[0-9a-zé.]{0,5}['\"\\]}]?\n){0,6}"
    ) {
        parse(&text);
    }
}
