"""The text of single tokens, as they stand inside a text. Knows no rows."""

from __future__ import annotations

from typing import Any

ANCHOR = "a"  #: decoded in front, for some tokenizers take away the first space of a text


class Pieces(dict[int, str]):
    """Decoded when first asked for."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._anchor: list[int] = tokenizer.encode(ANCHOR, add_special_tokens=False)[-1:]
        self._begin = len(self._decode(self._anchor))

    def __missing__(self, token: int) -> str:
        text = self._decode([*self._anchor, token])[self._begin :]
        self[token] = text
        return text

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return text
