"""What a token of a vocabulary is, the same in logs and in requests."""

from __future__ import annotations

import unicodedata

from data_exchange_center.vocabulary import Token

MAX_TOKEN_BYTES = 128  # in UTF-8
MAX_INTEGER = 2**63 - 1


def cleaned(token: object) -> Token | None:
    """A token as vocabularies keep it; None for what is no token.

    Strings are trimmed and brought to Unicode's composed form, so that one name typed in two ways is one token. Empty ones,
    those longer than MAX_TOKEN_BYTES and those with control characters, private or unpaired code points are none.
    """
    if isinstance(token, bool):
        return None
    if isinstance(token, int):
        return token if -MAX_INTEGER <= token <= MAX_INTEGER else None
    if not isinstance(token, str) or len(token) > 4 * MAX_TOKEN_BYTES:
        return None
    if token.isascii() and token.isprintable():  # the usual case, without a look at every character
        text = token.strip()
        return text if 0 < len(text) <= MAX_TOKEN_BYTES else None
    text = unicodedata.normalize("NFC", token).strip()
    if not text or any(unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") for character in text):
        return None
    return text if len(text.encode()) <= MAX_TOKEN_BYTES else None
