//! Holds the three tellings of the schema against each other: the types, the JSON Schema in docs/,
//! and the field list of docs/INCIDENTS.md.

use std::{collections::BTreeSet, sync::LazyLock};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

use super::{Kind, Process, ReadError, Record, Style, Verdict, sample, summary};

const SCHEMA: &str = include_str!("../../../docs/incident-v1.schema.json");
const DOCUMENT: &str = include_str!("../../../docs/INCIDENTS.md");

static PARSED: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(SCHEMA).expect("the schema is JSON"));

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| Validator::of(PARSED.clone()));

/// A compiled schema.
struct Validator {
    schemas: Schemas,
    root: SchemaIndex,
}

impl Validator {
    fn of(schema: Value) -> Self {
        let mut compiler = Compiler::new();
        compiler
            .add_resource("memory:schema", schema)
            .expect("the schema is JSON");
        let mut schemas = Schemas::new();
        let root = compiler
            .compile("memory:schema", &mut schemas)
            .expect("the schema is a schema");
        Self { schemas, root }
    }

    fn is_valid(&self, value: &Value) -> bool {
        self.schemas.validate(value, self.root).is_ok()
    }

    /// What is wrong with `value`, in words; empty if nothing is.
    fn faults(&self, value: &Value) -> String {
        let verdict = self.schemas.validate(value, self.root);
        verdict
            .err()
            .map_or_else(String::new, |error| format!("{error:#}"))
    }
}

/// Panics, with all the reasons, unless `record` is what the schema describes.
pub(crate) fn validate(record: &Record) {
    let written: Value = serde_json::from_slice(&record.to_json()).unwrap();
    let faults = VALIDATOR.faults(&written);
    assert!(faults.is_empty(), "{faults}");
}

/// The schema with every field demanded and no other allowed: what this program writes.
fn strict() -> Validator {
    fn tighten(schema: &mut Value) {
        let fields = schema["properties"].as_object().into_iter().flatten();
        let fields: Vec<_> = fields
            .map(|(name, _)| name.clone())
            .filter(|it| it != "errno")
            .collect();
        schema["required"] = fields.into();
        schema["unevaluatedProperties"] = false.into();
    }
    let mut schema = PARSED.clone();
    tighten(&mut schema);
    for (name, definition) in schema["$defs"].as_object_mut().unwrap() {
        if definition["type"] == "object" {
            tighten(definition);
        }
        // Rivals and victims are processes with more fields; theirs are closed.
        if name == "process" {
            definition["unevaluatedProperties"] = true.into();
        }
    }
    Validator::of(schema)
}

#[test]
fn the_types_and_the_schema_have_the_same_fields() {
    let written = serde_json::to_value(sample::grave()).unwrap();
    let strict = strict();
    let faults = strict.faults(&written);
    assert!(faults.is_empty(), "{faults}");

    let mut longer = written.clone();
    longer["interventions"][0]["observed"]["more"] = 1.into();
    assert!(
        !strict.is_valid(&longer),
        "a field that the schema lacks must be found"
    );
    let mut shorter = written;
    shorter["victims"][0]
        .as_object_mut()
        .unwrap()
        .remove("ppid");
    assert!(
        !strict.is_valid(&shorter),
        "a field that the types lack must be found"
    );
}

/// `object.field` for every field that the schema describes; `record` is the whole.
fn schema_fields() -> BTreeSet<String> {
    let whole = [("record", &*PARSED)];
    let parts = PARSED["$defs"].as_object().unwrap();
    whole
        .into_iter()
        .chain(parts.iter().map(|(name, part)| (name.as_str(), part)))
        .flat_map(|(name, part)| {
            let fields = part["properties"].as_object().into_iter().flatten();
            fields.map(move |(field, _)| format!("{name}.{field}"))
        })
        .collect()
}

#[test]
fn the_document_and_the_schema_name_the_same_fields() {
    let (_, list) = DOCUMENT
        .split_once("## Every field")
        .expect("the list of fields");
    let mut documented = BTreeSet::new();
    let mut object = "record";
    for line in list.lines() {
        if let Some(name) = line.strip_prefix("### `") {
            object = name.trim_end_matches('`');
        } else if let Some((field, _)) = line.strip_prefix("| `").and_then(|it| it.split_once('`'))
        {
            documented.insert(format!("{object}.{field}"));
        }
    }
    assert_eq!(documented, schema_fields());
}

/// Whether all that `part` says is also in `whole`.
fn is_slice(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(name, value)| whole.get(name).is_some_and(|other| is_slice(value, other))),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(a, b)| is_slice(a, b))
        }
        _ => part == whole,
    }
}

#[test]
fn the_document_shows_a_slice_of_a_true_record() {
    let (_, block) = DOCUMENT.split_once("```json\n").expect("the example");
    let (block, _) = block.split_once("```").expect("the end of the example");
    let example = serde_json::from_str(block).unwrap();
    assert!(
        is_slice(&example, &serde_json::to_value(sample::killed()).unwrap()),
        "{example:#}"
    );
}

#[test]
fn the_document_shows_what_the_program_prints() {
    let style = Style {
        color: false,
        width: Some(80),
    };
    for record in [sample::quiet(), sample::killed()] {
        let shown = summary(&record, style);
        assert!(
            DOCUMENT.contains(&shown),
            "docs/INCIDENTS.md lacks:\n{shown}"
        );
    }
}

