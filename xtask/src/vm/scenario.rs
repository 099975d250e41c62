//! Scenarios: shell scripts in `tests/vm` with a header that says what they show, on which kernels, whether CI
//! runs them, and how long they may take. What they share, `lib.sh`, is none.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::kernel::Kernel;

/// One script.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scenario {
    /// The file's name without `.sh`.
    pub(super) name: String,
    /// In one line.
    pub(super) shows: String,
    pub(super) kernels: Vec<Kernel>,
    /// Those of them on which it is run before any change is taken: what CI has time for.
    pub(super) in_ci: Vec<Kernel>,
    /// It is ended after this, and has failed.
    pub(super) limit: Duration,
    /// Whether it needs a machine on which nothing ran before.
    pub(super) needs_fresh_machine: bool,
}

/// What every scenario includes.
const SHARED: &str = "lib.sh";

/// All scenarios of a directory, by name.
///
/// # Errors
/// If a file cannot be read or its header says too little, too much or something else.
pub(super) fn all(dir: &Path) -> Result<Vec<Scenario>> {
    let mut scenarios = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        let file = path.file_name().context("a name")?.to_string_lossy();
        let Some(name) = file.strip_suffix(".sh").filter(|_| file != SHARED) else {
            continue;
        };
        let text = fs::read_to_string(&path)?;
        let scenario = parse(name, &text).with_context(|| format!("header of {}", path.display()));
        scenarios.push(scenario?);
    }
    scenarios.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scenarios)
}

/// Those that were asked for by name, in the order of `all`; all of them if none was.
///
/// # Errors
/// If there is no scenario of that name, with the names that there are.
pub(super) fn chosen(mut scenarios: Vec<Scenario>, names: &[String]) -> Result<Vec<Scenario>> {
    let known: Vec<_> = scenarios.iter().map(|s| s.name.clone()).collect();
    for name in names {
        ensure!(
            known.contains(name),
            "no scenario `{name}`; there are {}",
            known.join(", ")
        );
    }
    if !names.is_empty() {
        scenarios.retain(|scenario| names.contains(&scenario.name));
    }
    Ok(scenarios)
}

fn parse(name: &str, text: &str) -> Result<Scenario> {
    let mut lines = text.lines();
    ensure!(lines.next() == Some("#!/bin/bash"), "no `#!/bin/bash`");
    let mut fields = BTreeMap::new();
    for line in lines.map_while(|line| line.strip_prefix("# ")) {
        let (key, value) = line
            .split_once(": ")
            .with_context(|| format!("`{line}` is no `key: value`"))?;
        let before = fields.insert(key, value.trim());
        ensure!(before.is_none(), "`{key}` twice");
    }
    let mut take = |key| fields.remove(key).with_context(|| format!("no `{key}`"));
    let kernels = parse_kernels(take("kernels")?)?;
    let in_ci = take("ci").ok().map_or(Ok(Vec::new()), parse_kernels)?;
    ensure!(
        in_ci.iter().all(|kernel| kernels.contains(kernel)),
        "`ci` names a kernel that `kernels` does not"
    );
    let scenario = Scenario {
        name: name.to_owned(),
        shows: take("shows")?.to_owned(),
        kernels,
        in_ci,
        limit: Duration::from_secs(take("seconds")?.parse().context("seconds")?),
        needs_fresh_machine: match take("machine")? {
            "shared" => false,
            "fresh" => true,
            other => bail!("machine `{other}` is neither `shared` nor `fresh`"),
        },
    };
    match fields.keys().next() {
        Some(key) => bail!("`{key}` means nothing here"),
        None => Ok(scenario),
    }
}

fn parse_kernels(value: &str) -> Result<Vec<Kernel>> {
    if value == "all" {
        return Ok(Kernel::ALL.to_vec());
    }
    let parse = |word| {
        let known = Kernel::ALL.into_iter().find(|k| k.series() == word);
        known.with_context(|| format!("no kernel `{word}`"))
    };
    value.split(' ').map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    const HEADER: &str = "#!/bin/bash\n# shows: it works\n# kernels: 6.1 7.3\n# seconds: 20\n\
                          # machine: shared\n\n# other: a comment\ntrue\n";

    #[test]
    fn a_header_is_read() {
        let scenario = parse("boot", HEADER).expect("it is right");
        assert_eq!(
            scenario,
            Scenario {
                name: "boot".to_owned(),
                shows: "it works".to_owned(),
                kernels: vec![Kernel::V6_1, Kernel::V7_3],
                in_ci: Vec::new(),
                limit: Duration::from_secs(20),
                needs_fresh_machine: false,
            }
        );
        let fresh = parse("boot", &HEADER.replace("shared", "fresh")).expect("it is right");
        assert!(fresh.needs_fresh_machine);
        let all = parse("boot", &HEADER.replace("6.1 7.3", "all")).expect("it is right");
        assert_eq!(all.kernels, Kernel::ALL);
        let in_ci = HEADER.replace("# seconds", "# ci: 7.3\n# seconds");
        let in_ci = parse("boot", &in_ci).expect("it is right").in_ci;
        assert_eq!(in_ci, [Kernel::V7_3]);
    }

    #[test]
    fn a_header_that_is_wrong_is_refused() {
        for (right, wrong) in [
            ("#!/bin/bash", "#!/bin/sh"),
            ("# shows: it works\n", ""),
            ("6.1 7.3", "6.2"),
            ("# seconds", "# ci: 6.12\n# seconds"),
            ("20", "soon"),
            ("shared", "big"),
            ("# machine: shared", "# machine: shared\n# machine: fresh"),
            ("# machine: shared", "# machine: shared\n# memory: 2G"),
            ("# machine: shared", "# machine shared"),
        ] {
            let text = HEADER.replace(right, wrong);
            assert!(parse("boot", &text).is_err(), "{text}");
        }
    }

    #[test]
    fn scenarios_are_chosen_by_name() {
        let named = |name: &str| parse(name, HEADER).expect("it is right");
        let all = || vec![named("attach"), named("boot")];
        assert_eq!(chosen(all(), &[]).expect("all"), all());
        let boot = chosen(all(), &["boot".to_owned()]).expect("one");
        assert_eq!(boot, [named("boot")]);
        assert!(chosen(all(), &["boots".to_owned()]).is_err());
    }

    #[test]
    fn the_headers_of_all_scenarios_are_right() {
        let scenarios = all(&root().join("tests/vm")).expect("headers");
        assert!(scenarios.iter().any(|scenario| scenario.name == "boot"));
        for kernel in Kernel::ALL {
            let mut in_ci = scenarios.iter().filter(|s| s.in_ci.contains(&kernel));
            assert!(in_ci.next().is_some(), "{kernel:?}");
        }
    }
}
