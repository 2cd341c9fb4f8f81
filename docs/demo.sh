#!/usr/bin/env bash
# Shows what MountLedger does, on real mounts in a private mount namespace; `./dev demo` builds the programs and runs it.
# Each step is checked: it ends with 0 only if every step did what it says. It leaves nothing behind.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly repository
readonly ready_seconds_max=60 stop_seconds_max=20 repair_seconds_max=20

bold='' dim='' green='' red='' plain=''
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi

# ---- outside: the namespace, and the look whether anything is left ----

outside() {
    local enter=(unshare --mount --propagation private) rootless='' dir status=0
    if [[ $(id -u) != 0 ]]; then
        enter=(unshare --user --map-root-user --mount) rootless=yes
    fi
    if ! "${enter[@]}" mount -t tmpfs none /mnt 2>/dev/null; then
        if [[ -z $rootless ]]; then
            die "root may not mount here: a container needs --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
        else
            die "this user may not make a user namespace with mounts (unshare -Urm): run the demo as root, or see sysctl kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"
        fi
    fi

    dir=$(mktemp -d /tmp/mountledger-demo.XXXX)
    chmod 755 "$dir" # PostgreSQL runs as another user than root
    "${enter[@]}" bash "${BASH_SOURCE[0]}" --inside "$dir" "$rootless" || status=$?
    local left
    left=$(leftovers "$dir" | sort -u)
    kill_all "$dir"
    rm -rf --one-file-system "$dir" || status=1
    if [[ -n $left ]]; then
        printf '%sleft behind:%s\n%s\n' "$red" "$plain" "$left"
        status=1
    fi
    if ((status == 0)); then
        printf '\n%sDone: every step did what it says, and nothing is left: no mount, no process, no loop device, no file.%s\n' "$green" "$plain"
    else
        printf '\n%sThe demo failed.%s\n' "$red" "$plain"
    fi
    return "$status"
}

