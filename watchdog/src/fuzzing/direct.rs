//! The files of a project in which calls of pytest are looked for.

use super::{Check, is_one_line};
use crate::tests::direct::{Kind, look};

pub(super) const CHECKS: &[Check] = &[
    ("a script", |text| found(Kind::Shell, text)),
    ("a Makefile", |text| found(Kind::Make, text)),
    ("a justfile", |text| found(Kind::Just, text)),
    ("a Dockerfile", |text| found(Kind::Docker, text)),
    ("a Jenkinsfile", |text| found(Kind::Groovy, text)),
    ("tox.ini", |text| found(Kind::Ini, text)),
    ("Python", |text| found(Kind::Python, text)),
    ("TOML", |text| found(Kind::Toml, text)),
    ("YAML", |text| found(Kind::Yaml, text)),
    ("package.json", |text| found(Kind::PackageJson, text)),
    ("a kind", kind),
];

fn found(kind: Kind, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split('\n').count();
    let looked = look(kind, &text);
    for finding in &looked.findings {
        assert!((1..=lines).contains(&finding.line), "{finding:?}");
        assert!(
            !finding.found.contains('\n') && !finding.instead.contains('\n'),
            "{finding:?}"
        );
        assert!(finding.instead.contains("memwatch"), "{finding:?}");
    }
    assert!(looked.findings.is_sorted_by_key(|finding| finding.line));
    if let Some((line, why)) = &looked.mistake {
        assert!((1..=lines).contains(line), "{line}: {why}");
        let _ = is_one_line(why);
    }
}

/// The name is the first line, the file the rest.
fn kind(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (name, rest) = text.split_once('\n').unwrap_or((&text, ""));
    if let Some(kind) = Kind::of(name, rest) {
        found(kind, rest.as_bytes());
    }
}
