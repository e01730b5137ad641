"""Calls a user's Python functions for src/plugins/python.ts (through pythonia):
JSON in, JSON out, no exception escapes.

    load({"file": "/a/mine.py", "name": "score", "files": [...], "parent": 123})
        -> versions of the packages they import
    know({"number": 0, "path": "/tmp/items.json"})
        -> items that slates refer to by row
    answer({"file": ..., "name": ..., "items": 0, "slates": [...], "asked": [...], "options": {...}})
        -> what it returns

    fit({"file": ..., "name": ..., "path": "/tmp/training.json", "options": {...}})
        -> number of what it returned
    rank({"fit": 0, "histories": [[row, ...], ...], "n": 100, "users": [row, ...]})
        -> [[rows], [scores]] for each history
    read({"file": ..., "name": ..., "source": "/data", "folder": "/tmp/x", "options": {...}})
        -> what was written there

A function is called with a list of records (below) and the recipe's options as keyword arguments, and returns a list of
the same length. It runs in the worker's process; its output goes to the worker's log.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import math
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gr2_worker.boot import die_with_parent


@dataclass(frozen=True, slots=True)
class Item:
    """Text is plain and may be empty."""

    id: str
    title: str
    brand: str
    categories: list[str]
    description: str


@dataclass(frozen=True, slots=True)
class Slate:
    """Candidates, scores and labels are in pre-rank order, best first; the history's latest item is last."""

    id: str
    history: list[Item]
    candidates: list[Item]
    scores: list[float]
    #: Relevance of every candidate, 0 = not relevant; empty for functions that must not see it.
    labels: list[float]


@dataclass(frozen=True, slots=True)
class Question:
    """A slate for a teacher to order; hint: the user's choice, in targeted sampling."""

    slate: Slate
    hint: int | None
    attempt: int


@dataclass(frozen=True, slots=True)
class Training:
    """All the data a pre-ranker may learn from, by user: item rows, oldest first, and their times in seconds."""

    num_items: int
    sequences: list[list[int]]
    times: list[list[float]]
    items: list[Item]
    seed: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A slate with an order of its candidates: indices, best first, all of them."""

    slate: Slate
    mode: str
    order: list[int]
    reasoning: str


_functions: dict[tuple[str, str], Callable[..., Any]] = {}
_items: dict[int, list[Item]] = {}
_fits: list[Any] = []
_modules: dict[str, Any] = {}
_watched = False


def load(request_json: str) -> str:
    return _reply(_load, request_json)


def know(request_json: str) -> str:
    return _reply(_know, request_json)


def answer(request_json: str) -> str:
    return _reply(_answer, request_json)


def fit(request_json: str) -> str:
    return _reply(_fit, request_json)


def rank(request_json: str) -> str:
    return _reply(_rank, request_json)


def read(request_json: str) -> str:
    return _reply(_read, request_json)


def _reply(work: Callable[[dict[str, Any]], Any], request_json: str) -> str:
    try:
        return _to_json({"ok": True, "value": work(json.loads(request_json))})
    except BaseException as error:  # the bridge cannot carry exceptions
        return json.dumps({"ok": False, "error": _describe(error)})


def _to_json(value: Any) -> str:
    try:
        return json.dumps(value, default=_plain, allow_nan=False)
    except ValueError:  # JSON has no NaN: pass its name on
        return json.dumps(_spelled(json.loads(json.dumps(value, default=_plain))))


def _spelled(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {k: _spelled(v) for k, v in value.items()}
    return [_spelled(v) for v in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, tuples and sets of other libraries."""
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"{type(value).__name__} is not a number, text, or a list or dict of these")


def _describe(error: BaseException) -> str:
    """The exception, and the innermost line in the user's files."""
    text = traceback.format_exception_only(error)[-1].strip()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in _modules]
    return f"{text} ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else text


