//! Files as people write them, and what is found in each.

use super::*;

/// What is found in the file of this name: `line: found => instead`.
fn found(path: &str, text: &str) -> Vec<String> {
    let kind = Kind::of(path, text).expect("a known kind");
    let looked = look(kind, text);
    assert_eq!(looked.mistake, None, "{path}");
    let shown = |finding: &Finding| {
        let Finding {
            line,
            found,
            instead,
            ..
        } = finding;
        format!("{line}: {found} => {instead}")
    };
    looked.findings.iter().map(shown).collect()
}

#[track_caller]
fn finds(path: &str, text: &str, wanted: &[&str]) {
    assert_eq!(found(path, text), wanted, "{path}:\n{text}");
}

#[test]
fn calls_in_shell_lines_are_found_through_whatever_runs_them() {
    for call in [
        "pytest",
        "pytest tests/ -n 4",
        "py.test -x",
        "pytest-3 tests",
        ".venv/bin/pytest",
        "\"$VIRTUAL_ENV/bin/pytest\" -q",
        "$PYTEST tests",
        "${PYTEST_CMD} tests",
        "python -m pytest",
        "python3.12 -W error -m pytest -x",
        "python -Im pytest",
        "$PYTHON -m pytest",
        "\"${PYTHON:-python3}\" -m pytest",
        "python $(which pytest) tests",
        "coverage run -m pytest",
        "coverage run --source=a --branch -m pytest tests",
        "python -m coverage run -m pytest",
        "python -m cProfile -o x -m pytest",
        "python -c 'import pytest; pytest.main([\"-x\"])'",
        "${PREFIX}coverage run -m pytest",
        "$(VENV)/pytest -x",
        "uv run pytest",
        "uv run --with pytest-xdist --python 3.12 pytest -n 2",
        "uv run -m pytest tests",
        "uv run python -m pytest",
        "uvx pytest tests",
        "uv tool run pytest",
        "poetry run pytest",
        "poetry run coverage run -m pytest",
        "pdm run pytest",
        "pipenv run pytest",
        "hatch run pytest",
        "hatch run test:pytest tests",
        "hatch -e py312 run pytest",
        "hatch test",
        "pixi run -e test pytest",
        "conda run -n env --no-capture-output pytest tests",
        "tox exec -e py312 -- pytest",
        "xvfb-run pytest",
        "xvfb-run -a -s '-screen 0 1x1x24' pytest",
        "timeout 60 pytest",
        "timeout -k 5 --signal=KILL 10m python -m pytest",
        "nice -n 10 pytest",
        "nohup pytest",
        "sudo -E -u user pytest",
        "env -u A B=1 pytest",
        "mpirun -n 2 python -m pytest",
        "taskset -c 0,1 pytest",
        "sh -c \"pytest\"",
        "bash -lc 'cd x && pytest tests'",
        "su user -c 'pytest'",
        "xargs pytest",
        "find . -name 'test_*.py' -exec pytest {} +",
        "with-database --port 1 -- pytest tests",
        "$RUN pytest tests",
        "$(UV) run pytest",
        "${{ matrix.prefix }} pytest tests",
        "ptw",
    ] {
        finds(
            "x.sh",
            call,
            &[&format!("1: {call} => memwatch attach -- {call}")],
        );
    }
}

#[test]
fn memwatch_stands_after_what_is_the_shells() {
    let table = [
        (
            "FOO=1 pytest -x",
            "FOO=1 pytest -x => FOO=1 memwatch attach -- pytest -x",
        ),
        (
            "exec pytest",
            "exec pytest => exec memwatch attach -- pytest",
        ),
        (
            "A=1 B='c d' timeout 9 pytest",
            "A=1 B='c d' timeout 9 pytest => A=1 B='c d' memwatch attach -- timeout 9 pytest",
        ),
        (
            "time pytest >log 2>&1 || exit",
            "pytest >log 2>&1 => memwatch attach -- pytest >log 2>&1",
        ),
        (
            "if ! pytest; then x; fi",
            "pytest => memwatch attach -- pytest",
        ),
        (
            "cd a && pytest b | tee c",
            "pytest b => memwatch attach -- pytest b",
        ),
        ("{ pytest; }", "pytest => memwatch attach -- pytest"),
        ("(cd a; pytest)", "pytest => memwatch attach -- pytest"),
        (
            "x=$(pytest -q)",
            "pytest -q => memwatch attach -- pytest -q",
        ),
        (
            "echo \"`pytest -q`\"",
            "pytest -q => memwatch attach -- pytest -q",
        ),
        (
            "docker run --rm -v a:b -e X=1 image pytest tests",
            "docker run --rm -v a:b -e X=1 image pytest tests => docker run --rm -v a:b -e X=1 image memwatch attach -- pytest tests",
        ),
        (
            "docker compose -f x.yml run --rm web pytest",
            "docker compose -f x.yml run --rm web pytest => docker compose -f x.yml run --rm web memwatch attach -- pytest",
        ),
        (
            "kubectl exec pod -- pytest x",
            "kubectl exec pod -- pytest x => kubectl exec pod -- memwatch attach -- pytest x",
        ),
    ];
    for (line, wanted) in table {
        finds("x.sh", line, &[&format!("1: {wanted}")]);
    }
}

