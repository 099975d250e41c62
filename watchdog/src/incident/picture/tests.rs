//! The page as a reader and as somebody with evil names meets it. A browser renders it in `tests/incidents`.

use std::collections::BTreeSet;

use scraper::{Html, Selector};

use super::*;
use crate::incident::suite::{Outcome, Suite};
use crate::incident::{BlockedTask, Comm, FeatureLost, KernelLine, Text, sample};
use crate::storm::storm;

const EVIL: [&str; 6] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'\" onmouseover='alert(1)' x='",
    "</title></style></svg></pre><script src=//x></script>",
    "<!--<base href=//x>",
    "]]><iframe srcdoc=x>\u{202e}&lt;b&gt;&#60;i&#62;",
];

/// A record in which everything that somebody else may have named is named to harm.
fn hostile() -> Record {
    let mut record = storm(12, 40);
    let evil = |n: usize| Text::of_name(EVIL[n % EVIL.len()].as_bytes());
    let comm = |n: usize| {
        Comm::new(["<script>", "\"><img/src=x>", "'onload=x'", "</svg><i>"][n % 4].as_bytes())
    };
    record.host.hostname = Some(evil(0));
    record.host.boot_id = Some(evil(1));
    record.host.kernel_release = Some(evil(2));
    record.memwatch_version = EVIL[0].to_owned();
    let command = record.command.as_mut().expect("a command");
    command.program = evil(3);
    command.arguments = Some((0..6).map(evil).collect());
    record.target.cgroup_path = Some(evil(4));
    let it = &mut record.interventions[0];
    it.observed.text = evil(0);
    it.threshold.text = evil(1);
    it.victim.as_mut().expect("a victim").comm = comm(0);
    it.python_stack = (0..6).map(evil).collect();
    for (n, rival) in it.rivals.iter_mut().enumerate() {
        rival.process.comm = comm(n);
        rival.why_not = evil(n);
    }
    let test = it.test.as_mut().expect("a test");
    test.id = evil(0);
    test.worker = Some(evil(1));
    test.culprit.as_mut().expect("a culprit").id = evil(5);
    record.victims[0].process.comm = comm(1);
    record.victims[0].reason = evil(3);
    record.kernel_oom = sample::grave().kernel_oom;
    record.kernel_oom[0].comm = comm(2);
    record.hung_tasks = sample::grave().hung_tasks;
    record.hung_tasks[0].comm = comm(3);
    record.blocked_tasks.push(BlockedTask {
        comm: comm(0),
        function: Some(evil(1)),
        stack: (0..6).map(evil).collect(),
        ..record.blocked_tasks[0].clone()
    });
    record.kernel_log.extend((0..6).map(|n| KernelLine {
        at_us: 0,
        severity: 1,
        text: evil(n),
    }));
    record.notes.extend((0..6).map(evil));
    record.features_lost.push(FeatureLost {
        feature: evil(0),
        fallback: evil(1),
        cost: evil(2),
    });
    record.takeover = sample::grave().takeover;
    record.takeover.as_mut().expect("one").units = (0..6).map(evil).collect();
    let machine = record.machine.as_mut().expect("a machine");
    machine.oomd = Some(evil(0));
    machine.swaps[0].path = evil(1);
    let suite: &mut Suite = record.suite.as_mut().expect("a suite");
    suite.pytest_version = Some(evil(0));
    suite.python_version = Some(evil(1));
    for (n, test) in suite.tests.iter_mut().enumerate() {
        test.id = evil(n);
        test.worker = Some(evil(n + 1));
        test.ended_by_memwatch = Some(evil(n + 2));
        test.leaks = sample::tested().tests[0].leaks.clone();
    }
    for evil in EVIL {
        record.settings.insert(evil.to_owned(), evil.into());
    }
    for look in &mut record.flight.as_mut().expect("looks").looks {
        for member in look.members.iter_mut().flatten() {
            member.comm = *b"<img src=x on=y>";
        }
    }
    record
}

fn parsed(page: &str) -> Html {
    let html = Html::parse_document(page);
    assert!(html.errors.is_empty(), "{:?}", html.errors);
    html
}

fn elements(html: &Html) -> Vec<(String, Vec<(String, String)>)> {
    let all = Selector::parse("*").expect("a selector");
    let attributes = |element: &scraper::node::Element| {
        let attributes = element
            .attrs()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        attributes.collect::<Vec<_>>()
    };
    html.select(&all)
        .map(|it| (it.value().name().to_owned(), attributes(it.value())))
        .collect()
}

#[test]
fn hostile_names_stay_names() {
    let page = page(&hostile());
    let html = parsed(&page);
    let known: BTreeSet<&str> = [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "main",
        "footer",
        "section",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "span",
        "time",
        "strong",
        "em",
        "code",
        "i",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "div",
        "figure",
        "figcaption",
        "details",
        "summary",
        "pre",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "svg",
        "g",
        "path",
        "line",
        "rect",
        "circle",
        "text",
    ]
    .into();
    let attributes: BTreeSet<&str> = [
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "aria-label",
        "aria-hidden",
        "role",
        "tabindex",
        "open",
        "colspan",
        "viewBox",
        "preserveAspectRatio",
        "width",
        "height",
        "x",
        "y",
        "x1",
        "x2",
        "y1",
        "y2",
        "d",
        "dx",
        "dy",
        "r",
        "rx",
        "text-anchor",
        "overflow",
    ]
    .into();
    for (name, of_it) in elements(&html) {
        assert!(known.contains(name.as_str()), "{name}");
        for (attribute, value) in of_it {
            assert!(
                attributes.contains(attribute.as_str()),
                "{name} has {attribute}"
            );
            // Only labels hold names; what else there is is memwatch's own.
            let is_own = !EVIL.iter().any(|evil| value.contains(&evil[..8]));
            assert!(
                is_own || attribute == "aria-label",
                "{name} has {attribute}={value}"
            );
        }
    }
    // Nothing was left out instead.
    let text: String = html.root_element().text().collect();
    for evil in EVIL {
        let shown = Text::of_name(evil.as_bytes());
        assert!(text.contains(shown.as_str()), "{shown}");
    }
    assert!(!page.contains('\u{202e}'));
}

