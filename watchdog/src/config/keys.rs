//! The tables and keys of the file: TOML text -> a [`Layer`] and changes to a [`Daemon`], the policy's
//! [`Settings`] among them; and back, for those who want to see what is in force. A new setting is one line
//! here (and one in docs/CONFIG.md); a test fails while either is missing.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::daemon::{Oomd, Users, Watch};
use super::error::{ConfigError, Problem};
use super::exporters::{Exporter, Exporters, Incidents, is_name};
use super::kinds::{
    BOOLEAN, BYTES, CGROUPS, DURATION, HEADERS, PATH, PERMILLE, Refusal, UNITS, count, parsed,
    type_of, word,
};
use super::nearest::nearest;
use super::resolve::{Layer, Origin};
use super::search::{Found, NamedBy};
use super::{Daemon, Prometheus, Quoted};
use crate::watch::Settings;

/// One key: its name, a right value as TOML writes it, where a value goes, and what it is.
pub(super) struct Key<T> {
    pub(super) name: &'static str,
    pub(super) example: &'static str,
    set: fn(&mut T, &DeValue<'_>) -> Result<(), Refusal>,
    /// As TOML writes it; `None` for silence.
    show: fn(&T) -> Option<String>,
}

/// Keys named like their fields, which hold a value, or `optional`ly one.
macro_rules! keys {
    (@name $name:ident) => { stringify!($name) };
    (@name $name:ident $key:literal) => { $key };
    (optional $($name:ident $(called $key:literal)? = $example:literal, $kind:expr;)*) => {
        &[$(Key {
            name: keys!(@name $name $($key)?),
            example: $example,
            set: |table, value| {
                table.$name = Some(($kind.read)(value)?);
                Ok(())
            },
            show: |table| table.$name.as_ref().map($kind.show),
        }),*]
    };
    ($($name:ident = $example:literal, $kind:expr;)*) => {
        &[$(Key {
            name: stringify!($name),
            example: $example,
            set: |table, value| {
                table.$name = ($kind.read)(value)?;
                Ok(())
            },
            show: |table| Some(($kind.show)(&table.$name)),
        }),*]
    };
}

/// `[attach]`.
pub(super) const ATTACH: &[Key<Layer>] = keys! { optional
    memory_max = "\"2G\"", parsed();
    memory_high = "\"1536M\"", parsed();
    timeout = "\"5m\"", parsed();
    test_memory = "\"500M\"", parsed();
    test_timeout = "\"30s\"", parsed();
    pytest = "true", BOOLEAN;
    on_pressure = "\"kill\"", word();
    safe = "true", BOOLEAN;
    dry_run = "true", BOOLEAN;
    daemon = "\"auto\"", word();
    live = "\"auto\"", word();
    report = "\"memwatch-report.json\"", PATH;
};

/// `[policy]`: the fields of [`Settings`].
pub(super) const POLICY: &[Key<Settings>] = keys! {
    stall_window = "\"3s\"", DURATION;
    stall_full_permille = "300", PERMILLE;
    stall_some_permille = "600", PERMILLE;
    thrash_full_permille = "50", PERMILLE;
    refault_pages_per_s = "512", count();
    hang_full_permille = "800", PERMILLE;
    near_limit_permille = "950", PERMILLE;
    machine_low_permille = "50", PERMILLE;
    machine_low_max_bytes = "\"1G\"", BYTES;
    fastest_fill_bytes_per_s = "\"8G\"", BYTES;
    shortest_look = "\"2ms\"", DURATION;
    longest_look = "\"1s\"", DURATION;
    reaction = "\"3ms\"", DURATION;
    foresight = "16", count();
    longest_foresight = "\"1s\"", DURATION;
    term_grace = "\"1s\"", DURATION;
    abort_grace = "\"2s\"", DURATION;
    growth_window = "\"4s\"", DURATION;
    death_grace = "\"500ms\"", DURATION;
    settle = "\"100ms\"", DURATION;
    guard_stale_after = "\"3s\"", DURATION;
    guard_stall_permille = "100", PERMILLE;
    cooldown = "\"10s\"", DURATION;
};

/// `[[watch]]`.
pub(super) const WATCH: &[Key<Watch>] = keys! {
    units = "[\"docker.service\", \"user@*.service\"]", UNITS;
    cgroups = "[\"/ci/*/job-*\"]", CGROUPS;
    on_pressure = "\"kill\"", word();
    dry_run = "true", BOOLEAN;
};

/// `[oomd]`.
pub(super) const OOMD: &[Key<Oomd>] = keys! {
    takeover = "true", BOOLEAN;
};

/// `[users]`.
pub(super) const USERS: &[Key<Users>] = keys! {
    attach = "true", BOOLEAN;
    targets_per_user = "16", count();
};

/// `[incidents]`.
pub(super) const INCIDENTS: &[Key<Incidents>] = keys! {
    of_runs = "true", BOOLEAN;
    most = "1000", count();
    most_bytes = "\"256M\"", BYTES;
};

/// `[export.NAME]`.
pub(super) const EXPORT: &[Key<Exporter>] = keys! { optional
    kind called "type" = "\"otlp\"", word();
    url = "\"https://collector.example:4318\"", parsed();
    headers = "{ \"X-Scope-OrgID\" = \"builds\" }", HEADERS;
    headers_file = "\"/etc/memwatch/otlp.headers\"", PATH;
    ca_file = "\"/etc/memwatch/ca.pem\"", PATH;
    certificate_file = "\"/etc/memwatch/client.pem\"", PATH;
    key_file = "\"/etc/memwatch/client.key\"", PATH;
    timeout = "\"10s\"", DURATION;
    retry_least = "\"1s\"", DURATION;
    retry_most = "\"5m\"", DURATION;
    compression = "\"gzip\"", word();
    record_most = "\"64K\"", parsed();
    metrics = "true", BOOLEAN;
    metrics_every = "\"15s\"", DURATION;
};

/// `[prometheus]`.
pub(super) const PROMETHEUS: &[Key<Prometheus>] = keys! { optional
    listen = "\"127.0.0.1:19188\"", parsed();
    textfile = "\"/var/lib/prometheus/node-exporter\"", PATH;
};

/// The tables.
const TABLES: [&str; 8] = [
    "attach",
    "policy",
    "watch",
    "oomd",
    "users",
    "incidents",
    "export",
    "prometheus",
];

/// Reads one file. What the machine's files alone may say goes straight into `daemon`, over what weaker
/// files said.
pub(super) fn parse(found: &Found, text: &str, daemon: &mut Daemon) -> Result<Layer, ConfigError> {
    let mut layer = Layer {
        origin: Origin::File(found.path.clone()),
        ..Layer::default()
    };
    tables(text, found.named_by, &mut layer, daemon)
        .map(|()| layer)
        .map_err(|(offset, problem)| {
            let (line, column) = line_and_column(text, offset);
            let problem = Box::new(problem);
            ConfigError::Line {
                path: found.path.clone(),
                line,
                column,
                problem,
            }
        })
}

/// Takes `KEY=VALUE` of `[policy]`, the value as a file has it or without its quotes.
pub(super) fn assign(assignment: &str, policy: &mut Settings) -> Result<(), Problem> {
    let (name, value) = assignment.split_once('=').unwrap_or((assignment, ""));
    let (name, value) = (name.trim(), value.trim());
    let is_value = DeValue::parse(value).is_ok();
    let quoted = toml::Value::from(value).to_string();
    let text = format!(
        "[policy]\n{} = {}",
        toml::Value::from(name),
        if is_value { value } else { &quoted }
    );
    let mut daemon = Daemon {
        policy: *policy,
        ..Daemon::default()
    };
    let set = tables(&text, NamedBy::User, &mut Layer::default(), &mut daemon);
    set.map_err(|(_, problem)| problem)?;
    *policy = daemon.policy;
    Ok(())
}

/// The keys of a table and their values in force, as a file would have them.
pub(super) fn show<T>(heading: &str, keys: &[Key<T>], table: &T) -> String {
    let lines = keys.iter().filter_map(|key| {
        let value = (key.show)(table)?;
        Some(format!("{} = {value}\n", key.name))
    });
    format!("{heading}\n{}", lines.collect::<String>())
}

/// A problem and the byte that it is at.
type Located = (usize, Problem);

fn tables(
    text: &str,
    named_by: NamedBy,
    layer: &mut Layer,
    daemon: &mut Daemon,
) -> Result<(), Located> {
    let document = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        (offset, Problem::Syntax(error.message().to_owned()))
    })?;
    for (name, value) in in_order(document.get_ref()) {
        let written = name.get_ref().as_ref();
        if let Some(table) = machines_own(written).filter(|_| named_by == NamedBy::User) {
            return Err((name.span().start, Problem::NotTheUsers { table }));
        }
        match written {
            "attach" => table(value, "[attach]", ATTACH, layer)?,
            "policy" => table(value, "[policy]", POLICY, &mut daemon.policy)?,
            "oomd" => table(value, "[oomd]", OOMD, &mut daemon.oomd)?,
            "users" => table(value, "[users]", USERS, &mut daemon.users)?,
            "incidents" => table(value, "[incidents]", INCIDENTS, &mut daemon.incidents)?,
            "export" => exporters(value, &mut daemon.exporters)?,
            "prometheus" => table(value, "[prometheus]", PROMETHEUS, &mut daemon.prometheus)?,
            "watch" => watches(value, &mut daemon.watch)?,
            other => {
                let place = String::new();
                // A key above the first table's name belongs into one.
                let problem = match home_of(other) {
                    Some(table) => Problem::Unknown {
                        what: "key",
                        name: Quoted::new(other),
                        place: " outside of a table".into(),
                        hint: format!("put it below a line that says {table}"),
                    },
                    None => unknown("table", other, place, TABLES.into_iter()),
                };
                return Err((name.span().start, problem));
            }
        }
    }
    Ok(())
}