#[test]
fn what_only_names_pytest_is_not_found() {
    for line in [
        "pip install pytest pytest-cov",
        "python -m pip install pytest",
        "python3 -m pip install --upgrade pip pytest",
        "uv pip install pytest",
        "uv add --dev pytest",
        "uv run --with pytest python x.py",
        "poetry add pytest",
        "conda install pytest",
        "apt-get install -y python3-pytest",
        "pytest --version",
        "python -m pytest --version",
        "pytest --help | grep x",
        "# pytest tests/",
        "make lint # then pytest",
        "echo pytest",
        "echo 'run pytest tests/'",
        "echo \"pytest && x\"",
        "printf '%s\\n' pytest",
        "which pytest",
        "command -v pytest",
        "if command -v pytest >/dev/null; then x; fi",
        "type pytest",
        "cat pytest.ini",
        "cp pytest.ini x",
        "rm -rf .pytest_cache",
        "grep -r pytest .",
        "git log -- pytest",
        "git commit -m 'fix py.test'",
        "export PYTEST_ADDOPTS=-x",
        "PYTEST=pytest",
        "PACKAGES='pytest numpy'",
        "PACKAGES=(pytest numpy)",
        "for tool in pytest mypy; do pip install $tool; done",
        "case $1 in pytest) run_it;; esac",
        "case $1 in\n  pytest|test)\n    x\n    ;;\nesac",
        "[ \"$1\" = pytest ] && x",
        "[[ $1 == pytest ]]",
        "cat <<EOF\npytest tests/\nEOF",
        "pytest() { memwatch attach -- command pytest \"$@\"; }\npytest tests",
        "PYTEST='memwatch attach -- pytest'\n$PYTEST tests",
        "memwatch attach -- pytest tests",
        "memwatch attach --cmd 'pytest tests && pytest more'",
        "FOO=1 sudo memwatch -v attach --memory-max 4G -- xvfb-run pytest",
        "uv run memwatch attach -- pytest",
        "docker run image memwatch attach -- pytest",
        "sh -c 'memwatch attach -- pytest'",
        "memwatch attach -- sh -c 'pytest'",
        "tox -e py312",
        "nox -s tests",
        "pytest-benchmark compare",
        "ssh host ls pytest",
        "python setup.py test",
        "python tests/pytest.py",
        "$PIP install pytest",
    ] {
        finds("x.sh", line, &[]);
    }
}

#[test]
fn lines_are_those_of_the_call() {
    let script = "\
#!/usr/bin/env bash
set -e
pip install pytest

FOO=1 \\
  timeout 60 \\
  pytest tests/ \\
    -x
cat <<'EOF'
pytest not/this
EOF
bash <<EOF
  pytest this
EOF
cd docs && pytest --doctest-glob='*.rst'
";
    finds(
        "ci/test.sh",
        script,
        &[
            "6: FOO=1 timeout 60 pytest tests/ -x => FOO=1 memwatch attach -- timeout 60 pytest tests/ -x",
            "13: pytest this => memwatch attach -- pytest this",
            "15: pytest --doctest-glob='*.rst' => memwatch attach -- pytest --doctest-glob='*.rst'",
        ],
    );
}

