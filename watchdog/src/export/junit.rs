//! JUnit's XML for a pytest that was killed before it could write its own: what ran, with how it ended as far
//! as that was told, and what did not run any more. Pure.

use super::node::Node;
use crate::incident::Text;
use crate::incident::suite::{Outcome, Test};
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};
use std::time::Duration;

/// The file's content, of the tests that ran and of those that did not; `why` says how their process ended.
///
/// # Errors
/// What cannot be written as XML.
pub fn render(
    ran: &[&Test],
    not_run: &[&Text],
    why: &str,
) -> Result<Vec<u8>, quick_junit::SerializeError> {
    let mut suite = TestSuite::new("pytest");
    suite.add_test_cases(ran.iter().map(|test| case(test)));
    suite.add_test_cases(not_run.iter().map(|id| {
        let mut status = TestCaseStatus::skipped();
        status.set_message(format!("not run: {why}"));
        named(id, status)
    }));
    suite.set_time(Duration::from_micros(ran.iter().map(|t| t.wall_us).sum()));
    suite.set_system_err(format!("memwatch: {why}; this file is memwatch's"));
    let mut report = Report::new("pytest tests");
    report.add_test_suite(suite);
    let mut bytes = Vec::new();
    report.serialize(&mut bytes)?;
    Ok(bytes)
}

fn named(id: &Text, status: TestCaseStatus) -> TestCase {
    let node = Node::of(id.as_str());
    let mut case = TestCase::new(node.name, status);
    let module = node
        .path
        .strip_suffix(".py")
        .unwrap_or(node.path)
        .replace('/', ".");
    let parts = std::iter::once(module.as_str()).chain(node.classes.iter().copied());
    case.set_classname(parts.collect::<Vec<_>>().join("."));
    case
}

fn case(test: &Test) -> TestCase {
    let mut case = named(&test.id, status(test));
    case.set_time(Duration::from_micros(test.wall_us));
    let figures = [
        ("memwatch_wall_us", Some(test.wall_us)),
        ("memwatch_cpu_us", test.cpu_us),
        ("memwatch_growth_bytes", test.growth_bytes()),
        ("memwatch_retained_bytes", test.retained_bytes()),
    ];
    for (name, value) in figures {
        if let Some(value) = value {
            case.add_property(Property::new(name, value.to_string()));
        }
    }
    case
}

fn status(test: &Test) -> TestCaseStatus {
    let kind = match test.outcome {
        Outcome::Passed | Outcome::Xpassed => return TestCaseStatus::success(),
        Outcome::Skipped | Outcome::Xfailed => return TestCaseStatus::skipped(),
        Outcome::Failed => NonSuccessKind::Failure,
        Outcome::Error | Outcome::Killed | Outcome::Unknown => NonSuccessKind::Error,
    };
    let why = match (&test.ended_by_memwatch, test.outcome) {
        (Some(why), _) => why.as_str(),
        (None, Outcome::Unknown) => "its process ended under it",
        (None, _) => "its process was killed before it could write why",
    };
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(why);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample;

    #[test]
    fn a_killed_test_is_an_error_with_its_reason_and_every_name_is_fit_for_xml() {
        let suite = sample::tested();
        let tests: Vec<_> = suite.tests.iter().collect();
        let not_run: Vec<_> = suite.not_run.iter().map(|one| &one.id).collect();
        let xml = render(&tests, &not_run, "killed for memory").expect("XML");
        let xml = String::from_utf8(xml).expect("text");
        assert!(!xml.contains('\x1b'), "{xml}");
        for part in [
            r#"name="test_index" classname="tests.test_b""#,
            r#"<error message="exhaustion: limit full in 35ms""#,
            r#"tests="3""#,
            r#"name="test_later" classname="tests.test_c""#,
            r#"<skipped message="not run: killed for memory"/>"#,
            r#"errors="1""#,
            r#"<property name="memwatch_growth_bytes" value="6291456"/>"#,
        ] {
            assert!(xml.contains(part), "no {part} in {xml}");
        }
    }
}
