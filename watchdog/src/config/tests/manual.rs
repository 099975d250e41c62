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
    fn check<T>(heading: &str, keys: &[keys::Key<T>]) {
        for keys::Key { name, example, .. } in keys {
            // A watch must name something.
            let named = match heading {
                "[[watch]]" if *name != "units" => "units = [\"x.slice\"]\n",
                // An exporter must speak something.
                "[export.NAME]" if *name != "type" => "type = \"otlp\"\n",
                _ => "",
            };
            let text = format!("{heading}\n{name} = {example}\n{named}");
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
        assert!(MANUAL.contains(&format!("## `{heading}`")), "{heading}");
    }
    check("[attach]", keys::ATTACH);
    check("[policy]", keys::POLICY);
    check("[[watch]]", keys::WATCH);
    check("[oomd]", keys::OOMD);
    check("[users]", keys::USERS);
    check("[incidents]", keys::INCIDENTS);
    check("[export.NAME]", keys::EXPORT);
    check("[prometheus]", keys::PROMETHEUS);
}

#[test]
fn the_example_shows_the_defaults() {
    let read = |text: &str| {
        let home = Home::new().system(text);
        let daemon = home.daemon().expect("the example");
        (home.load(silent()).expect("the example"), daemon)
    };
    let defaults = read("");
    assert_eq!(read(EXAMPLE), defaults);
    // Prose has a space after the `#`, a key or a table has not. `report`, what is watched and who is told have
    // no default and show a value.
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_alphabetic() || c == '[') => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    let shown: String = EXAMPLE.lines().map(uncomment).collect();
    let (mut config, mut daemon) = read(&shown);
    config.attach.report = None;
    let told = config.exporters.remove("collector").expect("one example");
    assert_eq!(daemon.exporters.remove("collector").as_ref(), Some(&told));
    assert_eq!(told.retry(), Exporter::default().retry());
    assert_eq!(told.timeout, Some(Exporter::TIMEOUT));
    assert_eq!(told.metrics_every(), Exporter::default().metrics_every());
    assert_eq!(
        told.record_most_bytes(),
        Exporter::default().record_most_bytes()
    );
    assert_eq!(told.compression, Some(Compression::default()));
    let [mut watch] = <[_; 1]>::try_from(daemon.watch).expect("one example");
    assert!(!watch.units.is_empty() && !watch.cgroups.is_empty());
    watch.units.clear();
    watch.cgroups.clear();
    assert_eq!(watch, Watch::default());
    daemon.watch = Vec::new();
    let shown = std::mem::take(&mut daemon.prometheus);
    assert!(shown.listen.is_some() && shown.textfile.is_some());
    assert_eq!((config, daemon), defaults);
}
