//! The tables, and what is put into them and read back. Several processes may use one history at once: each
//! change is a transaction, and who finds it locked waits.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior,
    named_params, params,
};
use uuid::Uuid;

use super::error::HistoryError;
use crate::host::file_error::FileError;
use crate::incident::{Text, Timestamp};
use crate::tests::{Measured, Run};

/// In the file's header, so that no other program's database is taken for a history: "memw".
const APPLICATION_ID: i64 = 0x6d65_6d77;
/// Of the tables.
const VERSION: i64 = 1;
/// How long to wait for another process: what it does takes milliseconds, on a machine that thrashes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries of our own.
const PAUSE: Duration = Duration::from_millis(5);

/// A name stands once for all runs. Numbers are SQLite's, with a sign; nothing measured comes near 2^63.
const TABLES: &str = "
CREATE TABLE run (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    started_at TEXT NOT NULL,
    peak_bytes INTEGER
) STRICT;
CREATE INDEX run_of_project ON run (project, started_at, id);
CREATE TABLE name (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE test (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    name INTEGER NOT NULL REFERENCES name,
    outcome TEXT NOT NULL,
    memory_bytes INTEGER,
    wall_us INTEGER NOT NULL,
    cpu_us INTEGER,
    is_first INTEGER NOT NULL,
    sets_up INTEGER NOT NULL,
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;
";

/// An open history.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    connection: Connection,
}

/// A run that is kept, without its tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The record's.
    pub id: Uuid,
    /// Whose.
    pub project: Text,
    /// When it began.
    pub started_at: Timestamp,
    /// How many tests it had.
    pub tests: u64,
    /// How many of them failed.
    pub failed: u64,
    /// The most memory that all of it held at once.
    pub peak_bytes: Option<u64>,
    /// The time of all its tests together.
    pub total_us: u64,
}

impl History {
    /// Opens the history at `path` to add to it; makes it if there is none.
    ///
    /// # Errors
    /// It cannot be made or opened, or is no history that this memwatch can use.
    pub fn open_or_create(path: &Path) -> Result<Self, HistoryError> {
        if let Some(directory) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            // What one's tests take is nobody else's business: as the XDG specification asks.
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(directory);
            made.map_err(FileError::at("make the directory", directory))?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut history = Self::connect(path, flags)?;
        history.prepare()?;
        Ok(history)
    }

