# shellcheck shell=bash
# Runs the test projects for ./dev, which sources this: two lanes side by side, what is left behind is a failure, one sum at the end.

run_id='' run_dir='' results=''

# Everything that the tests make is in a directory of this run, and every process of theirs carries its id: so what they
# leave behind can be told from the work of others on the same machine. The name is short because sockets live there.
begin_run() {
    run_id=$$.$RANDOM$RANDOM
    run_dir=$(mktemp -d /tmp/mountledger-t.XXXXXX)
    chmod 1777 "$run_dir" # PostgreSQL runs as another user
    results=$root/artifacts/test-results
    rm -rf "$results"
    mkdir -p "$results"
    trap 'end_run; end_compiler' EXIT
}

end_run() {
    [[ -z $run_dir ]] || rm -rf --one-file-system "$run_dir"
    run_dir=''
}

# Mounts of the tests stay in a namespace of their own and end with it.
namespace_for() {
    if [[ $(id -u) == 0 ]]; then
        echo "unshare --mount --propagation private"
    elif grep -qE 'MountLedger\.(Linux|Agent)' "$1" && unshare -Urm true 2>/dev/null; then
        echo "unshare -Urm"
    fi
}

# Prints what became of a project at once, so that two lanes do not mix, and leaves `passed failed skipped` in a file for the sum.
run_project() {
    local project=$1 filter=$2 name dir wrap status=0 started=$SECONDS
    name=$(basename "$project" .csproj)
    dir=$results/$name
    mkdir -p "$dir"
    wrap=$(namespace_for "$project")
    # shellcheck disable=SC2086 # words are wanted
    timeout --kill-after=30 "${project_minutes_max}m" $wrap env TMPDIR="$run_dir" MOUNTLEDGER_TEST_RUN="$run_id" \
        ${wrap:+MOUNTLEDGER_TEST_NAMESPACE=1} \
        dotnet test "$project" --no-build --nologo --results-directory "$dir" --logger "trx;LogFileName=results.trx" \
        ${filter:+--filter "$filter"} --blame-hang-timeout "${hang_minutes_max}m" --blame-hang-dump-type none \
        </dev/null >"$dir/output.log" 2>&1 || status=$?

    local total ran p=0 f=0 s=0 note=''
    if [[ -s $dir/results.trx ]]; then
        total=$(counter "$dir/results.trx" total)
        ran=$(counter "$dir/results.trx" executed)
        p=$(counter "$dir/results.trx" passed)
        f=$((ran - p))
        s=$((total - ran))
    elif ((status == 0)) && grep -q 'No test matches' "$dir/output.log"; then
        note='nothing matches the filter'
    else
        note='no results'
        ((status != 0)) || status=1
    fi
    if ((status != 0 && f == 0)); then
        f=1
        case $status in
            124 | 137) note="stopped after $project_minutes_max minutes" ;;
            *) note="ended with $status before all tests were done" ;;
        esac
    fi
    {
        printf '%-34s %5d passed %3d failed %3d skipped %4d s%s\n' "$name" "$p" "$f" "$s" "$((SECONDS - started))" "${note:+  ($note)}"
        [[ ! -s $dir/results.trx ]] || show_results "$dir/results.trx"
        if [[ -n $note && $f -gt 0 ]]; then
            echo "  --- the end of $dir/output.log:"
            tail -n 40 "$dir/output.log" | sed 's/^/  /'
        fi
    } >"$dir/report"
    cat "$dir/report"
    echo "$p $f $s" >"$dir/counts"
}

run_lane() {
    local filter=$1 project
    shift
    for project in "$@"; do run_project "$project" "$filter"; done
}

