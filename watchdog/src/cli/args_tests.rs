//! The command line as a user meets it: what is accepted, what is refused, and in which words.

use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;
use crate::config::Size;
use crate::incident::suite::LeakKind;

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::parse_arguments(["memwatch"].iter().chain(arguments))
}

fn attach(arguments: &[&str]) -> Box<AttachArgs> {
    match parse(&[&["attach"], arguments].concat())
        .expect("a right command line")
        .command
    {
        Command::Attach(attach) => attach,
        other => panic!("{other:?}"),
    }
}

/// The first line of what is printed.
fn refusal(arguments: &[&str]) -> String {
    let error = parse(arguments).expect_err("a wrong command line");
    error
        .to_string()
        .lines()
        .next()
        .expect("a message")
        .to_owned()
}

#[test]
fn clap_finds_the_definitions_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn each_kind_of_target() {
    assert_eq!(
        attach(&["--cmd", "pytest tests/ | tee log"]).target(),
        Target::Shell("pytest tests/ | tee log".into())
    );
    assert_eq!(attach(&["--pid", "4242"]).target(), Target::Pid(4242));
    assert_eq!(
        attach(&["--cgroup", "/sys/fs/cgroup/x"]).target(),
        Target::Cgroup("/sys/fs/cgroup/x".into())
    );
}

#[test]
fn everything_after_the_dashes_belongs_to_the_command() {
    let args = attach(&["--safe", "--", "-x", "--memory-max", "3", "--", "-v"]);
    assert_eq!(
        args.target(),
        Target::Program {
            program: "-x".into(),
            arguments: ["--memory-max", "3", "--", "-v"].map(OsString::from).into(),
        }
    );
    assert_eq!(args.layer().memory_max, None);
}

#[test]
fn arguments_need_not_be_unicode() {
    let odd = OsString::from_vec(b"caf\xe9\n\x1b[31m".to_vec());
    let line = ["memwatch", "attach", "--"].map(OsString::from);
    let cli = Cli::parse_arguments(line.into_iter().chain([odd.clone()])).expect("bytes are bytes");
    let Command::Attach(args) = cli.command else {
        panic!("attach")
    };
    assert_eq!(
        args.target(),
        Target::Program {
            program: odd,
            arguments: vec![]
        }
    );
}

#[test]
fn exactly_one_target_is_required() {
    for none in [&["attach"][..], &["attach", "--"], &["attach", "--safe"]] {
        assert_eq!(
            refusal(none),
            "error: nothing to guard; write for example: memwatch attach -- pytest tests/"
        );
    }
    for two in [
        &["attach", "--cmd", "x", "--", "y"][..],
        &["attach", "--pid", "1", "--cgroup", "/x"],
        &["attach", "--cmd", "x", "--pid", "1"],
    ] {
        assert_eq!(
            parse(two).unwrap_err().kind(),
            ErrorKind::ArgumentConflict,
            "{two:?}"
        );
    }
}

#[test]
fn a_forgotten_double_dash_is_explained() {
    assert_eq!(
        refusal(&["attach", "pytest", "tests/"]),
        "error: \"pytest\" is no option; a command to run goes after --, \
         as in: memwatch attach -- pytest tests/"
    );
}

#[test]
fn a_bad_value_is_answered_in_the_words_of_the_file() {
    let size = refusal(&["attach", "--memory-max", "2 gigs", "--", "x"]);
    assert!(
        size.ends_with(&"2 gigs".parse::<Size>().unwrap_err().to_string()),
        "{size}"
    );
    let span = refusal(&["attach", "--timeout", "soon", "--", "x"]);
    assert!(
        span.ends_with(&"soon".parse::<Span>().unwrap_err().to_string()),
        "{span}"
    );
    for negative in ["-2G", "-300"] {
        let said = refusal(&["attach", "--memory-max", negative, "--", "x"]);
        assert!(
            said.contains("negative") && said.contains("--memory-max 2G"),
            "{said}"
        );
    }
    for pid in ["0", "99999999999", "self", ""] {
        let said = refusal(&["attach", "--pid", pid]);
        assert!(said.contains("write for example 4242"), "{said}");
    }
    assert!(refusal(&["attach", "--cmd", " "]).contains("--cmd 'pytest tests/'"));
    for empty in ["--report", "--ctrf", "--cgroup", "--record", "--config"] {
        let said = refusal(&["attach", empty, "", "--", "x"]);
        assert!(said.contains("a value is required"), "{said}");
    }
}