#[test]
fn a_comment_allows() {
    finds(
        "x.sh",
        "pytest a # memwatch: allow\npytest b\n",
        &["2: pytest b => memwatch attach -- pytest b"],
    );
    finds(
        "x.sh",
        "# memwatch: allow, it is quick\npytest a\npytest b\n",
        &["3: pytest b => memwatch attach -- pytest b"],
    );
    finds("x.sh", "pytest a \\\n  -x # memwatch: allow\n", &[]);
    finds(
        "x.sh",
        "echo 'memwatch: allow'; pytest\n",
        &["1: pytest => memwatch attach -- pytest"],
    );
    finds(
        "tox.ini",
        "[testenv]\ncommands =\n    ; memwatch: allow\n    pytest\n",
        &[],
    );
    finds("Jenkinsfile", "sh 'pytest' // memwatch: allow\n", &[]);
    finds("a.py", "# memwatch: allow\npytest.main([])\n", &[]);
    finds(
        "package.json",
        "{\"scripts\": {\n\"//\": \"memwatch: allow\",\n\"test\": \"pytest\"\n}}\n",
        &[],
    );
    finds(
        "a.yml",
        "script:\n  # memwatch: allow\n  - pytest\n  - pytest b\n",
        &["4: pytest b => memwatch attach -- pytest b"],
    );
}

#[test]
fn makefiles() {
    let makefile = "\
PYTEST ?= pytest
PYTHON := python3
.PHONY: test pytest
# pytest is run by `make test`
test: install pytest
\t@$(PYTEST) tests/ $(ARGS)
\t-$(PYTHON) -m pytest slow/ \\
\t\t--durations=5
cov:
\t@echo \"running pytest\"
\t$(UV) run coverage run -m pytest
\tfor d in a b; do (cd $$d && pytest) || exit 1; done
quick: ; pytest -x
COUNT := $(shell pytest --collect-only -q | wc -l)
good:
\tmemwatch attach -- $(PYTEST)
";
    finds(
        "Makefile",
        makefile,
        &[
            "6: $(PYTEST) tests/ $(ARGS) => memwatch attach -- $(PYTEST) tests/ $(ARGS)",
            "7: $(PYTHON) -m pytest slow/ --durations=5 => memwatch attach -- $(PYTHON) -m pytest slow/ --durations=5",
            "11: $(UV) run coverage run -m pytest => memwatch attach -- $(UV) run coverage run -m pytest",
            "12: pytest => memwatch attach -- pytest",
            "13: pytest -x => memwatch attach -- pytest -x",
            "14: pytest --collect-only -q => memwatch attach -- pytest --collect-only -q",
        ],
    );
    finds(
        "Makefile",
        "PYTEST = memwatch attach -- pytest\nt:\n\t$(PYTEST) a\n",
        &[],
    );
}

#[test]
fn justfiles() {
    let justfile = "\
set shell := [\"bash\", \"-c\"]
python := \"python3\"
# pytest
test *args:
    @{{python}} -m pytest {{ args }}
    # pytest
all: test
    uv run pytest
";
    finds(
        "justfile",
        justfile,
        &[
            "5: {{python}} -m pytest {{ args }} => memwatch attach -- {{python}} -m pytest {{ args }}",
            "8: uv run pytest => memwatch attach -- uv run pytest",
        ],
    );
}

#[test]
fn github_workflows() {
    let workflow = "\
name: pytest
on: [push]
jobs:
  pytest:
    name: Run pytest tests/
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - name: pytest
        run: pytest tests/
      - run: |
          pip install pytest
          # pytest
          python -m pytest -n auto \\
            --cov
          pytest --version
      - name: folded
        run: >-
          xvfb-run
          pytest
          -x

      - run: \"FOO=\\\"a b\\\" pytest\"
      - uses: nick-fields/retry@v3
        with:
          timeout_minutes: 10
          command: poetry run pytest
      - run: memwatch attach --memory-max 4G -- pytest
      - if: ${{ matrix.os == 'x' }}
        run: ${{ matrix.prefix }} pytest ${{ matrix.args }}
";
    finds(
        ".github/workflows/test.yml",
        workflow,
        &[
            "10: pytest tests/ => memwatch attach -- pytest tests/",
            "14: python -m pytest -n auto --cov => memwatch attach -- python -m pytest -n auto --cov",
            "19: xvfb-run pytest -x => memwatch attach -- xvfb-run pytest -x",
            "23: FOO=\"a b\" pytest => FOO=\"a b\" memwatch attach -- pytest",
            "27: poetry run pytest => memwatch attach -- poetry run pytest",
            "30: ${{ matrix.prefix }} pytest ${{ matrix.args }} => memwatch attach -- ${{ matrix.prefix }} pytest ${{ matrix.args }}",
        ],
    );
}

