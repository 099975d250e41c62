"""Somebody else on the machine: asks a shell for an answer a hundred times a second.

    bystander.py FILE: until SIGTERM; then FILE has as JSON, in ms, the longest that an answer took, from the moment
    when the question was due: who sleeps through it has waited, too. And of every answer that took more than 100, when
    that was (CLOCK_MONOTONIC), and for what who asks and the shell waited: a CPU, or pages from the disk.
"""

import json
import os
import signal
import subprocess
import sys
import time

PAUSE_S = 0.010
LATE_S = 0.1

over = False


def end(*_):
    global over
    over = True


class Process:
    """What a process has waited for since it was asked last."""

    def __init__(self, pid):
        self._files = [os.open(f"/proc/{pid}/{name}", os.O_RDONLY) for name in ("schedstat", "stat")]
        self._before = self._totals()

    def _totals(self):
        schedstat, stat = (os.pread(file, 4096, 0) for file in self._files)
        return int(schedstat.split()[1]), int(stat.rpartition(b")")[2].split()[9])

    def waited(self):
        before, self._before = self._before, self._totals()
        for_cpu_ns, major_faults = (now - then for now, then in zip(self._before, before))
        return {"waited_for_cpu_ms": round(for_cpu_ns / 1e6), "major_faults": major_faults}


signal.signal(signal.SIGTERM, end)
shell = subprocess.Popen(["bash", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
processes = {"asking": Process("self"), "shell": Process(shell.pid)}
answers, late = [], []
due = time.monotonic() + PAUSE_S
while not over:
    time.sleep(max(0, due - time.monotonic()))
    asked = time.monotonic()
    shell.stdin.write(b"echo here\n")
    shell.stdin.flush()
    shell.stdout.readline()
    answered = time.monotonic()
    answers.append(answered - due)
    waited = {name: process.waited() for name, process in processes.items()}
    if answers[-1] > LATE_S:
        of_it_asleep_ms = round((asked - due) * 1000)
        late.append({"at_s": round(due, 3), "ms": round(answers[-1] * 1000), "of_it_asleep_ms": of_it_asleep_ms, **waited})
    due = time.monotonic() + PAUSE_S

with open(sys.argv[1], "w") as file:
    json.dump({"answers": len(answers), "longest_answer_ms": round(max(answers) * 1000), "late": late}, file)
