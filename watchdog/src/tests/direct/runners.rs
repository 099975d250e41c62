//! Programs that run other programs, and how their command lines are read: a table. What follows from it is
//! `call`'s.

/// How the command that a program runs is found among its words.
#[derive(Debug)]
pub(super) enum Runner {
    /// After options, a subcommand, and so many words of its own.
    Command {
        /// One of these must stand there; none: no subcommand.
        subcommands: &'static [&'static str],
        /// Options with a value in the next word.
        valued: &'static [&'static str],
        /// Words before the command: a duration, a lock file, an image.
        positional: usize,
    },
    /// Runs a Python module that `-m` names.
    Module { subcommand: &'static str },
    /// Gives one word to a shell: the one after a flag, or the first.
    Line { flags: &'static [&'static str] },
    /// What follows one of these words is the command.
    Exec { flags: &'static [&'static str] },
    /// Runs pytest by itself.
    Itself,
    /// Only names what it is told.
    Never,
}

const fn plain(valued: &'static [&'static str], positional: usize) -> Runner {
    Runner::Command {
        subcommands: &[],
        valued,
        positional,
    }
}

const fn sub(
    subcommands: &'static [&'static str],
    valued: &'static [&'static str],
    positional: usize,
) -> Runner {
    Runner::Command {
        subcommands,
        valued,
        positional,
    }
}

const CONTAINER: &[&str] = &[
    "-v",
    "--volume",
    "-e",
    "--env",
    "--env-file",
    "-w",
    "--workdir",
    "--name",
    "--network",
    "--net",
    "-u",
    "--user",
    "-p",
    "--publish",
    "--entrypoint",
    "-m",
    "--memory",
    "--memory-swap",
    "--cpus",
    "-c",
    "--shm-size",
    "--mount",
    "--platform",
    "--pull",
    "--gpus",
    "--device",
    "--add-host",
    "-h",
    "--hostname",
    "-l",
    "--label",
    "--ulimit",
    "--tmpfs",
    "--cap-add",
    "--cap-drop",
    "--security-opt",
    "--ipc",
    "--pid",
    "--pids-limit",
    "--cgroupns",
    "--cgroup-parent",
    "--restart",
    "--runtime",
    "--link",
    "--dns",
    "--volumes-from",
    "-f",
    "--file",
    "--profile",
    "--project-name",
    "--project-directory",
    "--index",
];

const UV: &[&str] = &[
    "--with",
    "--with-editable",
    "--with-requirements",
    "--python",
    "-p",
    "--extra",
    "--no-extra",
    "--group",
    "--no-group",
    "--only-group",
    "--env-file",
    "--package",
    "--project",
    "--directory",
    "--index",
    "--index-url",
    "--default-index",
    "--extra-index-url",
    "--find-links",
    "-f",
    "-i",
    "--resolution",
    "--cache-dir",
    "--from",
    "-w",
    "--config-file",
    "-m",
    "--module",
];

const MPI: &[&str] = &[
    "-n",
    "-np",
    "-N",
    "-c",
    "-H",
    "--host",
    "--hostfile",
    "-hostfile",
    "-x",
    "--map-by",
    "--bind-to",
    "--mca",
    "-p",
    "-t",
    "-J",
];

