#!/bin/sh
# kill -9 of one rank, or of one of its stages, at random moments: nobody hangs, and the next run makes the same bytes
#
# KILLS moments, MODEL=DIR another model than the demo's, SEED other moments (make torture-ranks). One that is stopped
# instead of killed is lost after --timeout.
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"
many_runs
. "$data/mk/ranks.sh"

limit=${LIMIT:-30}  # seconds from the blow to the end
if [ -n "${MODEL:-}" ]; then
    ln -s "$MODEL" model
    cp "$demo/calib.jsonl" ids
    size='-n 7 -l 128 --block-tokens 64'
else
    model model # all of it, so that a run takes long enough to be struck in the middle
    ids 256 40 >ids
    size='-n 40 -l 256 --block-tokens 256'
fi

plan() {    # DIR RANKS
    # shellcheck disable=SC2086
    llmc-shard -C "$1" -m model -d ids $size -s W4A16 -g 64 --ranks "$2" -q
}

sums() {    # DIR of work
    rm -rf out && llmc-pack -C "$1" -o out -q >/dev/null && (cd out && sha256sum ./*)
}

now() {
    date +%s.%N
}

plan good 1
start=$(now)
launch files good 1 -j 1
took=$(echo "$start $(now)" | awk '{ print $2 - $1 }')
sums good >good.sums
ok 'undisturbed it is finished' '[ "$(grep -c . good.sums)" -ge 4 ] && [ -z "$(find good/weights -type l)" ]'

# "MS RANK STAGE": when and whom; stages - are all of a rank's
awk -v seed="${SEED:-1}" -v n="${KILLS:-4}" -v took="$took" 'BEGIN {
    srand(seed)
    split("calib hessian gptq -", stage, " ")
    for (i = 0; i < n; i++)
        printf "%.3f %d %s\n", rand() * took * 1.2, int(rand() * 3), stage[1 + int(rand() * 4)]
}' >blows

struck() {  # COMM SIGNAL SECONDS RANK STAGE [option ...]: how long the others went on is added to "times"
    s_comm=$1 s_signal=$2 s_after=$3 s_rank=$4 s_stage=$5
    shift 5
    [ "$s_stage" != - ] || s_stage=
    case $s_stage in calib|gptq) s_file=.$s_stage ;; *) s_file= ;; esac
    rm -rf w && plan w 3
    begin "$s_comm" w 3 -j 1 "$@"
    sleep "$s_after"
    # Nobody knows a stage that has not started: the others wait for it as long as --timeout says.
    s_state=$([ "$s_signal" = STOP ] && echo running || echo .)
    until [ "$(cat w/ranks/"$s_rank" w/ranks/"$s_rank".* 2>/dev/null | grep -c "$s_state")" -ge 3 ]; do
        running || break
        sleep 0.002
    done
    # shellcheck disable=SC2046
    kill "-$s_signal" $(processes "$s_rank" "$s_stage") 2>/dev/null || echo 'it was not there'
    # Nor does anybody wait for one that has said that it is done: stopped on its way out, it keeps but its launcher.
    if [ "$s_signal" = STOP ] && ! grep -q running "w/ranks/$s_rank$s_file"; then
        echo 'it was done'
        # shellcheck disable=SC2046
        kill -CONT $(processes "$s_rank" "$s_stage") 2>/dev/null || :
    fi
    s_start=$(now)
    while running; do
        sleep 0.05
        echo "$s_start $(now)" | awk -v limit="$limit" '{ exit $2 - $1 > limit }' ||
            {
                echo "it goes on after $limit seconds"
                cat launched
                tail -v w/ranks/* w/log/*.status
                for s_p in $(processes); do
                    echo "$s_p: $(tr '\0' ' ' <"/proc/$s_p/cmdline"), $(sed 's/.*) \(.\).*/\1/' "/proc/$s_p/stat")"
                done
                end_all
                return 1
            }
    done
    echo "$s_start $(now)" | awk '{ print $2 - $1 }' | tee -a times
    s_rc=0
    finish || s_rc=$?
    end_all # what the launcher has left
    s_left=$(find w/weights -type l | wc -l)
    echo "exit status $s_rc; $s_left tasks left"
    [ "$s_left" -eq 0 ] || [ "$s_rc" -ne 0 ]
}

resumes() {
    llmc-shard -C w --replan --ranks 2 && launch files w 2 -j 1 && sums w | diff good.sums -
}

for comm in files ${have_mpi:+mpi}; do
    while read -r after rank stage; do
        ok "$comm: rank $rank, $stage, after $after s" "struck $comm KILL $after $rank $stage && resumes"
    done <blows
    # Somewhere in the middle.
    after=$(echo "$took" | awk '{ print $1 / 3 }')
    for stage in calib hessian gptq; do
        ok "$comm: rank 1, $stage is stopped after $after s" "struck $comm STOP $after 1 $stage --timeout 5 && resumes"
    done
done
echo "# seconds from blow to end: $(sort -n times | awk '{ s += $1; m = $1 } END { print "mean " s / NR ", most " m }')"

done_testing
