"""The batch script: text from an allocation and a command; pure.

sbatch -> this script -> one launcher in the background -> ranks
               ^ USR1 five minutes before the end, TERM at preemption: both become USR1
afterwards: result.json says how it ended; saved, or lost with progress -> scontrol requeue
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from hpc_train.errors import UsageError, unknown

MPIRUN = "mpirun"
SRUN_TYPES = ("pmix", "pmi2")
LAUNCHERS = (MPIRUN, *(f"srun-{kind}" for kind in SRUN_TYPES))
_TIME = re.compile(r"(\d+-)?\d+(:\d{1,2}){0,2}")  # what sbatch --time understands
_NODES = re.compile(r"[1-9]\d*(-[1-9]\d*)?")
_MEMORY = re.compile(r"\d+[KMGT]?")


@dataclass(frozen=True)
class Allocation:
    """What is asked of Slurm.

    Attributes:
        name: of the job.
        nodes: "4", or "2-4" for what Slurm gives; it may settle for the fewest.
        tasks_per_node: ranks on each of them, >= 1.
        time: as `sbatch --time`: minutes, H:M:S, D-H:M:S.
        cpus_per_task: cores of each rank, >= 1.
        gpus_per_node: None for none.
        memory: of each node, such as "64G"; None for the site's default.
        partition, account, qos: None for the site's default.
        array: as `sbatch --array`; each element trains into a directory of its own.
        signal_seconds: how long before the end the run is asked to save.
        max_requeues: how often the script requeues the job itself.
        launcher: one of `LAUNCHERS`.
        prepare: lines that make the environment ready, such as "module load openmpi".
        options: further options of sbatch, such as "--constraint=a100".
    """

    name: str = "hpc-train"
    nodes: str = "1"
    tasks_per_node: int = 1
    time: str = "01:00:00"
    cpus_per_task: int = 1
    gpus_per_node: int | None = None
    memory: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    array: str | None = None
    signal_seconds: int = 300
    max_requeues: int = 20
    launcher: str = MPIRUN
    prepare: Sequence[str] = ()
    options: Sequence[str] = field(default=())


def check(asked: Allocation) -> None:
    """Check what sbatch would refuse only later, or misread.

    Raises:
        UsageError: if something is not understood.
    """
    nodes = re.fullmatch(_NODES, asked.nodes)
    if not nodes or (nodes[1] and int(nodes[1][1:]) < int(asked.nodes.split("-")[0])):
        raise UsageError(f'nodes must be N or N-M, N <= M (--nodes: "{asked.nodes}")')
    if not re.fullmatch(_TIME, asked.time):
        raise UsageError(
            f'time must be minutes, HH:MM:SS or D-HH:MM:SS (--time: "{asked.time}")',
        )
    if asked.memory is not None and not re.fullmatch(_MEMORY, asked.memory):
        raise UsageError(f'memory must be a number with K, M, G or T (--mem: "{asked.memory}")')
    if asked.launcher not in LAUNCHERS:
        raise UsageError(unknown("launcher", asked.launcher, LAUNCHERS), where="--launcher")
    texts = (asked.name, asked.partition, asked.account, asked.qos, asked.array, *asked.options)
    if any(text is not None and re.search(r"[\x00-\x1f]", text) for text in texts):
        raise UsageError("an option of sbatch must be one line of text")


def directives(asked: Allocation, output: str) -> list[str]:
    """The #SBATCH lines, each after the line that explains it."""
    lines = [
        *_directive("job-name", asked.name),
        "# nodes, and ranks on each of them: one per GPU, or one per few cores",
        *_directive("nodes", asked.nodes),
        *_directive("ntasks-per-node", str(asked.tasks_per_node)),
        "# cores of each rank",
        *_directive("cpus-per-task", str(asked.cpus_per_task)),
    ]
    gpus = None if asked.gpus_per_node is None else str(asked.gpus_per_node)
    for name, value in (
        ("gpus-per-node", gpus),
        ("mem", asked.memory),
        ("partition", asked.partition),
        ("account", asked.account),
        ("qos", asked.qos),
        ("array", asked.array),
    ):
        lines += _directive(name, value) if value is not None else []
    return [
        *lines,
        *_directive("time", asked.time),
        "# so many seconds before the end: ask the ranks to save and leave",
        *_directive("signal", f"B:USR1@{asked.signal_seconds}"),
        "# Slurm may start the job again after a node failed or the job was preempted",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "# the folder must exist before sbatch is called",
        *_directive("output", output),
        *(line for option in asked.options for line in _option(option)),
    ]


