//! oomd.conf: what holds where a unit leaves it open.
//!
//! As systemd reads its configuration (systemd.syntax(7)): the first main file there is, then every drop-in by
//! name, of which one in `/etc` hides those of the same name elsewhere.

use super::PressureLimit;
use crate::host::machine::{ReadError, read_if_there};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The settings of oomd.conf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `SwapUsedLimit=`, in hundredths of a percent.
    pub swap_used_permyriad: u32,
    /// `DefaultMemoryPressureLimit=` and `DefaultMemoryPressureDurationSec=`.
    pub pressure: PressureLimit,
}

impl Default for Defaults {
    /// What systemd-oomd was built with.
    fn default() -> Self {
        Self {
            swap_used_permyriad: 9000,
            pressure: PressureLimit {
                permyriad: 6000,
                duration: Duration::from_secs(30),
            },
        }
    }
}

/// Where systemd looks, the most important first.
const PLACES: [&str; 4] = [
    "etc/systemd",
    "run/systemd",
    "usr/local/lib/systemd",
    "usr/lib/systemd",
];

impl Defaults {
    /// Reads them. A value that makes no sense is passed over, as systemd-oomd does.
    ///
    /// # Errors
    /// A file is there and cannot be read.
    pub fn read(root: &Path) -> Result<Self, ReadError> {
        let mut defaults = Self::default();
        for place in PLACES {
            if let Some(text) = read_if_there(root, &format!("{place}/oomd.conf"))? {
                defaults.apply(&text);
                break;
            }
        }
        let mut drop_ins = BTreeMap::new();
        for place in PLACES {
            let place = format!("{place}/oomd.conf.d");
            let entries = std::fs::read_dir(root.join(&place)).into_iter().flatten();
            for entry in entries.flatten() {
                let name = entry.file_name();
                if name.as_encoded_bytes().ends_with(b".conf") {
                    drop_ins.entry(name).or_insert_with(|| place.clone());
                }
            }
        }
        for (name, place) in drop_ins {
            let file = Path::new(&place).join(name);
            if let Some(text) = read_if_there(root, &file.to_string_lossy())? {
                defaults.apply(&text);
            }
        }
        Ok(defaults)
    }

    pub(in crate::host) fn apply(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let mut is_ours = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                is_ours = line == "[OOM]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| is_ours) else {
                continue;
            };
            let value = value.trim();
            match key.trim() {
                "SwapUsedLimit" => set(&mut self.swap_used_permyriad, permyriad(value)),
                "DefaultMemoryPressureLimit" => {
                    set(&mut self.pressure.permyriad, permyriad(value));
                }
                "DefaultMemoryPressureDurationSec" => {
                    let duration = time_span(value).filter(|it| it.as_secs() >= 1);
                    set(&mut self.pressure.duration, duration);
                }
                _ => {}
            }
        }
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// `60%`, `60.5%`, `605‰`, `6050‱`.
pub(in crate::host) fn permyriad(text: &str) -> Option<u32> {
    let (number, decimals) = match text.strip_suffix('%') {
        Some(number) => (number, 2),
        None => match text.strip_suffix('‰') {
            Some(number) => (number, 1),
            None => (text.strip_suffix('‱')?, 0),
        },
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if part.len() > decimals || (number.contains('.') && part.is_empty()) {
        return None;
    }
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) {
        return None;
    }
    let value: u32 = format!("{whole}{part:0<decimals$}").parse().ok()?;
    (value <= 10_000).then_some(value)
}

/// A time as systemd.time(7) writes it: `30s`, `1min 30s`, `500ms`; seconds without a unit.
pub(in crate::host) fn time_span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, after) = rest.split_at(digits.unwrap_or(rest.len()));
        let number: f64 = number.parse().ok()?;
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, after) = after.split_at(letters.unwrap_or(after.len()));
        let seconds = match unit {
            "" | "s" | "sec" | "second" | "seconds" => 1.0,
            "ms" | "msec" => 1e-3,
            "us" | "usec" => 1e-6,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = after.trim_start();
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }

    #[test]
    fn values_as_systemd_writes_them() {
        assert_eq!(permyriad("60%"), Some(6000));
        assert_eq!(permyriad("60.5%"), Some(6050));
        assert_eq!(permyriad("605‰"), Some(6050));
        assert_eq!(permyriad("7‱"), Some(7));
        for wrong in [
            "60", "101%", "-1%", "+1%", "1.+1%", "%", "1.%", "1.234%", "",
        ] {
            assert_eq!(permyriad(wrong), None, "{wrong}");
        }
        assert_eq!(time_span("30"), Some(Duration::from_secs(30)));
        assert_eq!(time_span("1min 30s"), Some(Duration::from_secs(90)));
        assert_eq!(time_span("2.5s"), Some(Duration::from_millis(2500)));
        assert_eq!(time_span("500ms"), Some(Duration::from_millis(500)));
        // Each part fits and the sum does not.
        let most = "9999999999999999999s 9999999999999999999s";
        for wrong in ["", "soon", "3 weeks", "-3s", ".", most] {
            assert_eq!(time_span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn without_a_file_it_is_what_it_was_built_with() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(
            Defaults::read(root.path()).expect("nothing"),
            Defaults::default()
        );
    }

    #[test]
    fn drop_ins_come_after_the_first_main_file_and_etc_hides_the_rest() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |file, text| write(root.path(), file, text);
        write("usr/lib/systemd/oomd.conf", "[OOM]\nSwapUsedLimit=10%\n");
        write(
            "etc/systemd/oomd.conf",
            "[OOM]\n#SwapUsedLimit=20%\nDefaultMemoryPressureLimit = 40%\n[Other]\nSwapUsedLimit=1%\n",
        );
        write(
            "usr/lib/systemd/oomd.conf.d/10-a.conf",
            "[OOM]\nDefaultMemoryPressureDurationSec=20s\nSwapUsedLimit=50%\n",
        );
        write(
            "usr/lib/systemd/oomd.conf.d/20-b.conf",
            "[OOM]\nDefaultMemoryPressureDurationSec=1ms\nSwapUsedLimit=60%\n",
        );
        write("etc/systemd/oomd.conf.d/20-b.conf", "[OOM]\n");
        write(
            "etc/systemd/oomd.conf.d/30-c.conf.off",
            "[OOM]\nSwapUsedLimit=70%\n",
        );
        let read = Defaults::read(root.path()).expect("readable");
        let expected = Defaults {
            swap_used_permyriad: 5000,
            pressure: PressureLimit {
                permyriad: 4000,
                duration: Duration::from_secs(20),
            },
        };
        assert_eq!(read, expected);
    }
}
