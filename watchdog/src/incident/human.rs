//! Sizes and durations for people: a few digits, binary units. Reading them from the
//! command line is `config`'s.

/// `1.5 GiB`, `200 MiB`, `0 B`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    scaled(bytes, 1024, &UNITS.map(|unit| [" ", unit].concat()))
}

/// `312`, `48k`, `1.2M`: for events.
#[must_use]
pub fn count(count: u64) -> String {
    scaled(
        count,
        1000,
        &["", "k", "M", "G", "T", "P", "E"].map(String::from),
    )
}

/// `250us`, `38ms`, `1.2s`, `2m 14s`, `3h 05m`.
#[must_use]
pub fn duration(us: u64) -> String {
    match us {
        0 => "0s".to_owned(),
        1..1_000 => format!("{us}us"),
        1_000..999_500 => format!("{}ms", (us + 500) / 1_000),
        // Below a minute a tenth tells; 59.95 s would round to a minute, which reads otherwise.
        999_500..59_950_000 => {
            let tenths = (us + 50_000) / 100_000;
            format!("{}.{}s", tenths / 10, tenths % 10)
        }
        _ => {
            let seconds = us / 1_000_000 + u64::from(us % 1_000_000 >= 500_000);
            match seconds {
                0..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
                _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
            }
        }
    }
}

/// `part` of `whole`: `60%`, `0.3%`, `<0.1%`. `None` of nothing.
#[must_use]
pub fn percent(part: u64, whole: u64) -> Option<String> {
    let permille = (u128::from(part) * 1000).checked_div(u128::from(whole))?;
    Some(match permille {
        0 if part > 0 => "<0.1%".to_owned(),
        0 => "0%".to_owned(),
        1..100 => format!("{}.{}%", permille / 10, permille % 10),
        _ => format!("{}%", (permille + 5) / 10),
    })
}

/// `value` in the largest of `units` in which it is at least 1, with one decimal below 10.
fn scaled(value: u64, base: u128, units: &[String; 7]) -> String {
    let value = u128::from(value);
    let mut unit = 0;
    let mut scale = 1;
    let in_units = |scale: u128, parts: u128| (value * parts + scale / 2) / scale;
    // Rounded first, so that 1023.9 KiB reads as 1.0 MiB.
    while unit + 1 < units.len() && in_units(scale, 1) >= base {
        scale *= base;
        unit += 1;
    }
    match (unit, in_units(scale, 10)) {
        (0, _) => format!("{value}{}", units[0]),
        (_, tenths @ 0..100) => format!("{}.{}{}", tenths / 10, tenths % 10, units[unit]),
        _ => format!("{}{}", in_units(scale, 1), units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn sizes() {
        for (size, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (KIB, "1.0 KiB"),
            (1536 * MIB, "1.5 GiB"),
            (200 * MIB, "200 MiB"),
            (10 * GIB, "10 GiB"),
            (MIB - 1, "1.0 MiB"),
            (GIB - 1, "1.0 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(size), shown, "{size}");
        }
    }

    #[test]
    fn counts() {
        for (n, shown) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1.0k"),
            (48_123, "48k"),
            (1_234_567, "1.2M"),
        ] {
            assert_eq!(count(n), shown);
        }
    }

    #[test]
    fn durations() {
        for (us, shown) in [
            (0, "0s"),
            (250, "250us"),
            (38_400, "38ms"),
            (999_499, "999ms"),
            (999_500, "1.0s"),
            (12_345_678, "12.3s"),
            (59_949_999, "59.9s"),
            (59_950_000, "1m 00s"),
            (134_000_000, "2m 14s"),
            (11_100_000_000, "3h 05m"),
        ] {
            assert_eq!(duration(us), shown, "{us}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!(percent(6, 10).as_deref(), Some("60%"));
        assert_eq!(percent(3, 1000).as_deref(), Some("0.3%"));
        assert_eq!(percent(1, 100_000).as_deref(), Some("<0.1%"));
        assert_eq!(percent(0, 5).as_deref(), Some("0%"));
        assert_eq!(percent(u64::MAX, u64::MAX).as_deref(), Some("100%"));
        assert_eq!(percent(1, 0), None);
    }

    proptest! {
        #[test]
        fn nothing_is_too_large(n in any::<u64>()) {
            prop_assert!(bytes(n).len() <= 8);
            prop_assert!(count(n).len() <= 5);
            prop_assert!(!duration(n).is_empty());
        }
    }
}
