# Sourced by the two run.sh: one target's run, the same for the core's targets and the readers'.

# Prints where the corpus of a target is: one that grows from run to run or, with a SEED, a new one.
corpus_of() {
    local corpus=corpus/$1
    [ -z "${SEED:-}" ] || { corpus=again/$1 && rm -rf "$corpus"; }
    mkdir -p "$corpus"
    echo "$corpus"
}

# fuzz_target NAME SECONDS COMMAND...: one line on stdout when nothing was found, else the end of its log and exit code 1.
#
# With a SEED it begins from the seeds alone and draws by that number: RUNS inputs, if the seconds allow, and the same ones
# on a machine as far as the target itself does the same each time.
fuzz_target() {
    local name=$1 seconds=$2 runs covered
    shift 2
    local options=(-max_total_time="$seconds" -timeout=60 -print_final_stats=1)
    [ -z "${SEED:-}" ] || options+=(-seed="$SEED" -runs="${RUNS:-4000}")
    PYTHONHASHSEED=${SEED:-random} "$@" "${options[@]}" > "$name.log" 2>&1 || { tail -40 "$name.log"; return 1; }
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$name.log")
    covered=$(grep -oE 'cov: [0-9]+' "$name.log" | tail -1)
    echo "$name: $runs inputs in at most $seconds s, $covered edges, nothing found"
}
