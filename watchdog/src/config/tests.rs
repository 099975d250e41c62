//! Files, environment and flags together: what wins, what is refused, in which words and where.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::Mode;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const EXAMPLE: &str = include_str!("../../../docs/memwatch.toml");
const MANUAL: &str = include_str!("../../../docs/CONFIG.md");

/// A machine's and a user's file in a directory of their own.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    fn system(self, text: &str) -> Self {
        fs::write(self.0.path().join("system.toml"), text).expect("written");
        self
    }

    fn user(self, text: &str) -> Self {
        let directory = self.0.path().join(".config/memwatch");
        fs::create_dir_all(&directory).expect("made");
        fs::write(directory.join("memwatch.toml"), text).expect("written");
        self
    }

    fn environment(&self) -> Environment {
        Environment {
            memwatch_config: None,
            xdg_config_home: None,
            home: Some(self.0.path().into()),
            system_file: self.0.path().join("system.toml"),
        }
    }

    fn load(&self, layer: Layer) -> Result<Config, ConfigError> {
        let flags = Flags {
            layer,
            ..Flags::default()
        };
        Config::load(&flags, &self.environment())
    }

    /// The error without the temporary directory's name.
    fn refusal(&self, layer: Layer) -> String {
        let error = self.load(layer).expect_err("a wrong configuration");
        error
            .to_string()
            .replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn silent() -> Layer {
    Layer::default()
}

fn safe() -> Layer {
    Layer {
        safe: Some(true),
        ..Layer::default()
    }
}

/// What one file alone is refused with.
fn line_error(text: &str) -> String {
    Home::new().system(text).refusal(silent())
}

#[test]
fn no_file_and_an_empty_file_are_the_defaults() {
    let config = Home::new().load(silent()).expect("defaults");
    assert_eq!(config.policy, Settings::default());
    assert_eq!(
        config.attach,
        Attach {
            memory_max: Limit::Auto,
            memory_high: None,
            timeout: None,
            on_pressure: OnPressure::Kill,
            dry_run: false,
            safe: false,
            report: None,
            live: Live::Auto,
            verbosity: Verbosity::Normal,
        }
    );
    for empty in ["", "\n# nothing\n", "\u{feff}", "[attach]\n[policy]\n"] {
        assert_eq!(
            Home::new().system(empty).load(silent()).expect("defaults"),
            config
        );
    }
}

#[test]
fn the_user_wins_over_the_machine_and_flags_over_both() {
    let home = Home::new()
        .system("[attach]\nmemory_max = '8G'\ntimeout = '1h'\nreport = 'a'\n[policy]\nstall_window = '5s'\nstall_full_permille = 300")
        .user("[attach]\nmemory_max = '6G'\ntimeout = 'none'\n[policy]\nstall_window = '4s'");
    let flags = Layer {
        memory_max: Some(Limit::None),
        ..silent()
    };
    let config = home.load(flags).expect("right");
    assert_eq!(config.attach.memory_max, Limit::None);
    assert_eq!(config.attach.timeout, None);
    assert_eq!(config.attach.report, Some("a".into()));
    assert_eq!(config.policy.stall_window, Duration::from_secs(4));
    assert_eq!(config.policy.stall_full_permille, 300);
    assert_eq!(
        home.load(silent()).expect("right").attach.memory_max,
        Limit::Bytes(6 << 30)
    );
}

#[test]
fn numbers_mean_what_they_mean_at_the_command_line() {
    let home = Home::new().system("[attach]\nmemory_max = 1_048_576\ntimeout = 1.5");
    let attach = home.load(silent()).expect("right").attach;
    assert_eq!(attach.memory_max, Limit::Bytes(1 << 20));
    assert_eq!(attach.timeout, Some(Duration::from_millis(1500)));
}

#[test]
fn quiet_draws_no_live_line() {
    let flags = Flags {
        verbosity: Verbosity::Quiet,
        ..Flags::default()
    };
    let config = Config::load(&flags, &Home::new().environment()).expect("right");
    assert_eq!(config.attach.live, Live::Never);
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
             memory_high, timeout, on_pressure, safe, dry_run, live, report",
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
    let deep = format!("[attach]\nmemory_max = {}", "[".repeat(100_000));
    assert!(line_error(&deep).len() < 400);
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
fn safe_mode_caps_what_is_silent_or_weaker_and_keeps_what_is_tighter() {
    let capped = Home::new().load(safe()).expect("right").attach;
    assert!(capped.safe);
    assert_eq!(capped.memory_max, Limit::Bytes(SAFE_MEMORY_MAX));
    assert_eq!(capped.timeout, Some(SAFE_TIMEOUT));

    let loose = "[attach]\nmemory_max = '8G'\nmemory_high = '6G'\ntimeout = 'none'";
    let weaker = Home::new()
        .system(loose)
        .load(safe())
        .expect("right")
        .attach;
    assert_eq!(weaker, capped);

    let tight = "[attach]\nmemory_max = '1G'\nmemory_high = '900M'\ntimeout = '1m'";
    let kept = Home::new()
        .system(tight)
        .load(safe())
        .expect("right")
        .attach;
    assert_eq!(kept.memory_max, Limit::Bytes(1 << 30));
    assert_eq!(kept.memory_high, Some(900 << 20));
    assert_eq!(kept.timeout, Some(Duration::from_secs(60)));

    let auto = Layer {
        memory_max: Some(Limit::Auto),
        ..safe()
    };
    assert_eq!(Home::new().load(auto).expect("right").attach, capped);

    let off = Layer {
        safe: Some(false),
        ..silent()
    };
    let file = Home::new().system("[attach]\nsafe = true");
    assert_eq!(
        file.load(off).expect("right").attach,
        Home::new().load(silent()).unwrap().attach
    );
}

#[test]
fn safe_mode_and_a_looser_equal_or_stronger_value_contradict() {
    let flags = Layer {
        memory_max: Some(Limit::Bytes(4 << 30)),
        ..safe()
    };
    assert_eq!(
        Home::new().refusal(flags),
        "--memory-max 4G allows more than safe mode does (2G); drop --memory-max or drop --safe"
    );
    let flags = Layer {
        memory_max: Some(Limit::None),
        ..safe()
    };
    assert!(
        Home::new()
            .refusal(flags)
            .starts_with("--memory-max none allows more")
    );
    let flags = Layer {
        timeout: Some(OrNone(None)),
        ..safe()
    };
    assert!(
        Home::new()
            .refusal(flags)
            .starts_with("--timeout none allows more")
    );
    let stronger = Layer {
        timeout: Some(OrNone(Span::new(Duration::from_secs(600)))),
        ..silent()
    };
    assert_eq!(
        Home::new()
            .system("[attach]\nsafe = true")
            .refusal(stronger),
        "--timeout 10m allows more than safe mode does (5m); \
         drop --timeout or drop `safe` in system.toml"
    );
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    assert_eq!(
        line_error("[attach]\nmemory_max = '2G'\nmemory_high = '2G'"),
        "`memory_high = 2G` in system.toml is not below the memory limit of 2G, \
         so it would never brake; give a smaller one, or none"
    );
    let tiny = Layer {
        memory_max: Some(Limit::Bytes(2)),
        ..silent()
    };
    assert_eq!(
        Home::new().refusal(tiny),
        "--memory-max 2 is too small for a program to start in (at least 1048576); \
         was a unit forgotten? Write for example 2G or 512M"
    );
    let lifted = Layer {
        memory_high: Some(OrNone(None)),
        ..silent()
    };
    let home = Home::new().system("[attach]\nmemory_max = '2G'\nmemory_high = '3G'");
    assert_eq!(home.load(lifted).expect("right").attach.memory_high, None);
}

#[test]
fn every_setting_of_the_policy_has_a_key() {
    let fields: Vec<String> = format!("{:#?}", Settings::default())
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.split_once(':'))
        .filter(|(name, _)| !name.starts_with(' '))
        .map(|(name, _)| name.to_owned())
        .collect();
    let keys: Vec<&str> = keys::POLICY.iter().map(|key| key.name).collect();
    assert_eq!(
        keys, fields,
        "config/keys.rs must list the fields of watch::Settings, in order"
    );
}

#[test]
fn every_key_is_in_the_manual_and_its_example_is_right() {
    let attach = keys::ATTACH
        .iter()
        .map(|key| ("attach", key.name, key.example));
    let policy = keys::POLICY
        .iter()
        .map(|key| ("policy", key.name, key.example));
    for (table, name, example) in attach.chain(policy) {
        let text = format!("[{table}]\n{name} = {example}\n");
        Home::new()
            .system(&text)
            .load(silent())
            .unwrap_or_else(|error| panic!("{text}{error}"));
        assert!(
            MANUAL.contains(&format!("| `{name}` |")),
            "{name} is not in docs/CONFIG.md"
        );
        let commented = format!("#{name} = ");
        assert!(
            EXAMPLE.contains(&commented),
            "{name} is not in docs/memwatch.toml"
        );
    }
}

#[test]
fn the_example_shows_the_defaults() {
    let defaults = Home::new().load(silent()).expect("defaults");
    assert_eq!(
        Home::new()
            .system(EXAMPLE)
            .load(silent())
            .expect("the example"),
        defaults
    );
    // Prose has a space after the `#`, a key has not. `report` has no default and shows a value.
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(char::is_alphabetic) => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    let shown: String = EXAMPLE.lines().map(uncomment).collect();
    let mut shown = Home::new()
        .system(&shown)
        .load(silent())
        .expect("the example, uncommented");
    shown.attach.report = None;
    assert_eq!(shown, defaults);
}

proptest! {
    #[test]
    fn no_file_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = keys::parse(Path::new("x"), &text, &mut Settings::default());
        }
    }

    #[test]
    fn no_near_miss_panics(
        text in "(\\[(attach|policy|x)\\]\n|(memory_max|timeout|safe|stall_window|é) ?= ?['\"\\[{]?[0-9a-zé.]{0,5}['\"\\]}]?\n){0,6}"
    ) {
        let _ = keys::parse(Path::new("x"), &text, &mut Settings::default());
    }

    #[test]
    fn safe_mode_is_never_loose(
        machine in 1u64 << 20..1 << 40, flag in prop::option::of(1u64 << 20..1 << 40),
        seconds in 1u64..100_000,
    ) {
        let file = format!("[attach]\nmemory_max = {machine}\ntimeout = {seconds}");
        let flags = Layer { memory_max: flag.map(Limit::Bytes), ..safe() };
        match Home::new().system(&file).load(flags) {
            Ok(Config { attach, .. }) => {
                prop_assert!(matches!(attach.memory_max, Limit::Bytes(max) if max <= SAFE_MEMORY_MAX));
                prop_assert!(attach.timeout.is_some_and(|timeout| timeout <= SAFE_TIMEOUT));
            }
            Err(error) => prop_assert!(flag.is_some_and(|flag| flag > SAFE_MEMORY_MAX), "{}", error),
        }
    }
}
