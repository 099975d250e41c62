#!/bin/bash
# shows: the guard in the kernel ends what hangs in the brake of memory.high while memwatch is stopped
# kernels: all
# ci: 6.12
# seconds: 150
# machine: shared

. /payload/scenarios/lib.sh

# Far below memory.max, so that nothing but the brake holds the leak up.
start_waiting_leak --memory-max 512M --memory-high 64M
kill -STOP "$watch"
expect_leak_ended_by_guard
