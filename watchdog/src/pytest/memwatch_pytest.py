"""memwatch's plugin for pytest: says which test runs, measures it, and fails it when memwatch asks.

`memwatch attach` puts this one file on PYTHONPATH, below the directory of its run; the same file is the
package pytest-memwatch. Without such a directory it knows its options and its marker, and does nothing.

What it writes there memwatch reads from outside, also after this process was killed:

  slots/PID    4 KiB, mapped: the test that runs now (`Slot`)
  results/PID  lines of JSON: the session, each test that is over, what it left behind
  stacks/PID   the Python stacks of all threads, whenever SIGURG came

What it reads there memwatch writes: run.json (the terms of the run), abort/PID (a test that is to fail,
and why), ended (tests whose process was killed, one line of JSON each).

A process without a handler ignores SIGURG, so that one which comes too late harms nobody.

Standard library only; Python 3.8 and later, pytest 6.2 and later.
"""

import errno
import faulthandler
import gc
import importlib.metadata
import json
import mmap
import os
import re
import resource
import signal
import struct
import sys
import threading
import time

import pytest

MARKER = "memwatch(memory=None, timeout=None): limits for this test under memwatch, such as '500M' and '30s'"
IDLE, COLLECT, SETUP, CALL, TEARDOWN, OVER = range(6)
PAGE = resource.getpagesize()
HERE = os.path.dirname(os.path.abspath(__file__))

# The code object that calls a collector, a setup, a test or a teardown, and catches what it raises: an
# exception from a signal handler below this frame fails the test, anywhere else it would end the run.
FROM_CALL = pytest.CallInfo.from_call.__func__.__code__ if hasattr(pytest, "CallInfo") else None
if FROM_CALL is None:  # before pytest 7
    from _pytest.runner import CallInfo

    FROM_CALL = CallInfo.from_call.__func__.__code__


# ---------------------------------------------------------------- options


def pytest_addoption(parser, pluginmanager):
    parser.addini("memwatch", "what a pytest without memwatch does: off, require or reexec", default="")
    parser.addini("memwatch_test_memory", "the most by which one test may grow under memwatch: 500M", default="")
    parser.addini("memwatch_test_timeout", "the longest that one test may take under memwatch: 30s", default="")
    stay_out_of_lists(pluginmanager)


def stay_out_of_lists(manager):
    """Has lists of plugins, as in pytest's header, be what they are without memwatch: what is installed."""
    if not is_injected():
        return
    module, listed = sys.modules[__name__], manager.list_plugin_distinfo

    def list_plugin_distinfo():
        pairs = []
        for plugin, dist in listed():
            if plugin is module:
                # The package may be installed besides: then that is what is shown.
                others = importlib.metadata.distributions(name="pytest-memwatch")
                others = [other for other in others if str(other.locate_file("")) != HERE]
                pairs += [(plugin, type(dist)(other)) for other in others[:1]]
            else:
                pairs.append((plugin, dist))
        return pairs

    manager.list_plugin_distinfo = list_plugin_distinfo