# The project with real programs mostly waits, and takes as long as all others together: they run beside it.
run_projects() {
    local filter=$1 project slow=() others=()
    for project in tests/*.Tests/*.csproj tests/MountLedger.{Simulation,Storm}/*.csproj; do
        case $project in
            */MountLedger.EndToEnd.Tests/*) slow+=("$project") ;;
            *) others+=("$project") ;;
        esac
    done
    run_lane "$filter" "${others[@]}" &
    local beside=$!
    run_lane "$filter" "${slow[@]}"
    wait "$beside"
    check_nothing_is_left
}

# Prints the sum; fails if a test did, or none ran.
print_sum() {
    local p f s passed=0 failed=$left_behind skipped=0 counts
    for counts in "$results"/*/counts; do
        read -r p f s <"$counts"
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    done
    ((passed + failed > 0)) || say "dev: no test ran"
    printf '%d passed, %d failed%s\n' "$passed" "$failed" "$( ((skipped == 0)) || echo ", $skipped skipped")"
    ((passed > 0 && failed == 0))
}

# A number of the <Counters …> element of a TRX file; 0 when it is not there.
counter() {
    local value
    value=$(grep -o '<Counters [^>]*' "$1" | head -n 1 | grep -oE "(^| )$2=\"[0-9]+\"" | grep -oE '[0-9]+' || true)
    echo "${value:-0}"
}

# Failed tests with message and stack, skipped ones with their reason.
show_results() {
    awk -v RS='<UnitTestResult ' '
        function attribute(name,    at, rest) {
            at = index($0, " " name "=\"")
            if (at == 0) return ""
            rest = substr($0, at + length(name) + 3)
            return substr(rest, 1, index(rest, "\"") - 1)
        }
        function element(name,    at, rest) {
            at = index($0, "<" name ">")
            if (at == 0) return ""
            rest = substr($0, at + length(name) + 2)
            return substr(rest, 1, index(rest, "</" name ">") - 1)
        }
        function plain(text) {
            gsub(/&#xD;|\r/, "", text); gsub(/&#xA;/, "\n", text); gsub(/&lt;/, "<", text); gsub(/&gt;/, ">", text)
            gsub(/&quot;/, "\"", text); gsub(/&#39;|&apos;/, "'\''", text); gsub(/&amp;/, "\\&", text)
            return text
        }
        function indented(text) { gsub(/\n/, "\n      ", text); return "      " text }
        NR == 1 { next }
        { outcome = attribute("outcome"); $0 = " " $0 }
        outcome == "NotExecuted" { print "  skipped " plain(attribute("testName")) ": " plain(element("Message")) }
        outcome != "Passed" && outcome != "NotExecuted" {
            print "  FAILED " plain(attribute("testName"))
            print indented(plain(element("Message")))
            if (element("StackTrace") != "") print indented(plain(element("StackTrace")))
            if (element("StdOut") != "") print indented("output:\n" substr(plain(element("StdOut")), 1, 4000))
        }' "$1"
}

# Processes of this run: by the id in their environment, or, where that was cleared, by the run's directory.
processes_of_run() {
    local proc pid
    for proc in /proc/[0-9]*; do
        pid=${proc#/proc/}
        if grep -qszF "MOUNTLEDGER_TEST_RUN=$run_id" "$proc/environ" ||
            grep -qszF "$run_dir/" "$proc/cmdline" ||
            [[ $(readlink "$proc/cwd" 2>/dev/null || true) == "$run_dir"* ]]; then
            echo "$pid"
        fi
    done
}

left_behind=0
check_nothing_is_left() {
    local pids='' pid wait left=()
    for wait in 1 1 1 2 2 3; do
        pids=$(processes_of_run)
        [[ -n $pids ]] || break
        sleep "$wait"
    done
    # What has ended in the last pause is not left.
    [[ -z $pids ]] || pids=$(processes_of_run)
    for pid in $pids; do
        left+=("process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-200)")
        kill -9 "$pid" 2>/dev/null || true
    done
    local line
    while read -r line; do
        left+=("mount $line")
    done < <(grep -F "$run_dir" /proc/self/mountinfo | cut -d' ' -f5)
    while read -r line; do
        left+=("loop device $line")
    done < <(grep -sF "$run_dir" /sys/block/loop*/loop/backing_file || true)
    while read -r line; do
        left+=("in the directory for temporary files: $line")
    done < <(find "$run_dir" -mindepth 1 -maxdepth 1 -name 'mountledger-*')
    if ((${#left[@]} > 0)); then
        left_behind=1
        echo "  FAILED the tests left something behind:"
        printf '      %s\n' "${left[@]}"
    fi
}