/// Reads each `[[watch]]`, after those of other files.
fn watches(value: &Spanned<DeValue<'_>>, into: &mut Vec<Watch>) -> Result<(), Located> {
    const HEADING: &str = "[[watch]]";

    let DeValue::Array(items) = value.get_ref() else {
        return Err(not_below_its_heading(value, HEADING));
    };
    for item in items {
        let mut watch = Watch::default();
        table(item, HEADING, WATCH, &mut watch)?;
        if watch.units.is_empty() && watch.cgroups.is_empty() {
            return Err((item.span().start, Problem::NothingToWatch));
        }
        into.push(watch);
    }
    Ok(())
}

/// Reads each `[export.NAME]`, over what weaker files said of the same name.
fn exporters(value: &Spanned<DeValue<'_>>, into: &mut Exporters) -> Result<(), Located> {
    let DeValue::Table(entries) = value.get_ref() else {
        return Err(not_below_its_heading(value, "[export.NAME]"));
    };
    for (written, value) in in_order(entries) {
        let name = written.get_ref().as_ref();
        if !is_name(name) {
            let problem = Problem::ExporterName(Quoted::new(name));
            return Err((written.span().start, problem));
        }
        let exporter = into.entry(name.to_owned()).or_default();
        table(value, &format!("[export.{name}]"), EXPORT, exporter)?;
    }
    Ok(())
}

