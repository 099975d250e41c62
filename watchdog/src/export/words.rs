//! The words of the record's own schema, for whoever needs one alone.

use serde::Serialize;

/// The word that a value without content is written as: `kernel_oom`.
pub(super) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}
