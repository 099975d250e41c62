//! Wall-clock times for people and collectors. Durations are measured on the monotonic clock by
//! those who measure; nothing is decided by what is computed from a `Timestamp`.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::Text;

const SECONDS_PER_DAY: i64 = 86_400;

/// A time in RFC 3339, UTC, to the microsecond: `2026-03-01T09:12:16.000250Z`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(Text);

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_micros() as i64,
            Err(before) => -(before.duration().as_micros() as i64),
        };
        Self(rfc3339(micros).into())
    }
}

impl Timestamp {
    /// So many microseconds since 1970; `None` beyond the years 0 to 9999.
    #[must_use]
    pub fn of_unix_us(unix_us: i64) -> Option<Self> {
        let within = -62_167_219_200_000_000..253_402_300_800_000_000;
        within
            .contains(&unix_us)
            .then(|| Self(rfc3339(unix_us).into()))
    }

    /// Microseconds since 1970, for formats that count; `None` if somebody wrote something else into the file.
    #[must_use]
    pub fn unix_us(&self) -> Option<i64> {
        let text = self.0.as_str();
        let part = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
        let day = unix_day(part(0..4)?, part(5..7)?, part(8..10)?);
        let seconds =
            day * SECONDS_PER_DAY + part(11..13)? * 3600 + part(14..16)? * 60 + part(17..19)?;
        let us = seconds * 1_000_000 + part(20..26)?;
        (rfc3339(us) == text).then_some(us)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn rfc3339(unix_us: i64) -> String {
    let seconds = unix_us.div_euclid(1_000_000);
    let (year, month, day) = civil(seconds.div_euclid(SECONDS_PER_DAY));
    let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        unix_us.rem_euclid(1_000_000),
    )
}

/// Year, month and day of a day counted from 1970-01-01. The year is taken to begin in March, so
/// that the leap day is its last, and 400 years, which all have the same 146,097 days, form an era.
fn civil(unix_day: i64) -> (i64, i64, i64) {
    const DAYS_FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    let day = unix_day + DAYS_FROM_MARCH_OF_YEAR_0;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    (
        era * 400 + year_of_era + i64::from(month <= 2),
        month,
        day_of_month,
    )
}

/// The inverse of [`civil`].
fn unix_day(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let march_month = (month + 9) % 12;
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    era * 146_097 + days - DAYS_FROM_MARCH_OF_YEAR_0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn known_times_read_as_they_should() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00.000250Z"),
            (951_782_400, "2000-02-29T00:00:00.000250Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000250Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000250Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000250Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000250Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(250);
            let shown_time = Timestamp::from(time);
            assert_eq!(shown_time.to_string(), shown);
            assert_eq!(shown_time.unix_us(), Some(seconds as i64 * 1_000_000 + 250));
            let again = Timestamp::of_unix_us(seconds as i64 * 1_000_000 + 250);
            assert_eq!(again, Some(shown_time));
        }
        for other in [
            "",
            "yesterday",
            "2024-02-30T23:59:59.000250Z",
            "2024-02-29T23:59:59Z",
        ] {
            assert_eq!(Timestamp(other.into()).unix_us(), None, "{other}");
        }
    }

    #[test]
    fn a_clock_before_1970_is_shown_and_does_not_panic() {
        let time = UNIX_EPOCH - Duration::from_micros(1);
        assert_eq!(
            Timestamp::from(time).to_string(),
            "1969-12-31T23:59:59.999999Z"
        );
    }

    #[test]
    fn every_day_of_400_years_follows_the_one_before() {
        let (mut year, mut month, mut day) = civil(0);
        for n in 1..=146_097 {
            let next = civil(n);
            if next != (year, month, day + 1) {
                assert_eq!(next.2, 1, "day {n}");
                assert!(next == (year, month + 1, 1) || next == (year + 1, 1, 1) && month == 12);
            }
            (year, month, day) = next;
            assert_eq!(unix_day(year, month, day), n);
        }
        assert_eq!((year, month, day), (2370, 1, 1));
    }
}
