//! Files, environment and flags together: what wins, and which limits make no sense. `file` has what
//! is wrong with one file, `daemon` what is the daemon's, `safe` safe mode, `manual` what holds the
//! documents to the code.

mod daemon;
mod exporters;
mod file;
mod manual;
mod safe;

use std::fs;

use tempfile::TempDir;

use super::*;

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

    /// A file beside the machine's.
    fn drop_in(self, name: &str, text: &str) -> Self {
        let directory = self.0.path().join("system.toml.d");
        fs::create_dir_all(&directory).expect("made");
        fs::write(directory.join(name), text).expect("written");
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

    fn daemon(&self) -> Result<Daemon, ConfigError> {
        Daemon::read(None, &self.environment()).first_error()
    }

    fn refusal(&self, layer: Layer) -> String {
        self.words(self.load(layer).expect_err("a wrong configuration"))
    }

    /// The error without the temporary directory's name.
    fn words(&self, error: ConfigError) -> String {
        let directory = format!("{}/", self.0.path().display());
        error.to_string().replace(&directory, "")
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
fn looks_that_are_the_wrong_way_round_are_refused() {
    let refusal = Home::new()
        .system("[policy]\nshortest_look = \"2s\"\n")
        .refusal(silent());
    assert_eq!(
        refusal,
        "[policy] shortest_look = \"2s\" is longer than longest_look = \"1s\"; swap them, or leave both out"
    );
}

#[test]
fn no_file_and_an_empty_file_are_the_defaults() {
    let config = Home::new().load(silent()).expect("defaults");
    assert_eq!(config.policy, Settings::default());
    assert_eq!(
        config.attach,
        Attach {
            memory_max: Limit::Auto,
            memory_high: Limit::Auto,
            timeout: None,
            test_memory: None,
            test_timeout: None,
            pytest: true,
            on_pressure: OnPressure::Kill,
            dry_run: false,
            daemon: UseDaemon::Auto,
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
fn drop_ins_come_after_the_machines_file_and_before_the_users_in_the_order_of_their_names() {
    let home = Home::new()
        .system("[attach]\nmemory_max = '8G'\ntimeout = '1h'\nreport = 'a'")
        .drop_in("20-ci.toml", "[attach]\nmemory_max = '6G'\ntimeout = '20m'")
        .drop_in("10-ci.toml", "[attach]\nmemory_max = '7G'\nreport = 'b'")
        .drop_in("30-ci.toml.dpkg-old", "nonsense")
        .drop_in(".hidden.toml", "nonsense")
        .user("[attach]\ntimeout = '10m'");
    let attach = home.load(silent()).expect("right").attach;
    assert_eq!(attach.memory_max, Limit::Bytes(6 << 30));
    assert_eq!(attach.report, Some("b".into()));
    assert_eq!(attach.timeout, Some(Duration::from_secs(600)));

    let wrong = home.drop_in("05.toml", "[attach]\nx = 1");
    let refusal = wrong.refusal(silent());
    assert!(
        refusal.starts_with("system.toml.d/05.toml:2:1: "),
        "{refusal}"
    );
}

#[test]
fn what_is_wrong_is_told_of_every_file() {
    let home = Home::new()
        .system("[attach]\nx = 1\ny = 1")
        .drop_in("10.toml", "[policy]\nz = 1")
        .drop_in("20.toml", "[attach]\nmemory_max = '8G'")
        .user("[oomd]");
    let reading = Config::read(&Flags::default(), &home.environment());
    assert_eq!(reading.files.len(), 4);
    let errors = reading.result.expect_err("three are wrong");
    let places: Vec<String> = errors
        .into_iter()
        .map(|error| home.words(error))
        .map(|words| words.split(": ").next().expect("a place").to_owned())
        .collect();
    assert_eq!(
        places,
        [
            "system.toml:2:1",
            "system.toml.d/10.toml:2:1",
            ".config/memwatch/memwatch.toml:1:2"
        ]
    );
}

#[test]
fn what_is_in_force_reads_back_as_itself() {
    let config = Home::new()
        .system("[attach]\nmemory_max = '8G'\nmemory_high = '1536M'\ntimeout = '90s'\nreport = 'a \"b\"'\nlive = 'never'")
        .load(silent())
        .expect("right");
    let again = Home::new().system(&config.as_toml()).load(silent());
    assert_eq!(again.expect("right"), config);
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
        memory_high: Some(Limit::None),
        ..silent()
    };
    let home = Home::new().system("[attach]\nmemory_max = '2G'\nmemory_high = '3G'");
    let attach = home.load(lifted).expect("right").attach;
    assert_eq!(attach.memory_high, Limit::None);
}
