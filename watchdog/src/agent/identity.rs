//! Who and under which terms: the parts of the record that are the same from its start to its end.

use super::awake::Refused;
use super::rehearsal::RehearsalError;
use crate::causes::with_causes;
use crate::config::Span;
use crate::host::cgroup::NoShelter;
use crate::incident::{FeatureLost, Host};
use crate::watch::Settings;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::time::Duration;

/// This machine.
pub fn host() -> Host {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().into())
    };
    Host {
        hostname: read("/proc/sys/kernel/hostname"),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        kernel_release: read("/proc/sys/kernel/osrelease"),
    }
}

/// The settings by their names in the configuration, durations as they are written there.
pub fn settings(settings: &Settings) -> BTreeMap<String, serde_json::Value> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(settings) else {
        return BTreeMap::new();
    };
    fields
        .into_iter()
        .map(|(name, value)| (name, readable(value)))
        .collect()
}

/// The way back: the settings that a record was made with. What it does not name, or names otherwise, is as usual.
pub fn settings_of(record: &BTreeMap<String, serde_json::Value>) -> Settings {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::to_value(Settings::default())
    else {
        return Settings::default();
    };
    for (name, field) in &mut fields {
        let Some(value) = record.get(name) else {
            continue;
        };
        let before = std::mem::replace(field, value.clone());
        if before.is_object() {
            let span = value.as_str().and_then(|text| text.parse::<Span>().ok());
            let duration = span.and_then(|span| serde_json::to_value(span.duration()).ok());
            *field = duration.unwrap_or(before);
        } else if !value.is_u64() {
            *field = before;
        }
    }
    serde_json::from_value(fields.into()).unwrap_or_default()
}

fn readable(value: serde_json::Value) -> serde_json::Value {
    match serde_json::from_value::<Duration>(value.clone()) {
        Ok(duration) => Span::new(duration).map_or(value, |span| span.to_string().into()),
        Err(_) => value,
    }
}

/// memwatch has no cgroup of its own with protected memory.
pub fn no_shelter(why: &NoShelter) -> FeatureLost {
    FeatureLost {
        feature: format!("a cgroup of memwatch's own ({})", with_causes(why))
            .as_str()
            .into(),
        fallback: "the one that it was started in".into(),
        cost: "its limits hold memwatch up, too".into(),
    }
}

/// What happens before a machine's end is not written down.
pub fn no_black_box(why: &str) -> FeatureLost {
    FeatureLost {
        feature: format!("the black box ({why})").as_str().into(),
        fallback: "the journal".into(),
        cost: "if the machine ends without being shut down, nothing of memwatch's tells of its last seconds".into(),
    }
}

/// The kill was not rehearsed, or the rehearsal failed.
pub fn not_rehearsed(why: &RehearsalError) -> FeatureLost {
    let (fallback, cost) = if why.is_refusal() {
        (
            "the guard in the kernel, and the limit",
            "whoever exhausts memory without a stall is left to the kernel's OOM killer",
        )
    } else {
        (
            "a kill that nobody has tried",
            "if it is refused, nobody is killed before memory runs out",
        )
    };
    FeatureLost {
        feature: format!("a kill that works ({})", with_causes(why))
            .as_str()
            .into(),
        fallback: fallback.into(),
        cost: cost.into(),
    }
}

/// What the deciding thread had to do without.
pub fn refused(refused: &Refused) -> Vec<FeatureLost> {
    let lost = |errno: Option<i32>, feature: &str, cost: &str| {
        errno.map(|errno| FeatureLost {
            feature: format!("{feature} ({})", Errno::from_raw(errno).desc())
                .as_str()
                .into(),
            fallback: "nothing".into(),
            cost: cost.into(),
        })
    };
    [
        lost(
            refused.memory_lock,
            "locked memory",
            "memwatch itself can be paged out under pressure",
        ),
        lost(
            refused.realtime,
            "realtime scheduling",
            "memwatch competes for the CPU with what it watches",
        ),
        lost(
            refused.oom_score,
            "low oom_score_adj",
            "the kernel's OOM killer may choose memwatch",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_a_record() {
        let odd = Settings {
            foresight: 3,
            term_grace: Duration::from_millis(1234),
            machine_low_max_bytes: 7 << 20,
            ..Settings::default()
        };
        assert_eq!(settings_of(&settings(&odd)), odd);
        let strange = BTreeMap::from([
            ("foresight".to_owned(), "many".into()),
            ("settle".to_owned(), "soon".into()),
            ("of_a_later_day".to_owned(), 1.into()),
        ]);
        assert_eq!(settings_of(&strange), Settings::default());
    }
}
