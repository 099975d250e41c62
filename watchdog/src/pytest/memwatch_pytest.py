"""memwatch's plugin for pytest: says which test runs, measures it, and fails it when memwatch asks.

`memwatch attach` puts this one file on PYTHONPATH, below the directory of its run; the same file is the
package pytest-memwatch. Without such a directory, or where memwatch cannot be (`WORKS`), it knows its options
and its marker, and does nothing.

What it writes there memwatch reads from outside, also after this process was killed:

  slots/PID    4 KiB, mapped: the test that runs now (`Slot`)
  results/PID  lines of JSON: the session, each test that is over, and at the end what it left behind
  stacks/PID   the Python stacks of all threads, whenever SIGURG came

What it reads there memwatch writes: run.json (the terms of the run), abort/PID (a test that is to fail,
and why), ended (tests whose process was killed, one line of JSON each).

A process without a handler ignores SIGURG, so that one which comes too late harms nobody.

Standard library only; Python 3.8 and later, pytest 6.2 and later.
"""

import faulthandler
import gc
import json
import mmap
import os
import re
import signal
import struct
import sys
import tempfile
import threading
import time
import weakref
from json.encoder import encode_basestring_ascii as quoted

import _pytest
import pluggy
import pytest

# An exception here would end every pytest that only finds this file, on any machine of a project's.
WORKS = sys.platform == "linux" and sys.version_info >= (3, 8)
try:
    import importlib.metadata
    from _signal import getsignal  # that of signal makes an enum of it, which takes longer than the rest of a begin
    from fcntl import ioctl
    from os import pread, write  # for each test several times
    from resource import RUSAGE_SELF, getpagesize, getrusage
    from signal import SIGURG
    from termios import FIONREAD

    PAGE = getpagesize()
except ImportError:  # another system, or a Python that was built without
    WORKS = False

MARKER = "memwatch(memory=None, timeout=None): limits for this test under memwatch, such as '500M' and '30s'"
LARGEST = 1 << 63  # a slot has 64 bits for a number
IDLE, COLLECT, SETUP, CALL, TEARDOWN, OVER = range(6)
HERE = os.path.dirname(os.path.abspath(__file__))
# Where pytest lies: not what anybody looks for in a stack.
PYTESTS_OWN = tuple(os.path.join(os.path.dirname(of.__file__), "") for of in (_pytest, pluggy))

if WORKS:
    # In pytest itself since 7.
    from _pytest.reports import CollectReport
    from _pytest.runner import CallInfo

    # The code object that calls a collector, a setup, a test or a teardown, and catches what it raises: an exception
    # from a signal handler below this frame fails the test, anywhere else it would end the run.
    FROM_CALL = CallInfo.from_call.__func__.__code__


# ---------------------------------------------------------------- options


def pytest_addoption(parser, pluginmanager):
    parser.addini("memwatch", "what a pytest without memwatch does: off, require or reexec", default="")
    parser.addini("memwatch_test_memory", "the most by which one test may grow under memwatch: 500M", default="")
    parser.addini("memwatch_markers", "a file of `memwatch tests classify --write`: tests are marked by it", default="")
    parser.addini("memwatch_test_timeout", "the longest that one test may take under memwatch: 30s", default="")
    stay_out_of_lists(pluginmanager)


def stay_out_of_lists(manager):
    """Has lists of plugins, as in pytest's header, be what they are without memwatch: what is installed."""
    if not WORKS or not is_injected():
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
    size = float(match.group(1)) * 1024 ** " kmgt".index(match.group(2).lower() or " ") if match else LARGEST
    if size >= LARGEST:
        raise pytest.UsageError("memwatch: %r is not a size; write it like 500M or 1.5GiB" % (text,))
    return int(size)


def parse_span(text):
    """Microseconds of `30s`, `1m30s`, `500ms`; a bare number is seconds."""
    units = {"ms": 1e3, "s": 1e6, "m": 6e7, "h": 3.6e9}
    text = str(text).strip()
    us = LARGEST
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        us = float(text) * 1e6
    elif re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+", text):
        us = sum(float(n) * units[u] for n, _, u in re.findall(r"([0-9]+(\.[0-9]+)?)(ms|s|m|h)", text))
    if us >= LARGEST:
        raise pytest.UsageError("memwatch: %r is not a time; write it like 30s or 1m30s" % (text,))
    return int(us)


def read_marks(marks):
    """What a test's markers say, the closest of them first: each says what it names, and leaves the rest to others."""
    said = {}
    for mark in marks:
        unknown = [repr(value) for value in mark.args] + sorted(set(mark.kwargs) - {"memory", "timeout"})
        if unknown:
            raise pytest.UsageError(
                "memwatch: pytest.mark.memwatch takes memory and timeout, by name, and not %s; write it like "
                "memwatch(memory='500M', timeout='30s')" % ", ".join(unknown)
            )
        for name, value in mark.kwargs.items():
            if value is not None:
                said.setdefault(name, value)
    return said


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


@pytest.hookimpl(tryfirst=True, hookwrapper=True)  # outside of pytest's capturing of standard output
def pytest_load_initial_conftests(early_config):
    send_to_memwatch(early_config)
    yield


