"""What a run will do, before anything starts: checks, course and plan, without MPI and torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpc_train.config import Config
from hpc_train.data import Dataset, Windows, auto_window, has_statistics
from hpc_train.data.index import FieldInfo
from hpc_train.errors import ConfigError, DataError
from hpc_train.plan import Course, Plan
from hpc_train.schedule import first_plan
from hpc_train.train.sampling import check_sampling, epoch_length, sampling_fields


@dataclass(frozen=True)
class Survey:
    """A run as it is planned.

    Attributes:
        course: its global batches.
        num_batches: their number from beginning to end.
        window: shuffle window in blocks.
        plan: who gets how many samples.
        input_shape: shape of the (first) input of one sample.
        num_outputs: classes of the target, or its values per sample.
        num_tokens: different values of the (first) input, if it is left integer.
        warnings: what is allowed and yet strange.
    """

    course: Course
    num_batches: int
    window: int
    plan: Plan
    input_shape: tuple[int, ...]
    num_outputs: int | None
    warnings: tuple[str, ...]
    num_tokens: int | None = None


def survey(config: Config, datasets: Mapping[str, Dataset], num_ranks: int) -> Survey:
    """Plan a run and check what can be checked beforehand.

    Args:
        config: the resolved configuration.
        datasets: "train", and "validation" and "test" if there are any.
        num_ranks: ranks that will train.

    Raises:
        ConfigError, DataError: if the run cannot work.
    """
    train, data = datasets["train"], config.data
    length = epoch_length(config, train)
    if num_ranks > length:
        raise ConfigError(
            f"there must not be more ranks than samples (ranks: {num_ranks}, samples: {length})",
            where="data.train",
            hint=f"start at most {length} ranks",
        )
    _check_fields(config, datasets)
    check_sampling(config, train)
    course = Course(length, data.batch_size)
    run = config.run
    num_batches = run.steps if run.steps is not None else course.end_of(run.epochs or 1)
    window = data.shuffle_window
    if window == "auto":
        window = auto_window(train.blocks(), data.batch_size, train.sample_bytes)
    plan = first_plan(
        config.schedule.policy,
        data.batch_size,
        num_ranks,
        config.schedule.shares,
        data.micro_batch_size or 1,
        whole=config.device.compile or config.device.cuda_graphs,
    )
    return Survey(
        course=course,
        num_batches=num_batches,
        window=int(window),
        plan=plan,
        input_shape=train.fields[data.inputs[0]].shape,
        num_outputs=_num_outputs(config, train),
        warnings=tuple(_warnings(config, train, plan)),
        num_tokens=_num_tokens(config, train),
    )


def needed_fields(config: Config, kind: str | None = None) -> list[str]:
    """The fields of a sample that the run reads; of the data set `kind` also those for sampling."""
    more = sampling_fields(config) if kind == "train" else []
    return list(dict.fromkeys([*config.data.inputs, *targets_of(config), *more]))


def targets_of(config: Config) -> list[str]:
    """The fields that are targets; what comes next is of the inputs themselves."""
    if config.data.targets:
        return config.data.targets
    return config.data.inputs if config.task.name == "next_token" else []


def windows_of(config: Config, kind: str = "train") -> Windows | None:
    """What a sample of a data set is, if it is not a row.

    Windows of validation and test data lie side by side, so that each target counts once.

    Raises:
        ConfigError: if windows are half described.
    """
    data, is_next = config.data, config.task.name == "next_token"
    if data.window is not None:
        shift = int(is_next) if data.shift is None else data.shift
        stride = data.stride if kind == "train" and data.stride else data.window
        return Windows(data.window, stride, shift)
    for key, value in (("stride", data.stride), ("shift", data.shift)):
        if value is not None:
            raise ConfigError(
                f"data.{key} needs data.window (data.{key}: {value})", where=f"data.{key}"
            )
    if is_next and not data.targets:
        raise ConfigError(
            "task next_token needs data.window, or data.targets",
            where="data.window",
            hint="with data.window=64, samples are 64 rows, their targets the rows after each",
        )
    return None


def scale_of(config: Config) -> float | str:
    """The factor on inputs; tokens that shall tell the next one have none."""
    scale = config.data.scale
    return "none" if scale == "auto" and config.task.name == "next_token" else scale


def is_scaled(scale: float | str, dtype: str) -> bool:
    """Whether inputs stored as `dtype` become floating-point numbers by a factor `scale`."""
    return scale != "none" and (scale != "auto" or dtype == "uint8")


def normal_inputs(config: Config, train: Dataset) -> list[str]:
    """The inputs that `data.normalize` concerns: all but integers of one number, such as tokens.

    Raises:
        ConfigError: if it is wanted, and there are none.
    """
    data = config.data
    if not data.normalize:
        return []
    found = [name for name in data.inputs if has_statistics(train.index.fields[name])]
    if not found:
        raise ConfigError(
            "data.normalize needs inputs of several numbers, or of floating-point ones "
            f"(data.inputs: {', '.join(data.inputs)})",
            where="data.normalize",
        )
    return found


def _num_tokens(config: Config, train: Dataset) -> int | None:
    name = config.data.inputs[0]
    info = train.fields[name]
    is_number = is_scaled(scale_of(config), info.dtype) or name in normal_inputs(config, train)
    if is_number or not info.dtype.startswith(("int", "uint")):
        return None
    return info.num_classes


def _num_outputs(config: Config, train: Dataset) -> int | None:
    if not targets_of(config):
        return None
    target = train.fields[targets_of(config)[0]]
    if config.task.name == "regression":
        return max(1, target.sample_bytes // max(1, _item_bytes(target)))
    return target.num_classes


def _item_bytes(info: FieldInfo) -> int:
    count = 1
    for length in info.shape:
        count *= length
    return info.sample_bytes // max(1, count)


def _check_fields(config: Config, datasets: Mapping[str, Dataset]) -> None:
    """Fields agree between data sets, and labels are in range."""
    train = datasets["train"]
    if config.task.name in ("classification", "regression") and not config.data.targets:
        raise ConfigError(
            f"task {config.task.name} needs data.targets",
            where="data.targets",
            hint=f"name one of the fields: {', '.join(train.fields)}",
        )
    for kind, dataset in datasets.items():
        for name in needed_fields(config):
            here, there = dataset.fields[name], train.fields[name]
            if here.shape != there.shape or here.dtype != there.dtype:
                raise DataError(
                    f"field {name} must be as in data.train, {there.dtype} {there.shape} "
                    f"({here.dtype} {here.shape})",
                    where=f"data.{kind}",
                )
    if config.task.name != "classification" or not config.data.targets:
        return
    stated = config.model.arguments.get("num_classes")
    label = train.fields[config.data.targets[0]]
    if label.shape != () or not label.dtype.startswith(("int", "uint")):
        raise DataError(
            f"labels of a classification must be integers, one per sample "
            f"({config.data.targets[0]}: {label.dtype} {label.shape})",
            where="data.targets",
            hint='use task.name = "regression" for continuous targets',
        )
    bound = stated if isinstance(stated, int) else label.num_classes
    for kind, dataset in datasets.items():
        found = dataset.fields[config.data.targets[0]]
        if found.low is None or found.high is None or bound is None:
            continue
        if found.low < 0 or found.high >= bound:
            raise DataError(
                f"label must lie in [0, {bound}) (labels found: {found.low} .. {found.high})",
                where=f"data.{kind}, field {config.data.targets[0]}",
                hint="set model.num_classes, or mend the labels",
            )


def _warnings(config: Config, train: Dataset, plan: Plan) -> list[str]:
    found = []
    data = config.data
    idle = [str(rank) for rank, count in enumerate(plan.counts) if count == 0]
    if idle:
        found.append(
            f"rank {', '.join(idle)} will train nothing: its share of a batch of "
            f"{data.batch_size} samples is 0"
        )
    length = epoch_length(config, train)
    if data.batch_size > length:
        found.append(
            f"data.batch_size is larger than an epoch: every batch holds all {length} samples of it"
        )
    return found