    /// Opens the history at `path` to read it.
    ///
    /// # Errors
    /// There is none, it cannot be opened, or is no history that this memwatch can use.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => {
                let path = path.to_owned();
                return Err(HistoryError::Missing { path });
            }
            Err(source) => return Err(FileError::at("open", path)(source).into()),
        }
        // A reader of a history in WAL mode has to write to its index.
        let mut history = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        history.prepare()?;
        Ok(history)
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, HistoryError> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
            connection.busy_timeout(PATIENCE)?;
            Ok(connection)
        });
        let path = path.to_owned();
        match opened {
            Ok(connection) => Ok(Self { path, connection }),
            Err(source) => Err(HistoryError::Database {
                doing: "open",
                path,
                source,
            }),
        }
    }

    /// Makes the tables in an empty file; refuses what is not ours.
    fn prepare(&mut self) -> Result<(), HistoryError> {
        let is_new = match self.version() {
            Ok((0, 0, true)) => true,
            Ok((APPLICATION_ID, VERSION, _)) => false,
            Ok((APPLICATION_ID, found, _)) => {
                let path = self.path.clone();
                let known = VERSION;
                return Err(HistoryError::Newer { path, found, known });
            }
            Ok(_) => return Err(self.foreign()),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
                return Err(self.foreign());
            }
            Err(error) => return Err(self.failed("read")(error)),
        };
        if is_new {
            self.make_tables().map_err(self.failed("begin"))?;
        }
        self.connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(self.failed("open"))
    }

    /// The application's id, the tables' version, and whether there are no tables at all.
    fn version(&self) -> rusqlite::Result<(i64, i64, bool)> {
        // All of it as of one moment: somebody else may be making them.
        let moment = self.connection.unchecked_transaction()?;
        version(&moment)
    }

    fn make_tables(&mut self) -> rusqlite::Result<()> {
        // Readers and a writer do not wait for each other then. Where the file system cannot do that, SQLite
        // stays with what it can, and they wait.
        let until = Instant::now() + PATIENCE;
        loop {
            let mode =
                self.connection
                    .pragma_update_and_check(None, "journal_mode", "wal", |row| {
                        row.get::<_, String>(0)
                    });
            match mode {
                // For this SQLite itself does not always wait.
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && Instant::now() < until =>
                {
                    std::thread::sleep(PAUSE);
                }
                other => break other.map(drop)?,
            }
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Somebody else may have been faster.
        if version(&transaction)?.2 {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        transaction.commit()
    }

    fn foreign(&self) -> HistoryError {
        let path = self.path.clone();
        HistoryError::Foreign { path }
    }

    fn failed(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> HistoryError + use<> {
        let path = self.path.clone();
        move |source| HistoryError::Database {
            doing,
            path: path.clone(),
            source,
        }
    }

    /// Keeps `run`, as one of `project`'s; false if it is kept already.
    ///
    /// # Errors
    /// It cannot be written. Nothing of it is kept then.
    pub fn add(&mut self, run: &Run, project: &Text) -> Result<bool, HistoryError> {
        let failed = self.failed("write to");
        self.insert(run, project).map_err(failed)
    }

    fn insert(&mut self, run: &Run, project: &Text) -> rusqlite::Result<bool> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let inserted = transaction.execute(
            "INSERT INTO run (id, project, started_at, peak_bytes) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO NOTHING",
            params![
                run.id.to_string(),
                project.as_str(),
                run.started_at.to_string(),
                run.peak_bytes.map(signed)
            ],
        )?;
        if inserted == 0 {
            return Ok(false);
        }
        insert_tests(&transaction, transaction.last_insert_rowid(), &run.tests)?;
        transaction.commit()?;
        Ok(true)
    }

    /// Forgets the runs of `project` but for the last `keep`; how many they were.
    ///
    /// # Errors
    /// It cannot be written. Nothing is forgotten then.
    pub fn forget(&mut self, project: &Text, keep: usize) -> Result<usize, HistoryError> {
        let failed = self.failed("write to");
        self.delete(project, keep).map_err(failed)
    }

    fn delete(&mut self, project: &Text, keep: usize) -> rusqlite::Result<usize> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Its tests go with a run.
        let deleted = transaction.execute(
            "DELETE FROM run WHERE number IN (
                 SELECT number FROM run WHERE project = ?1 ORDER BY started_at DESC, id DESC LIMIT -1 OFFSET ?2)",
            params![project.as_str(), signed(keep as u64)],
        )?;
        let unused = "DELETE FROM name WHERE number NOT IN (SELECT name FROM test)";
        transaction.execute(unused, [])?;
        transaction.commit()?;
        Ok(deleted)
    }

    /// The runs that are kept, the oldest first; of one project, or all.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn list(&self, project: Option<&Text>) -> Result<Vec<Kept>, HistoryError> {
        self.select_list(project).map_err(self.failed("read"))
    }

    fn select_list(&self, project: Option<&Text>) -> rusqlite::Result<Vec<Kept>> {
        let mut statement = self.connection.prepare(
            "SELECT run.id, project, started_at, peak_bytes, count(test.name), coalesce(sum(wall_us), 0),
                    coalesce(sum(outcome IN ('failed', 'error', 'killed')), 0)
             FROM run LEFT JOIN test ON test.run = run.number
             WHERE :project IS NULL OR project = :project
             GROUP BY run.number ORDER BY started_at, run.id",
        )?;
        let rows = statement.query_map(
            named_params! { ":project": project.map(Text::as_str) },
            |row| {
                Ok(Kept {
                    id: parsed(row, 0)?,
                    project: row.get::<_, String>(1)?.into(),
                    started_at: timestamp(row, 2)?,
                    peak_bytes: row.get::<_, Option<i64>>(3)?.map(unsigned),
                    tests: row.get(4).map(unsigned)?,
                    total_us: row.get(5).map(unsigned)?,
                    failed: row.get(6).map(unsigned)?,
                })
            },
        )?;
        rows.collect()
    }

    /// The last `count` runs of `project`, the oldest first, without those of `except`.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn last(
        &self,
        project: &Text,
        count: usize,
        except: &[Uuid],
    ) -> Result<Vec<Run>, HistoryError> {
        self.select_last(project, count, except)
            .map_err(self.failed("read"))
    }

    fn select_last(
        &self,
        project: &Text,
        count: usize,
        except: &[Uuid],
    ) -> rusqlite::Result<Vec<Run>> {
        // One look at the history for all that is read of it.
        let transaction = self.connection.unchecked_transaction()?;
        let mut statement = transaction.prepare(
            "SELECT number, id, started_at, peak_bytes FROM run
             WHERE project = ?1 ORDER BY started_at DESC, id DESC",
        )?;
        let mut rows = statement.query([project.as_str()])?;
        let mut runs = Vec::new();
        while runs.len() < count {
            let Some(row) = rows.next()? else { break };
            let id = parsed(row, 1)?;
            if !except.contains(&id) {
                runs.push(Run {
                    id,
                    started_at: timestamp(row, 2)?,
                    peak_bytes: row.get::<_, Option<i64>>(3)?.map(unsigned),
                    tests: select_tests(&transaction, row.get(0)?)?,
                });
            }
        }
        runs.reverse();
        Ok(runs)
    }
}