def send_to_memwatch(early_config):
    mode = project_says(early_config, "pytest")
    if mode in ("off", "", None):
        return
    if mode not in ("require", "reexec"):
        raise pytest.UsageError("memwatch: %r in the configuration: write off, require or reexec" % (mode,))
    # Who starts pytest may hand no variable on, as tox does; then this file tells where it lies.
    if "MEMWATCH_ATTACHED" in os.environ or run_directory() is not None or is_test_of_another():
        return
    arguments = list(early_config.invocation_params.args)
    own, again = how_it_was_started(arguments)
    if mode == "reexec" and again is not None:
        sys.stdout.flush()
        command = ["memwatch", "attach", "--"] + again
        try:
            os.execvp(command[0], command)
        except OSError as why:
            raise pytest.UsageError("memwatch = reexec: %s cannot be run: %s; install memwatch" % (command[0], why))
    import shlex

    command = "memwatch attach -- %s" % shlex.join(["pytest"] + arguments if own or again is None else again)
    if mode == "reexec":
        raise pytest.UsageError(
            "memwatch = reexec: pytest was not started by itself but by something else, which cannot be started "
            "again from here; run that under memwatch attach, or: %s" % command
        )
    raise pytest.UsageError("this project runs its tests under memwatch (memwatch = require); run: %s" % command)


