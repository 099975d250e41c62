#!/bin/bash
# shows: a user's cgroup is the daemon's to guard, for that user and root alone; ill words on its socket change nothing
# kernels: 6.12
# seconds: 400
# machine: fresh

. /payload/scenarios/lib.sh

start_service
make_users ann bob

# The other end of the socket, as ill as it likes; docs/CONTROL.md has its words.
cat >/usr/local/bin/talk <<'END'
#!/usr/bin/python3
import array, json, os, random, socket, struct, sys

def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect("/run/memwatch.sock")
    return s

def frame(body):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return struct.pack("<I", len(body)) + body

def send(s, data, fds=()):
    s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])

def hear(s):
    data = s.recv(4, socket.MSG_WAITALL)
    return json.loads(s.recv(struct.unpack("<I", data)[0], socket.MSG_WAITALL)) if len(data) == 4 else None

def hello():
    s = connect()
    send(s, frame({"version": 1}))
    hear(s)
    return s

def ask(s, body, fds=()):
    send(s, frame(body), fds)
    while (said := hear(s)) is not None and "event" in said:
        pass
    return list(said["reply"])[0] if said else "hung up"

ATTACH = {"attach": {"on_pressure": "kill", "dry_run": False, "limit_bytes": None, "high_bytes": None, "leader": None}}

def hostile(n, theirs):
    """One ill frame; what came of it. `theirs` is somebody else's cgroup."""
    random.seed(n)
    kind = n % 16
    if kind < 4:
        s = connect()
        if kind == 0:
            send(s, random.randbytes(random.randrange(1, 400)))
        elif kind == 1:
            send(s, struct.pack("<I", 0xFFFFFFFF))
        elif kind == 2:
            send(s, frame({"version": 999}))
        else:
            send(s, frame({"version": 1})[:random.randrange(1, 10)])
        s.close()
        return "left"
    s = hello()
    if kind == 4:
        said = ask(s, random.randbytes(random.randrange(1, 400)))
    elif kind == 5:
        said = ask(s, b"[" * 60000)
    elif kind == 6:
        said = ask(s, {"detach": {"id": -1}})
    elif kind == 7:
        said = ask(s, {"detach": {"id": os.stat(theirs).st_ino}})
    elif kind == 8:
        said = ask(s, ATTACH)
    elif kind in (9, 10, 11, 12):
        path = {9: theirs, 10: "/tmp", 11: "/dev/null", 12: "/sys/fs/cgroup"}[kind]
        fd = os.open(path, os.O_RDONLY)
        said = ask(s, ATTACH, [fd])
        os.close(fd)
    elif kind == 13:
        fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
        said = ask(s, ATTACH, fds)
        for fd in fds:
            os.close(fd)
    elif kind == 14:
        fd = os.open("/dev/null", os.O_RDONLY)
        said = ask(s, {"status": {}}, [fd])
        os.close(fd)
    else:
        # Never reads what it asked for.
        for _ in range(20):
            send(s, frame({"status": {}}))
        said = "left"
    s.close()
    return said

if sys.argv[1] == "detach":
    print(ask(hello(), {"detach": {"id": int(sys.argv[2])}}))
else:
    came = {}
    for n in range(1000):
        try:
            said = hostile(n, sys.argv[2])
        except ConnectionError:
            said = "left"
        came[said] = came.get(said, 0) + 1
    print(", ".join(sorted(came)))
END
chmod +x /usr/local/bin/talk

daemon=$(systemctl show memwatch.service -P MainPID)
ann=$(id -u ann)
of_ann() { status "[.targets[] | select(.uid == $ann)][0].$1"; }
ann_has() { status_is "[.targets[] | select(.uid == $ann)] | length" "$1"; }
descriptors() { find "/proc/$daemon/fd" -mindepth 1 | wc -l; }
has_descriptors() { [ "$(descriptors)" = "$1" ]; }

# attach NAME COMMAND: ann's, which begins when it may; sets $watch.
attach() {
    echo "--- $1: ann's memwatch attach"
    as ann -E MEMWATCH_CULPRIT_FILE="$PWD/$1.culprit" "$memwatch" attach -v --report "$1.json" --memory-max 100M \
        --cmd "until [ -e $1.go ]; do sleep 0.5; done; $2" 2>"$1.err" &
    watch=$!
    expect "$1: the daemon's" "$(wait_until 60 ann_has 1 && echo target)" target
}

attach hog "exec /usr/local/bin/workload leak --dir $scratch"
expect 'who guards it' \
    "$(wait_until 60 status_is ".targets[0].guarded_by" daemon_and_kernel_guard && of_ann guarded_by)" \
    daemon_and_kernel_guard
cgroup=$(of_ann cgroup)
id=$(of_ann id)
expect "the cgroup's user" "$(stat -c %U "$cgroup")" ann
sleep infinity &
roots=$!
echo $roots >"$cgroup/cgroup.procs"

expect "bob's detach" "$(as bob talk detach "$id")" refused
before=$(descriptors)
expect 'what comes of 1,000 ill frames' "$(as bob talk hostile "$cgroup")" 'left, refused'
expect 'descriptors of the daemon' "$(wait_until 20 has_descriptors "$before" || descriptors)" ''
expect 'the daemon' "$(systemctl show memwatch.service -P MainPID)" "$daemon"
expect 'what it guards' "$(status '[.targets[] | .id] | join(" ")')" "$id"

touch hog.go
wait $watch
code=$?
expect_ended hog killed_by_memwatch 137
expect_victim hog memwatch
expect "root's process in the cgroup of ann" "$(is_over $roots || echo lives)" lives
expect 'who is kept with the incident' \
    "$(cat /var/lib/memwatch/incidents/*.json | jq -r '[.victims[].pid] | join(" ")')" "$(cat hog.culprit)"
expect 'targets when it is over' "$(status '.targets | length')" 0
kill $roots
wait_until 30 test ! -e "$cgroup"
expect_no_target hog

attach free "exit 3"
expect "root's detach" "$(talk detach "$(of_ann id)")" detached
touch free.go
wait $watch
code=$?
expect_ended free finished 3
# When it happens, and in the summary.
expect 'what ann is told' "$(grep -c 'memwatch does so alone from here on' free.err)" 2
expect_no_target free
systemctl stop memwatch.service