def _load(request: dict[str, Any]) -> dict[str, str]:
    global _watched
    if not _watched:
        die_with_parent(int(request["parent"]))
        _watched = True
    file, name = request["file"], request["name"]
    if file not in _modules:
        folder = os.path.dirname(file)
        if folder not in sys.path:
            sys.path.append(folder)
        spec = importlib.util.spec_from_file_location(f"gr2_plugin_{len(_modules)}", file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        _modules[file] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            described = _describe(error)
            del _modules[file]
            raise ImportError(f"it cannot be imported: {described}") from error
    found = getattr(_modules[file], name, None)
    if not callable(found):
        names = [
            n
            for n, v in vars(_modules[file]).items()
            if callable(v) and getattr(v, "__module__", "").startswith("gr2_plugin_")
        ]
        raise AttributeError(f"it has no function {name}" + (f"; it has {', '.join(names)}" if names else ""))
    _functions[(file, name)] = found
    return _versions(request["files"])


def _versions(files: list[str]) -> dict[str, str]:
    """Versions of the installed packages that files import by name."""
    names: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    names -= sys.stdlib_module_names | {"gr2_worker"}
    packages = importlib.metadata.packages_distributions() if names else {}
    found = {package for name in names for package in packages.get(name, ())}
    return {package: importlib.metadata.version(package) for package in sorted(found)}


def _know(request: dict[str, Any]) -> None:
    rows = json.loads(Path(request["path"]).read_text(encoding="utf-8"))
    _items[request["number"]] = [_item(row) for row in rows]


def _item(row: dict[str, Any]) -> Item:
    return Item(row["id"], row["title"], row["brand"], row["categories"], row["description"])


def _fit(request: dict[str, Any]) -> int:
    data = json.loads(Path(request["path"]).read_text(encoding="utf-8"))
    training = Training(
        data["numItems"], data["sequences"], data["times"], _items.get(request["items"], []), data["seed"]
    )
    fitted = _functions[(request["file"], request["name"])](training, **request["options"])
    if not callable(getattr(fitted, "rank", None)):
        raise TypeError(
            f"{request['name']} returned {type(fitted).__name__}, not an object with rank(histories, n, users)"
        )
    _fits.append(fitted)
    return len(_fits) - 1


def _rank(request: dict[str, Any]) -> Any:
    return _fits[request["fit"]].rank(request["histories"], request["n"], request["users"])


def _read(request: dict[str, Any]) -> dict[str, int]:
    """Interactions and, if there are any, items, as JSON lines in the given folder."""
    source = _functions[(request["file"], request["name"])](request["source"], **request["options"])
    interactions, items = source if isinstance(source, tuple) else (source, None)
    written = {"interactions": _write_lines(Path(request["folder"], "interactions.jsonl"), interactions)}
    if items is not None:
        written["items"] = _write_lines(Path(request["folder"], "items.jsonl"), items)
    return written


def _write_lines(path: Path, records: Any) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            if not isinstance(record, dict):
                raise TypeError(f"record {count + 1} is {type(record).__name__}, not a dict")
            file.write(_to_json(record) + "\n")
            count += 1
    return count


def _record(slates: list[Slate], asked: Any) -> Slate | Answer | Question:
    if isinstance(asked, int):
        return slates[asked]
    if len(asked) == 3:
        return Question(slates[asked[0]], asked[1], asked[2])
    return Answer(slates[asked[0]], asked[1], asked[2], asked[3])


def _answer(request: dict[str, Any]) -> Any:
    function = _functions[(request["file"], request["name"])]
    items = _items.get(request.get("items", -1), [])

    def item(row: Any) -> Item:
        return items[row] if isinstance(row, int) else _item(row)

    slates = [
        Slate(
            s["id"],
            [item(r) for r in s["history"]],
            [item(r) for r in s["candidates"]],
            s["scores"],
            s.get("labels", []),
        )
        for s in request["slates"]
    ]
    records = [_record(slates, asked) for asked in request["asked"]]
    return function(records, **request["options"])
