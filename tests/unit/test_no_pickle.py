"""Nothing in the sources can turn bytes from outside into code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "alerts", "service", "benchmarks", "tests")
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    ("yaml", "load"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
    ("os", "system"),
    ("os", "popen"),
    ("subprocess", "getoutput"),
    ("subprocess", "getstatusoutput"),
    ("pandas", "read_pickle"),
    ("pd", "read_pickle"),
}
EXCEPTIONS: dict[tuple[str, str], str] = {}
"""(file, what) -> why it is right there."""


def findings(tree: ast.AST) -> Iterator[str]:
    """What there is, by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            yield from _of_call(node)


def _of_call(node: ast.Call) -> Iterator[str]:
    function = node.func
    if isinstance(function, ast.Name) and function.id in CALLS:
        yield function.id
    elif (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and (function.value.id, function.attr) in METHODS
    ):
        yield f"{function.value.id}.{function.attr}"
    for keyword in node.keywords:
        is_constant_false = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg in ("allow_pickle", "shell") and not is_constant_false:
            yield str(keyword.arg)


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_no_source_reads_pickles_or_runs_text() -> None:
    files = sources()
    assert len(files) > 300
    found = {
        (str(path.relative_to(ROOT)), what) for path in files for what in findings(ast.parse(path.read_text("utf-8")))
    }
    assert found == set(EXCEPTIONS)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "import dill.session",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "yaml.load(f)",
        "eval(text)",
        "subprocess.run(x, shell=True)",
        "pd.read_pickle(f)",
    ],
)
def test_the_walk_finds_each_of_them(text: str) -> None:
    assert list(findings(ast.parse(text)))


def test_literals_of_python_are_read_in_one_place() -> None:
    users = [str(path.relative_to(ROOT)) for path in sources() if "literal_eval(" in path.read_text("utf-8")]
    assert [user for user in users if not user.startswith("tests/")] == ["service/wire.py"]
    readers = [str(path.relative_to(ROOT)) for path in sources() if "msgpack.unpackb(" in path.read_text("utf-8")]
    # ipc.py reads what the worker's own child wrote, over a socket pair that nobody else holds
    assert [reader for reader in readers if not reader.startswith("tests/")] == ["service/ipc.py", "service/wire.py"]