def _option(option: str) -> list[str]:
    """`--name=value` as a directive; anything else as it is."""
    match = re.fullmatch(r"--([a-z-]+)=(.*)", option)
    return _directive(match[1], match[2]) if match else [f"#SBATCH {option}"]


def _directive(name: str, value: str) -> list[str]:
    """`#SBATCH --name=value`; sbatch takes quotes and backslashes out as a shell would."""
    plain = re.fullmatch(r"[\w@%+=:,./-]+", value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return [f"#SBATCH --{name}={value}" if plain else f'#SBATCH --{name}="{escaped}"']


def environment(prepare: Sequence[str]) -> list[str]:
    """The lines that make the environment ready."""
    given = prepare or (
        "# module purge; module load openmpi",
        "# source ~/venvs/hpc-train/bin/activate",
    )
    return [
        "# -- environment: the site's MPI and the environment in which hpc-train is installed --",
        *given,
        "# since Slurm 22.05 srun does not inherit it",
        "export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}",
        "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}",
        "# parallel file systems often break HDF5's file locking; nobody writes to the data here",
        "export HDF5_USE_FILE_LOCKING=FALSE",
    ]


def start(launcher: str, program: str) -> list[str]:
    """The lines that start the ranks in the background; the shell's `$@` and `resume` are ours."""
    tail = '"${first[@]}" "${resume[@]}" "$@" &'
    if launcher == MPIRUN:
        return [
            "# mpirun reads the allocation; -n finds the one that fits the MPI library, goes on",
            "# without ranks that die where the MPI can, and restarts inside the allocation",
            f'{program} run -n "$SLURM_NTASKS" {tail}',
        ]
    kind = launcher.removeprefix("srun-")
    return [
        "# -K: the death of a task ends the step, instead of leaving the others to wait",
        f"srun --mpi={kind} -K --cpu-bind=cores --export=ALL {program} run {tail}",
    ]


_AFTER = r"""ranks=$!

# signals reach this shell, which hands them on; they interrupt wait, so wait again. TERM is what
# preemption sends first: there is still time to save
leaving=
trap 'leaving=1; kill -USR1 $ranks 2>/dev/null' USR1 TERM
wait $ranks
while kill -0 $ranks 2>/dev/null; do wait $ranks; done

# no launcher's exit status is to be trusted: result.json says how the run ended
status=$(sed -n 's/^ "status": "\([a-z]*\)".*/\1/p' "$run/result.json" 2>/dev/null)
# the newest checkpoint, and how far the start before this one had come
now=$(ls "$run/checkpoints" 2>/dev/null | grep '^step-[0-9]*$' | sort | tail -n 1)
before=$(cat "$run/requeued" 2>/dev/null)
case ${status:-none} in
    done)
        exit 0 ;;
    failed)
        # the run itself says why: the same would only happen again
        code=$(sed -n 's/^ "exit_code": \([0-9]*\).*/\1/p' "$run/result.json")
        if [ "$code" != 75 ]; then
            echo "the run failed, see $run/result.json and $run/logs" >&2
            exit "$code"
        fi ;;
esac
# saved, or lost: go on in a new slot while there is progress, some times at most
if [ "${SLURM_RESTART_COUNT:-0}" -lt "$requeues" ] &&
    [ -n "$now" ] && { [ "$now" != "$before" ] || [ -n "$leaving" ]; }; then
    echo "$now" >"$run/requeued"
    echo "requeued after ${now} (status: ${status:-none}, start ${SLURM_RESTART_COUNT:-0})"
    trap '' TERM USR1  # with which Slurm ends what is left of this start
    scontrol requeue "$SLURM_JOB_ID"
@fewer@    exit 75
fi
echo "not requeued (status: ${status:-none}, newest checkpoint: ${now:-none}), see $run/logs" >&2
[ "$status" = preempted ] && exit 75
exit 1"""


def after(asked: Allocation) -> str:
    """What is done with the ranks' end. Of a range of nodes, fewer than before may do.

    Slurm remembers how many tasks a job had, and would let it wait for as many nodes again.
    """
    least, _, most = asked.nodes.partition("-")
    tasks = int(least) * asked.tasks_per_node
    fewer = (
        "    # it had more tasks perhaps, and would wait for as many nodes again\n"
        f'    scontrol update JobId="$SLURM_JOB_ID" NumTasks={tasks}\n'
    )
    return _AFTER.replace("@fewer@", fewer if most else "")


def train(
    asked: Allocation,
    *,
    program: str = "hpc-train",
    run: str | None = None,
    config: str | None = None,
    overrides: Sequence[str] = (),
    folder: str | None = None,
) -> str:
    """The batch script that trains.

    Args:
        asked: the allocation.
        program: the command `hpc-train`, quoted for a shell.
        run: the run directory; None for a script that takes configuration and overrides as its
            arguments and names a directory after its job.
        config: the configuration's file, if `run` is given.
        overrides: `key.sub=value` words.
        folder: in which to work; None for where sbatch is called.
    """
    check(asked)
    if re.search(r"[\x00-\x1f]", program) or not program.strip():
        raise UsageError(f"the program must be one line of words (--program: {program!r})")
    number = "%j" if asked.array is None else "%A_%a"
    logs = (
        f"logs/%x-{number}.out" if run is None else f"{run.replace('%', '%%')}/slurm-{number}.out"
    )
    way = _way(asked, run, config or "", overrides)
    body = [
        *([f"cd {shlex.quote(folder)} || exit 3"] if folder else []),
        *way,
        f"requeues={asked.max_requeues}",
        "",
        "# a run that has begun goes on, from its newest checkpoint if it has one",
        'mkdir -p "$run"',
        'first=("$config" "run.dir=$run") resume=()',
        'if [ -f "$run/config.toml" ]; then first=() resume=(--resume "$run"); fi',
        "",
        *start(asked.launcher, program),
        after(asked),
    ]
    return render(directives(asked, logs), environment(asked.prepare), body, _TITLE)


def _way(asked: Allocation, run: str | None, config: str, overrides: Sequence[str]) -> list[str]:
    """The lines that say what is trained, and where: config, run and the words after them."""
    if run is None:
        way = [
            "config=${1:?usage: sbatch slurm/train.sbatch CONFIG.toml [key.sub=value ...]}",
            "shift",
            "# one run directory per job, the same after a requeue",
            "run=runs/${SLURM_JOB_NAME}-${SLURM_JOB_ID}",
        ]
    else:
        way = [f"config={shlex.quote(config)}", f"run={shlex.quote(run)}"]
        if asked.array is not None:
            way += [
                "# each element of the array is a run of its own",
                'run="$run/$SLURM_ARRAY_TASK_ID"',
            ]
        own = asked.array is not None and not any(o.startswith("run.seed=") for o in overrides)
        seed = ['"run.seed=$SLURM_ARRAY_TASK_ID"'] if own else []
        way.append(" ".join(["set --", *seed, *map(shlex.quote, overrides)]))
    return way


_TITLE = "Train on nodes of a Slurm cluster."


def scaling(asked: Allocation, program: str = "hpc-train") -> str:
    """The batch script that measures scaling over nodes."""
    check(asked)
    lines = directives(asked, "logs/%x-%j.out")
    wanted = [line for line in lines if not re.search(r"--(signal|requeue|open-mode)", line)]
    wanted = [line for line in wanted if not line.startswith(("# so many", "# Slurm may"))]
    body = [
        "threads=${SLURM_CPUS_PER_TASK:-1}",
        "most=${SLURM_NTASKS:-1}",
        "",
        "# 1, 2, 4, ... ranks, and all of them",
        "ranks=1",
        "for ((count = 2; count < most; count *= 2)); do ranks=$ranks,$count; done",
        '[ "$most" -gt 1 ] && ranks=$ranks,$most',
        "# a micro-batch for every rank, even when all of them share one global batch",
        "batch=$((32 * most))",
        "",
        "# Called once, without srun: it starts the ranks of every job itself. Results must lie",
        "# where all nodes see them. What is said after the script's name wins.",
        f'{program} bench scaling --ranks "$ranks" --threads "$threads" --batch-size "$batch" \\',
        '    --rounds 5 --out "bench-scaling/$SLURM_JOB_ID" "$@"',
    ]
    exclusive = ["# nobody else on these nodes: neighbours would be measured as well"]
    exclusive.append("#SBATCH --exclusive")
    return render(
        [*wanted, *exclusive], environment(asked.prepare), body, "Measure scaling over nodes."
    )


def render(
    directive_lines: Sequence[str], prepare: Sequence[str], body: Sequence[str], title: str
) -> str:
    """The parts of a script as one text."""
    head = ["#!/bin/bash", f"# {title}", ""]
    return "\n".join([*head, *directive_lines, "", "set -u", "", *prepare, "", *body]) + "\n"
