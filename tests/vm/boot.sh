#!/bin/bash
# shows: the machine is one like users'
# kernels: all
# ci: all
# seconds: 20
# machine: shared

. /payload/scenarios/lib.sh

uname -r
expect 'who is the first process' "$(cat /proc/1/comm)" systemd
expect 'the file system of cgroups' "$(stat -f -c %T /sys/fs/cgroup)" cgroup2fs
expect 'cgroups limit memory' "$(grep -cw memory /sys/fs/cgroup/cgroup.controllers)" 1
expect 'pressure is told' "$(grep -c ^full /proc/pressure/memory)" 1
expect 'types of the kernel are told' "$(ls /sys/kernel/btf/vmlinux)" /sys/kernel/btf/vmlinux
expect 'systemd-oomd' "$(systemctl is-active systemd-oomd)" active
