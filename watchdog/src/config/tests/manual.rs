//! The manual, the example file and the policy's settings against the keys.

use super::*;

const EXAMPLE: &str = include_str!("../../../../docs/memwatch.toml");
const MANUAL: &str = include_str!("../../../../docs/CONFIG.md");

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