# Processes of the demo: those in its mount namespace, and whatever names its directory. Two looks, because a killed
# process may take a moment.
processes_of() {
    local dir=$1 proc pid namespace=none
    [[ ! -e $dir/namespace ]] || namespace=$(<"$dir/namespace")
    for proc in /proc/[0-9]*; do
        pid=${proc#/proc/}
        [[ $pid != "$$" && $pid != "$BASHPID" ]] || continue
        if [[ $(readlink "$proc/ns/mnt" 2>/dev/null || true) == "$namespace" ]] ||
            grep -qszF "$dir/" "$proc/cmdline" || [[ $(readlink "$proc/cwd" 2>/dev/null || true) == "$dir"* ]]; then
            # A zombie is only waiting for its parent to look.
            [[ $(sed 's/.*) //' "$proc/stat" 2>/dev/null | cut -c1) != Z ]] || continue
            echo "$pid"
        fi
    done
}

kill_all() {
    local pid
    for pid in $(processes_of "$1"); do
        kill -9 "$pid" 2>/dev/null || true
    done
}

leftovers() {
    local dir=$1 pids pid pause
    for pause in 0.2 0.5 1 2; do
        pids=$(processes_of "$dir")
        [[ -n $pids ]] || break
        sleep "$pause"
    done
    # What has ended in the last pause is not left.
    [[ -z $pids ]] || pids=$(processes_of "$dir")
    for pid in $pids; do
        echo "process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-160)"
    done
    grep -F "$dir" /proc/self/mountinfo | cut -d' ' -f5 | sed 's/^/mount /' || true
    grep -sF "data-${dir##*.}.img" /sys/block/loop*/loop/backing_file | sed 's/^/loop device /' || true
}

die() {
    printf 'demo: %s\n' "$1" >&2
    exit 1
}

# ---- inside: the demo itself ----

dir='' rootless='' agent='' finished=''

inside() {
    dir=$1 rootless=$2
    readlink /proc/self/ns/mnt >"$dir/namespace"
    trap end EXIT
    # Only in this namespace: /srv is a directory of the demo, which keeps the command lines short, and /run is empty, so
    # that the agent's lock is of here.
    mkdir -p "$dir/srv" "$dir/state"
    mount --bind "$dir/srv" /srv
    mount -t tmpfs -o mode=755 tmpfs /run
    export PATH="$repository/artifacts:$PATH" MOUNTLEDGER_SOCKET=$dir/agent.sock

    title "An agent with its own PostgreSQL"
    note "in a temporary directory and a private mount namespace; mountpoints are below /srv"
    [[ -z $rootless ]] || note "as an ordinary user, in a user namespace"
    start_agent
    run 0 mountledger host ls

    title "A tmpfs, for a first consumer"
    run 0 mountledger mount -t tmpfs -o size=16m tmpfs /srv/scratch --volume scratch --consumer web-1
    is_mounted /srv/scratch tmpfs
    run 0 bash -c 'echo hello > /srv/scratch/greeting; findmnt -no FSTYPE,OPTIONS /srv/scratch'

    title "A second consumer needs the same: no second mount, one reference more"
    run 0 mountledger mount -t tmpfs -o size=16m tmpfs /srv/scratch --volume scratch --consumer web-2
    is_mounted /srv/scratch tmpfs

    title "A request that conflicts is rejected, and says why (exit code 3)"
    run 3 mountledger mount -t tmpfs -o size=1g tmpfs /srv/scratch --volume scratch --consumer batch-7
    is_mounted /srv/scratch tmpfs

    local data=/srv/scratch
    if [[ -z $rootless && -e /dev/loop-control ]]; then
        data=/srv/data
        title "An ext4 filesystem in an image file, through a loop device"
        run 0 truncate -s 32M "/srv/data-${dir##*.}.img"
        run 0 mkfs.ext4 -q "/srv/data-${dir##*.}.img"
        run 0 mountledger mount -t ext4 "/srv/data-${dir##*.}.img" /srv/data --volume data --consumer vm-3
        is_mounted /srv/data ext4
    elif [[ -n $rootless ]]; then
        note "left out: ext4 through a loop device, which an ordinary user cannot have"
    else
        note "left out: ext4 through a loop device: there is no /dev/loop-control here"
    fi

    title "A bind mount of a directory in it, and an overlay on top of that"
    run 0 mkdir "$data/base" /srv/upper /srv/work
    run 0 bash -c "echo 'from below' > $data/base/file"
    run 0 mountledger mount -t bind "$data/base" /srv/base --volume base --consumer vm-3
    is_mounted /srv/base
    run 0 mountledger mount -t overlay -o lowerdir=/srv/base,upperdir=/srv/upper,workdir=/srv/work overlay /srv/merged --volume merged --consumer vm-3
    is_mounted /srv/merged overlay
    run 0 cat /srv/merged/file

    title "What there is"
    run 0 mountledger ls
    local then
    then=$(date -u +%FT%T.%3NZ)

    title "One consumer leaves, and the mount stays; the last one leaves, and it goes"
    run 0 mountledger unmount /srv/merged --volume merged --consumer vm-3
    is_gone /srv/merged
    run 0 mountledger unmount /srv/scratch --volume scratch --consumer web-2
    is_mounted /srv/scratch tmpfs

    title "kill -9 the agent while mounts are there, and remove one behind its back"
    run 0 kill -9 "$agent"
    wait "$agent" 2>/dev/null || true
    agent=''
    run 0 umount /srv/base
    is_gone /srv/base
    is_mounted /srv/scratch tmpfs
    run 5 mountledger ls

    title "Start it again: it knows what should be there, and repairs"
    start_agent
    repaired /srv/base
    run 0 mountledger status /srv/base
    run 0 cat /srv/base/file
    note "what was still mounted was not touched"
    run 0 cat /srv/scratch/greeting
    is_mounted /srv/scratch tmpfs

    title "Who did what, when"
    run 0 mountledger history /srv/base
    shows "mount_requested"
    [[ $(grep -cE '(^|[^_a-z])mounted([^_a-z]|$)' "$dir/output") -ge 2 ]] || fail "the history does not show that /srv/base was mounted twice"
    run 0 mountledger history --consumer web-2
    shows "attachment_added"
    shows "attachment_removed"

    title "What was mounted then, when all of it was there"
    run 0 mountledger state --at "$then"
    shows "/srv/merged"
    shows "web-1,web-2"

    title "Everybody leaves, and the agent stops"
    run 0 mountledger unmount /srv/base --volume base --consumer vm-3
    is_gone /srv/base
    if [[ $data == /srv/data ]]; then
        run 0 mountledger unmount /srv/data --volume data --consumer vm-3
        is_gone /srv/data
    fi
    run 0 mountledger unmount /srv/scratch --volume scratch --consumer web-1
    is_gone /srv/scratch
    run 0 kill -TERM "$agent"
    stop_agent
    [[ -z $(mounts_below_srv) ]] || fail "mounts are left: $(mounts_below_srv)"
    finished=yes
}

title() { printf '\n%s# %s%s\n' "$bold" "$1" "$plain"; }

note() { printf '%s# %s%s\n' "$dim" "$1" "$plain"; }

fail() {
    printf '%sdemo: %s%s\n' "$red" "$1" "$plain"
    exit 1
}

# Shows a command and its output, and checks its exit code. The output is kept for `shows`.
run() {
    local expected=$1 status=0
    shift
    printf '%s$ %s%s\n' "$bold" "$(shown "$@")" "$plain"
    if [[ -t 1 && $1 == mountledger && $2 != history ]]; then
        "$@" 2>&1 || status=$?
    else
        "$@" >"$dir/output" 2>&1 || status=$?
        cat "$dir/output"
    fi
    ((status == expected)) || fail "that ended with $status, not $expected"
}

# A command line as one would type it.
shown() {
    local word line=''
    if [[ $1 == bash && $2 == -c ]]; then
        printf '%s' "$3"
        return
    fi
    for word in "$@"; do
        if [[ $word == *[!A-Za-z0-9_./:,=@%+-]* ]]; then word="'$word'"; fi
        line+="${line:+ }$word"
    done
    printf '%s' "$line"
}

shows() { grep -qF "$1" "$dir/output" || fail "that does not show '$1'"; }

mounts_at() { awk -v path="$1" '$5 == path' /proc/self/mountinfo; }

mounts_below_srv() { awk '$5 ~ "^/srv/" { print $5 }' /proc/self/mountinfo; }

is_mounted() {
    [[ $(mounts_at "$1" | wc -l) == 1 ]] || fail "the kernel does not have exactly one mount at $1"
    [[ -z ${2:-} || $(mounts_at "$1") == *" - $2 "* ]] || fail "what is mounted at $1 is no $2"
}

is_gone() { [[ -z $(mounts_at "$1") ]] || fail "$1 is still mounted"; }

start_agent() {
    local command=(mountledgerd --state-dir "$dir/state" --socket "$dir/agent.sock" --root /srv --host demo) deadline
    printf '%s$ %s &%s\n' "$bold" "$(shown "${command[@]}")" "$plain"
    env -u MOUNTLEDGER_SOCKET "${command[@]}" </dev/null >>"$dir/agent.log" 2>&1 &
    agent=$!
    deadline=$((SECONDS + ready_seconds_max))
    # Detaching what nobody holds changes nothing and records nothing, and is answered once commands are taken.
    until mountledger unmount /srv/nothing --volume none --consumer nobody >/dev/null 2>&1; do
        [[ -e /proc/$agent/stat ]] && kill -0 "$agent" 2>/dev/null || fail "the agent ended while it started"
        ((SECONDS < deadline)) || fail "the agent is not ready after $ready_seconds_max s"
        sleep 0.1
    done
}

stop_agent() {
    local deadline=$((SECONDS + stop_seconds_max)) status=0
    while kill -0 "$agent" 2>/dev/null; do
        ((SECONDS < deadline)) || fail "the agent did not stop within $stop_seconds_max s"
        sleep 0.1
    done
    wait "$agent" || status=$?
    agent=''
    ((status == 0)) || fail "the agent ended with $status"
}

repaired() {
    local deadline=$((SECONDS + repair_seconds_max))
    until [[ -n $(mounts_at "$1") ]]; do
        ((SECONDS < deadline)) || fail "$1 was not mounted again within $repair_seconds_max s"
        sleep 0.05
    done
    is_mounted "$1"
}

# Whatever happened: nothing of the demo goes on. The mounts go with the namespace, but its files only without them.
end() {
    local path
    if [[ -z $finished && -s $dir/agent.log ]]; then
        printf '%s--- the end of the log of the agent:%s\n' "$dim" "$plain"
        tail -n 60 "$dir/agent.log"
    fi
    [[ -n $finished ]] || kill_all_but_us
    for path in $(mounts_below_srv); do
        umount -l "$path" 2>/dev/null || true
    done
    umount -l /srv 2>/dev/null || true
}

kill_all_but_us() {
    local pid
    for pid in $(processes_of "$dir"); do
        [[ $pid == "$$" || $pid == "$PPID" ]] || kill -9 "$pid" 2>/dev/null || true
    done
}

if [[ ${1:-} == --inside ]]; then
    inside "$2" "${3:-}"
else
    outside
fi
