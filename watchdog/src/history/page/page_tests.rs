//! The page as a reader and as somebody with evil names meets it.

use super::*;
use crate::tests::simulated;

fn run(tests: &[(&str, u64)]) -> Run {
    Run::of(&simulated::record(tests)).expect("tests")
}

#[test]
fn a_test_that_got_worse_is_listed_and_marked_and_comes_first() {
    let runs: Vec<_> = [100, 100, 101, 210]
        .map(|mib| {
            run(&[
                ("t.py::first", 1),
                ("t.py::huge", 900),
                ("t.py::worse", mib),
            ])
        })
        .into();
    let page = page(&"/src/project".into(), &runs);
    assert!(page.contains("Regressions (1)"), "{page}");
    assert!(
        page.contains(
            r##"100 MiB → <strong>210 MiB</strong></span> <a href="#t0">t.py::worse</a>"##
        ),
        "{page}"
    );
    assert_eq!(page.matches("circle class=\"worse\"").count(), 1);
    assert!(
        page.contains("4 runs, 1970-01-01 to 1970-01-01, 3 tests"),
        "{page}"
    );
}

#[test]
fn hostile_names_stay_names() {
    let names = [
        "t.py::test[<script>alert(1)</script>]",
        "t.py::test[\"><img src=x onerror=alert(1)>]",
        "t.py::test['&lt;]",
        "t.py::test[</title></style>\u{202e}]",
    ];
    let tests = |mib: u64| names.map(|name| (name, mib));
    let base = run(&[[("t.py::first", 1)].as_slice(), &tests(50)].concat());
    let worse = run(&[[("t.py::first", 1)].as_slice(), &tests(500)].concat());
    let page = page(&"</title><script>x</script>".into(), &[base, worse]);
    for evil in ["<script", "<img", "</title></style>", "\u{202e}"] {
        assert!(!page.contains(evil), "{evil}");
    }
    assert_eq!(
        page.matches("</title>").count(),
        page.matches("<title>").count()
    );
    assert!(page.contains("t.py::test[&lt;script&gt;alert(1)&lt;/script&gt;]"));
    assert!(page.contains("t.py::test['&amp;lt;]"));
    assert!(page.contains("Regressions (4)"));
}

#[test]
fn nothing_is_fetched_and_nothing_is_run() {
    let page = page(&"p".into(), &[run(&[("t.py::a", 1)])]);
    for word in ["http://", "https://", "<script", "url(", "@import", "src="] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn no_runs_gaps_and_unknown_figures_are_a_page_too() {
    assert!(page(&"p".into(), &[]).contains("No runs, 0 tests"));
    let mut unknown = run(&[("t.py::a", 1), ("t.py::b", 1)]);
    for test in unknown.tests.values_mut() {
        test.memory_bytes = None;
        test.outcome = Outcome::Failed;
    }
    let runs = [run(&[("t.py::a", 5)]), unknown, run(&[("t.py::a", 5)])];
    let page = page(&"p".into(), &runs);
    assert!(page.contains("<em>gone</em>"), "{page}");
    assert!(page.contains("memory: not known"), "{page}");
    assert!(page.contains("path class=\"failed\""), "{page}");
    assert!(!page.contains("NaN"), "{page}");
}
