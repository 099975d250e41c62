"""Somebody else on the machine: sleeps for 10 ms over and over, and has a shell answer now and then.

    bystander.py FILE: until SIGTERM; then FILE has as JSON, in ms, by how much the latest of the wake-ups was late,
    how many were late by more than 100, and the longest that the shell took to answer.
"""

import json
import signal
import subprocess
import sys
import time

SLEEP_S = 0.010
WAKE_UPS_PER_QUESTION = 10

over = False


def end(*_):
    global over
    over = True


signal.signal(signal.SIGTERM, end)
shell = subprocess.Popen(["bash", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
gaps, answers = [], []
while not over:
    for _ in range(WAKE_UPS_PER_QUESTION):
        before = time.monotonic()
        time.sleep(SLEEP_S)
        gaps.append(time.monotonic() - before - SLEEP_S)
    before = time.monotonic()
    shell.stdin.write(b"echo here\n")
    shell.stdin.flush()
    shell.stdout.readline()
    answers.append(time.monotonic() - before)

with open(sys.argv[1], "w") as file:
    json.dump(
        {
            "wake_ups": len(gaps),
            "longest_gap_ms": round(max(gaps) * 1000),
            "gaps_above_100_ms": sum(gap > 0.1 for gap in gaps),
            "longest_answer_ms": round(max(answers) * 1000),
        },
        file,
    )
