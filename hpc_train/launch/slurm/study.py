"""The batch script of a search: the trials of a study on the nodes of one job; pure.

afterwards: `tune report` says what is left; paused, or killed after more was heard of trials
            -> scontrol requeue
"""

from __future__ import annotations

from hpc_train.launch.slurm.script import Allocation, check, directives, environment, render

_BODY = """\
study=${1:?usage: sbatch slurm/tune.sbatch STUDY.toml [key.sub=value ...]}
shift
# one folder per job, the same after a requeue
folder=studies/${SLURM_JOB_NAME}-${SLURM_JOB_ID}
requeues=@requeues@

# mpirun reads the allocation; -n finds the one that fits the MPI library, and goes on without
# ranks that die where the MPI can. A study that was begun goes on
@program@ tune "$study" "study.dir=$folder" "$@" -n "$SLURM_NTASKS" &
ranks=$!

# signals reach this shell, which hands them on; they interrupt wait, so wait again. TERM is what
# preemption sends first: there is still time to save all trials
leaving=
trap 'leaving=1; kill -USR1 $ranks 2>/dev/null' USR1 TERM
wait $ranks
while kill -0 $ranks 2>/dev/null; do wait $ranks; done

# no launcher's exit status is to be trusted: the study says whether trials are left
status=$(@program@ tune report "$folder" --json 2>/dev/null |
    sed -n 's/^ *"status": "\\([a-z ]*\\)".*/\\1/p' | head -n 1)
# what was heard of trials, and how much of it before this start
now=$(grep -cE '"kind": *"(reported|finished|paused)"' "$folder/journal.jsonl" 2>/dev/null)
before=$(cat "$folder/requeued" 2>/dev/null)
case ${status:-none} in
    done)
        exit 0 ;;
    none)
        echo "the study could not start, see above" >&2
        exit 1 ;;
esac
# paused, or killed: go on in a new slot while there is progress, some times at most
if [ "${SLURM_RESTART_COUNT:-0}" -lt "$requeues" ] &&
    { [ "${now:-0}" -gt "${before:-0}" ] || [ -n "$leaving" ]; }; then
    echo "$now" >"$folder/requeued"
    echo "requeued (status: $status, start ${SLURM_RESTART_COUNT:-0})"
    trap '' TERM USR1  # with which Slurm ends what is left of this start
    scontrol requeue "$SLURM_JOB_ID"
    exit 75
fi
echo "not requeued (status: $status), see $folder" >&2
[ "$status" = paused ] && exit 75
exit 1"""


def tune(asked: Allocation, program: str = "hpc-train") -> str:
    """The batch script that searches: takes a study and overrides as its arguments.

    Args:
        asked: the allocation; its `launcher` and `array` do not count.
        program: the command `hpc-train`, quoted for a shell.
    """
    check(asked)
    body = _BODY.replace("@requeues@", str(asked.max_requeues)).replace("@program@", program)
    lines = directives(asked, "logs/%x-%j.out")
    return render(lines, environment(asked.prepare), [body], "Search on nodes of a Slurm cluster.")