def how_it_was_started(arguments):
    """Whether it was as pytest and by nothing else, and the command that does it again, or None if nobody knows."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    first, own = frame.f_code.co_filename, None
    if frame.f_globals.get("__name__") == "runpy":  # python -m
        own = ["-m", "pytest"] if frame.f_locals.get("mod_name") in ("pytest", "pytest.__main__") else None
    elif is_pytests_name(first):
        own = [first]
    # coverage and the like run pytest as if it were the main program.
    main = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", None)
    is_main = own or main == "pytest.__main__" or is_pytests_name(sys.argv[0])
    if not is_main or sys.argv[1:] != arguments:
        return False, None
    if hasattr(sys, "orig_argv"):  # Python 3.10
        return own is not None, [sys.executable] + sys.orig_argv[1:]
    if own is None:
        return False, None
    from subprocess import _args_from_interpreter_flags

    return True, [sys.executable] + _args_from_interpreter_flags() + own + arguments


def is_pytests_name(path):
    return re.fullmatch(r"py\.?test(-?[0-9.]+)?", os.path.basename(path)) is not None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.addinivalue_line("markers", MARKER)
    markers = read_markers(config)
    if markers:
        for name in sorted({name for names in markers.values() for name in names}):
            config.addinivalue_line("markers", "%s: by `memwatch tests classify`" % name)
        config.pluginmanager.register(Marking(markers), "memwatch-marking")
    run = run_directory() if WORKS else None
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


def read_markers(config):
    """Which test is to be marked how, from the file that the project names; nothing if it names none."""
    name = project_says(config, "markers")
    if not name:
        return {}
    path = os.path.join(str(getattr(config, "rootpath", None) or config.rootdir), name)
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        markers = content["markers"] if content["version"] == 1 else None
    except (OSError, ValueError, KeyError, TypeError) as why:
        raise pytest.UsageError("memwatch: %s cannot be read: %r; write it with: memwatch tests classify --write" % (path, why))
    if markers is None:
        raise pytest.UsageError("memwatch: %s is of another version; write it again: memwatch tests classify --write" % path)
    return markers


class Marking:
    """Marks tests before any is chosen by its marks."""

    def __init__(self, markers):
        self.markers = markers

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        for item in items:
            for name in self.markers.get(item.nodeid, ()):
                item.add_marker(name)


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
    LINE = struct.Struct("<I")  # in the last bytes: where the test is defined; 0 for not known
    SIZE = 4096
    MAGIC = b"memwtst1"
    CAN_ABORT = 1

    def __init__(self, path, worker):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self.SIZE)  # on a full disk no page would come, and a signal instead
            self.page = mmap.mmap(fd, self.SIZE)
        finally:
            os.close(fd)
        self.pid = os.getpid()
        self.worker = worker.encode()[:15]
        self.flags = 0
        self.seq = 0
        with open("/proc/self/stat", "rb") as file:
            self.start_ticks = int(file.read().rpartition(b")")[2].split()[19])

    def write(self, serial, node_id, phase, began_ns, rss, memory, timeout_us, line=0):
        name = node_id.encode("utf-8", "backslashreplace")
        kept = name[: self.SIZE - self.HEAD.size - self.LINE.size]
        seq = self.seq = self.seq + 2
        self.SEQ.pack_into(self.page, 8, seq - 1)
        self.HEAD.pack_into(
            self.page, 0, self.MAGIC, seq - 1, self.pid, self.flags, self.start_ticks, serial,
            began_ns, began_ns, rss, memory, timeout_us, phase, self.worker, len(name),
        )  # fmt: skip
        self.page[self.HEAD.size : self.HEAD.size + len(kept)] = kept
        self.LINE.pack_into(self.page, self.SIZE - self.LINE.size, line)
        self.SEQ.pack_into(self.page, 8, seq)

    def enter(self, phase):
        """The same test in its next phase."""
        page, pack = self.page, self.SEQ.pack_into
        seq = self.seq = self.seq + 2
        pack(page, 8, seq - 1)
        pack(page, 48, time.monotonic_ns())
        page[80] = phase
        pack(page, 8, seq)

    def allow(self, timeout_us):
        """The test may take so long, from now on; 0 for as long as it takes."""
        page, pack = self.page, self.SEQ.pack_into
        seq = self.seq = self.seq + 2
        pack(page, 8, seq - 1)
        pack(page, 40, time.monotonic_ns())
        pack(page, 72, timeout_us)
        pack(page, 8, seq)

    def leave(self):
        """The test is over."""
        page, pack = self.page, self.SEQ.pack_into
        seq = self.seq = self.seq + 2
        pack(page, 8, seq - 1)
        pack(page, 32, 0)
        page[80] = IDLE
        pack(page, 8, seq)


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
        rss, peak = self.rss(), getrusage(RUSAGE_SELF).ru_maxrss * 1024
        self.status = None
        if self.clear_refs is not None and peak > rss + (1 << 20):
            self.status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)

    def rss(self):
        return int(pread(self.statm, 64, 0).split(b" ", 2)[1]) * PAGE

    def reset_peak(self):
        if self.clear_refs is not None:
            write(self.clear_refs, b"5")  # fs/proc/task_mmu.c: CLEAR_REFS_MM_HIWATER_RSS

    def peak(self, usage):
        if self.clear_refs is None:
            return None
        if self.status is None:
            return usage.ru_maxrss * 1024
        text = os.pread(self.status, 4096, 0)
        return int(text.partition(b"VmHWM:")[2].split(None, 1)[0]) * 1024


# ---------------------------------------------------------------- what a test leaves behind


class Made:
    """Which files this process has made in some directories, by the kernel's word (fanotify).

    An unprivileged process is told the pid of its own events alone (Linux 5.13 and later), which is all that
    is needed: what others make at the same time, another worker, a browser, is nobody's leak.
    """

    INIT = 0xC00 | 1 | 2  # FAN_REPORT_DFID_NAME, FAN_CLOEXEC, FAN_NONBLOCK
    MARK = 1 | 8  # FAN_MARK_ADD, FAN_MARK_ONLYDIR
    EVENTS = 0x100 | 0x80 | 0x40000000  # FAN_CREATE, FAN_MOVED_TO, FAN_ONDIR
    EVENT = struct.Struct("<IBBHQii")  # length, version, reserved, length of this, mask, descriptor, pid
    NOTHING = b"\0\0\0\0"

    def __init__(self, paths):
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self.fd = libc.fanotify_init(self.INIT, os.O_RDONLY | os.O_CLOEXEC)
            mark = libc.fanotify_mark
        except AttributeError:  # a C library without it
            self.fd = -1
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "fanotify_init")
        for path in paths:
            if mark(self.fd, self.MARK, ctypes.c_uint64(self.EVENTS), -100, os.fsencode(path)) < 0:
                why = ctypes.get_errno()
                os.close(self.fd)
                raise OSError(why, "fanotify_mark")
        self.pid = os.getpid()

    def has_more(self):
        return ioctl(self.fd, FIONREAD, self.NOTHING) != self.NOTHING

    def names(self):
        """Of what was made since the last call, in whichever directory."""
        found = set()
        while self.has_more():
            events = os.read(self.fd, 1 << 16)
            at = 0
            while at < len(events):
                length, _, _, head, _, _, pid = self.EVENT.unpack_from(events, at)
                if pid == self.pid and length > head:
                    handle = int.from_bytes(events[at + head + 12 : at + head + 16], sys.byteorder)
                    name = events[at + head + 20 + handle : at + length].partition(b"\0")[0]
                    found.add(os.fsdecode(name))
                at += length
        return found


class Leftovers:
    """What tests leave behind: noticed after each test by a few numbers, told when the session is over.

    What a fixture of wider scope holds is no leak, so nothing is one yet when its test is over: it is kept
    as pending, and what is still there when all fixtures are torn down was left behind by the test after
    which it was first seen. A directory is listed, and descriptors are, only if their number says so.
    """

    MEMORY = 16 << 20  # less than this nobody looks for
    MODULE = 256 << 10  # so much of it is laid to each module that was imported meanwhile
    ENTRIES = 10_000  # a directory with more is not watched: to list it takes too long
    NAMES = 1_000  # as many are told of one kind
    # Of multiprocessing, pytest, joblib and memwatch, which remove them when the process ends.
    OF_OTHERS = ("memwatch-run-", ".memwatch-", "pytest-of-", "pymp-", "joblib_memmapping_folder_", "loky-")
    # Opened once by a library and kept for good reason.
    DEVICES = re.compile(r"/dev/(u?random|nvidia|kfd|dri/)")

    def __init__(self, config):
        self.pending = []  # (serial, node id, kind, what)
        self.memory = []  # [serial, node id, what is held, whether by fixtures]
        self.descriptors_dir = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.children_fd = None
        try:
            path = "/proc/self/task/%d/children" % os.getpid()
            self.children_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # not in this kernel
            pass
        self.user = os.geteuid()
        basetemp = getattr(config.option, "basetemp", None)
        self.of_others = self.OF_OTHERS + ((os.path.basename(os.path.abspath(str(basetemp))),) if basetemp else ())
        self.directories = []  # [kind, path, descriptor, time of its last change, entries]
        self.made = None
        for kind, path in (("shared_memory", "/dev/shm"), ("temporary_files", tempfile.gettempdir())):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            if all(not os.path.samestat(os.fstat(fd), os.fstat(other[2])) for other in self.directories):
                self.directories.append([kind, path, fd, 0, None])
        try:
            self.made = Made([directory[1] for directory in self.directories])
        except OSError:  # not in this kernel, or not allowed in this container: the directories are listed
            pass
        self.began = False

    def begin(self):
        """What there is before the first test."""
        self.began = True
        self.descriptors = self.open_descriptors()
        self.descriptor_count = self.count_descriptors()
        self.threads = threading.enumerate()
        self.children = self.list_children()
        self.modules = len(sys.modules)
        if self.made is not None:
            self.made.names()
            return
        for directory in self.directories:
            directory[3] = self.changed_at(directory[2])
            directory[4] = self.entries(directory[2])

    def look(self, test):
        """After each test."""
        if self.count_descriptors() != self.descriptor_count:
            self.look_at_descriptors(test.serial, test.id)
        threads = threading.enumerate()
        if threads != self.threads:
            self.look_at_threads(test.serial, test.id, threads)
        if self.children_fd is not None and pread(self.children_fd, 4096, 0) != self.children:
            self.look_at_children(test)
        if self.made is None:
            for directory in self.directories:
                if os.fstat(directory[2]).st_mtime_ns != directory[3]:
                    self.look_at_directory(directory, test.serial, test.id, test.began)
        elif self.made.has_more():
            for name in self.made.names():
                self.look_at_files(name, test.serial, test.id)
        if self.memory or test.rss_after - test.rss_before >= self.MEMORY:
            self.look_at_memory(test)
        self.modules = len(sys.modules)

    # -- open files

    def count_descriptors(self):
        # Linux 6.2 and later has the number as the directory's size.
        return os.fstat(self.descriptors_dir).st_size or len(os.listdir("/proc/self/fd"))

    @staticmethod
    def open_descriptors():
        found = {}
        for number in os.listdir("/proc/self/fd"):
            try:
                found[int(number)] = os.readlink("/proc/self/fd/" + number)
            except OSError:  # that of the listing itself
                pass
        return found

    def look_at_descriptors(self, serial, node_id):
        now, before = self.open_descriptors(), self.descriptors
        self.descriptors, self.descriptor_count = now, self.count_descriptors()
        # A number is taken again by the next file, which may be the same: what is closed is no more pending.
        self.pending = [
            entry for entry in self.pending if entry[2] != "file_descriptors" or now.get(entry[3][0]) == entry[3][1]
        ]
        for number, target in now.items():
            if before.get(number) != target and not self.DEVICES.match(target):
                self.pending.append((serial, node_id, "file_descriptors", (number, target)))

    # -- threads

    def look_at_threads(self, serial, node_id, now):
        for thread in now:
            # A dummy stands for one that Python did not start.
            if thread not in self.threads and not isinstance(thread, threading._DummyThread):
                self.pending.append((serial, node_id, "threads", weakref.ref(thread)))
        self.threads = now

    # -- processes

    def list_children(self):
        """Of the main thread; those of other threads come to it when the thread ends."""
        return b"" if self.children_fd is None else os.pread(self.children_fd, 4096, 0)

    @staticmethod
    def about_process(pid):
        """Name and start of one that runs; None for one that is over, or nobody's."""
        try:
            with open("/proc/%d/stat" % pid, "rb") as file:
                head, _, rest = file.read().rpartition(b")")
        except OSError:
            return None
        fields = rest.split()
        return None if fields[0] in (b"Z", b"X") else (head.partition(b"(")[2].decode("utf-8", "replace"), fields[19])

    def held_by(self, pid):
        """Bytes that a process holds, and those below it."""
        try:
            with open("/proc/%d/statm" % pid, "rb") as file:
                held = int(file.read().split()[1]) * PAGE
            with open("/proc/%d/task/%d/children" % (pid, pid), "rb") as file:
                return held + sum(self.held_by(int(below)) for below in file.read().split())
        except (OSError, IndexError):  # it is over
            return 0

    def look_at_children(self, test):
        now = self.list_children()
        before, self.children = set(self.children.split()), now
        for pid in map(int, set(now.split()) - before):
            about = self.about_process(pid)
            if about:
                self.pending.append((test.serial, test.id, "children", (pid, about)))
                test.children += self.held_by(pid)
                test.left.append(pid)

    # -- files

    def look_at_files(self, name, serial, node_id):
        """One of that name was made, by this process."""
        if name.startswith(self.of_others):
            return
        for kind, path, _, _, _ in self.directories:
            path = os.path.join(path, name)
            try:
                self.pending.append((serial, node_id, kind, (path, os.lstat(path).st_ino)))
            except OSError:  # it has gone, or is in the other
                continue

    @staticmethod
    def changed_at(fd):
        """When a directory changed last; 0 if that is so close that another change may bear the same time."""
        changed = os.fstat(fd).st_mtime_ns
        return changed if time.time_ns() - changed > 20_000_000 else 0

    def entries(self, fd):
        names = os.listdir(fd)
        return None if len(names) > self.ENTRIES else set(names)

    def look_at_directory(self, directory, serial, node_id, began):
        kind, path, fd, _, before = directory
        if before is None:
            return
        directory[3] = self.changed_at(fd)
        now = directory[4] = self.entries(fd)
        for name in sorted((now or set()) - before):
            if name.startswith(self.of_others):
                continue
            try:
                about = os.lstat(os.path.join(path, name))
            except OSError:
                continue
            # Times of files lag by up to a tick of the kernel.
            if about.st_uid == self.user and about.st_ctime_ns >= began - 20_000_000:
                self.pending.append((serial, node_id, kind, (os.path.join(path, name), about.st_ino)))

    # -- memory

    def look_at_memory(self, test):
        """What a test kept, and what was given back of what was kept before.

        What came in a test's setup is its fixtures', and what went in its teardown, or when the session ended,
        was fixtures'; of several that could have given something back, the one whose size fits it best did.
        """
        if not self.memory:
            self.memory_base = test.rss_before
        kept = test.rss_after - test.rss_before - self.MODULE * (len(sys.modules) - self.modules)
        by_fixtures = min(test.rss_call - test.rss_before, kept)
        for held, is_fixtures in ((by_fixtures, True), (kept - max(0, by_fixtures), False)):
            if held >= self.MEMORY:
                self.memory.append([test.serial, test.id, held, is_fixtures])
        self.memory_base += test.rss_after - test.rss_before - kept
        self.give_back(test.rss_after, test.rss_teardown - test.rss_after)

    def give_back(self, rss, by_fixtures):
        missing = self.memory_base + sum(entry[2] for entry in self.memory) - rss
        while missing >= self.MEMORY and self.memory:
            first = by_fixtures >= self.MEMORY // 2
            likely = [entry for entry in self.memory if entry[3] == first] or self.memory
            entry = min(reversed(likely), key=lambda entry: abs(entry[2] - missing))
            given = min(entry[2], missing)
            entry[2] -= given
            missing -= given
            by_fixtures -= given
            if entry[2] < self.MEMORY:
                self.memory.remove(entry)
                self.memory_base += entry[2]

    # -- the end

    @staticmethod
    def of_python():
        """Pids and descriptors of what Python itself starts once and keeps."""
        pids, numbers = set(), set()
        for module, name, pid, number in (
            ("multiprocessing.resource_tracker", "_resource_tracker", "_pid", "_fd"),
            ("joblib.externals.loky.backend.resource_tracker", "_resource_tracker", "_pid", "_fd"),
            ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid", "_forkserver_alive_fd"),
        ):
            thing = getattr(sys.modules.get(module), name, None)
            pids.add(getattr(thing, pid, None))
            numbers.add(getattr(thing, number, None))
        return pids, numbers

    def still_there(self):
        """(serial, node id, kind, name) of what is pending and has not gone."""
        pids, numbers = self.of_python()
        now = self.open_descriptors()
        found = []
        for serial, node_id, kind, what in self.pending:
            if kind == "file_descriptors":
                number, target = what
                name = "%d: %s" % what if now.get(number) == target and number not in numbers else None
            elif kind == "threads":
                thread = what()
                name = thread.name if thread is not None and thread.is_alive() else None
            elif kind == "children":
                pid, about = what
                here = pid not in pids and self.about_process(pid) == about
                name = "%s (pid %d)" % (about[0], pid) if here else None
            else:
                path, inode = what
                try:
                    name = path if os.lstat(path).st_ino == inode else None
                except OSError:
                    name = None
            if name is not None:
                found.append((serial, node_id, kind, name))
        return found

    def end(self, rss):
        """All fixtures are torn down: what was left behind, as (serial, node id, kind, count, names)."""
        if not self.pending and not self.memory:
            return []
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):  # pytest keeps a failed test's frames
            if hasattr(sys, name):
                delattr(sys, name)
        gc.collect()
        found = self.still_there()
        if any(kind in ("threads", "children") for _, _, kind, _ in found):
            time.sleep(0.1)  # to those that are just ending
            found = self.still_there()
        left = {}
        for serial, node_id, kind, name in found:
            left.setdefault((serial, node_id, kind), []).append(name)
        told = [key + (len(names), names[: self.NAMES]) for key, names in left.items()]
        if self.memory:
            trim()
            self.give_back(rss(), sys.maxsize)
        return told + [(serial, node_id, "memory", held, []) for serial, node_id, held, _ in self.memory]