/// Reads the keys of one table into `into`.
fn table<T>(
    value: &Spanned<DeValue<'_>>,
    heading: &str,
    keys: &[Key<T>],
    into: &mut T,
) -> Result<(), Located> {
    let DeValue::Table(entries) = value.get_ref() else {
        return Err(not_below_its_heading(value, heading));
    };
    for (written, value) in in_order(entries) {
        let written_name = written.get_ref().as_ref();
        let Some(key) = keys.iter().find(|key| key.name == written_name) else {
            let known = keys.iter().map(|key| key.name);
            let problem = unknown("key", written_name, format!(" in {heading}"), known);
            return Err((written.span().start, problem));
        };
        (key.set)(into, value.get_ref()).map_err(|refusal| {
            let problem = match refusal {
                Refusal::Value(source) => Problem::Value {
                    key: key.name,
                    source,
                },
                Refusal::Type => Problem::Type {
                    key: key.name,
                    found: type_of(value.get_ref()),
                    example: key.example,
                },
            };
            (value.span().start, problem)
        })?;
    }
    Ok(())
}

/// Entries as the file has them, so that the first error is the topmost.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// A table that is none, or not the kind of table that it must be.
fn not_below_its_heading(value: &Spanned<DeValue<'_>>, heading: &str) -> Located {
    let name = heading.trim_matches(['[', ']']);
    let found = type_of(value.get_ref());
    let problem = Problem::Syntax(format!(
        "{name} cannot be {found}; write {heading} on a line of its own and its keys below it"
    ));
    (value.span().start, problem)
}

/// The heading of a table that only the machine's own files may have.
fn machines_own(table: &str) -> Option<&'static str> {
    match table {
        "watch" => Some("[[watch]]"),
        "oomd" => Some("[oomd]"),
        "users" => Some("[users]"),
        "prometheus" => Some("[prometheus]"),
        _ => None,
    }
}

/// The heading of the first table that has a key of this name.
fn home_of(key: &str) -> Option<&'static str> {
    fn has<T>(keys: &[Key<T>], name: &str) -> bool {
        keys.iter().any(|key| key.name == name)
    }
    [
        ("[attach]", has(ATTACH, key)),
        ("[policy]", has(POLICY, key)),
        ("[[watch]]", has(WATCH, key)),
        ("[oomd]", has(OOMD, key)),
        ("[users]", has(USERS, key)),
        ("[incidents]", has(INCIDENTS, key)),
        ("[export.NAME]", has(EXPORT, key)),
        ("[prometheus]", has(PROMETHEUS, key)),
    ]
    .into_iter()
    .find_map(|(heading, has)| has.then_some(heading))
}

fn unknown(
    what: &'static str,
    name: &str,
    place: String,
    known: impl Iterator<Item = &'static str> + Clone,
) -> Problem {
    let hint = match nearest(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", known.collect::<Vec<_>>().join(", ")),
    };
    Problem::Unknown {
        what,
        name: Quoted::new(name),
        place,
        hint,
    }
}

/// Line and column of a byte, from 1; the column in characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}
