//! The plugin where it cannot work: on another system, or a Python that is too old or lacks a part. There it harms
//! nobody who has it installed or is given it.

use super::lab::Lab;
use super::sides::{PLUGIN, install, path, program, write};

/// A project that names all that the plugin knows.
const SETTINGS: &str =
    "[pytest]\nmemwatch = require\nmemwatch_test_memory = 500M\nmemwatch_test_timeout = 30s\n";
const SUITE: &str = "
import pytest
@pytest.mark.memwatch(memory='500M')
def test_it(): pass
";

/// Has Python's modules be missing to the plugin alone.
fn refusing(modules: &[&str]) -> String {
    format!(
        "import builtins\n\
         real, missing = builtins.__import__, {modules:?}\n\
         def imports(name, globals=None, *rest):\n    \
             if globals and globals.get('__name__') == 'memwatch_pytest' and name in missing:\n        \
                 raise ImportError(name)\n    \
             return real(name, globals, *rest)\n\
         builtins.__import__ = imports\n"
    )
}

/// Has the plugin find another system, while it is loaded.
const ELSEWHERE: &str = "
import importlib.abc, importlib.machinery, sys
class Elsewhere(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != 'memwatch_pytest': return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        real = spec.loader.exec_module
        def exec_module(module):
            sys.platform = 'darwin'
            try: real(module)
            finally: sys.platform = 'linux'
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Elsewhere())
";

fn project(site: &str) -> Lab {
    let lab = Lab::new();
    write(&lab, "pytest.ini", SETTINGS);
    write(&lab, "test_it.py", SUITE);
    write(&lab, "site/sitecustomize.py", site);
    install(&lab, "site");
    lab
}

#[test]
fn where_the_plugin_cannot_work_it_knows_its_words_and_does_nothing() {
    let sites = [
        refusing(&["resource", "fcntl", "termios"]),
        refusing(&["fcntl"]),
        refusing(&["importlib.metadata"]),
        ELSEWHERE.to_owned(),
    ];
    for site in &sites {
        let lab = project(site);
        let mut command = lab.command(program("plugins", "pytest"));
        command
            .args(["-p", "no:cacheprovider", "-p", "no:asyncio"])
            .args(["--strict-markers", "--strict-config", "-W", "error"])
            .env("PYTHONPATH", path(&lab, "site"));
        let ran = lab.run(command).expect(0);
        assert!(ran.text().contains("1 passed"), "{site}: {ran:#?}");
        // Given by memwatch it is as if there were none.
        let line = format!(
            "PYTHONPATH=$PYTHONPATH:{} {} -p no:cacheprovider",
            path(&lab, "site"),
            program("plugins", "pytest")
        );
        let ran = lab.attach(&["--cmd", &line]).expect_verdict("finished", 0);
        assert_eq!(ran.report["suite"], serde_json::Value::Null, "{site}");
    }
}

#[test]
fn a_python_that_is_too_old_finds_nothing_in_the_plugin() {
    let lab = Lab::new();
    write(&lab, "memwatch_pytest.py", PLUGIN);
    let script = "
import ast, sys
with open('memwatch_pytest.py') as file: ast.parse(file.read(), feature_version=(3, 7))
import pytest
sys.version_info = (3, 7, 17)
import memwatch_pytest
found = [name for name in dir(memwatch_pytest) if name.startswith('pytest_')]
assert found == [], found
";
    write(&lab, "look.py", script);
    let mut command = lab.command(program("plugins", "python"));
    command.arg("look.py");
    lab.run(command).expect(0);
}