def trim():
    """Has the C library give back to the kernel what nobody uses."""
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # not glibc
        pass


PHRASES = {
    "file_descriptors": ("open file descriptor", "open file descriptors"),
    "threads": ("thread", "threads"),
    "children": ("child process", "child processes"),
    "shared_memory": ("file in shared memory", "files in shared memory"),
    "temporary_files": ("temporary file", "temporary files"),
}


def phrase(kind, count, names):
    if kind == "memory":
        return "%d MiB of memory" % (count >> 20)
    more = ", ..." if count > 3 else ""
    return "%d %s (%s%s)" % (count, PHRASES[kind][count > 1], ", ".join(names[:3]), more)


# ---------------------------------------------------------------- the plugin at work


class Test:
    """A test that runs, and what it used."""

    __slots__ = (
        "serial", "id", "lineno", "rss_before", "usage", "began", "began_ns", "phases", "outcome", "again",
        "wall_us", "cpu_us", "rss_call", "rss_teardown", "rss_after", "peak", "minor_faults", "major_faults", "children",
        "left",
    )  # fmt: skip

    def __init__(self, serial, item, gauge):
        self.serial, self.id = serial, item.nodeid
        file, line, _ = item.location
        # What is inherited is defined in another file than its node id names.
        self.lineno = 0 if line is None or not self.id.startswith(file) else line + 1
        self.phases, self.outcome, self.again, self.wall_us = {}, None, False, None
        self.rss_teardown = self.children = 0  # what those hold that it started and left
        self.left = []
        self.rss_before = self.rss_call = gauge.rss()
        gauge.reset_peak()
        self.usage = getrusage(RUSAGE_SELF)
        self.began, self.began_ns = time.time_ns(), time.monotonic_ns()

    def measure(self, gauge):
        self.wall_us = (time.monotonic_ns() - self.began_ns) // 1000
        before, after = self.usage, getrusage(RUSAGE_SELF)
        self.cpu_us = int((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e6)
        self.minor_faults = after.ru_minflt - before.ru_minflt
        self.major_faults = after.ru_majflt - before.ru_majflt
        self.rss_after, self.peak = gauge.rss(), gauge.peak(after)
        if self.peak is not None:  # the kernel keeps it in coarser steps
            self.peak = max(self.peak, self.rss_before, self.rss_after)

    def properties(self):
        """For JUnit."""
        yield "memwatch_wall_us", self.wall_us
        yield "memwatch_cpu_us", self.cpu_us
        if self.peak is not None:
            yield "memwatch_growth_bytes", max(0, self.peak - self.rss_before)
        yield "memwatch_retained_bytes", max(0, self.rss_after - self.rss_before)

    def line(self, failed_by_memwatch, answered_us):
        # Written by hand: the json module takes several times as long.
        more = "".join(',"%s_us":%d' % (phase, seconds * 1e6) for phase, seconds in self.phases.items())
        if self.outcome is not None:
            more += ',"outcome":"%s"' % self.outcome
        if self.peak is not None:
            more += ',"peak_bytes":%d' % self.peak
        if self.left:
            more += ',"children_retained_bytes":%d,"left":%s' % (self.children, self.left)
        if failed_by_memwatch is not None:
            more += ',"failed_by_memwatch":%s,"answered_us":%d' % (quoted(failed_by_memwatch), answered_us)
        return (
            '{"test":%s,"serial":%d,"line":%d,"began_ns":%d,"wall_us":%d,"cpu_us":%d,"rss_before_bytes":%d,'
            '"rss_after_bytes":%d,"minor_faults":%d,"major_faults":%d%s}\n'
        ) % (
            quoted(self.id), self.serial, self.lineno, self.began_ns, self.wall_us, self.cpu_us, self.rss_before,
            self.rss_after, self.minor_faults, self.major_faults, more,
        )  # fmt: skip


class Refuser:
    """Fails tests before they run: those whose process was killed, and those whose marker makes no sense. There is
    one once there are such tests."""

    def __init__(self, watcher):
        self.watcher = watcher

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        serial, wrong = self.watcher.wrong
        if serial == self.watcher.serial and wrong is not None:
            pytest.fail(wrong, pytrace=False)
        why = self.watcher.why_ended(item.nodeid)
        if why is not None:
            text = "memwatch: the process that ran this test was killed, so it is not tried again: %s" % why
            pytest.fail(text, pytrace=False)


class Properties:
    """Gives a test's figures to JUnit, through pytest-xdist too. There is one if a file of JUnit's is written."""

    def __init__(self, watcher):
        self.watcher = watcher

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        test = self.watcher.test
        if test is not None and call.when == "teardown":
            test.measure(self.watcher.gauge)
            item.user_properties.extend(test.properties())


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
        # Names the session; a run's directory has each pid once.
        self.controller = worker_input.get("memwatch_controller", os.getppid()) if worker_input else self.pid
        self.slot = Slot(os.path.join(run, "slots", str(self.pid)), self.worker)
        self.gauge = Gauge()
        self.results = self.create("results")
        self.stacks = self.create("stacks")
        self.ended_fd = os.open(os.path.join(run, "ended"), os.O_RDONLY | os.O_CLOEXEC)
        self.ended_size, self.ended, self.ended_workers = 0, {}, {}
        option = config.option
        self.is_debugged = getattr(option, "usepdb", False) or getattr(option, "trace", False)
        self.limits = self.common_limits()
        if getattr(config.option, "xmlpath", None):
            config.pluginmanager.register(Properties(self), "memwatch-properties")
        self.serial = 0
        self.test = self.item = None  # what is known of the test that runs, and itself
        self.called = set()  # what ran in workers of pytest-xdist, whatever came of it
        self.wreck = None  # the traceback of a test that memwatch has failed
        self.leftovers = Leftovers(config)
        self.left = []  # what was left behind and fails the session
        os.register_at_fork(after_in_child=self.forget)
        self.tell(
            {
                "session": pytest.__version__,
                "python": "%d.%d.%d" % sys.version_info[:3],
                "worker": self.worker,
                "parent": self.controller if self.worker else os.getppid(),
                "junit": os.path.normpath(os.path.abspath(os.path.expanduser(os.path.expandvars(config.option.xmlpath))))
                if getattr(config.option, "xmlpath", None) else None,  # as pytest has it
                "root": str(getattr(config, "rootpath", None) or config.rootdir),
            }
        )
        self.read_ended()
        self.listen()
        self.slot.write(0, "", IDLE, time.monotonic_ns(), 0, 0, 0)

    def create(self, kind):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(os.path.join(self.run, kind, str(self.pid)), flags, 0o600)

    def forget(self):
        """In a fork of this process, which is nobody that memwatch asks for tests."""
        if Watcher.of_this_process is self:
            self.config.pluginmanager.unregister(self)
            self.slot = self.test = None

    def tell(self, line):
        self.write(json.dumps(line, separators=(",", ":")) + "\n")

    def write(self, line):
        try:
            os.write(self.results, line.encode())
        except OSError:  # a full disk does not fail a test
            pass

    # -- limits

    def common_limits(self):
        """The command line's, else the project's: pytest's configuration, then [tool.memwatch]."""
        memory, timeout = self.terms.get("test_memory_bytes") or 0, self.terms.get("test_timeout_us") or 0
        if not memory:
            text = project_says(self.config, "test_memory")
            memory = parse_size(text) if text else 0
        # What is as long as safe mode lets it be nobody may have asked for.
        if not timeout or timeout == self.terms.get("longest_test_us"):
            text = project_says(self.config, "test_timeout")
            said = parse_span(text) if text else 0
            timeout = min(timeout, said) if timeout and said else timeout or said
        return memory, 0 if self.is_debugged else timeout

    def limits_of(self, item):
        if item.get_closest_marker("memwatch") is None:
            return self.limits
        memory, timeout = self.limits
        try:
            said = read_marks(item.iter_markers("memwatch"))
            if "memory" in said:
                memory = parse_size(said["memory"])
            if "timeout" in said:
                timeout = parse_span(said["timeout"])
        except pytest.UsageError as why:
            self.wrong = self.serial, str(why)
            self.refuse()
        longest = self.terms.get("longest_test_us")
        if longest and (not timeout or timeout > longest):
            timeout = longest
        return memory, 0 if self.is_debugged else timeout

    wrong = 0, None  # the test whose limits cannot be read, and why

    # -- being asked to fail a test

    def listen(self):
        """Takes the signal, unless the suite has it: at the start, and when a test has left it as it was not before."""
        if threading.current_thread() is not threading.main_thread():
            return
        self.slot.flags = 0
        if self.handler is None:
            self.handler = self.asked
        if getsignal(SIGURG) in (self.handler, signal.SIG_DFL, signal.SIG_IGN):
            signal.signal(SIGURG, self.handler)
            self.write_stacks_at_once()
            self.slot.flags = Slot.CAN_ABORT
        self.heard = getsignal(SIGURG)

    handler = heard = None  # ours, and whose it was at the last look
    stacks_size = 0  # how much was written of them at the last look

    def write_stacks_at_once(self):
        """Has the stacks be written when the signal comes, also while C code runs, and hands it on to `asked`.

        Python calls that when C code returns. Who sets a handler takes this away, also who gives ours back.
        """
        faulthandler.unregister(SIGURG)
        faulthandler.register(SIGURG, file=self.stacks, all_threads=True, chain=True)
        self.stacks_size = os.fstat(self.stacks).st_size

    def asked(self, _signum, frame):
        __tracebackhide__ = True
        if os.getpid() != self.pid or self.slot is None:
            return
        size, self.stacks_size = self.stacks_size, os.fstat(self.stacks).st_size
        if self.stacks_size == size:  # a test has set a handler and given ours back
            faulthandler.dump_traceback(file=self.stacks, all_threads=True)
            self.write_stacks_at_once()
        try:
            with open(os.path.join(self.run, "abort", str(self.pid)), encoding="utf-8") as file:
                request = json.load(file)
        except (OSError, ValueError):
            return  # only the stacks were wanted
        if request.get("serial") != self.serial:
            return  # that test is over
        where = []
        while frame is not None and frame.f_code is not FROM_CALL:
            where.append("%s:%d: in %s" % (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
            frame = frame.f_back
        if frame is None:
            return
        self.failed = self.serial, request.get("why", "failed by memwatch")
        self.answered_us = (time.monotonic_ns() - request.get("at_ns", 0)) // 1000
        # Without pytest's own traceback: to show what functions were called with, it makes texts of it. A list of
        # large things gives a larger text, and there is no memory to be had.
        text = "\n".join([self.failed[1]] + [line for line in reversed(where) if not line.startswith(PYTESTS_OWN)])
        self.wreck = pytest.fail.Exception(text, pytrace=False)
        raise self.wreck

    failed = 0, None  # the test that was failed here last, and why
    answered_us = 0  # how long that took from when memwatch asked

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
        trim()

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
                if self.controller_of(entry["pid"]) == self.controller:
                    self.ended[entry["id"]] = entry
                    self.ended_workers.setdefault(entry.get("worker"), entry)
                    self.refuse()
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue

    def controller_of(self, pid):
        """Which session a process belonged to: others of the run have workers and tests of the same names."""
        with open(os.path.join(self.run, "results", str(pid)), encoding="utf-8") as file:
            session = json.loads(file.readline())
        return session["parent"] if session["worker"] else pid

    def refuse(self):
        if not self.config.pluginmanager.has_plugin("memwatch-refuser"):
            self.config.pluginmanager.register(Refuser(self), "memwatch-refuser")

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
        return CollectReport(collector.nodeid, "failed", text, [])

    @pytest.hookimpl(trylast=True)
    def pytest_collectreport(self, report):
        # What holds a module is reported after it, and has not failed.
        if self.failed[0] != self.serial or self.failed[1] is None or not report.failed:
            return
        self.failed = 0, None
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
            names = [] if self.worker else [item.nodeid for item in session.items]
            self.tell({"selected": len(session.items), "names": names})

    # -- a test

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        if not self.leftovers.began:
            self.leftovers.begin()
        if self.worker:  # the killed process of a test was another worker
            self.read_ended()
        self.begin(item)

    def begin(self, item):
        serial = self.serial = self.serial + 1
        if getsignal(SIGURG) is not self.heard:
            self.listen()
        memory, timeout = self.limits_of(item)
        test = self.test = Test(serial, item, self.gauge)
        self.item = item
        self.slot.write(serial, test.id, SETUP, test.began_ns, test.rss_before, memory, timeout, test.lineno)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self):
        self.slot.enter(CALL)
        test = self.test
        # In less time nothing came that would matter: to clear 16 MiB takes longer.
        if test is not None and time.monotonic_ns() - test.began_ns > 500_000:
            test.rss_call = self.gauge.rss()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self):
        if self.wreck is not None:
            self.give_back()
        self.slot.enter(TEARDOWN)
        if self.leftovers.memory and self.test is not None:
            self.test.rss_teardown = self.gauge.rss()

    def pytest_exception_interact(self, call):
        # What the test made of the exception that failed it.
        if self.wreck is not None:
            self.wreck = call.excinfo.value

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report):
        test = self.test
        if test is None and report.when == "call":  # told by a worker
            self.called.add((getattr(report, "node", None), report.nodeid))
        if test is None or report.nodeid != test.id:
            return
        outcome, when = report.outcome, report.when
        if when == "teardown" and test.wall_us is None:
            test.measure(self.gauge)
        test.phases[when] = test.phases.get(when, 0) + report.duration
        if when == "call" or outcome == "skipped":
            if hasattr(report, "wasxfail"):
                outcome = "xfailed" if outcome == "skipped" else "xpassed"
            test.outcome = outcome
        elif outcome == "failed":
            test.outcome = "error"
        if outcome == "rerun":  # by pytest-rerunfailures, which goes on with the same item
            test.outcome = "failed" if when == "call" else "error"
            test.again = True

    def pytest_runtest_logfinish(self, nodeid):
        test, self.test = self.test, None
        if test is None or test.id != nodeid:
            return
        if self.wreck is not None:
            self.give_back()
        self.slot.leave()
        if test.wall_us is None:
            test.measure(self.gauge)
        why = self.failed[1] if self.failed[0] == test.serial else None
        self.leftovers.look(test)
        self.write(test.line(why, self.answered_us))
        if test.again:
            self.begin(self.item)

    # -- being looked at

    def pytest_enter_pdb(self):
        self.slot.allow(0)

    def pytest_leave_pdb(self):
        if self.test is not None:
            self.slot.allow(self.limits_of(self.item)[1])

    # -- the controller of pytest-xdist

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node):
        node.workerinput["memwatch_controller"] = self.pid

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids):
        if ids and not self.has_named:  # each worker has them all
            self.has_named = True
            self.tell({"selected": len(ids), "names": list(ids)})

    has_named = False

    @pytest.hookimpl(hookwrapper=True, optionalhook=True)
    def pytest_xdist_make_scheduler(self):
        outcome = yield
        scheduler = outcome.get_result()
        # loadscope, loadfile, loadgroup: these give a dead worker's units back, finished ones too. A worker that
        # is handed a finished one gets nothing to do by it, is never asked again, and the run waits for ever.
        if all(hasattr(scheduler, name) for name in ("assigned_work", "workqueue", "_reschedule")):
            self.mended = scheduler
            xdists_own = scheduler.remove_node
            scheduler.remove_node = lambda node: self.remove_node(scheduler, node, xdists_own)

    mended = None  # the scheduler that is asked so

    def remove_node(self, scheduler, node, xdists_own):
        """What the scheduler does with a worker that is no more, where memwatch killed it."""
        units = scheduler.assigned_work[node]
        pending = {test: unit for unit in units.values() for test, is_over in unit.items() if not is_over}
        entry = self.wait_for_ended(node) if pending else None
        if entry is None:
            return xdists_own(node)
        test = entry["id"]
        if test not in pending:  # it was killed between two tests
            test = next(iter(pending))
        pending[test][test] = (node, test) in self.called or not self.is_bystander(test, entry)
        del scheduler.assigned_work[node]
        scheduler.workqueue.update((scope, unit) for scope, unit in units.items() if not all(unit.values()))
        for other in scheduler.assigned_work:
            scheduler._reschedule(other)
        return test

    def wait_for_ended(self, node):
        """What memwatch wrote of a worker, right after it killed it: xdist may be as fast.

        By its name, and not by its test: to xdist a worker that was killed between two tests ran the next one, of
        which memwatch wrote nothing.
        """
        worker = node.gateway.id.encode()[:15].decode("utf-8", "replace")  # as a slot has it
        for _ in range(200):  # a second: the machine is short of memory
            self.read_ended()
            if worker in self.ended_workers:
                return self.ended_workers[worker]
            time.sleep(0.005)
        return None

    @staticmethod
    def is_bystander(test, entry):
        return entry.get("bystander") or entry["id"] != test

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem, report, sched):
        entry = self.wait_for_ended(report.node)
        if entry is None:
            return
        report.longrepr = "%s\nmemwatch: %s" % (report.longrepr, entry.get("why", ""))
        if self.is_bystander(crashitem, entry):
            if (report.node, crashitem) not in self.called and sched is not self.mended:
                try:
                    sched.mark_test_pending(crashitem)
                except NotImplementedError:  # --dist each has dropped it
                    report.longrepr += "; with --dist each it is not run again"
                    return
            # It is told of where it runs again: this is nothing to see in the terminal, and nothing bad in JUnit's file.
            report.outcome, report.when, report.longrepr = "passed", "teardown", None

    # -- the end

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session, exitstatus):
        lines = {}
        for serial, node_id, kind, count, names in self.leftovers.end(self.gauge.rss):
            leak = {"kind": kind, "count": count, "names": names}
            lines.setdefault((serial, node_id), []).append(leak)
        lines = [{"leaks": leaks, "serial": serial, "id": node_id} for (serial, node_id), leaks in lines.items()]
        for line in lines:
            self.tell(line)
        refused = set(self.terms.get("fail_on_leak") or ())
        if refused and not self.worker:
            for line in lines + self.lines_of_workers():
                for leak in line["leaks"]:
                    if "any" in refused or leak["kind"] in refused:
                        self.left.append((line["id"], phrase(leak["kind"], leak["count"], leak["names"])))
            if self.left and exitstatus == 0:
                session.exitstatus = exitstatus = pytest.ExitCode.TESTS_FAILED
        self.tell({"exit": int(exitstatus)})

    def lines_of_workers(self):
        """What the tests of this one's workers left behind. They have ended."""
        found = []
        for pid in os.listdir(os.path.join(self.run, "results")):
            try:
                with open(os.path.join(self.run, "results", pid), encoding="utf-8") as file:
                    if json.loads(next(file, "{}")).get("parent") == self.pid:
                        found += [json.loads(line) for line in file if line.startswith('{"leaks":')]
            except (OSError, ValueError):
                continue
        return found

    def pytest_terminal_summary(self, terminalreporter):
        if self.left:
            terminalreporter.section("left behind by tests (memwatch attach --fail-on-leak)", red=True)
            for node_id, what in self.left:
                terminalreporter.write_line("LEAK %s - %s" % (node_id, what))

    def pytest_unconfigure(self):
        if self.slot is None:
            return
        self.slot.write(0, "", OVER, time.monotonic_ns(), 0, 0, 0)
        if self.slot.flags & Slot.CAN_ABORT and getsignal(SIGURG) is self.handler:
            faulthandler.unregister(SIGURG)
            signal.signal(SIGURG, signal.SIG_DFL)
        Watcher.of_this_process = None


if not WORKS:
    # pytest calls what it finds by name. What a project says in its configuration is known all the same; a pytest for
    # an older Python may not even know these.
    for _name in [_name for _name in globals() if _name.startswith("pytest_")]:
        if sys.version_info < (3, 8) or _name not in ("pytest_addoption", "pytest_configure"):
            del globals()[_name]