def parse_size(text):
    """Bytes of `500M`, `1.5GiB`: powers of 1024, as memwatch's own options have it."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*", str(text), re.IGNORECASE)
    if not match:
        raise pytest.UsageError("memwatch: %r is not a size; write it like 500M or 1.5GiB" % (text,))
    return int(float(match.group(1)) * 1024 ** " kmgt".index(match.group(2).lower() or " "))


def parse_span(text):
    """Microseconds of `30s`, `1m30s`, `500ms`; a bare number is seconds."""
    units = {"ms": 1e3, "s": 1e6, "m": 6e7, "h": 3.6e9}
    text = str(text).strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return int(float(text) * 1e6)
    if not re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+", text):
        raise pytest.UsageError("memwatch: %r is not a time; write it like 30s or 1m30s" % (text,))
    return int(sum(float(n) * units[u] for n, _, u in re.findall(r"([0-9]+(\.[0-9]+)?)(ms|s|m|h)", text)))


def project_says(config, key):
    """A value of the project's: of pytest's own configuration, or of [tool.memwatch] in pyproject.toml."""
    text = config.getini("memwatch_" + key if key != "pytest" else "memwatch")
    if text:
        return text
    root = str(getattr(config, "rootpath", None) or config.rootdir)
    try:
        with open(os.path.join(root, "pyproject.toml"), "rb") as file:
            content = file.read()
    except OSError:
        return None
    if b"[tool.memwatch]" not in content:
        return None
    for reader in ("tomllib", "tomli", "toml"):  # of Python 3.11, or of pytest
        try:
            parsed = __import__(reader).loads(content.decode())
        except ImportError:
            continue
        except ValueError as why:
            raise pytest.UsageError("memwatch: pyproject.toml: %s" % why)
        return parsed.get("tool", {}).get("memwatch", {}).get(key)
    return None


# ---------------------------------------------------------------- with memwatch or without


def run_directory():
    """The directory of the run that this process belongs to, or None."""
    for path in (os.path.dirname(HERE), os.environ.get("MEMWATCH_RUN", "")):
        if path and os.path.isfile(os.path.join(path, "run.json")):
            return path
    return None


def is_test_of_another():
    """Whether a test of another pytest has started this one: then this is part of that test."""
    return "PYTEST_CURRENT_TEST" in os.environ


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config, args):
    mode = project_says(early_config, "pytest")
    if mode in ("off", "", None):
        return
    if mode not in ("require", "reexec"):
        raise pytest.UsageError("memwatch: %r in the configuration: write off, require or reexec" % (mode,))
    if "MEMWATCH_ATTACHED" in os.environ or is_test_of_another():
        return
    command = ["memwatch", "attach", "--", sys.executable, "-m", "pytest"]
    command += list(early_config.invocation_params.args)
    if mode == "reexec":
        sys.stdout.flush()
        try:
            os.execvp(command[0], command)
        except OSError as why:
            raise pytest.UsageError("memwatch = reexec: %s cannot be run: %s; install memwatch" % (command[0], why))
    raise pytest.UsageError(
        "this project runs its tests under memwatch (memwatch = require); run: memwatch attach -- pytest %s"
        % " ".join(list(early_config.invocation_params.args))
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.addinivalue_line("markers", MARKER)
    run = run_directory()
    if run is None or is_test_of_another() or Watcher.of_this_process is not None:
        return
    try:
        watcher = Watcher(config, run)
    except OSError:  # the directory is gone, or another user's: there is nobody to tell
        return
    Watcher.of_this_process = watcher
    config.pluginmanager.register(watcher, "memwatch-watcher")


@pytest.hookimpl(tryfirst=True)
def pytest_collection():
    # Whoever measures coverage has begun by now, in a worker of pytest-xdist too.
    stay_out_of_coverage()


def stay_out_of_coverage():
    """Has coverage not take this file for the suite's: a report would fail for want of it after the run.

    Newer versions take it for somebody else's by themselves, as there is a pyvenv.cfg above it. For older
    ones this takes back what they decided, and what they have seen so far; with names that 5.0 to 7.17 have.
    """
    coverage = sys.modules.get("coverage")
    if coverage is None or not is_injected():
        return
    try:
        collector = coverage.Coverage.current()._collector
        decided = collector.should_trace_cache[__file__]
        decided.trace = False
        collector.data.pop(decided.source_filename, None)
    except (AttributeError, KeyError, TypeError):  # not at work, or another version
        pass


def is_injected():
    """Whether this file lies in the directory of a run, and is nobody's package."""
    return os.path.isfile(os.path.join(os.path.dirname(HERE), "run.json"))


@pytest.hookimpl(hookwrapper=True)
def pytest_cmdline_main(config):
    cap = workers_cap()
    asked = getattr(config.option, "numprocesses", None)
    if cap and isinstance(asked, int) and asked > cap:
        config.option.numprocesses = cap
    yield


