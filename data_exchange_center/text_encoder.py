"""Free text -> a vector: a sentence model beside hashed character n-grams of what that model's tokenizer cannot read.

A folder holds everything, and a release carries it:

    text_encoder.json   sizes, the n-grams' settings, SHA-256 of the other files (written last)
    sentence.onnx       input_ids and attention_mask, int64 [N, T] -> sentence, float32 [N, d], of length 1
    tokenizer.json      of the `tokenizers` package

A sentence model knows the scripts that it was trained on; all else becomes its unknown token, so that 宝马, 奔驰 and 奥迪 look the
same to it. Every run of characters in which a token is unknown gives character n-grams, hashed with a sign into a few buckets
(Weinberger et al.: Feature Hashing for Large Scale Multitask Learning, 2009). Both parts have length 1, or the second is zero
when the model knew everything; side by side they are brought to length 1 again.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Encoding, Tokenizer

from data_exchange_center.errors import DataError
from data_exchange_center.workspace import read_json, sha256

ABOUT, MODEL, TOKENIZER = "text_encoder.json", "sentence.onnx", "tokenizer.json"
TEXT = "text"  # folder of a release that holds them
BATCH = 32  # texts of similar length that go through the model together
MOST_CHARACTERS = 2000  # of a text; what follows is not read
SMALLEST = 1e-12


class AboutTextEncoder(BaseModel):
    """`text_encoder.json`.

    Attributes:
        name: of the sentence model, for people.
        sentence_size: of its vectors.
        buckets: that n-grams are hashed into; 0: there are none.
        longest: characters of the longest n-grams; the shortest have one.
        most_tokens: of a text that the model reads.
        padding, unknown: tokens of the tokenizer.
        sha256: of the other files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sentence_size: int = Field(ge=1, le=8192)
    buckets: int = Field(ge=0, le=65_536)
    longest: int = Field(ge=1, le=16)
    most_tokens: int = Field(ge=4, le=512)
    padding: str
    unknown: str
    sha256: dict[str, str]


class TextEncoder:
    """Encodes texts; safe to use from several threads.

    Args:
        folder: with the three files.
        threads: of the model.

    Raises:
        DataError: a file is missing, or not what the folder was written with.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        path = folder / ABOUT
        try:
            self.about = AboutTextEncoder.model_validate(read_json(path))
        except ValidationError as error:
            raise DataError(f"{path}: no text encoder: {error}") from error
        for name in (MODEL, TOKENIZER):
            if not (folder / name).exists() or sha256(folder / name) != self.about.sha256.get(name):
                raise DataError(f"{folder / name}: missing, or not what {path} was written with")
        self.sha256 = sha256(path)
        self.dim = self.about.sentence_size + self.about.buckets
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.about.most_tokens)
        self._unknown, self._padding = (self._id(token) for token in (self.about.unknown, self.about.padding))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._model = ort.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, float32 [N, dim], in the order of the texts; what goes along with a text does not change its vector
        by more than rounding."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        given = [text[:MOST_CHARACTERS] for text in texts]
        tokens = self._tokenizer.encode_batch(given)
        parts = [self._sentences(tokens)]
        if self.about.buckets:
            parts.append(np.stack([self._hashed(text, read) for text, read in zip(given, tokens, strict=True)]))
        return _of_length_1(np.concatenate(parts, axis=1))

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise DataError(f"{TOKENIZER}: has no token {token!r}")
        return int(number)

    def _sentences(self, tokens: Sequence[Encoding]) -> np.ndarray:
        """The model's vectors, [N, sentence_size]."""
        made = np.empty((len(tokens), self.about.sentence_size), np.float32)
        order = np.argsort([len(read.ids) for read in tokens], kind="stable")
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            longest = len(tokens[places[-1]].ids)
            ids = np.full((len(places), longest), self._padding, np.int64)
            mask = np.zeros((len(places), longest), np.int64)
            for row, place in enumerate(places):
                read = tokens[place].ids
                ids[row, : len(read)], mask[row, : len(read)] = read, 1
            (made[places],) = self._model.run(["sentence"], {"input_ids": ids, "attention_mask": mask})
        return made

    def _hashed(self, text: str, tokens: Encoding) -> np.ndarray:
        """The n-grams of the runs that the model cannot read, [buckets]."""
        counts = np.zeros(self.about.buckets, np.float64)
        for run in unread_runs(text, tokens, self._unknown):
            for size in range(1, self.about.longest + 1):
                for start in range(len(run) - size + 1):
                    number = zlib.crc32(run[start : start + size].encode("utf-8", "surrogatepass"))
                    counts[(number >> 1) % self.about.buckets] += 1.0 if number & 1 else -1.0
        return _of_length_1(counts[None]).astype(np.float32)[0]


def unread_runs(text: str, tokens: Encoding, unknown: int) -> Iterator[str]:
    """Runs of characters, without space or punctuation between them, in which a token is unknown; in lower case."""
    begin = end = 0
    unread = False
    for number, (first, last) in zip(tokens.ids, tokens.offsets, strict=True):
        if first == last:  # a token that stands for no character
            continue
        if first != end or _separates(text[first:last]):
            if unread:
                yield text[begin:end].lower()
            begin, unread = first, False
        end = last
        unread = unread or number == unknown
    if unread:
        yield text[begin:end].lower()


def _separates(piece: str) -> bool:
    return all(unicodedata.category(character)[0] == "P" for character in piece)


def _of_length_1(rows: np.ndarray) -> np.ndarray:
    """Rows [N, d] divided by their length; rows of zeros stay what they are."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    made: np.ndarray = rows / np.maximum(lengths, SMALLEST)
    return made
