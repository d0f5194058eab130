# SPDX-License-Identifier: GPL-2.0-only
# Runs test files one by one and counts them; sourced by suites.sh. Failed ones are shown at the end, with their output.

passed=0
failed=0
outputs=$(mktemp -d)
# The file that is being run, and its process.
running=
child=

# The output of a failed file: whole if it has at most 100 lines, otherwise the first lines that tell of a failure and the
# last lines.
excerpt() {
    if [ "$(wc -l < "$1")" -le 100 ]; then
        cat "$1"
        return
    fi
    grep -anE '^not ok|FAIL|Error|got:|expected:|panic' "$1" | head -40
    echo '...'
    tail -59 "$1"
}

# Keeps the output of a file that failed, for `report`.
keep() {
    failed=$((failed + 1))
    {
        echo "---- $1"
        excerpt "$2" | sed 's/^/    /'
    } > "$outputs/$(printf %04d "$failed").failed"
}

# suite NAME COMMAND…: runs a test file.
suite() {
    running=$1
    shift
    # In the background, or a signal would have to wait until it has ended.
    timeout 600 "$@" > "$outputs/running" 2>&1 &
    child=$!
    if wait "$child"; then
        passed=$((passed + 1))
        echo "$running: passed"
    else
        status=$?
        if [ $status -eq 124 ]; then status="not done after 600 s"; fi
        echo "$running FAILED ($status)"
        keep "$running FAILED ($status)" "$outputs/running"
    fi
    running=
}

# Shows what failed, and the numbers; false if anything did.
report() {
    trap - TERM
    if [ -n "$running" ]; then
        kill "$child"
        keep "$running was not done when time was up" "$outputs/running"
    fi
    for output in "$outputs"/*.failed; do
        if [ -e "$output" ]; then cat "$output"; fi
    done
    rm -rf "$outputs"
    echo "suites: $passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}

# The time for all of them is up.
trap 'report; exit 124' TERM