#[test]
fn flags_reach_their_layer() {
    let args = attach(&[
        "--memory-max=8G",
        "--memory-high",
        "6G",
        "--timeout",
        "1h30m",
        "--on-pressure",
        "freeze",
        "--dry-run",
        "--safe=false",
        "--report",
        "r.json",
        "--daemon",
        "never",
        "--live",
        "never",
        "--test-memory",
        "500M",
        "--test-timeout",
        "30s",
        "--no-pytest",
        "--",
        "x",
    ]);
    assert_eq!(
        args.layer(),
        Layer {
            origin: Origin::CommandLine,
            memory_max: Some(Limit::Bytes(8 << 30)),
            memory_high: Some(Limit::Bytes(6 << 30)),
            timeout: Some(OrNone(Span::new(Duration::from_secs(5400)))),
            test_memory: Some(OrNone(Size::new(500 << 20))),
            test_timeout: Some(OrNone(Span::new(Duration::from_secs(30)))),
            pytest: Some(false),
            on_pressure: Some(OnPressure::Freeze),
            safe: Some(false),
            dry_run: Some(true),
            daemon: Some(UseDaemon::Never),
            live: Some(Live::Never),
            report: Some("r.json".into()),
        }
    );
    assert_eq!(attach(&["--", "x"]).layer(), Layer::default());
    let lifted = attach(&["--memory-max", "none", "--timeout", "none", "--", "x"]).layer();
    assert_eq!(lifted.memory_max, Some(Limit::None));
    assert_eq!(lifted.timeout, Some(OrNone(None)));
}

#[test]
fn verbosity_is_one_scale_on_either_side_of_the_subcommand() {
    let verbosity = |arguments: &[&str]| parse(arguments).expect("right").common.verbosity();
    assert_eq!(verbosity(&["doctor"]), Verbosity::Normal);
    assert_eq!(verbosity(&["-v", "doctor"]), Verbosity::Verbose);
    assert_eq!(verbosity(&["attach", "-vv", "--", "x"]), Verbosity::Trace);
    assert_eq!(verbosity(&["attach", "-q", "--", "x"]), Verbosity::Quiet);
    assert_eq!(
        parse(&["doctor", "-q", "-v"]).unwrap_err().kind(),
        ErrorKind::ArgumentConflict
    );
}

#[test]
fn usage_errors_end_in_125_and_help_in_0() {
    let code = |argument| usage::exit_code(&parse(&["attach", argument]).unwrap_err());
    assert_eq!(code("--no-such-option"), 125);
    assert_eq!(code("-h"), 0);
    assert_eq!(usage::exit_code(&parse(&["--version"]).unwrap_err()), 0);
    assert_eq!(usage::exit_code(&parse(&[]).unwrap_err()), 125);
}

#[test]
fn the_help_has_the_exit_codes_and_fits_a_narrow_terminal() {
    for text in [help::FILES, help::ATTACH_USAGE, help::ATTACH_MORE] {
        for line in text.lines() {
            assert!(
                line.chars().count() < 80,
                "{line:?} would be wrapped and lose its columns"
            );
        }
    }
    let help = parse(&["attach", "--help"]).unwrap_err().to_string();
    for code in ["124", "125", "126", "127", "137", "128+n"] {
        assert!(
            help.contains(&format!("\n  {code}  ")),
            "{code} is not in the table"
        );
    }
}

#[test]
fn kinds_of_leaks_are_those_of_the_record_and_any() {
    let args = attach(&[
        "--fail-on-leak=threads,memory",
        "--fail-on-leak",
        "any",
        "--",
        "x",
    ]);
    let names: Vec<_> = args.fail_on_leak.iter().map(|kind| kind.name()).collect();
    assert_eq!(names, ["threads", "memory", "any"]);
    let kinds = Leaking::value_variants().iter().map(|kind| kind.name());
    let known: Vec<_> = kinds
        .filter(|kind| LeakKind::named(kind).is_none())
        .collect();
    assert_eq!(known, ["any"]);
    assert_eq!(Leaking::value_variants().len(), LeakKind::ALL.len() + 1);
    let said = refusal(&["attach", "--fail-on-leak", "any", "--no-pytest", "--", "x"]);
    assert!(said.contains("--no-pytest"), "{said}");
}
