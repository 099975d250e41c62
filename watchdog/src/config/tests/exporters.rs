//! Who is told of incidents, and what is wrong with how that is said.

use super::*;

#[test]
fn exporters_of_all_files_add_up_and_one_of_a_name_is_said_key_by_key() {
    let home = Home::new()
        .system("[export.otlp]\nurl = 'https://a:1'\ntimeout = '3s'\n[export.hook]\ntype = 'webhook'\nurl = 'http://b'")
        .user("[export.otlp]\ntimeout = '4s'\n[export.own]\ntype = 'otlp'\n[incidents]\nmost = 5");
    let config = home.load(silent()).expect("right");
    let names: Vec<&str> = config.exporters.keys().map(String::as_str).collect();
    assert_eq!(names, ["hook", "otlp", "own"]);
    let otlp = &config.exporters["otlp"];
    assert_eq!(otlp.of_name("otlp"), Some(ExporterType::Otlp));
    assert_eq!(otlp.timeout, Some(Duration::from_secs(4)));
    assert_eq!(otlp.url.as_ref().expect("said").to_string(), "https://a:1/");
    assert_eq!(config.incidents.most, 5);
    let daemon = home.daemon().expect("right");
    assert_eq!(daemon.exporters.len(), 2, "it reads no user's file");
    assert_eq!(daemon.incidents, Incidents::default());
    let shown = Home::new().system(&config.as_toml()).load(silent());
    assert_eq!(shown.expect("what is shown is a file"), config);
}

#[test]
fn what_is_wrong_is_said_with_what_to_write() {
    for (text, said) in [
        (
            "[export.x]\nurl = 'http://a'",
            "[export.x] has no type; write type = \"otlp\"",
        ),
        (
            "[export.x]\ntype = 'webhook'",
            "[export.x] names no receiver; write url =",
        ),
        (
            "[export.webhook]\nurl = 'http://a'\nmetrics = true",
            "metrics is for exporters of type \"otlp\"",
        ),
        ("[export.x]\ntype = 'smoke'", "is not one of otlp, webhook"),
        ("[export.x]\nurl = 'a:secret'", "is not an address of HTTP"),
        ("[export.x]\nurl = 'collector/secret'", "is no address"),
        (
            "[export.x]\nurl = 'htps://a/secret'",
            "is not an address of HTTP",
        ),
        (
            "[export.x]\nurl = 'https://me:secret@a'",
            "no place for a user's name or password",
        ),
        (
            "[export.x]\nheaders = { 'a b' = '1' }",
            "is no name of a header",
        ),
        (
            "[export.x]\nheaders = { a = 1 }",
            "headers cannot be a table",
        ),
        (
            "[export.'../x']\ntype = 'otlp'",
            "cannot be an exporter's name",
        ),
        (
            "[export]\nurl = 'http://a'",
            "write [export.url] on a line of its own",
        ),
        ("[export.x]\nurls = 'http://a'", "did you mean `url`?"),
    ] {
        let refusal = Home::new().system(text).refusal(silent());
        assert!(refusal.contains(said), "{text}: {refusal}");
        assert!(!refusal.contains("secret"), "{refusal}");
    }
}