#[test]
fn other_ci_files() {
    let gitlab = "\
image: python:3.12
.script: &script
  - pip install pytest
pytest:
  stage: test
  before_script:
    - pip install pytest
  script:
    - *script
    - !reference [.setup, script]
    - pytest --junitxml=report.xml
    - |
      cd x
      tox
      py.test y
  artifacts: {reports: {junit: report.xml}}
";
    finds(
        ".gitlab-ci.yml",
        gitlab,
        &[
            "11: pytest --junitxml=report.xml => memwatch attach -- pytest --junitxml=report.xml",
            "15: py.test y => memwatch attach -- py.test y",
        ],
    );
    let circle = "\
version: 2.1
jobs:
  test:
    docker: [{image: cimg/python:3.12}]
    steps:
      - checkout
      - run: pytest a
      - run:
          name: pytest
          command: |
            pytest b
";
    finds(
        ".circleci/config.yml",
        circle,
        &[
            "7: pytest a => memwatch attach -- pytest a",
            "11: pytest b => memwatch attach -- pytest b",
        ],
    );
    let azure = "\
steps:
  - script: |
      python -m pip install pytest
      pytest tests --doctest-modules
    displayName: 'pytest'
  - bash: pytest
  - task: Bash@3
    inputs:
      targetType: inline
      script: pytest b
";
    finds(
        "azure-pipelines.yml",
        azure,
        &[
            "4: pytest tests --doctest-modules => memwatch attach -- pytest tests --doctest-modules",
            "6: pytest => memwatch attach -- pytest",
            "10: pytest b => memwatch attach -- pytest b",
        ],
    );
    let buildkite =
        "steps:\n  - label: pytest\n    command:\n      - pip install x\n      - pytest a\n";
    finds(
        "pipeline.yml",
        buildkite,
        &["5: pytest a => memwatch attach -- pytest a"],
    );
}

