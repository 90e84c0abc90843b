"""The house rules: lengths, layers, errors, words, licences, what an import loads."""

import ast
import importlib.metadata
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import weedseg
from weedseg import errors

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "weedseg"
FILES = sorted(PACKAGE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

MAX_FILE_LINES, MAX_LINES, USUAL_LINES, USUAL_SHARE = 400, 60, 40, 0.95
MAX_ARGUMENTS, MAX_BRANCHES = 6, 8

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _functions():
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", path, node)
        for path in FILES
        for node in ast.walk(_tree(path))
        if isinstance(node, Function)
    ]


# --- lengths -----------------------------------------------------------------------------------


def test_files_are_short():
    lines = {str(p): len(p.read_text(encoding="utf-8").splitlines()) for p in FILES}
    assert {p: n for p, n in lines.items() if n > MAX_FILE_LINES} == {}


def test_functions_are_short():
    lines = {name: node.end_lineno - node.lineno + 1 for name, _, node in _functions()}
    assert {name: n for name, n in lines.items() if n > MAX_LINES} == {}
    usual = sum(n <= USUAL_LINES for n in lines.values()) / len(lines)
    longest = sorted(lines, key=lines.__getitem__)[-5:]
    assert usual >= USUAL_SHARE, f"{usual:.1%} within {USUAL_LINES} lines; longest: {longest}"


def test_functions_take_few_arguments():
    def count(node):
        arguments = node.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        return len([name for name in names if name not in ("self", "cls")])

    def is_verb(path, node):
        commands = [d for d in node.decorator_list if ".command(" in ast.unparse(d)]
        return path.parent.name == "cli" and (path.stem == node.name or bool(commands))

    # The parameters of a verb are its flags, and a person's flags may be more.
    counts = {name: count(node) for name, path, node in _functions() if not is_verb(path, node)}
    assert {name: n for name, n in counts.items() if n > MAX_ARGUMENTS} == {}


def test_functions_branch_little():
    kinds = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case)

    def own(node):
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, Function):
                yield child
                yield from own(child)

    def count(node):
        return sum(isinstance(n, kinds) and not isinstance(n, ast.IfExp) for n in own(node))

    counts = {name: count(node) for name, _, node in _functions()}
    assert {name: n for name, n in counts.items() if n > MAX_BRANCHES} == {}


# --- errors ------------------------------------------------------------------------------------


def _subclasses(kind):
    for child in kind.__subclasses__():
        if child.__module__.startswith("weedseg"):
            yield child
            yield from _subclasses(child)


def _import_all():
    for path in FILES:
        if path.stem != "__main__":
            parts = path.relative_to(ROOT).with_suffix("").parts
            importlib.import_module(".".join(parts).removesuffix(".__init__"))


def test_the_error_tree_is_the_drawn_one():
    _import_all()
    drawn, depths = {}, {}
    for line in inspect.getdoc(errors).splitlines():
        match = re.match(r"^([ |`-]*)(\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            depths[depth] = match[2]
            drawn[match[2]] = depths.get(depth - 1)
    kinds = [errors.WeedsegError, *_subclasses(errors.WeedsegError)]
    real = {kind.__name__: kind.__mro__[1].__name__ for kind in kinds}
    real["WeedsegError"] = None
    drawn["WeedsegError"] = None
    assert drawn == real


def test_every_error_is_described_and_has_its_codes():
    for kind in [errors.WeedsegError, *_subclasses(errors.WeedsegError)]:
        assert "__doc__" in vars(kind), kind
        assert kind.__doc__, kind
        assert 1 <= kind.exit_code <= 63, kind
        assert 400 <= kind.http_status <= 599, kind


def _documented(name, docstring):
    """Tell whether a docstring names an error or one of its families."""
    kind = getattr(errors, name, None)
    names = [k.__name__ for k in kind.__mro__[:-3]] if kind else [name]
    return any(n in docstring for n in names)


def test_raises_are_documented():
    """A public function says so in its docstring if it raises by itself."""
    silent = []
    for name, _, node in _functions():
        docstring = ast.get_docstring(node) or ""
        if node.name.startswith("_") or not docstring:
            continue
        raised = {
            n.exc.func.id
            for n in ast.walk(node)
            if isinstance(n, ast.Raise)
            and isinstance(n.exc, ast.Call)
            and isinstance(n.exc.func, ast.Name)
        }
        missing = {r for r in raised if r[0].isupper() and not _documented(r, docstring)}
        if missing or (raised and "Raises:" not in docstring):
            silent.append(f"{name} raises {sorted(raised)}")
    assert silent == []


def test_no_assert_no_bare_except_and_no_leftovers():
    found = []
    for path in FILES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Assert):
                found.append(f"{path}:{node.lineno} assert")
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                found.append(f"{path}:{node.lineno} bare except")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", line):
                found.append(f"{path}:{number} leftover")
    assert found == []


# --- words -------------------------------------------------------------------------------------

BANNED = {
    "img": "image",
    "imgs": "images",
    "pic": "image",
    "gt": "mask",
    "msk": "mask",
    "lbl": "mask",
    "preset": "recipe",
    "chip": "tile",
    "pct": "share",
    "ratio": "share",
    "site": "field",
    "zone": "cell",
    "density": "coverage",
}


