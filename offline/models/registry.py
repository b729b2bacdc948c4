"""Architectures by name. One file per architecture registers itself here; settings choose by name and preset.

An architecture is an `nn.Module` built from a `Shape` and its own options, whose forward turns `Assembled` into a logit [*i].
A preset is a named set of options, for the variants that were published.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from data_exchange_center.errors import SettingsError
from offline.models.trunk import Reads, Shape

FILES = (  # modules beside this one; each registers its architecture when it is imported
    "autoint",
    "dcn",
    "dcnv2",
    "deepfefm",
    "deepfm",
    "din",
    "dlrm",
    "dnn",
    "ffm",
    "finalmlp",
    "fm",
    "gate_dnn",
    "lr",
    "wide_deep",
    "xdeepfm",
)


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry.

    Attributes:
        build: from the shape of the inputs and the options.
        options: the dataclass of its switches.
        presets: name -> the switches that differ from their defaults; always with "default".
        reads: what it needs of the trunk, by its options.
    """

    name: str
    build: Callable[[Shape, Any], nn.Module]
    options: type[Any]
    presets: Mapping[str, Mapping[str, Any]]
    reads: Callable[[Any], Reads]


_known: dict[str, Architecture] = {}


def register(
    name: str,
    build: Callable[[Shape, Any], nn.Module],
    options: type[Any],
    presets: Mapping[str, Mapping[str, Any]],
    reads: Callable[[Any], Reads] = lambda options: Reads(),
) -> None:
    """Makes an architecture known under a name; its `default` preset is added when it is not given."""
    _known[name] = Architecture(name, build, options, {"default": {}, **presets}, reads)


def architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        SettingsError: there is none; the message suggests the nearest and lists the known ones.
    """
    for file in FILES:
        importlib.import_module(f"offline.models.{file}")
    if name not in _known:
        near = difflib.get_close_matches(name, _known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        known = ", ".join(sorted(_known))
        raise SettingsError(f"unknown model {name!r}{hint}; there are {known}", field="rank.model")
    return _known[name]


def options_of(name: str, preset: str = "default", changes: Mapping[str, Any] | None = None) -> Any:
    """The options of a preset, with some replaced.

    Args:
        changes: option -> value; a list, as YAML and JSON have it, stands for a tuple.

    Raises:
        SettingsError: no such model, preset or option, or an option of the wrong type.
    """
    entry = architecture(name)
    if preset not in entry.presets:
        known = ", ".join(entry.presets)
        raise SettingsError(f"model {name!r} has no preset {preset!r}; there are {known}", field="rank.preset")
    changes = {key: tuple(value) if isinstance(value, list) else value for key, value in (changes or {}).items()}
    there = [field.name for field in fields(entry.options)]
    unknown = sorted(set(changes) - set(there))
    if unknown:
        raise SettingsError(
            f"model {name!r} has no option {unknown[0]!r}; there are {', '.join(there) or 'none'}", field="rank.model"
        )
    options = asdict(replace(entry.options(**entry.presets[preset]), **changes))
    try:
        return TypeAdapter(entry.options).validate_python(options)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"model {name!r}: option {place!r}: {first['msg']}, got {first['input']!r}", field="rank.model"
        ) from error


def options_to_json(options: Any) -> dict[str, Any]:
    """Options as plain JSON values; `options_of(name, changes=that)` makes them again."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