#[rustfmt::skip]
static RUNNERS: &[(&[&str], Runner)] = &[
    // Around a process.
    (&["env"], plain(&["-u", "--unset", "-C", "--chdir"], 0)),
    (&["sudo", "doas"], plain(&["-u", "-g", "-p", "-C", "-r", "-t", "-D", "-R", "-T", "-U", "-h", "--user", "--group"], 0)),
    (&["timeout", "gtimeout"], plain(&["-s", "-k", "--signal", "--kill-after"], 1)),
    (&["nice"], plain(&["-n", "--adjustment"], 0)),
    (&["ionice"], plain(&["-c", "-n", "--class", "--classdata"], 0)),
    (&["chrt", "taskset", "faketime", "gosu", "su-exec", "chroot"], plain(&[], 1)),
    (&["numactl", "setpriv", "prlimit"], plain(&["-C", "-m", "-N", "-p", "-i"], 0)),
    (&["stdbuf"], plain(&["-i", "-o", "-e"], 0)),
    (&["flock"], plain(&["-w", "--timeout", "-E"], 1)),
    (&["nohup", "setsid", "chronic", "eatmydata", "unbuffer", "catchsegv", "caffeinate", "dumb-init", "tini",
       "ddtrace-run", "opentelemetry-instrument", "linux32", "linux64", "ltrace", "valgrind", "firejail", "unshare",
       "dbus-run-session", "dbus-launch", "wait-for-it", "wait-for-it.sh"], plain(&["--config-file", "-t", "-o", "-e"], 0)),
    (&["xvfb-run", "xwfb-run"], plain(&["-s", "--server-args", "-n", "--server-num", "-e", "--error-file", "-f", "-p", "-w"], 0)),
    (&["strace"], plain(&["-o", "-e", "-E", "-s", "-S", "-P", "-u"], 0)),
    (&["time", "gtime"], plain(&["-f", "-o", "--format", "--output"], 0)),
    (&["systemd-run"], plain(&["-p", "--property", "-u", "--unit", "--slice", "-E", "--setenv", "-M", "--uid", "--gid", "--description"], 0)),
    (&["runuser"], plain(&["-u", "--user", "-g"], 0)),
    (&["cgexec"], plain(&["-g"], 0)),
    (&["perf"], sub(&["stat", "record", "trace"], &["-e", "-o", "-F", "-r"], 0)),
    (&["rr"], sub(&["record"], &["-o"], 0)),
    (&["retry"], plain(&["-t", "-d", "-n", "--times", "--delay", "--until"], 0)),
    (&["xargs"], plain(&["-n", "-P", "-I", "-d", "-L", "-E", "-s", "-a"], 0)),
    (&["watch"], plain(&["-n", "--interval"], 0)),
    (&["entr"], plain(&[], 0)),
    (&["mpirun", "mpiexec", "mpiexec.hydra", "srun", "orterun"], plain(MPI, 0)),
    (&["kcov"], plain(&[], 1)),
    (&["newrelic-admin"], sub(&["run-program"], &[], 0)),
    // Environments of Python and others.
    (&["uv"], sub(&["run"], UV, 0)),
    (&["uvx"], plain(UV, 0)),
    (&["pipx"], sub(&["run"], &["--spec", "--python", "--pip-args", "--index-url"], 0)),
    (&["poetry"], sub(&["run"], &["-C", "--directory", "-P", "--project"], 0)),
    (&["pdm", "rye", "pipenv", "pixi"], sub(&["run"], &["-p", "--project", "-e", "--environment", "--manifest-path", "--pyproject"], 0)),
    (&["conda", "mamba", "micromamba"], sub(&["run"], &["-n", "--name", "-p", "--prefix", "--cwd"], 0)),
    (&["hatch"], sub(&["run"], &["-e", "--env"], 0)),
    (&["tox"], sub(&["exec", "e"], &["-e", "-c", "--conf"], 0)),
    (&["pyenv", "asdf", "bundle", "mise"], sub(&["exec", "x"], &[], 0)),
    (&["direnv", "chamber", "aws-vault"], sub(&["exec"], &[], 1)),
    (&["dotenv", "doppler", "op", "infisical"], sub(&["run"], &["-f", "--file", "-p", "-c", "--project", "--config", "--env-file"], 0)),
    // Python modules.
    (&["coverage", "coverage3", "memray"], Runner::Module { subcommand: "run" }),
    (&["accelerate"], Runner::Module { subcommand: "launch" }),
    (&["scalene", "kernprof", "viztracer", "pyinstrument", "debugpy", "torchrun", "fil-profile"], Runner::Module { subcommand: "" }),
    // Lines for a shell.
    (&["sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "su", "script", "busybox"], Runner::Line { flags: &["-c", "--command"] }),
    (&["nix-shell"], Runner::Line { flags: &["--run", "--command"] }),
    (&["nodemon"], Runner::Line { flags: &["--exec", "-x"] }),
    (&["eval", "hyperfine", "concurrently"], Runner::Line { flags: &[] }),
    (&["nix"], Runner::Exec { flags: &["-c", "--command"] }),
    (&["find", "fd"], Runner::Exec { flags: &["-exec", "-execdir", "-x", "-X", "--exec"] }),
    (&["gdb"], Runner::Exec { flags: &["--args"] }),
    // Elsewhere: see `is_elsewhere`.
    (&["docker", "podman", "nerdctl", "docker-compose", "podman-compose"], sub(&["run", "exec"], CONTAINER, 1)),
    (&["kubectl", "oc"], Runner::Exec { flags: &["--"] }),
    (&["singularity", "apptainer"], sub(&["exec"], &["-B", "--bind", "--pwd", "--env", "-H"], 1)),
    // pytest under other names.
    (&["ptw", "pytest-watch", "pytest-watcher"], Runner::Itself),
    // Names only.
    (&["echo", "printf", "which", "type", "hash", "alias", "export", "unset", "cd", "test", "set"], Runner::Never),
];

/// How the program of this name is read, if it runs others.
pub(super) fn of(name: &str) -> Option<&'static Runner> {
    RUNNERS
        .iter()
        .find(|(names, _)| names.contains(&name))
        .map(|(_, runner)| runner)
}

/// Whether it starts the command where a memwatch before it would not see it: in a container or on another
/// machine.
pub(super) fn is_elsewhere(name: &str) -> bool {
    matches!(
        name,
        "docker" | "podman" | "nerdctl" | "docker-compose" | "podman-compose" | "kubectl" | "oc"
    )
}

/// Whether what stands after its `--` is no command.
pub(super) fn takes_names(name: &str) -> bool {
    matches!(
        name,
        "git"
            | "grep"
            | "egrep"
            | "rg"
            | "ag"
            | "ls"
            | "cat"
            | "rm"
            | "cp"
            | "mv"
            | "mkdir"
            | "touch"
            | "pip"
            | "pip3"
            | "apt"
            | "apt-get"
            | "dnf"
            | "brew"
            | "sed"
            | "awk"
            | "head"
            | "tail"
            | "pre-commit"
            | "cargo"
            | "npm"
            | "pnpm"
            | "yarn"
    )
}

/// Whether `python -m` it runs another module.
pub(super) fn runs_modules(module: &str) -> bool {
    matches!(
        module,
        "coverage"
            | "memray"
            | "scalene"
            | "kernprof"
            | "viztracer"
            | "pyinstrument"
            | "debugpy"
            | "cProfile"
            | "profile"
            | "pdb"
            | "trace"
            | "torch.distributed.run"
            | "filprofiler"
    )
}
