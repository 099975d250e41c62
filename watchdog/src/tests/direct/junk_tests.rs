//! No text is too odd: no panic, no place outside of the file, and an end in time.

use super::*;
use proptest::prelude::*;

const KINDS: [Kind; 10] = [
    Kind::Shell,
    Kind::Make,
    Kind::Just,
    Kind::Docker,
    Kind::Groovy,
    Kind::Ini,
    Kind::Python,
    Kind::Toml,
    Kind::Yaml,
    Kind::PackageJson,
];

/// Parts that files are made of, so that junk gets past the first character.
#[rustfmt::skip]
const PARTS: &[&str] = &[
    "pytest", "python -m ", "memwatch attach -- ", "# memwatch: allow", "\n", "\n  ", "\n\t", "\\\n", "\r\n", " ", "'", "\"",
    "\"\"\"", "'''", "`", "$(", "$((", "${", "${{ ", "{{", "}}", "}", "{", "(", ")", "[", "]", "<<EOF\n", "EOF\n", "<<<", ">", "|", "||",
    "pytest\n", "\tpytest\n", " pytest\n", "x: [pytest, -x]\n", "X='pytest -x'\n", "- run: pytest\n", "run: >\n  a\n", "pytest.main()\n",
    "x = ['pytest', '-x']\n", "sh 'pytest'\n", "RUN pytest\n", "x=memwatch\n", "# memwatch: allow\npytest\n", "cat <<E\nE\n",
    "&&", ";", ";;", "&", "case x in ", "esac", "run: ", "run: |", "run: >", "- ", "script:", "*a", "&a ", "!x ", "---\n", "[testenv]\n",
    "commands = ", "[scripts]\n", "x = ", "RUN ", "CMD ", "RUN <<A\n", "session.run(", "pytest.main(", "subprocess.run(", "os.execvp(", "sh(script: ",
    "sh ", "=", ":", ",", "é", "\u{2028}", "\0", "sh -c ", "-c", "eval ", "x=(", "f() {", "docker run ", "hatch run a:", "uv run ", "--",
];

proptest! {
    #[test]
    fn no_file_is_too_odd(parts in prop::collection::vec(0..PARTS.len(), 0..60)) {
        let text: String = parts.iter().map(|part| PARTS[*part]).collect();
        let lines = text.split('\n').count();
        for kind in KINDS {
            for finding in look(kind, &text).findings {
                prop_assert!((1..=lines).contains(&finding.line), "{kind:?} {finding:?}");
            }
        }
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for kind in KINDS {
            look(kind, &String::from_utf8_lossy(&bytes));
        }
    }
}

/// What fuzzing found: a mistake that YAML's reader sees behind the end, newlines that are escapes, and a call of
/// Python's that is not closed before what was taken for its argument.
#[test]
fn places_are_in_the_file_also_where_its_reader_counts_others() {
    let mistake = look(Kind::Yaml, "{a#\"").mistake.expect("one");
    assert_eq!(mistake.0, 1);
    let json = "{\"scripts\": {\"test\": \"cd a\\n\\npytest -x\"},\n\"b\": 1}\n";
    let looked = look(Kind::PackageJson, json);
    assert_eq!(looked.findings.len(), 1, "{looked:?}");
    assert_eq!(looked.findings[0].line, 1);
    look(
        Kind::Python,
        "impor tusbproc\"pytest\", n.run(\"pytest\", \"-nJ\0\0\0\0pytest.m\u{1}\u{11}\0\0[\":\n\tp-yte",
    );
}

/// Each part many times over: what takes time that grows with the square shows here as a test that hangs.
#[test]
fn long_junk_ends() {
    for part in PARTS {
        let text = part.repeat(100_000 / part.len());
        for kind in KINDS {
            look(kind, &text);
        }
    }
}