@pytest.hookimpl(hookwrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    outcome = yield
    cap, chosen = workers_cap(), outcome.get_result()
    if cap and chosen and chosen > cap:
        outcome.force_result(cap)


def workers_cap():
    """The most workers of pytest-xdist that the terms of the run allow, or None."""
    run = run_directory()
    return read_terms(run).get("workers") if run and not is_test_of_another() else None


def read_terms(run):
    try:
        with open(os.path.join(run, "run.json"), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


# ---------------------------------------------------------------- what runs now, for memwatch to see


class Slot:
    """The test that runs now, in a page that outlives this process.

    `seq` is odd while the rest is being written. Numbers are little-endian; times are CLOCK_MONOTONIC.
    """

    HEAD = struct.Struct("<8sQIIQQQQQQQB15sI")
    PHASE = struct.Struct("<QQQQQB")  # began_ns, phase_began_ns, rss, memory limit, timeout, phase
    SEQ = struct.Struct("<Q")
    SIZE = 4096
    MAGIC = b"memwtst1"
    CAN_ABORT = 1

    def __init__(self, path, worker):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, self.SIZE)
            self.page = mmap.mmap(fd, self.SIZE)
        finally:
            os.close(fd)
        self.pid = os.getpid()
        self.worker = worker.encode()[:15]
        self.flags = 0
        self.seq = 0
        with open("/proc/self/stat", "rb") as file:
            self.start_ticks = int(file.read().rpartition(b")")[2].split()[19])

    def write(self, serial, node_id, phase, began_ns, rss, memory, timeout_us):
        name = node_id.encode("utf-8", "backslashreplace")
        kept = name[: self.SIZE - self.HEAD.size]
        seq = self.seq = self.seq + 2
        self.SEQ.pack_into(self.page, 8, seq - 1)
        self.HEAD.pack_into(
            self.page, 0, self.MAGIC, seq - 1, self.pid, self.flags, self.start_ticks, serial,
            began_ns, began_ns, rss, memory, timeout_us, phase, self.worker, len(name),
        )  # fmt: skip
        self.page[self.HEAD.size : self.HEAD.size + len(kept)] = kept
        self.SEQ.pack_into(self.page, 8, seq)

    def enter(self, phase):
        """The same test in its next phase."""
        seq = self.seq = self.seq + 2
        self.SEQ.pack_into(self.page, 8, seq - 1)
        self.SEQ.pack_into(self.page, 48, time.monotonic_ns())
        self.page[80] = phase
        self.SEQ.pack_into(self.page, 8, seq)


# ---------------------------------------------------------------- figures


class Gauge:
    """Figures of this process, each a system call or two: no file is opened for a test."""

    def __init__(self):
        self.statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.clear_refs = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
            os.write(self.clear_refs, b"5")
        except OSError:  # not in this kernel: no peaks
            self.clear_refs = None
        # ru_maxrss keeps the size of what this process was before its exec; where that was larger, the
        # kernel's text for VmHWM has to be read.
        rss, peak = self.rss(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.status = None
        if self.clear_refs is not None and peak > rss + (1 << 20):
            self.status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)

    def rss(self):
        return int(os.pread(self.statm, 128, 0).split(None, 2)[1]) * PAGE

    def reset_peak(self):
        if self.clear_refs is not None:
            os.write(self.clear_refs, b"5")  # fs/proc/task_mmu.c: CLEAR_REFS_MM_HIWATER_RSS

    def peak(self, usage):
        if self.clear_refs is None:
            return None
        if self.status is None:
            return usage.ru_maxrss * 1024
        text = os.pread(self.status, 4096, 0)
        return int(text.partition(b"VmHWM:")[2].split(None, 1)[0]) * 1024


# ---------------------------------------------------------------- the plugin at work


class Watcher:
    """Everything that one process of pytest does for memwatch."""

    of_this_process = None

    def __init__(self, config, run):
        self.config = config
        self.run = run
        self.pid = os.getpid()
        self.terms = read_terms(run)
        worker_input = getattr(config, "workerinput", None)
        self.worker = worker_input["workerid"] if worker_input else ""
        self.slot = Slot(os.path.join(run, "slots", str(self.pid)), self.worker)
        self.gauge = Gauge()
        self.results = self.create("results")
        self.stacks = self.create("stacks")
        self.ended_fd = os.open(os.path.join(run, "ended"), os.O_RDONLY | os.O_CLOEXEC)
        self.ended_size, self.ended = 0, {}
        self.read_ended()
        self.limits = self.common_limits()
        self.serial = 0
        self.test = None  # what is known of the test that runs
        self.called = set()  # what ran in workers of pytest-xdist, whatever came of it
        self.wreck = None  # the traceback of a test that memwatch has failed
        self.listen()
        os.register_at_fork(after_in_child=self.forget)
        self.tell(
            {
                "session": pytest.__version__,
                "python": "%d.%d.%d" % sys.version_info[:3],
                "worker": self.worker,
                "junit": os.path.abspath(config.option.xmlpath) if getattr(config.option, "xmlpath", None) else None,
                "root": str(getattr(config, "rootpath", None) or config.rootdir),
            }
        )

    def create(self, kind):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(os.path.join(self.run, kind, str(self.pid)), flags, 0o600)

    def forget(self):
        """In a fork of this process, which is nobody that memwatch asks for tests."""
        if Watcher.of_this_process is self:
            self.config.pluginmanager.unregister(self)
            self.slot = self.test = None

    def tell(self, line):
        try:
            os.write(self.results, json.dumps(line, separators=(",", ":")).encode() + b"\n")
        except OSError:  # a full disk does not fail a test
            pass

    # -- limits

    def common_limits(self):
        """The command line's, else the project's: pytest's configuration, then [tool.memwatch]."""
        memory, timeout = self.terms.get("test_memory_bytes") or 0, self.terms.get("test_timeout_us") or 0
        if not memory:
            text = project_says(self.config, "test_memory")
            memory = parse_size(text) if text else 0
        if not timeout or self.terms.get("longest_test_us"):
            text = project_says(self.config, "test_timeout")
            said = parse_span(text) if text else 0
            timeout = min(timeout, said) if timeout and said else timeout or said
        return memory, timeout

    def limits_of(self, item):
        mark = item.get_closest_marker("memwatch")
        if mark is None:
            return self.limits
        memory, timeout = self.limits
        if mark.kwargs.get("memory") is not None:
            memory = parse_size(mark.kwargs["memory"])
        if mark.kwargs.get("timeout") is not None:
            timeout = parse_span(mark.kwargs["timeout"])
        longest = self.terms.get("longest_test_us")
        if longest and (not timeout or timeout > longest):
            timeout = longest
        return memory, timeout

    # -- being asked to fail a test

    def listen(self):
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGURG) not in (signal.SIG_DFL, signal.SIG_IGN):
            return  # the suite's own
        signal.signal(signal.SIGURG, self.asked)
        # Writes the stacks at once, also while C code runs, and then hands on to `asked`, which Python
        # calls when C code returns.
        faulthandler.register(signal.SIGURG, file=self.stacks, all_threads=True, chain=True)
        self.slot.flags = Slot.CAN_ABORT
        self.slot.write(0, "", IDLE, time.monotonic_ns(), 0, 0, 0)

    def asked(self, _signum, frame):
        __tracebackhide__ = True
        if os.getpid() != self.pid or self.slot is None:
            return
        try:
            with open(os.path.join(self.run, "abort", str(self.pid)), encoding="utf-8") as file:
                request = json.load(file)
        except (OSError, ValueError):
            return  # only the stacks were wanted
        if request.get("serial") != self.serial:
            return  # that test is over
        while frame is not None and frame.f_code is not FROM_CALL:
            frame = frame.f_back
        if frame is None:
            return
        self.failed = self.serial, request.get("why", "failed by memwatch")
        failure = pytest.fail.Exception(self.failed[1])
        if self.test is None:  # of a collector nobody hands the exception on
            self.wreck = failure
        raise failure

    failed = 0, None  # the test that was failed here last, and why

    def give_back(self):
        """Takes a failed test apart: its frames hold what it allocated (pytest keeps the traceback)."""
        wreck, self.wreck = self.wreck, None
        if wreck is None:
            return
        seen = set()
        while wreck is not None and id(wreck) not in seen:
            seen.add(id(wreck))
            trace = wreck.__traceback__
            while trace is not None:
                try:
                    trace.tb_frame.clear()
                    trace.tb_frame.f_locals  # noqa: B018  (before 3.13 a copy of the locals stays until it is asked for)
                except RuntimeError:  # it runs
                    pass
                trace = trace.tb_next
            wreck = wreck.__context__
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            if hasattr(sys, name):
                delattr(sys, name)
        gc.collect()
        import ctypes

        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:  # not glibc
            pass

    # -- tests whose process was killed are not tried again

    def read_ended(self):
        size = os.fstat(self.ended_fd).st_size
        if size == self.ended_size:
            return
        new = os.pread(self.ended_fd, size - self.ended_size, self.ended_size)
        lines, _, rest = new.rpartition(b"\n")  # the last line may not be whole yet
        self.ended_size = size - len(rest)
        for line in lines.splitlines():
            try:
                entry = json.loads(line)
                self.ended[entry["id"]] = entry
            except (ValueError, KeyError, TypeError):
                continue

    def why_ended(self, node_id):
        """Why the process that ran this was killed; None too if it was for another test's memory."""
        self.read_ended()
        entry = self.ended.get(node_id)
        return None if entry is None or entry.get("bystander") else entry.get("why", "")

    # -- collection

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectstart(self, collector):
        self.serial += 1
        self.collect_rss = self.gauge.rss()
        self.slot.write(self.serial, collector.nodeid, COLLECT, time.monotonic_ns(), self.collect_rss, 0, 0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(self, collector):
        why = self.why_ended(collector.nodeid)
        if why is None:
            return None
        text = "memwatch: the process that collected this was killed, so it is not tried again: %s" % why
        return pytest.CollectReport(collector.nodeid, "failed", text, [])

    @pytest.hookimpl(trylast=True)
    def pytest_collectreport(self, report):
        if self.failed[0] != self.serial or self.failed[1] is None:
            return
        self.give_back()
        # What it did not give back is its own, and not that of whoever runs when that is too much.
        self.tell(
            {
                "collected": report.nodeid,
                "serial": self.serial,
                "rss_before_bytes": self.collect_rss,
                "rss_after_bytes": self.gauge.rss(),
            }
        )

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session):
        self.slot.write(0, "", IDLE, time.monotonic_ns(), 0, 0, 0)
        if session.items:  # the controller of pytest-xdist has none
            self.tell({"selected": len(session.items)})

    # -- a test

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        self.serial += 1
        memory, timeout = self.limits_of(item)
        rss = self.gauge.rss()
        self.gauge.reset_peak()
        began_ns = time.monotonic_ns()
        self.test = {
            "id": item.nodeid,
            "serial": self.serial,
            "began_ns": began_ns,
            "rss_before": rss,
            "usage": resource.getrusage(resource.RUSAGE_SELF),
            "phases": {},
            "outcome": None,
        }
        self.slot.write(self.serial, item.nodeid, SETUP, began_ns, rss, memory, timeout)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        self.slot.enter(SETUP)  # for the first time, or again
        why = self.why_ended(item.nodeid)
        if why is not None:
            text = "memwatch: the process that ran this test was killed, so it is not tried again: %s" % why
            pytest.fail(text, pytrace=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item):
        self.slot.enter(CALL)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item):
        self.give_back()
        self.slot.enter(TEARDOWN)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        test = self.test
        if test is None:
            return
        test["phases"][call.when] = test["phases"].get(call.when, 0) + call.duration
        if self.failed[0] == self.serial and call.excinfo is not None:
            self.wreck = call.excinfo.value
        if call.when == "teardown":
            self.measure(test)
            if getattr(self.config.option, "xmlpath", None):
                for name in ("wall_us", "cpu_us", "growth_bytes", "retained_bytes"):
                    if test["figures"].get(name) is not None:
                        item.user_properties.append(("memwatch_" + name, test["figures"][name]))

    def measure(self, test):
        before, after = test["usage"], resource.getrusage(resource.RUSAGE_SELF)
        rss, peak = self.gauge.rss(), self.gauge.peak(after)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        test["figures"] = {
            "wall_us": (time.monotonic_ns() - test["began_ns"]) // 1000,
            "cpu_us": int(cpu * 1e6),
            "rss_before_bytes": test["rss_before"],
            "rss_after_bytes": rss,
            "peak_bytes": peak,
            "growth_bytes": None if peak is None else max(0, peak - test["rss_before"]),
            "retained_bytes": max(0, rss - test["rss_before"]),
            "minor_faults": after.ru_minflt - before.ru_minflt,
            "major_faults": after.ru_majflt - before.ru_majflt,
        }

    def pytest_runtest_logreport(self, report):
        test = self.test
        if test is None and report.when == "call":  # told by a worker
            self.called.add(report.nodeid)
        if test is None or report.nodeid != test["id"]:
            return
        outcome = report.outcome
        if report.when == "call" or outcome == "skipped":
            if hasattr(report, "wasxfail"):
                outcome = "xfailed" if outcome == "skipped" else "xpassed"
            test["outcome"] = outcome
        elif outcome == "failed":
            test["outcome"] = "error"

    def pytest_runtest_logfinish(self, nodeid):
        if self.test is not None and self.test["outcome"] == "rerun":  # pytest-rerunfailures is not done with it
            return
        test, self.test = self.test, None
        if test is None or test["id"] != nodeid:
            return
        self.give_back()
        self.slot.write(0, "", IDLE, time.monotonic_ns(), 0, 0, 0)
        if "figures" not in test:
            self.measure(test)
        line = {"test": nodeid, "serial": test["serial"], "began_ns": test["began_ns"], "outcome": test["outcome"]}
        for phase, seconds in test["phases"].items():
            line[phase + "_us"] = int(seconds * 1e6)
        line.update(test["figures"])
        if self.failed[0] == test["serial"]:
            line["failed_by_memwatch"] = self.failed[1]
        self.tell(line)

    # -- the controller of pytest-xdist

    @pytest.hookimpl(hookwrapper=True, optionalhook=True)
    def pytest_xdist_make_scheduler(self):
        outcome = yield
        scheduler = outcome.get_result()
        # loadscope, loadfile, loadgroup: these give a dead worker's units back, finished ones too. A worker that
        # is handed a finished one gets nothing to do by it, is never asked again, and the run waits for ever.
        if all(hasattr(scheduler, name) for name in ("assigned_work", "workqueue", "_reschedule")):
            xdists_own = scheduler.remove_node
            scheduler.remove_node = lambda node: self.remove_node(scheduler, node, xdists_own)

    def remove_node(self, scheduler, node, xdists_own):
        """What the scheduler does with a worker that is no more, where memwatch killed it."""
        units = scheduler.assigned_work[node]
        pending = {test: unit for unit in units.values() for test, is_over in unit.items() if not is_over}
        entry = self.wait_for_ended(pending)
        if entry is None:
            return xdists_own(node)
        test = entry["id"]
        pending[test][test] = test in self.called or not entry.get("bystander")
        del scheduler.assigned_work[node]
        scheduler.workqueue.update((scope, unit) for scope, unit in units.items() if not all(unit.values()))
        for other in scheduler.assigned_work:
            scheduler._reschedule(other)
        return test

    def wait_for_ended(self, tests):
        """What memwatch wrote of one of these, right after it killed its process: xdist may be as fast."""
        for _ in range(50 if tests else 0):
            self.read_ended()
            for test in tests:
                if test in self.ended and not self.ended[test].get("is_known"):
                    return self.ended[test]
            time.sleep(0.005)
        return None

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem, report, sched):
        entry = self.wait_for_ended([crashitem])
        if entry is None:
            return
        entry["is_known"] = True  # if its next process dies, then of something else
        report.longrepr = "%s\nmemwatch: %s" % (report.longrepr, entry.get("why", ""))
        if entry.get("bystander"):
            if crashitem not in self.called:
                try:
                    sched.mark_test_pending(crashitem)
                except NotImplementedError:  # this scheduler has seen to it
                    pass
            # It is told of where it runs again: this is nothing to see in the terminal, and nothing bad in JUnit's file.
            report.outcome, report.when, report.longrepr = "passed", "teardown", None

    # -- the end

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus):
        self.tell({"exit": int(exitstatus)})

    def pytest_unconfigure(self):
        if self.slot is None:
            return
        self.slot.write(0, "", OVER, time.monotonic_ns(), 0, 0, 0)
        if self.slot.flags & Slot.CAN_ABORT:
            faulthandler.unregister(signal.SIGURG)
            signal.signal(signal.SIGURG, signal.SIG_DFL)
        Watcher.of_this_process = None
