//! Who tells: memwatch and its machine, by the semantic conventions. And how values are written.

use crate::incident::Host;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// Of the conventions that the names are from.
pub(super) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// What is the same for everything, unless `said` has it otherwise.
pub(super) fn attributes(said: Vec<(String, String)>, name: Option<String>) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("service.name", "memwatch"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("os.type", "linux"),
    ];
    let name = name.filter(|name| !name.is_empty());
    let name = name.map(|name| ("service.name".to_owned(), name));
    for (key, value) in said.into_iter().chain(name) {
        attributes.retain(|known| known.key != key);
        attributes.push(text(&key, &value));
    }
    attributes
}

/// With the machine, unless it was named already.
pub(super) fn resource(attributes: &[KeyValue], host: &Host) -> Resource {
    let mut attributes = attributes.to_vec();
    let of_host = [
        ("host.name", &host.hostname),
        ("os.version", &host.kernel_release),
    ];
    for (key, value) in of_host {
        if let Some(value) = value
            && attributes.iter().all(|known| known.key != key)
        {
            attributes.push(text(key, value.as_str()));
        }
    }
    Resource {
        attributes,
        ..Resource::default()
    }
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "memwatch".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

pub(super) fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

pub(super) fn texts(values: impl IntoIterator<Item = String>) -> Value {
    let values = values.into_iter().map(|value| AnyValue {
        value: Some(Value::StringValue(value)),
    });
    Value::ArrayValue(ArrayValue {
        values: values.collect(),
    })
}
