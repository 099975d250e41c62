#!/bin/bash
# shows: the recipe for containers: inside it fails the test before the container's limit kills the run, outside it guards the container
# kernels: 6.1 6.12 7.3
# ci: 6.12
# seconds: 300
# machine: shared

. /payload/scenarios/lib.sh

install_package
# No kernel here has overlays.
podman='podman --storage-driver vfs'

# What an image would have: this machine's own programs, and a suite.
root=$PWD/root
mkdir -p "$root"/{etc,tmp,proc,sys,dev,run,root,src,usr,var/tmp}
cp -P /bin /sbin /lib "$root"
[ -e /lib64 ] && cp -P /lib64 "$root"
cp /etc/passwd /etc/group "$root/etc"
cat >test_hog.py <<'EOF'
import time
def test_before(): pass
def test_hog():
    keep = []
    while True:
        keep.append(bytearray(4 << 20)); time.sleep(0.04)
def test_after(): pass
EOF

# container NAME OPTION... -- COMMAND...: with the recipe's limits, and no network, which needs more of the kernel.
container() {
    local name=$1 options=()
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    $podman run --name "$name" --memory 200m --memory-swap 200m --pids-limit 100 \
        --network none --log-driver none --volume /usr:/usr:ro --volume /etc/alternatives:/etc/alternatives:ro \
        --volume "$PWD:/src" --workdir /src "${options[@]}" --rootfs "$root" "$@" </dev/null
    code=$?
}
suite=(python3 -m pytest -p no:cacheprovider -v test_hog.py)

echo '--- the limits alone'
# It may be killed at once, or stand still at its limit for minutes before.
container alone --detach -- sh -c "exec ${suite[*]} >alone.txt 2>&1"
is_over_alone() { [ "$($podman inspect --format '{{.State.Running}}' alone)" = false ]; }
wait_until 30 is_over_alone
$podman inspect --format '{{.State.Status}}, exit code {{.State.ExitCode}}, by the OOM killer: {{.State.OOMKilled}}' alone
$podman rm --force --time 0 alone >/dev/null
cat alone.txt
expect 'it has come to the hog' "$(grep -c '::test_hog' alone.txt)" 1
expect 'what has run after it' "$(grep -c 'test_after' alone.txt)" 0

echo '--- inside'
ooms=$(oom_kills)
container inside -- memwatch attach --memory-max 160M --report inside.json -- "${suite[@]}" >inside.txt 2>&1
cat inside.txt
expect 'exit code of the suite' "$code" 1
expect 'the hog has failed' "$(grep -c 'test_hog FAILED' inside.txt)" 1
expect 'the others have passed' "$(grep -cE 'test_(before|after) PASSED' inside.txt)" 2
expect_report inside 'the test that is to blame' '[.interventions[].test.id] | unique | join(",")' 'test_hog.py::test_hog'
expect_report inside victims '.victims | length' 0
expect 'kills by the OOM killer' $(($(oom_kills) - ooms)) 0

echo '--- outside'
cat >hog.py <<'EOF'
import time
keep = []
while True:
    keep.append(bytearray(1 << 20)); time.sleep(0.04)
EOF
container outside --detach -- sh -c 'until [ -e go ]; do sleep 1; done; python3 hog.py; echo $? >ended; sleep 600'
cgroup=/sys/fs/cgroup$($podman inspect --format '{{.State.CgroupPath}}' outside)
"$memwatch" attach --report outside.json --cgroup "$cgroup" </dev/null &
attached=$!
wait_until 30 stands_guard
touch go
wait_until 60 test -s ended
kill -TERM $attached
wait $attached
expect 'how the hog has ended' "$(cat ended)" 143
expect_report outside 'the limit is the container'\''s' .target.memory_max_bytes $((200 << 20))
expect_report outside victims '[.victims[] | "\(.comm) by \(.killed_by)"] | join(", ")' 'python3 by memwatch'
expect 'kills by the OOM killer' $(($(oom_kills) - ooms)) 0
expect 'whether the container runs on' "$($podman inspect --format '{{.State.Running}}' outside)" true
$podman rm --force --time 0 inside outside >/dev/null
rm -rf "$root"
