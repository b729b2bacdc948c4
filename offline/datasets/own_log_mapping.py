"""The YAML that maps the columns of one's own log; docs/own_log.md explains it with examples."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from data_exchange_center import columns as c
from data_exchange_center.errors import DataError, DataUnavailable

IdType = Literal["int64", "string"]
AttributeType = Literal["int64", "float32", "string"]


class Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Id(Declared):
    """An id's column and its type, which it keeps through every table, store and answer."""

    column: str
    type: IdType = "int64"


class Time(Declared):
    """When it happened: unix seconds or milliseconds (UTC), or ISO 8601 (without an offset: UTC); fractions are cut off."""

    column: str
    unit: Literal["s", "ms", "iso"] = "s"


class RatingLabels(Declared):
    """A rating strictly above `above` is a positive; those off the scale (`[lowest, highest]`) are dropped and counted."""

    kind: Literal["rating"]
    column: str
    above: float | None = None
    scale: tuple[float, float] | None = None

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale and scale[0] >= scale[1]:
            raise ValueError(f"scale is [lowest, highest], not {list(scale)}")
        return scale


class EventLabels(Declared):
    """Events named in `positive` are positives, those in `ignore` are left out, all others are negatives."""

    kind: Literal["events"]
    column: str
    positive: list[str] = Field(min_length=1)
    ignore: list[str] = []


class ImpressionLabels(Declared):
    """Impressions are negatives, unless the same user has a positive event on the same item within `window` seconds after."""

    kind: Literal["impressions"]
    column: str
    positive: list[str] = Field(min_length=1)
    impression: list[str] = Field(min_length=1)
    ignore: list[str] = []
    window: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _check_names(self) -> ImpressionLabels:
        both = sorted({*self.positive} & {*self.impression})
        if both:
            raise ValueError(f"{both[0]!r} cannot be a positive event and an impression")
        return self


class OutcomeLabels(Declared):
    """One row per impression, with a column that holds 1 or true when it was taken, and 0 or false when not."""

    kind: Literal["outcome"]
    column: str


class PositivesOnly(Declared):
    """Every row is a positive: nothing tells what was seen and not liked, so ranking is not evaluated on exposures."""

    kind: Literal["positives_only"]


Labels = Annotated[
    RatingLabels | EventLabels | ImpressionLabels | OutcomeLabels | PositivesOnly, Field(discriminator="kind")
]


class Attribute(Declared):
    """A column to keep beside an id, and its type; empty values are null."""

    column: str
    type: AttributeType


class Terms(Declared):
    """The column of an item's terms (categories, tags): text with a separator, or a list of strings in Parquet."""

    column: str
    separator: str = Field("|", min_length=1)


class Source(Declared):
    """Files of one table: CSV (`.csv`, `.tsv`, `.txt`, also `.gz`) with a header, or Parquet. A pattern stands for several.

    Attributes:
        file: relative to the YAML, or to `data.source` when that is set; `*` and `?` match as in a shell.
        separator: between CSV fields; a tab for `.tsv` when not set.
    """

    file: str
    separator: str = Field("", max_length=1)
    encoding: str = "utf-8"

    @field_validator("separator")
    @classmethod
    def _check_separator(cls, separator: str) -> str:
        if separator and (not separator.isascii() or separator in '"\r\n\0'):
            raise ValueError("a separator is one ASCII character, and neither a quote nor a line end")
        return separator

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str) -> str:
        try:
            codecs.lookup(encoding)
        except LookupError as error:
            raise ValueError(f"unknown encoding {encoding!r}; usual ones are utf-8, utf-16 and latin-1") from error
        return encoding


class Interactions(Source):
    user: Id
    item: Id
    time: Time
    labels: Labels


class WithAttributes(Source):
    id: str
    attributes: dict[str, Attribute] = {}

    @field_validator("attributes", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`price: float32` is short for `price: {column: price, type: float32}`."""
        if not isinstance(value, dict):
            return value
        return {name: {"column": name, "type": kind} if isinstance(kind, str) else kind for name, kind in value.items()}

    @model_validator(mode="after")
    def _check_names(self) -> WithAttributes:
        taken = (c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.POSITION, c.LABEL, c.SPLIT, c.TITLE, c.TERMS, c.YEAR)
        for name in self.attributes:
            if name in taken or not name.isidentifier() or name != name.lower():
                raise ValueError(f"attribute {name!r}: names are lower-case words like price_band, and none of {taken}")
        return self


class Items(WithAttributes):
    title: str = ""
    terms: Terms | None = None
    year: str = ""


class Users(WithAttributes):
    pass


class Mapping(Declared):
    """The whole YAML: the interactions, and what is known about items and users, if anything."""

    interactions: Interactions
    items: Items | None = None
    users: Users | None = None


def read_mapping(path: Path) -> Mapping:
    """Reads and checks the YAML.

    Raises:
        DataUnavailable: there is no such file.
        DataError: not YAML, or a field that is unknown, missing or of the wrong type, named with its place.
    """
    if not path.exists():
        raise DataUnavailable(f"{path}: no such file; give the YAML that maps your log's columns (docs/own_log.md)")
    try:
        return Mapping.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors()]
        raise DataError(f"{path}: " + "; ".join(problems), field=problems[0].partition(":")[0]) from error
