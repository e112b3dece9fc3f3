"""The house: imports point down, libraries have one home, files and functions stay small."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hpc_train"
FILES = sorted(PACKAGE.rglob("*.py"))

# docs/architecture.md, section 4, from top to bottom; rooms of one row do not know each other
ROWS = [
    ["cli"],
    ["bench", "doctor"],
    ["launch", "tune"],
    ["train"],
    ["strategies", "recovery"],
    [
        "data",
        "models",
        "tasks",
        "augment",
        "compress",
        "reinforcement",
        "optim",
        "schedule",
        "checkpoint",
        "comm",
        "observe",
    ],
    ["config"],
    ["world", "plan", "keyed", "recipes"],
    [
        "errors",
        "forkserver",
        "leaving",
        "log",
        "record",
        "stop",
        "shm",
        "mounts",
        "philox",
        "quota",
        "cores",
    ],
]
LEVEL = {room: -number for number, row in enumerate(ROWS) for room in row}

# third-party library -> the only rooms that may import it
HOMES = {
    "mpi4py": {"comm"},
    "h5py": {"data"},
    "click": {"cli"},
    "pydantic": {"config"},
    "safetensors": {"checkpoint"},
    "rich": {"observe", "cli"},
    "PIL": {"data"},
    "isal": {"data"},
    "numcodecs": {"data"},
    "hdf5plugin": {"data"},
    "gymnasium": {"reinforcement"},
    "optuna": {"tune"},
}
# these may look into versions and files of libraries whose home is elsewhere, in one place each
VISITORS = {("h5py", "doctor"), ("mpi4py", "doctor")}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py", "util.py", "helper.py", "misc.py"}


def relative(path):
    return str(path.relative_to(ROOT))


def room_of(path):
    """The room of a file: the package or module directly below the root; None for the root."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return None if first.startswith("__") else first


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def for_types_only(tree):
    """The import statements below `if TYPE_CHECKING`, which never run."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            found |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    return found


def at_import(tree):
    """The statements that run when the module is imported."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def names_of(node):
    """The modules (and names, that may be modules) that one import statement asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}"
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def imports(nodes):
    return {name for node in nodes for name in names_of(node)}


def wanted(node, modules):
    """The modules that an import statement needs; `from package import module` needs the latter."""
    names = names_of(node)
    if isinstance(node, ast.ImportFrom):
        below = modules.keys() & names[1:]
        return below or modules.keys() & names[:1]
    return modules.keys() & names


def rooms_imported(names):
    """The rooms of this package among `names`."""
    tails = {name.split(".")[1] for name in names if name.startswith("hpc_train.")}
    return tails & LEVEL.keys()


def test_every_room_has_a_row():
    here = {room_of(path) for path in FILES} - {None}
    assert here <= LEVEL.keys(), f"rooms without a row: {here - LEVEL.keys()}"


def test_the_page_draws_the_same_rows():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("## 4. The house")[1].split("\n## ")[0]
    block = re.search(r"\n\n((?:    .*\n)+)", section)[1]
    drawn = [re.split(r"\s{3,}", line.strip())[0].split() for line in block.splitlines()]
    assert drawn == ROWS


def imports_point_down(path):
    """Also for types: a room that names another's types knows it."""
    room = room_of(path)
    for other in rooms_imported(imports(ast.walk(parse(path)))) - {room}:
        if room is not None and LEVEL[other] >= LEVEL[room]:
            yield f"{room} imports {other}, which is not below it"


def libraries_stay_at_home(path):
    room = room_of(path)
    for library in {name.split(".")[0] for name in imports(ast.walk(parse(path)))}:
        home = HOMES.get(library)
        if home is not None and room not in home and (library, room) not in VISITORS:
            yield f"{library} is imported by {room}, its home is {home}"


def no_lazy_import_of_our_own(path):
    """A lazy import would hide a cycle; the command line does it to start fast."""
    if room_of(path) in (None, "cli"):
        return
    tree = parse(path)
    early = set(map(id, at_import(tree)))
    for node in ast.walk(tree):
        if id(node) not in early:
            ours = [name for name in names_of(node) if name.split(".")[0] == "hpc_train"]
            if ours:
                yield f"line {node.lineno} imports {ours[0]} inside a function"


def files_and_functions_are_small(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    if lines > MAX_FILE_LINES:
        yield f"{lines} lines"
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{node.name} has {length} lines"


def names_say_what_is_inside(path):
    if path.name in FORBIDDEN_NAMES:
        yield "the name of the file says nothing"
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Manager", "Handler")):
            yield f"the name of {node.name} says nothing"


def nothing_is_left_to_do(path):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield f"line {number}: {line.strip()}"


def every_file_says_what_it_is_for(path):
    if not ast.get_docstring(parse(path)):
        yield "no docstring"


RULES = [
    imports_point_down,
    libraries_stay_at_home,
    no_lazy_import_of_our_own,
    files_and_functions_are_small,
    names_say_what_is_inside,
    nothing_is_left_to_do,
    every_file_says_what_it_is_for,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule):
    found = [f"{relative(path)}: {text}" for path in FILES for text in rule(path)]
    assert not found, "\n" + "\n".join(found)


# what each rule must find: (file, its text)
BROKEN = {
    imports_point_down: ("comm/x.py", "from hpc_train import train"),
    libraries_stay_at_home: ("train/x.py", "import h5py.h5d"),
    no_lazy_import_of_our_own: ("train/x.py", "def f():\n    import hpc_train.comm"),
    files_and_functions_are_small: ("x.py", "def f():\n" + "    pass\n" * 50),
    names_say_what_is_inside: ("comm/utils.py", ""),
    nothing_is_left_to_do: ("x.py", "# TO" + "DO: later"),
    every_file_says_what_it_is_for: ("x.py", "import os"),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_finds_what_breaks_it(rule, tmp_path, monkeypatch):
    name, text = BROKEN[rule]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    assert len(list(rule(path))) == 1


def test_rooms_of_one_row_do_not_know_each_other(tmp_path, monkeypatch):
    path = tmp_path / "comm.py"
    path.write_text("import hpc_train.data\nfrom hpc_train.world import World\n")
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    assert list(imports_point_down(path)) == ["comm imports data, which is not below it"]


def test_no_cycles():
    modules = {module_of(path): path for path in FILES}
    graph = {}
    for module, path in modules.items():
        tree = parse(path)
        skipped = for_types_only(tree)
        graph[module] = set()
        for node in at_import(tree):
            if id(node) not in skipped:
                graph[module] |= wanted(node, modules)
    done, above = set(), []

    def visit(module):
        assert module not in above, " -> ".join([*above[above.index(module) :], module])
        if module in done:
            return
        above.append(module)
        for other in graph[module]:
            visit(other)
        done.add(above.pop())

    for module in graph:
        visit(module)


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("import hpc_train.comm", {"comm"}),
        ("from hpc_train import comm", {"comm"}),
        ("from hpc_train.comm.native import NativeSum", {"comm"}),
        ("from hpc_train import Trainer", set()),
        ("def f():\n    from hpc_train.data import x", {"data"}),
    ],
)
def test_imports_are_seen(code, seen):
    assert rooms_imported(imports(ast.walk(ast.parse(code)))) == seen


def test_imports_for_types_are_told_apart():
    tree = ast.parse("if TYPE_CHECKING:\n    import a\nimport b\ndef f():\n    import c")
    skipped = for_types_only(tree)
    assert imports(n for n in at_import(tree) if id(n) not in skipped) == {"b"}
    assert imports(ast.walk(tree)) == {"a", "b", "c"}
