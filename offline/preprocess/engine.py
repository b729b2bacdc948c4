"""The engine that runs the feature expressions. Everything that is not portable ibis is in this file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends import BaseBackend

from data_exchange_center.errors import SettingsError


def connect(name: str) -> BaseBackend:
    """Opens an engine: `duckdb` in this process, in memory, spilling to disk when memory runs out.

    Raises:
        SettingsError: an engine that cannot be opened here.
    """
    if name != "duckdb":
        raise SettingsError(f"features.engine {name!r} is not built in; use duckdb", field="features.engine")
    engine = ibis.duckdb.connect()
    engine.raw_sql("SET preserve_insertion_order = true")
    return engine


def register(engine: BaseBackend, name: str, table: pa.Table) -> ir.Table:
    """Makes an Arrow table known to the engine, as a table of its own."""
    source = ibis.memtable(table)
    return engine.create_table(name, source.select(source.columns))


def refill(engine: BaseBackend, name: str, table: pa.Table) -> None:
    """Puts other rows into a registered table, of the same columns."""
    engine.insert(name, table, overwrite=True)


def prepared(engine: BaseBackend, table: ir.Table) -> Callable[[], pa.Table]:
    """An expression that is compiled once and answers for what its tables hold whenever it is called."""
    query = engine.compile(table)
    return lambda: engine.con.sql(query).to_arrow_table()


def write_parquet(engine: BaseBackend, table: ir.Table, path: Path) -> None:
    """Runs an expression into one Parquet file, in its order."""
    engine.to_parquet(table, path, compression="zstd")
