//! Prometheus' text format, version 0.0.4: what both a scrape and node_exporter's textfile collector take. Which
//! numbers are told is [`super::page`]'s.
//!
//! Written here and not by a client library: those keep registries of living counters, and OpenMetrics, which the
//! newer ones speak alone, is no textfile.

use std::fmt::Write as _;

/// What a number is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Type {
    /// It goes up and down.
    Gauge,
    /// It goes up, and begins again at zero with the process that counts.
    Counter,
}

/// A number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<bool> for Number {
    fn from(holds: bool) -> Self {
        Self::Whole(u64::from(holds))
    }
}

/// Labels by their names. Values may hold anything.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page, as it is written.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// A metric without labels.
    pub(super) fn one(&mut self, name: &str, what: Type, help: &str, number: impl Into<Number>) {
        self.family(name, what, help).sample(&[], number);
    }

    /// The same, if there is a number.
    pub(super) fn maybe(
        &mut self,
        name: &str,
        what: Type,
        help: &str,
        number: Option<impl Into<Number>>,
    ) {
        if let Some(number) = number {
            self.one(name, what, help, number);
        }
    }

    /// A metric with a sample for each set of labels. One without samples is not written at all.
    pub(super) fn family<'a>(&'a mut self, name: &'a str, what: Type, help: &str) -> Family<'a> {
        let what = match what {
            Type::Gauge => "gauge",
            Type::Counter => "counter",
        };
        Family {
            head: format!("# HELP {name} {help}\n# TYPE {name} {what}\n"),
            name,
            text: &mut self.0,
        }
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// The samples of a metric.
pub(super) struct Family<'a> {
    /// Until the first sample.
    head: String,
    name: &'a str,
    text: &'a mut String,
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: Labels<'_>, number: impl Into<Number>) {
        self.text.push_str(&std::mem::take(&mut self.head));
        self.text.push_str(self.name);
        for (at, (label, value)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            push_escaped(self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let written = match number.into() {
            Number::Whole(number) => writeln!(self.text, " {number}"),
            Number::Real(number) => writeln!(self.text, " {number}"),
        };
        written.expect("a String takes all that is written to it");
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_label_values_stay_values() {
        let mut text = Text::default();
        let mut family = text.family("a", Type::Gauge, "What.");
        family.sample(&[("b", "\"} 1\nc 2\\"), ("d", "größe")], 0.041);
        let expected =
            "# HELP a What.\n# TYPE a gauge\na{b=\"\\\"} 1\\nc 2\\\\\",d=\"größe\"} 0.041\n";
        assert_eq!(text.into_string(), expected);
    }

    #[test]
    fn a_metric_without_samples_is_not_there() {
        let mut text = Text::default();
        drop(text.family("a", Type::Gauge, "What."));
        text.maybe("b", Type::Counter, "What.", None::<u64>);
        assert_eq!(text.into_string(), "");
    }
}
