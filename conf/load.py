"""Reads settings: YAML with ``extends``, overridden by the environment; what is wrong is said in words.

``load("conf/completejourney.yaml")`` reads the file, then what it extends, then ``KAIROS__TRAINING__EPOCHS=3``-style
environment variables (two underscores between levels; values are YAML).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from conf.settings import Settings

ENV_PREFIX = "KAIROS__"


class SettingsError(Exception):
    """The settings cannot be used; the message says what, where and how to mend it."""


def load(path: str | Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings from a YAML file, what it extends, and the environment.

    Raises SettingsError for a missing file, bad YAML, an unknown key (with a suggestion) or a bad value.
    """
    tree = _read(Path(path), ())
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(ENV_PREFIX):
            _override(tree, name, text)
    return from_tree(tree, str(path))


def from_tree(tree: dict[str, Any], where: str = "settings") -> Settings:
    """Check a plain tree. ``where`` is named in errors."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(problem, where) for problem in error.errors())) from None


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise SettingsError(f"{path}: extends itself, through {' -> '.join(map(str, seen))}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise SettingsError(
            f"settings file {path} does not exist; beside it: {', '.join(near) or 'no YAML file'}"
        ) from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: expected keys and values at the top, found {type(tree).__name__}")
    parent = tree.pop("extends", None)
    return tree if parent is None else _merge(_read(path.parent / parent, (*seen, path.resolve())), tree)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _merge(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v for k, v in over.items()
    }
    return base | both


def _override(tree: dict[str, Any], name: str, text: str) -> None:
    *parents, last = name.removeprefix(ENV_PREFIX).lower().split("__")
    for key in parents:
        child = tree.setdefault(key, {})
        if not isinstance(child, dict):
            raise SettingsError(f"environment variable {name}: {key} is a value, not a group of settings")
        tree = child
    tree[last] = yaml.safe_load(text)


def _explain(problem: Any, where: str) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _fields(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{where}: unknown setting {key}; {hint}"
    if problem["type"] == "missing":
        return f"{where}: setting {key} is missing; add it"
    return f"{where}: setting {key} = {problem['input']!r}: {problem['msg']}"


def _fields(path: list[str]) -> list[str]:
    node: Any = Settings
    for part in path:
        annotation = node.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        node = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(node.model_fields)