#[test]
fn nothing_is_fetched_and_nothing_runs() {
    let page = page(&storm(12, 40));
    assert!(page.contains(r#"content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'""#));
    for word in [
        "http://", "https://", "url(", "@import", "<script", "src=", "href=",
    ] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn all_of_the_evidence_is_on_the_page() {
    let mut record = storm(12, 40);
    record.kernel_oom = sample::grave().kernel_oom;
    let html = parsed(&page(&record));
    let text: String = html.root_element().text().collect::<Vec<_>>().join(" ");
    for said in [
        "Target's pressure",
        "Machine's pressure",
        "Target's memory",
        "memory.max 4.0 GiB",
        "Machine's memory",
        "ZFS ARC",
        "Faults a second",
        "Reclaim, pages a second",
        "Processes",
        "gw0",
        "nearest rival",
        "limit full in 35ms (48 MiB left, filling at 1.3 GiB/s)",
        "it grew the most",
        "grew 1.0 MiB, the victim 340 MiB",
        "3.1k",
        "index.py\", line 88 in _grow",
        "SIGKILL after 420ms",
        "txg_sync_thread+0x2bd/0x4a0 [zfs]",
        "INFO: task txg_sync:611 blocked for more than 122 seconds.",
        "16 GiB (c_max)",
        "gave memory back under pressure",
        "/dev/zd0 on zvol",
        "systemd-oomd",
        "3 looks came late",
        "kernel functions for signals",
        "stall_window",
        "runs on, without a guard",
        "0c5e1a1e-7d35-4d0e-9a43-6a8f3f0b5a11",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
    let marks = Selector::parse(".time > .row svg.marks g.mark").expect("a selector");
    let titles: Vec<String> = html.select(&marks).map(|it| it.text().collect()).collect();
    assert_eq!(titles.len(), 5, "{titles:?}");
    let bars = Selector::parse("rect.test").expect("a selector");
    assert_eq!(html.select(&bars).count(), 40);
}

#[test]
fn every_picture_and_every_table_says_what_it_is() {
    let html = parsed(&page(&hostile()));
    let pictures = Selector::parse("svg[role=img]").expect("a selector");
    for picture in html.select(&pictures) {
        assert!(
            picture
                .value()
                .attr("aria-label")
                .is_some_and(|label| !label.is_empty())
        );
    }
    let regions = Selector::parse("[role=region]").expect("a selector");
    for region in html.select(&regions) {
        assert!(
            region
                .value()
                .attr("aria-label")
                .is_some_and(|label| !label.is_empty())
        );
    }
    let loose = Selector::parse("body svg:not([role=img]):not([aria-hidden])").expect("a selector");
    let within = |it: &scraper::ElementRef<'_>| {
        it.ancestors().any(|above| {
            above
                .value()
                .as_element()
                .is_some_and(|above| above.attr("role") == Some("img"))
        })
    };
    assert!(
        html.select(&loose).all(|it| within(&it)),
        "each is part of one that has a label"
    );
}

#[test]
fn what_is_not_known_is_left_out_and_not_zero() {
    let now = std::time::SystemTime::UNIX_EPOCH;
    let record = Record::new(now, now, 0, crate::incident::Verdict::Ongoing);
    let html = parsed(&page(&record));
    let text: String = html.root_element().text().collect();
    assert!(text.contains("No looks were recorded"), "{text}");
    for absent in [
        "Most memory",
        "What memwatch did",
        "The kernel",
        "The machine",
        "Processes",
        "Events",
    ] {
        assert!(!text.contains(absent), "{absent}");
    }
    for record in [sample::quiet(), sample::killed(), sample::grave()] {
        parsed(&page(&record));
    }
}

#[test]
fn how_near_it_came_is_told_where_nothing_was_done() {
    let mut record = sample::quiet();
    record.near_miss = sample::grave().near_miss;
    record.kind = record.gravest();
    let near = record.near_miss.clone().expect("one in the sample");
    let html = parsed(&page(&record));
    let text: String = html.root_element().text().collect();
    for said in [
        "near miss",
        near.observed.text.as_str(),
        "It got away by itself.",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
}

#[test]
fn two_hundred_processes_and_six_hundred_tests_fit_in_two_megabytes() {
    let page = page(&storm(200, 600));
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    let html = parsed(&page);
    let folded = Selector::parse("details .row.lane").expect("a selector");
    assert_eq!(html.select(&folded).count(), 200 - 16);
    let lanes = Selector::parse(".row.lane").expect("a selector");
    assert_eq!(html.select(&lanes).count(), 200);
    let tests = Selector::parse("rect.test").expect("a selector");
    assert_eq!(html.select(&tests).count(), 600);
    println!("{} bytes", page.len());
}

#[test]
fn a_killed_test_is_named_first() {
    let record = storm(12, 40);
    let suite = record.suite.as_ref().expect("a suite");
    let killed = suite
        .tests
        .iter()
        .find(|test| test.outcome == Outcome::Killed)
        .expect("one");
    let html = parsed(&page(&record));
    let first = Selector::parse("td.name").expect("a selector");
    let first: String = html.select(&first).next().expect("a test").text().collect();
    assert!(first.starts_with(killed.id.as_str()), "{first}");
}
