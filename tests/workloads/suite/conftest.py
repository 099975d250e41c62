"""What keeps the suite's hog from harming the machine: it runs only under a memory limit."""

from pathlib import Path

import pytest


def memory_limit():
    """The limit in bytes that this process is under, or None."""
    limits = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            stat = Path("/sys/fs/cgroup/memory", path.lstrip("/"), "memory.stat").read_text()
            fields = dict(field.split() for field in stat.splitlines())
            limits.append(int(fields["hierarchical_memory_limit"]))
        elif controllers == "":
            directory = Path("/sys/fs/cgroup", path.lstrip("/"))
            for ancestor in [directory, *directory.parents]:
                limit = ancestor / "memory.max"
                if limit.is_file() and (text := limit.read_text().strip()) != "max":
                    limits.append(int(text))
    return min(limits, default=None)


@pytest.fixture
def under_a_limit():
    limit = memory_limit()
    if limit is None or limit > 2 << 30:
        pytest.fail("this test eats memory: run it under `memwatch attach --memory-max 300M`")
