//! Safe mode against every kind of value beside it.

use proptest::prelude::*;

use super::*;

#[test]
fn safe_mode_caps_what_is_silent_or_weaker_and_keeps_what_is_tighter() {
    let capped = Home::new().load(safe()).expect("right").attach;
    assert!(capped.safe);
    assert_eq!(capped.memory_max, Limit::Bytes(SAFE_MEMORY_MAX));
    assert_eq!(capped.timeout, Some(SAFE_TIMEOUT));
    assert_eq!(capped.test_timeout, Some(SAFE_TEST_TIMEOUT));

    let loose =
        "[attach]\nmemory_max = '8G'\nmemory_high = '6G'\ntimeout = 'none'\ntest_timeout = '5m'";
    let weaker = Home::new()
        .system(loose)
        .load(safe())
        .expect("right")
        .attach;
    assert_eq!(weaker, capped);

    let tight =
        "[attach]\nmemory_max = '1G'\nmemory_high = '900M'\ntimeout = '1m'\ntest_timeout = '5s'";
    let kept = Home::new()
        .system(tight)
        .load(safe())
        .expect("right")
        .attach;
    assert_eq!(kept.memory_max, Limit::Bytes(1 << 30));
    assert_eq!(kept.memory_high, Limit::Bytes(900 << 20));
    assert_eq!(kept.timeout, Some(Duration::from_secs(60)));
    assert_eq!(kept.test_timeout, Some(Duration::from_secs(5)));

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

proptest! {
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