fn version(connection: &Connection) -> rusqlite::Result<(i64, i64, bool)> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    let table = "SELECT 1 FROM sqlite_schema LIMIT 1";
    let table: Option<i64> = connection
        .query_row(table, [], |row| row.get(0))
        .optional()?;
    Ok((
        number("application_id")?,
        number("user_version")?,
        table.is_none(),
    ))
}

fn insert_tests(
    transaction: &Transaction<'_>,
    run: i64,
    tests: &BTreeMap<Text, Measured>,
) -> rusqlite::Result<()> {
    let mut name =
        transaction.prepare("INSERT INTO name (name) VALUES (?1) ON CONFLICT DO NOTHING")?;
    let mut insert = transaction.prepare(
        "INSERT INTO test (run, name, outcome, memory_bytes, wall_us, cpu_us, is_first, sets_up)
         SELECT ?1, number, ?3, ?4, ?5, ?6, ?7, ?8 FROM name WHERE name = ?2",
    )?;
    for (id, test) in tests {
        name.execute([id.as_str()])?;
        insert.execute(params![
            run,
            id.as_str(),
            test.outcome.name(),
            test.memory_bytes.map(signed),
            signed(test.wall_us),
            test.cpu_us.map(signed),
            test.is_first,
            test.sets_up
        ])?;
    }
    Ok(())
}

fn select_tests(connection: &Connection, run: i64) -> rusqlite::Result<BTreeMap<Text, Measured>> {
    let mut statement = connection.prepare(
        "SELECT name.name, outcome, memory_bytes, wall_us, cpu_us, is_first, sets_up
         FROM test JOIN name ON name.number = test.name WHERE run = ?1",
    )?;
    let rows = statement.query_map([run], |row| {
        let measured = Measured {
            outcome: parsed(row, 1)?,
            memory_bytes: row.get::<_, Option<i64>>(2)?.map(unsigned),
            wall_us: row.get(3).map(unsigned)?,
            cpu_us: row.get::<_, Option<i64>>(4)?.map(unsigned),
            is_first: row.get(5)?,
            sets_up: row.get(6)?,
        };
        Ok((row.get::<_, String>(0)?.into(), measured))
    })?;
    rows.collect()
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A word of the column's type, as the record has it too.
fn parsed<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let word: String = row.get(column)?;
    serde_json::from_value(serde_json::Value::String(word)).map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}

fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    parsed(row, column)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