#[test]
fn the_schema_refuses_what_is_no_record() {
    let whole = serde_json::to_value(sample::grave()).unwrap();
    let spoilt: [fn(&mut Value); 6] = [
        |record| record["schema_version"] = 2.into(),
        |record| record["verdict"] = "fine".into(),
        |record| record["peak_bytes"] = "2 GiB".into(),
        |record| record["victims"][0]["comm"] = "a\nb".into(),
        |record| record["interventions"][1]["rungs"][1]["errno"] = Value::Null,
        |record| record["started_at"] = "yesterday".into(),
    ];
    assert!(VALIDATOR.is_valid(&whole));
    for (n, spoil) in spoilt.into_iter().enumerate() {
        let mut record = whole.clone();
        spoil(&mut record);
        assert!(!VALIDATOR.is_valid(&record), "case {n}");
    }
}

#[test]
fn a_record_survives_its_file() {
    for record in [sample::quiet(), sample::killed(), sample::grave()] {
        assert_eq!(Record::from_json(&record.to_json()).unwrap(), record);
    }
}

#[test]
fn a_record_with_fewer_or_more_fields_is_read() {
    let mut json = serde_json::to_value(sample::grave()).unwrap();
    let object = json.as_object_mut().unwrap();
    let required = &PARSED["required"];
    object.retain(|name, _| required.as_array().unwrap().iter().any(|it| it == name));
    object.insert("of_a_later_day".to_owned(), 1.into());
    object["target"] = serde_json::json!({ "of_a_later_day": true });
    let read = Record::from_json(json.to_string().as_bytes()).unwrap();
    assert_eq!(read.victims, sample::grave().victims);
    assert_eq!((read.peak_bytes, read.dry_run), (None, false));
}

/// Ids sort by time, and no two machines make the same one.
#[test]
fn a_records_id_is_a_uuid_of_version_7_and_its_schema_of_version_1() {
    let now = std::time::SystemTime::now();
    let [first, second] =
        [(); 2].map(|()| Record::new(now, now, 0, crate::incident::Verdict::Finished));
    assert_eq!(first.id.get_version_num(), 7);
    assert!(first.id < second.id);
    assert_eq!(first.schema_version, 1);
}

/// Written when the record had neither `near_miss` nor `machine` nor `kernel_log`, nor faults of processes.
#[test]
fn a_record_that_was_written_before_is_read() {
    let old = include_bytes!("../../../tests/fixtures/incident-0.1.0.json");
    let old = Record::from_json(old).expect("a record");
    let mut known = sample::grave();
    assert_eq!(old.interventions.len(), known.interventions.len());
    let process = old.victims[0].process.clone();
    assert_eq!((process.major_faults, process.swap_bytes), (None, None));
    assert_eq!(process.pid, known.victims[0].process.pid);
    assert_eq!(old.losses.kernel_lines, 0);
    // What it had is what it has.
    known.id = old.id;
    known.near_miss = None;
    known.machine = None;
    known.flight = None;
    known.kernel_log.clear();
    let suite = known.suite.as_mut().expect("tests");
    suite.not_run.clear();
    suite.processes.clear();
    suite.grown_bytes = 0;
    known.losses.kernel_lines = 0;
    for it in &mut known.interventions {
        it.victim.iter_mut().for_each(forget_what_is_new);
        it.rival_cgroups.clear();
        let rivals = it.rivals.iter_mut();
        rivals.for_each(|rival| forget_what_is_new(&mut rival.process));
    }
    let victims = known.victims.iter_mut();
    victims.for_each(|victim| forget_what_is_new(&mut victim.process));
    assert_eq!(old, known);
}

fn forget_what_is_new(process: &mut Process) {
    process.major_faults = None;
    process.minor_faults = None;
    process.system_us = None;
    process.swap_bytes = None;
}

#[test]
fn a_record_of_a_later_version_is_not_misread() {
    let later = br#"{ "schema_version": 2, "verdict": "of a later day" }"#;
    let error = Record::from_json(later).unwrap_err();
    assert!(matches!(error, ReadError::Version { found: 2 }), "{error}");
    assert!(Record::from_json(b"{}").is_err());
}

#[test]
fn the_kind_is_the_gravest_thing_in_the_record() {
    assert_eq!(sample::quiet().gravest(), Kind::Run);
    let mut record = sample::grave();
    assert_eq!(record.gravest(), Kind::Kill);
    record.victims.clear();
    assert_eq!(record.gravest(), Kind::Kill, "the rungs tell");
    record.interventions.remove(0);
    assert_eq!(record.gravest(), Kind::KernelOom);
    record.kernel_oom.clear();
    assert_eq!(record.gravest(), Kind::KernelOom, "the count tells");
    record.kernel_oom_kills = Some(0);
    assert_eq!(record.gravest(), Kind::Freeze);
    record.interventions[0].rungs.pop();
    assert_eq!(record.gravest(), Kind::Hang);
    record.hung_tasks.clear();
    assert_eq!(record.gravest(), Kind::Hang, "memwatch's own eyes tell");
    record.blocked_tasks.clear();
    assert_eq!(record.gravest(), Kind::Warn);
    record.interventions.clear();
    assert_eq!(record.gravest(), Kind::NearMiss);
    record.near_miss = None;
    assert_eq!(record.gravest(), Kind::Run);
    record.verdict = Verdict::Timeout;
    assert_eq!(record.gravest(), Kind::Timeout);
}
