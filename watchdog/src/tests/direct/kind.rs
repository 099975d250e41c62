//! Which way of writing commands down a file has: by its name, and where that says nothing by its first line.

/// A way to write commands down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A script for sh, bash and the like.
    Shell,
    /// A Makefile.
    Make,
    /// A justfile.
    Just,
    /// A Dockerfile.
    Docker,
    /// A Jenkinsfile.
    Groovy,
    /// tox.ini, setup.cfg.
    Ini,
    /// A noxfile, a script, a test with a `main`.
    Python,
    /// pyproject.toml, tox.toml, pixi.toml, a Pipfile.
    Toml,
    /// CI, compose files, pre-commit's configuration, a Taskfile.
    Yaml,
    /// package.json.
    PackageJson,
}

impl Kind {
    /// The kind of the file at `path`; `None` if it is none that is known. `text` may be empty, then the
    /// name alone counts.
    pub fn of(path: &str, text: &str) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        let stem = name.split('.').next().unwrap_or_default();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        match (name.as_str(), stem, extension) {
            ("package.json", ..) => Some(Self::PackageJson),
            ("pipfile", ..) | (.., "toml") => Some(Self::Toml),
            (.., "yml" | "yaml") => Some(Self::Yaml),
            (.., "py" | "pyw") => Some(Self::Python),
            (.., "sh" | "bash" | "zsh" | "ksh" | "bats") => Some(Self::Shell),
            (".envrc" | ".bashrc" | ".zshrc" | ".profile" | ".bash_profile", ..) => {
                Some(Self::Shell)
            }
            (.., "ini" | "cfg") => Some(Self::Ini),
            (_, "makefile" | "gnumakefile", _) | (.., "mk" | "mak") => Some(Self::Make),
            (_, "dockerfile" | "containerfile", _) | (.., "dockerfile") => Some(Self::Docker),
            ("justfile" | ".justfile", ..) | (.., "just") => Some(Self::Just),
            (_, "jenkinsfile", _) | (.., "jenkinsfile" | "groovy") => Some(Self::Groovy),
            _ => Self::of_first_line(text),
        }
    }

    fn of_first_line(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("#!")?;
        let mut words = line
            .split_ascii_whitespace()
            .filter(|word| !word.starts_with('-'));
        let first = words.next()?.rsplit('/').next()?;
        let program = if first == "env" { words.next()? } else { first };
        match program.trim_end_matches(|byte: char| byte.is_ascii_digit() || byte == '.') {
            "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" => Some(Self::Shell),
            "python" | "pypy" => Some(Self::Python),
            "make" => Some(Self::Make),
            "just" => Some(Self::Just),
            _ => None,
        }
    }

    /// What a comment starts with.
    pub(super) fn comments(self) -> &'static [&'static str] {
        match self {
            Self::Ini => &["#", ";"],
            Self::Groovy => &["//", "/*"],
            // JSON has none; a key named so is what people write instead.
            Self::PackageJson => &["\"//\":"],
            _ => &["#"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_first_lines_tell() {
        let table = [
            ("a/Makefile", "", Some(Kind::Make)),
            ("Makefile.am", "", Some(Kind::Make)),
            ("rules.mk", "", Some(Kind::Make)),
            ("docker/Dockerfile.test", "", Some(Kind::Docker)),
            ("test.Dockerfile", "", Some(Kind::Docker)),
            ("Containerfile", "", Some(Kind::Docker)),
            (".github/workflows/ci.yml", "", Some(Kind::Yaml)),
            ("Jenkinsfile.nightly", "", Some(Kind::Groovy)),
            ("justfile", "", Some(Kind::Just)),
            ("tox.ini", "", Some(Kind::Ini)),
            ("setup.cfg", "", Some(Kind::Ini)),
            ("Pipfile", "", Some(Kind::Toml)),
            ("noxfile.py", "", Some(Kind::Python)),
            ("package.json", "", Some(Kind::PackageJson)),
            ("tsconfig.json", "", None),
            ("ci/run", "#!/usr/bin/env bash\n", Some(Kind::Shell)),
            ("ci/run", "#!/bin/sh -e\n", Some(Kind::Shell)),
            (
                "ci/run",
                "#!/usr/bin/env -S python3.12 -u\n",
                Some(Kind::Python),
            ),
            ("ci/run", "#!/usr/bin/perl\n", None),
            ("README.md", "pytest tests/\n", None),
        ];
        for (path, text, wanted) in table {
            assert_eq!(Kind::of(path, text), wanted, "{path}");
        }
    }
}
