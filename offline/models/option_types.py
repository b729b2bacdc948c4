"""Types of the architectures' options: what an option may be, said once.

The bounds are far above any use. They are there so that a slip of the pen is an error at once and not a machine without memory:
integers are integers (1e9 is none), and two layers of the widest allowed take a gigabyte, not a terabyte.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Width = Annotated[int, Field(strict=True, ge=1, le=16_384)]
"""Of a layer, a factor, a projection."""

Rank = Annotated[int, Field(strict=True, ge=0, le=16_384)]
"""Of a factorised weight; 0 keeps it whole."""

Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)]
"""Of layers that follow each other, at least one."""

Count = Annotated[int, Field(strict=True, ge=0, le=64)]
"""Of layers, heads, experts."""

Dropout = Annotated[float, Field(ge=0, lt=1)]
"""The share of values that are left out in training."""
