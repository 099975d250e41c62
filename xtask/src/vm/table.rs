//! The table in docs/KERNELS.md of what was seen on each kernel: its rows are what the scenario `kernels` leaves.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::kernel::Kernel;
use crate::workspace::root;

const DOCUMENT: &str = "docs/KERNELS.md";
const BEGIN: &str = "<!-- from `cargo xtask vm --kernel all kernels` -->\n";
const END: &str = "<!-- until here -->\n";
/// The rows of a table begin behind its columns and the line below them.
const HEAD_LINES: usize = 2;

/// Holds the document against what runs on `kernels` have left in `out`, and writes it anew where it says something else.
///
/// # Errors
/// If it did: somebody has to look at it and to commit it. Or if it cannot be read or written.
pub(super) fn renew(out: &Path, kernels: &[Kernel]) -> Result<()> {
    let path = root().join(DOCUMENT);
    let before = fs::read_to_string(&path).with_context(|| format!("reading {DOCUMENT}"))?;
    let mut after = before.clone();
    for kernel in kernels {
        let rows = out.join(kernel.series()).join("kernels/table");
        if rows.exists() {
            after = with_rows(&after, kernel.series(), &fs::read_to_string(rows)?)
                .with_context(|| format!("the table in {DOCUMENT}"))?;
        }
    }
    if after == before {
        return Ok(());
    }
    fs::write(&path, after).with_context(|| format!("writing {DOCUMENT}"))?;
    bail!(
        "{DOCUMENT} told something else of these kernels and is written anew: look at it and commit it"
    )
}

/// The document with `rows` in the place of those that the table has of a kernel, in the order of kernels.
fn with_rows(document: &str, series: &str, rows: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).context("has no beginning")?;
    let (table, after) = rest.split_once(END).context("has no end")?;
    let lines: Vec<_> = table.split_inclusive('\n').collect();
    ensure!(lines.len() >= HEAD_LINES, "has no columns");
    let (head, old) = lines.split_at(HEAD_LINES);
    let mut table = head.concat();
    for kernel in Kernel::ALL {
        if kernel.series() == series {
            table += rows;
        } else {
            let first = format!("| {} |", kernel.series());
            table.extend(old.iter().filter(|row| row.starts_with(&first)).copied());
        }
    }
    Ok([before, BEGIN, &table, END, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(rows: &str) -> String {
        format!("# Kernels\n\n{BEGIN}| kernel | a |\n|---|---|\n{rows}{END}\nMore.\n")
    }

    #[test]
    fn rows_take_the_place_of_those_of_their_kernel() {
        let old = document("| 6.1 | x |\n| 6.1 | y |\n| 7.3 | z |\n");
        let with = |series, rows| with_rows(&old, series, rows).expect("a table");
        assert_eq!(with("6.1", "| 6.1 | x |\n| 6.1 | y |\n"), old);
        assert_eq!(
            with("6.1", "| 6.1 | w |\n"),
            document("| 6.1 | w |\n| 7.3 | z |\n")
        );
        assert_eq!(
            with("6.12", "| 6.12 | v |\n"),
            document("| 6.1 | x |\n| 6.1 | y |\n| 6.12 | v |\n| 7.3 | z |\n")
        );
    }

    #[test]
    fn a_document_without_the_table_is_refused() {
        assert!(with_rows("# Kernels\n", "6.1", "").is_err());
        assert!(with_rows(&format!("{BEGIN}{END}"), "6.1", "").is_err());
    }

    #[test]
    fn the_document_has_the_table() {
        let document = fs::read_to_string(root().join(DOCUMENT)).expect("text");
        with_rows(&document, "6.1", "").expect("a table");
    }
}
