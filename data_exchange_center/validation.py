"""Validates trees of settings: an unknown key is an error that suggests the nearest known one."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from data_exchange_center.errors import SettingsError


class Section(BaseModel):
    """A group of settings: immutable, defaults checked too, nothing unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


Model = TypeVar("Model", bound=BaseModel)
SHOWN = 200  # characters of a wrong value that a message repeats


def validated(model: type[Model], tree: Any, origin: str) -> Model:
    """The model of a tree of plain values.

    Args:
        origin: where the tree came from, for the message.

    Raises:
        SettingsError: an unknown key, or a value of the wrong type or range; `field` is its dotted place.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place, known_names(model), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"unknown setting {place!r} (from {origin}){hint}", field=place) from error
        subject = f"setting {place!r}" if place else origin
        raise SettingsError(f"{subject}: {first['msg']}, got {_shown(first['input'])}", field=place) from error


@cache
def known_names(model: type[BaseModel]) -> list[str]:
    """Dotted names of all settings of a model, those of its sections included."""
    names = list(model.model_fields)
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += [f"{name}.{inner}" for inner in known_names(field.annotation)]
    return names


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