def test_one_word_has_one_meaning():
    found = set()
    for path in FILES:
        for node in ast.walk(_tree(path)):
            name = None
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = node.id
            elif isinstance(node, ast.arg):
                name = node.arg
            elif isinstance(node, (Function, ast.ClassDef)):
                name = node.name
            if name is None:
                continue
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_")
            found |= {
                f"{path.relative_to(ROOT)}:{node.lineno} {name}: say {BANNED[word]}"
                for word in words
                if word in BANNED
            }
    assert sorted(found) == []


# --- layers and imports ------------------------------------------------------------------------


def test_layers_hold():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_contracts_name_every_module_they_are_about():
    contracts = {c["name"][0]: c for c in PROJECT["tool"]["importlinter"]["contracts"]}
    root = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert set(contracts["2"]["source_modules"]) == {f"weedseg.{m}" for m in root | {"edge"}}
    online = [m for m in ("serve", "maps") if (PACKAGE / m).is_dir()]
    if online:
        assert set(contracts["3"]["source_modules"]) == {f"weedseg.{m}" for m in online}
        assert {"torch", "onnx"} <= set(contracts["3"]["forbidden_modules"])


def test_the_version_module_imports_nothing():
    kinds = (ast.Import, ast.ImportFrom)
    assert not [n for n in ast.walk(_tree(PACKAGE / "__init__.py")) if isinstance(n, kinds)]
    assert re.fullmatch(r"\d+\.\d+\.\d+([.-]?\w+)?", weedseg.__version__)


HEAVY = [
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxscript",
    "sklearn",
    "scipy",
    "matplotlib",
    "fastapi",
    "starlette",
]


def _loaded_after(code):
    script = f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_edge_runtime_loads_nothing_heavy():
    loaded = _loaded_after("import weedseg.edge")
    assert not loaded & {*HEAVY, "typer", "click", "rich", "jinja2", "uvicorn"}


def test_help_loads_nothing_heavy():
    code = "import contextlib, io\nfrom weedseg.cli import main\n"
    code += "with contextlib.redirect_stdout(io.StringIO()): main(['--help'])"
    assert not _loaded_after(code) & {*HEAVY, "cv2", "PIL", "numpy", "onnxruntime"}


# --- dependencies ------------------------------------------------------------------------------


def _licence(metadata):
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License")]
    short = (metadata.get("License") or "").strip().split("\n")[0][:80]
    return " | ".join([metadata.get("License-Expression") or short, *classifiers])


def _closure():
    """Return name -> licence of every installed distribution that weedseg's extras lead to."""
    project = PROJECT["project"]
    waiting = [Requirement(r) for r in project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        waiting += [Requirement(r) for r in extra]
    seen = {}
    while waiting:
        requirement = waiting.pop()
        name = requirement.name.lower()
        extras = ["", *requirement.extras]
        if name in seen or name == "weedseg":
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        seen[name] = _licence(distribution.metadata)
        for line in distribution.requires or []:
            child = Requirement(line)
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(child)
    return seen


def test_no_dependency_is_gpl_or_agpl():
    licences = _closure()
    assert len(licences) > 20
    gpl = re.compile(r"(?<![L-])(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)
    assert {name: text for name, text in licences.items() if gpl.search(text)} == {}


def test_the_gpl_pattern_finds_what_it_should():
    gpl = re.compile(r"(?<![L-])(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)
    assert gpl.search("GPL-3.0-only")
    assert gpl.search("AGPL-3.0")
    assert gpl.search("License :: OSI Approved :: GNU Affero General Public License v3")
    assert not gpl.search("LGPL-3.0-or-later")
    assert not gpl.search("GNU Lesser General Public License v3")


def test_the_base_install_brings_no_onnx_runtime():
    project = PROJECT["project"]
    names = {Requirement(r).name for r in project["dependencies"]}
    assert names == {"numpy", "opencv-python-headless", "pillow", "rich", "tomli", "typer"}
    runtimes = [Requirement(r) for r in project["optional-dependencies"]["all"] if "onnxr" in r]
    for system in ("linux", "win32", "darwin"):
        for machine in ("x86_64", "AMD64", "aarch64", "arm64"):
            place = {"sys_platform": system, "platform_machine": machine}
            (runtime,) = [r.name for r in runtimes if r.marker.evaluate(place)]
            gpu = system != "darwin" and machine in {"x86_64", "AMD64"}
            assert runtime == ("onnxruntime-gpu" if gpu else "onnxruntime")


def test_doctor_knows_what_the_extras_hold():
    from weedseg.cli import packages

    def names(requirements):
        return {Requirement(r).name.lower() for r in requirements}

    assert names(packages.TRAIN.values()) == names(
        PROJECT["project"]["optional-dependencies"]["train"]
    )
    assert names(packages.EDGE.values()) <= names(PROJECT["project"]["dependencies"])


@pytest.mark.parametrize(
    "path", sorted((ROOT / "field_data" / "manifests").glob("*.toml")), ids=str
)
def test_manifests_say_source_licence_and_citation(path):
    manifest = tomllib.loads(path.read_text(encoding="utf-8"))
    assert manifest["name"] == path.stem
    assert manifest["source"].startswith("https://")
    assert {"title", "licence", "citation", "release_weights", "checksum", "layout"} <= set(
        manifest
    )
