//! The long help: the prose, examples and tables of `--help`. Paragraphs are left to clap to wrap;
//! what has columns is kept below 80.

/// `memwatch --help`.
pub(super) const ABOUT: &str = "\
Keep the machine usable while something eats its memory.

memwatch runs a command in a cgroup of its own, watches how long that cgroup stalls for want of \
memory, and ends the process that causes it before the machine freezes. Afterwards it says which \
process, why, and what the kernel was doing. Only the command dies: your shell, your terminal and \
memwatch are never part of what is guarded.

Put it in front of what worries you:

    memwatch attach -- pytest tests/ -n 4";

/// Below `memwatch --help`.
pub(super) const FILES: &str = "\
Files:
  /etc/memwatch/memwatch.toml               the machine's configuration
  /etc/memwatch/memwatch.toml.d/*.toml      more of it, in the order of names
  $XDG_CONFIG_HOME/memwatch/memwatch.toml   the user's; default ~/.config
  The user's wins over the machine's, flags win over both. --config, or else
  MEMWATCH_CONFIG, names one file to read instead of all. What is read, and
  in force, says: memwatch config check

Environment:
  MEMWATCH_CONFIG   path of the configuration file
  MEMWATCH_LOG      filter of the log, such as debug or memwatch::agent=trace
  NO_COLOR          if set, no colours

A command line that makes no sense ends with exit code 125.";

/// `memwatch attach --help`.
pub(super) const ATTACH: &str = "\
Run a command, or adopt a running one, in a cgroup of its own, and guard it.

Standard input, output, error, the terminal and signals pass through: the command behaves as it \
does without memwatch in front of it. When it runs its memory limit full, or stalls because memory \
is short, memwatch ends the process that causes it, SIGTERM first if there is time. At the end it \
prints a summary.";

/// The forms of `memwatch attach`.
pub(super) const ATTACH_USAGE: &str = "\
memwatch attach [OPTIONS] -- PROGRAM [ARGUMENT]...
       memwatch attach [OPTIONS] --cmd STRING
       memwatch attach [OPTIONS] --pid PID
       memwatch attach [OPTIONS] --cgroup PATH";

/// Below `memwatch attach --help`.
pub(super) const ATTACH_MORE: &str = "\
Examples:
  memwatch attach -- pytest tests/ -n 4
      no shell: the arguments reach pytest as they are
  memwatch attach --cmd 'make -j8 2>&1 | tee build.log'
      through your shell
  memwatch attach --safe -- ./run-benchmarks
      2 GiB, 300 s, at most two CPUs
  memwatch attach --memory-max 8G --timeout 30m --report r.json -- cargo test
  memwatch attach --pid 4242 --on-pressure freeze
      adopt a running process; stop it, but let it live, under pressure

Values:
  sizes       K, M, G, T and KiB ... TiB are powers of 1024, KB ... TB of
              1000; a bare number is bytes
  durations   d, h, m, s, ms from long to short, as in 1h30m; a bare number is
              seconds

Exit codes:
  the command's own   it ended by itself
  124                 it ran out of time (--timeout)
  125                 memwatch itself failed, or its options make no sense
  126                 the command was found but cannot be executed
  127                 the command was not found
  137                 it was killed for memory, by memwatch or by the kernel
  128+n               it was ended by signal n otherwise
  With --pid or --cgroup: 0 when the target has ended, 137 if memwatch
  emptied it.";

/// `--memory-max`.
pub(super) const MEMORY_MAX: &str = "\
Memory that the target may use, for example 2G, 1.5GiB or 512M. `auto` (the default) chooses from \
the memory that the machine has; `none` leaves the target bounded by the machine alone.";

/// `--memory-high`.
pub(super) const MEMORY_HIGH: &str = "\
Memory from which the target is slowed down by reclaim instead of killed, for example 1536M; below \
--memory-max. `auto` (the default) is 31/32 of --memory-max where the kernel has such a brake (cgroup v2); `none` \
sets none: there is only the limit.";

/// `--timeout`.
pub(super) const TIMEOUT: &str = "\
Time for the whole run, for example 300s, 5m or 1h30m; a bare number is seconds. The exit code is \
then 124. `none` (the default) sets no bound.";

/// `--test-memory`.
pub(super) const TEST_MEMORY: &str = "\
The most by which one test of pytest may grow, with the processes that it starts: what they hold \
beyond what its process held when it began. A test that is over it is failed with a message, and \
the suite goes on; if it does not answer, its process is killed. A test's own marker \
@pytest.mark.memwatch(memory=\"500M\") counts more.";

/// `--test-timeout`.
pub(super) const TEST_TIMEOUT: &str = "\
The longest that one test of pytest may take, setup and teardown included, also while it is in C \
code. As with --test-memory, the test is failed and not the run; a test's own marker \
@pytest.mark.memwatch(timeout=\"30s\") counts more, but with --safe only if it says less.";

/// `--fail-on-leak`.
pub(super) const FAIL_ON_LEAK: &str = "\
Fail the run of pytest if a test leaves something of this kind behind: its exit status is 1 then, and its \
summary says which test. What fixtures of wider scope hold until the end of the session is no leak. May be \
given more than once, or with commas.";

/// `--safe`.
pub(super) const SAFE: &str = "\
Safe mode, for what has frozen the machine before: at most 2 GiB, 300 s in total, 120 s for a test of \
pytest, two CPUs, and as many workers of pytest-xdist as have room. Tighter values of --memory-max, \
--timeout and --test-timeout are kept, looser ones are an error. --safe=false turns \
off what a configuration file turned on.";
