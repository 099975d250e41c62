//! Names of units and paths of cgroups with wildcards: `*` and `?` stay within one part of a path, `[ab]` is
//! one character of a set, and `**` as a part of its own is any number of parts.

use std::fmt;

use glob::MatchOptions;

use super::Quoted;

/// What the name of a unit that has a cgroup ends in.
const UNIT_TYPES: [&str; 6] = ["service", "scope", "slice", "socket", "mount", "swap"];

/// A name or a path with wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(glob::Pattern);

/// Why a text is no pattern that could ever match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not in the language of patterns.
    #[error("{text} is no pattern: {why}; write for example {example}")]
    Malformed {
        /// As it is written.
        text: Quoted,
        /// What its reader says.
        why: &'static str,
        /// A right one.
        example: &'static str,
    },
    /// A path where the name of a unit belongs.
    #[error(
        "{0} is a path, and a unit has a name; put it into cgroups, or write for example \"docker.service\""
    )]
    PathForUnit(Quoted),
    /// systemctl(1) takes `docker`; there is no cgroup of that name.
    #[error(
        "{0} has no type of unit at its end; write for example \"docker.service\" or \"user@*.service\""
    )]
    NoType(Quoted),
    /// A cgroup's path that begins nowhere.
    #[error(
        "{0} does not begin with `/`, the top of /sys/fs/cgroup; write for example \"/ci/*/job-*\""
    )]
    Relative(Quoted),
    /// The path of the directory instead of the cgroup.
    #[error("{0} is a directory; write the path below /sys/fs/cgroup, for example \"/ci/*/job-*\"")]
    Directory(Quoted),
    /// The top, or parts that no cgroup is called.
    #[error("{0} is the path of no cgroup below the top; write for example \"/ci/*/job-*\"")]
    NoCgroup(Quoted),
}

impl Pattern {
    const OPTIONS: MatchOptions = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };

    /// For the names of units.
    pub(super) fn of_unit(text: &str) -> Result<Self, PatternError> {
        let pattern = Self::new(text, "\"user@*.service\"")?;
        let quoted = Quoted::new(text);
        if text.contains('/') {
            return Err(PatternError::PathForUnit(quoted));
        }
        let kind = text.rsplit_once('.').map_or("", |(_, kind)| kind);
        if !UNIT_TYPES.contains(&kind) && !text.ends_with(['*', '?', ']']) {
            return Err(PatternError::NoType(quoted));
        }
        Ok(pattern)
    }

    /// For the paths of cgroups below the top of their hierarchy.
    pub(super) fn of_cgroup(text: &str) -> Result<Self, PatternError> {
        let pattern = Self::new(text, "\"/ci/*/job-*\"")?;
        let quoted = Quoted::new(text);
        let Some(below) = text.strip_prefix('/') else {
            return Err(PatternError::Relative(quoted));
        };
        if text.starts_with("/sys/fs/cgroup") {
            return Err(PatternError::Directory(quoted));
        }
        if below.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(PatternError::NoCgroup(quoted));
        }
        Ok(pattern)
    }

    fn new(text: &str, example: &'static str) -> Result<Self, PatternError> {
        let malformed = |why| PatternError::Malformed {
            text: Quoted::new(text),
            why,
            example,
        };
        if text.contains(char::is_control) {
            return Err(malformed("it holds a control character"));
        }
        let pattern = glob::Pattern::new(text).map_err(|error| malformed(error.msg))?;
        Ok(Self(pattern))
    }

    /// Whether it is the whole of `name` that it means.
    pub(super) fn matches(&self, name: &str) -> bool {
        self.0.matches_with(name, Self::OPTIONS)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(pattern: &str, name: &str) -> bool {
        Pattern::of_unit(pattern).expect(pattern).matches(name)
    }

    fn cgroup(pattern: &str, path: &str) -> bool {
        Pattern::of_cgroup(pattern).expect(pattern).matches(path)
    }

    #[test]
    fn a_star_stays_within_one_part() {
        assert!(unit("user@*.service", "user@1000.service"));
        assert!(!unit("user@*.service", "user@1000.slice"));
        assert!(unit("*", ".hidden"));
        assert!(!unit("docker.service", "Docker.service"));
        assert!(unit(r"app-web\x2dapp-*.scope", r"app-web\x2dapp-7.scope"));
        assert!(cgroup("/ci/*/job-*", "/ci/linux/job-7"));
        assert!(!cgroup("/ci/*/job-*", "/ci/job-7"));
        assert!(!cgroup("/ci/*", "/ci/linux/job-7"));
        assert!(cgroup("/ci/**/job-?", "/ci/linux/x86/job-7"));
        assert!(cgroup("/ci/job-[12]", "/ci/job-2"));
        assert!(!cgroup("/ci", "/ci/job-2"));
    }

    #[test]
    fn what_could_match_nothing_is_refused_with_what_to_write() {
        for (text, said) in [
            ("docker", "has no type of unit at its end"),
            ("docker.conf", "has no type of unit at its end"),
            ("", "has no type of unit at its end"),
            ("/system.slice/docker.service", "put it into cgroups"),
            ("user@[.service", "is no pattern: "),
            ("a\u{1b}[31m.service", "is no pattern: "),
        ] {
            let error = Pattern::of_unit(text).expect_err(text).to_string();
            assert!(error.contains(said), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
        for (text, said) in [
            ("ci/*", "does not begin with `/`"),
            ("", "does not begin with `/`"),
            ("/sys/fs/cgroup/ci", "write the path below /sys/fs/cgroup"),
            ("/", "no cgroup below the top"),
            ("/ci//job", "no cgroup below the top"),
            ("/ci/../job", "no cgroup below the top"),
            ("/ci/", "no cgroup below the top"),
            ("/ci/a**", "is no pattern: "),
        ] {
            let error = Pattern::of_cgroup(text).expect_err(text).to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    /// Users choose the names of their cgroups.
    #[test]
    fn no_name_makes_matching_take_for_ever() {
        let pattern = format!("/{}b", "*a".repeat(50));
        assert!(!cgroup(&pattern, &format!("/{}", "a".repeat(255))));
        let deep = "/**/a".repeat(20) + "/b";
        assert!(!cgroup(&deep, &"/a".repeat(200)));
    }
}