#[test]
fn other_yaml() {
    let compose = "\
services:
  test:
    image: pytest
    command: [\"pytest\", \"-x\"]
  other:
    command: pytest tests
    entrypoint:
      - sh
      - -c
      - pytest a
";
    finds(
        "docker-compose.yml",
        compose,
        &[
            r#"4: ["pytest", "-x"] => ["memwatch", "attach", "--", "pytest", "-x"]"#,
            "6: pytest tests => memwatch attach -- pytest tests",
            r#"8: ["sh", "-c", "pytest a"] => ["memwatch", "attach", "--", "sh", "-c", "pytest a"]"#,
        ],
    );
    let pre_commit = "\
repos:
  - repo: local
    hooks:
      - id: pytest
        name: pytest
        entry: poetry run pytest tests/unit
        language: system
        additional_dependencies: [pytest]
";
    finds(
        ".pre-commit-config.yaml",
        pre_commit,
        &["6: poetry run pytest tests/unit => memwatch attach -- poetry run pytest tests/unit"],
    );
    let task = "version: '3'\ntasks:\n  pytest:\n    deps: [pytest]\n    cmds:\n      - pytest\n      - cmd: pytest -x\n      - task: pytest\n";
    finds(
        "Taskfile.yml",
        task,
        &[
            "6: pytest => memwatch attach -- pytest",
            "7: pytest -x => memwatch attach -- pytest -x",
        ],
    );
    finds(
        "environment.yml",
        "dependencies:\n  - pytest\n  - pip:\n    - pytest-cov\n",
        &[],
    );
}

#[test]
fn jenkinsfiles() {
    let jenkinsfile = "\
pipeline {
  // sh 'pytest'
  stages { stage('pytest') { steps {
    sh 'pytest tests/'
    sh(script: \"python -m pytest ${ARGS}\", returnStatus: true)
    sh \"\"\"
      pip install pytest
      pytest -x \\\\
        --junitxml=a.xml
    \"\"\"
    echo 'pytest'
    sh 'memwatch attach -- pytest'
  } } }
}
";
    finds(
        "Jenkinsfile",
        jenkinsfile,
        &[
            "4: pytest tests/ => memwatch attach -- pytest tests/",
            "5: python -m pytest ${ARGS} => memwatch attach -- python -m pytest ${ARGS}",
            "8: pytest -x --junitxml=a.xml => memwatch attach -- pytest -x --junitxml=a.xml",
        ],
    );
}

#[test]
fn toxs_configuration() {
    let tox = "\
[tox]
envlist = py311, pytest
[testenv]
description = pytest
deps =
    pytest
    pytest-cov
setenv =
    PYTEST_ADDOPTS = -x
commands_pre = python -m pip check
commands =
    # pytest
    coverage run -m pytest {posargs:tests -x}
    py312,lint: pytest \\
        a
    - {envpython} -m pytest b
    {envbindir}/pytest c
    memwatch attach -- pytest d

[testenv:one]
commands = pytest {posargs}
[pytest]
addopts = -x
";
    let looked = look(Kind::Ini, tox);
    assert!(
        looked
            .findings
            .iter()
            .all(|finding| finding.also == ini::TOX)
    );
    finds(
        "tox.ini",
        tox,
        &[
            "13: coverage run -m pytest {posargs:tests -x} => memwatch attach -- coverage run -m pytest {posargs:tests -x}",
            "14: pytest a => memwatch attach -- pytest a",
            "16: {envpython} -m pytest b => memwatch attach -- {envpython} -m pytest b",
            "17: {envbindir}/pytest c => memwatch attach -- {envbindir}/pytest c",
            "21: pytest {posargs} => memwatch attach -- pytest {posargs}",
        ],
    );
    finds(
        "setup.cfg",
        "[options.extras_require]\ntest =\n    pytest\n[aliases]\ntest = pytest\n[tool:pytest]\naddopts = -x\n",
        &[],
    );
}

#[test]
fn scripts_in_toml() {
    let pyproject = "\
[project]
dependencies = [\"pytest\"]
scripts = { pytest = \"pytest:main\" }
[tool.pytest.ini_options]
addopts = \"-x\"
[tool.poetry.scripts]
test = \"a:pytest\"
[tool.poe.tasks]
test = \"pytest tests/\"
cov = { shell = \"coverage run -m pytest\", help = \"pytest\" }
all = [\"lint\", \"pytest\"]
pytest = { cmd = [\"pytest\", \"-x\"] }
[tool.pdm.scripts]
good = \"memwatch attach -- pytest\"
[tool.hatch.envs.default]
dependencies = [\"pytest\"]
[tool.hatch.envs.default.scripts]
test = \"pytest {args:tests}\"
cov = [
  \"coverage run -m pytest\",
  \"coverage report\",
]
[tool.tox]
legacy_tox_ini = \"\"\"
[testenv]
commands =
    pytest legacy
\"\"\"
[tool.tox.env_run_base]
commands = [
  [\"pytest\", { replace = \"posargs\", extend = true }],
  [\"python\", \"-m\", \"pytest\"],
]
";
    finds(
        "pyproject.toml",
        pyproject,
        &[
            "9: pytest tests/ => memwatch attach -- pytest tests/",
            "10: coverage run -m pytest => memwatch attach -- coverage run -m pytest",
            r#"12: ["pytest", "-x"] => ["memwatch", "attach", "--", "pytest", "-x"]"#,
            "18: pytest {args:tests} => memwatch attach -- pytest {args:tests}",
            "20: coverage run -m pytest => memwatch attach -- coverage run -m pytest",
            "27: pytest legacy => memwatch attach -- pytest legacy",
            r#"31: ["pytest", { replace = "posargs", extend = true }] => ["memwatch", "attach", "--", "pytest", { replace = "posargs", extend = true }]"#,
            r#"32: ["python", "-m", "pytest"] => ["memwatch", "attach", "--", "python", "-m", "pytest"]"#,
        ],
    );
    finds(
        "Pipfile",
        "[dev-packages]\npytest = \"*\"\n[scripts]\ntest = \"pytest -x\"\n",
        &["4: pytest -x => memwatch attach -- pytest -x"],
    );
    finds(
        "pixi.toml",
        "[dependencies]\npytest = \"*\"\n[feature.t.tasks]\ntest = { cmd = \"pytest\", depends-on = [\"pytest\"] }\n",
        &["4: pytest => memwatch attach -- pytest"],
    );
    finds(
        "mise.toml",
        "[tasks.test]\nrun = \"pytest\"\n",
        &["2: pytest => memwatch attach -- pytest"],
    );
}

#[test]
fn noxfiles() {
    let noxfile = "\
import nox
@nox.session
def pytest(session):
    \"\"\"session.run(\"pytest\")\"\"\"
    session.install(\"pytest\", \"-e\", \".\")
    session.run(\"pytest\", \"--cov\", *session.posargs)
    session.run(
        \"python\", \"-m\", \"pytest\",
        env={\"A\": \"b\"},
    )
    session.run('coverage', 'run', '-m', 'pytest', external=True)
    session.run(\"memwatch\", \"attach\", \"--\", \"pytest\", external=True)
    session.run(\"pytest\", \"--version\")
";
    finds(
        "noxfile.py",
        noxfile,
        &[
            r#"6: session.run("pytest", "--cov", *session.posargs) => session.run("memwatch", "attach", "--", "pytest", "--cov", *session.posargs, external=True)"#,
            r#"8: session.run( "python", "-m", "pytest", env={"A": "b"}, ) => session.run( "memwatch", "attach", "--", "python", "-m", "pytest", env={"A": "b"}, external=True)"#,
            r#"11: session.run('coverage', 'run', '-m', 'pytest', external=True) => session.run('memwatch', 'attach', '--', 'coverage', 'run', '-m', 'pytest', external=True)"#,
        ],
    );
}

#[test]
fn python_programs() {
    let script = "\
import pytest, subprocess, sys  # pytest.main()
REQUIRES = [\"pytest\", \"numpy\"]
subprocess.run([\"pytest\", \"-x\"], check=True)
subprocess.check_call([sys.executable, \"-m\", \"pytest\"])
subprocess.run(\"cd x && pytest -x\", shell=True)
subprocess.run(f\"{sys.executable} -m pytest {path}\".split())
subprocess.run(shlex.split('pytest -x'))
os.system('pytest')
os.execvp(\"pytest\", [\"pytest\", \"-x\"])
cmd = [sys.executable, \"-m\", \"pytest\"]
cmd = [\"pytest\", \"--lf\"] + more
await asyncio.create_subprocess_exec(\"pytest\", \"-x\")
subprocess.run([\"pip\", \"install\", \"pytest\"])
subprocess.run([\"memwatch\", \"attach\", \"--\", \"pytest\", \"-x\"])
ctx.run(\"pytest tests\")
if __name__ == \"__main__\":
    sys.exit(pytest.main([__file__, \"-x\"]))
    pytest.main()
    pytest.main(args)
raise pytest.UsageError(\"pytest -x\")
print(\"pytest -x\")
x = d[\"pytest\", \"-x\"]
assert command == [\"pytest\", \"-x\"]
Request(command=[\"pytest\", \"-x\"])
def command(): return [\"pytest\", \"-x\"]
";
    finds(
        "scripts/test.py",
        script,
        &[
            r#"3: subprocess.run(["pytest", "-x"], check=True) => subprocess.run(["memwatch", "attach", "--", "pytest", "-x"], check=True)"#,
            r#"4: subprocess.check_call([sys.executable, "-m", "pytest"]) => subprocess.check_call(["memwatch", "attach", "--", sys.executable, "-m", "pytest"])"#,
            r#"5: subprocess.run("cd x && pytest -x", shell=True) => subprocess.run("cd x && memwatch attach -- pytest -x", shell=True)"#,
            r#"6: subprocess.run(f"{sys.executable} -m pytest {path}".split()) => subprocess.run(f"memwatch attach -- {sys.executable} -m pytest {path}".split())"#,
            "7: subprocess.run(shlex.split('pytest -x')) => subprocess.run(shlex.split('memwatch attach -- pytest -x'))",
            "8: os.system('pytest') => os.system('memwatch attach -- pytest')",
            r#"9: os.execvp("pytest", ["pytest", "-x"]) => os.execvp("memwatch", ["memwatch", "attach", "--", "pytest", "-x"])"#,
            r#"10: [sys.executable, "-m", "pytest"] => ["memwatch", "attach", "--", sys.executable, "-m", "pytest"]"#,
            r#"11: ["pytest", "--lf"] => ["memwatch", "attach", "--", "pytest", "--lf"]"#,
            r#"12: asyncio.create_subprocess_exec("pytest", "-x") => asyncio.create_subprocess_exec("memwatch", "attach", "--", "pytest", "-x")"#,
            r#"15: ctx.run("pytest tests") => ctx.run("memwatch attach -- pytest tests")"#,
            r#"17: pytest.main([__file__, "-x"]) => subprocess.call(["memwatch", "attach", "--", sys.executable, "-m", "pytest", __file__, "-x"])"#,
            r#"18: pytest.main() => subprocess.call(["memwatch", "attach", "--", sys.executable, "-m", "pytest"])"#,
            r#"19: pytest.main(args) => subprocess.call(["memwatch", "attach", "--", sys.executable, "-m", "pytest", *args])"#,
            r#"25: ["pytest", "-x"] => ["memwatch", "attach", "--", "pytest", "-x"]"#,
        ],
    );
}

#[test]
fn package_json() {
    let package = r#"{
  "name": "pytest",
  "scripts": {
    "pytest": "jest",
    "test": "cd \"py\" && pytest",
    "good": "memwatch attach -- pytest"
  },
  "devDependencies": { "pytest": "1" }
}
"#;
    finds(
        "package.json",
        package,
        &["5: pytest => memwatch attach -- pytest"],
    );
}

#[test]
fn dockerfiles() {
    let dockerfile = "\
FROM python:3.12 AS pytest
# RUN pytest
RUN pip install pytest \\
    && apt-get clean
RUN --mount=type=cache,target=/root \\
    # a comment
    FOO=1 \\
    pytest tests/
RUN <<EOF
set -e
pytest heredoc
EOF
HEALTHCHECK --interval=5m CMD pytest health
ENTRYPOINT [\"python\", \"-m\", \"pytest\"]
CMD [\"tests/\"]
CMD [\"memwatch\", \"attach\", \"--\", \"pytest\"]
";
    finds(
        "Dockerfile",
        dockerfile,
        &[
            "8: FOO=1 pytest tests/ => FOO=1 memwatch attach -- pytest tests/",
            "11: pytest heredoc => memwatch attach -- pytest heredoc",
            "13: pytest health => memwatch attach -- pytest health",
            r#"14: ["python", "-m", "pytest"] => ["memwatch", "attach", "--", "python", "-m", "pytest"]"#,
        ],
    );
}

/// Each is no YAML to the parser, for another reason.
#[test]
fn yaml_with_a_mistake_is_read_line_by_line() {
    let helm = "\
{{- if .Values.test }}
spec:
  containers:
    - name: pytest
      {{- with .Values.image }}
      image: {{ . }}
      {{- end }}
      command: pytest -x
      args: [pytest]
{{- end }}
";
    let pre_commit = "\
repos:
- hooks:
  - id: mypy
    additional_dependencies: [
      'pytest',
    ]
  - id: pytest
    entry: 'pytest tests'
    # entry: pytest
  - run: |
      pip install pytest

      pytest a
    name: pytest
  - run: >
      pytest
      b
test:
  script:
  - tox
  # pytest
  - pytest c
  - |
    pytest d
  - memwatch attach -- pytest
  tags:
  - pytest
";
    let table: [(&str, &[(usize, &str)]); 2] = [
        (helm, &[(8, "pytest -x")]),
        (
            pre_commit,
            &[
                (8, "pytest tests"),
                (13, "pytest a"),
                (16, "pytest b"),
                (22, "pytest c"),
                (24, "pytest d"),
            ],
        ),
    ];
    for (text, wanted) in table {
        let looked = look(Kind::Yaml, text);
        assert!(looked.mistake.is_some(), "{text}");
        let found = looked.findings.iter();
        let found: Vec<_> = found
            .map(|finding| (finding.line, finding.found.as_str()))
            .collect();
        assert_eq!(found, wanted, "{text}");
    }
}

#[test]
fn toml_with_a_mistake_is_read_as_far_as_it_goes() {
    let looked = look(Kind::Toml, "[tasks]\na = \"pytest\"\nb = \n");
    assert_eq!(looked.findings.len(), 1);
    assert_eq!(looked.mistake.map(|(line, _)| line), Some(3));
}
