"""Counts tokens offline; the only importer of tiktoken.

One encoding (o200k) counts for every model: exact for OpenAI's current models, an estimate for others. Its table ships
with litellm and is checked before use, because tiktoken would delete a file it doubts and try to download another.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable

import tiktoken

from proxy.published import litellm_folder

__all__ = ["BYTES_PER_TOKEN", "MOST_COUNTED_BYTES", "TokenCounter"]

_NAME = "o200k_base"
_FILE = "fb374d419588a4632f3f557e76b4b70aebbca790"
_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"

MOST_COUNTED_BYTES = 1_000_000
"""Text beyond this is not encoded but counted by BYTES_PER_TOKEN: it would occupy a core for long."""

BYTES_PER_TOKEN = 4
"""The ratio beyond MOST_COUNTED_BYTES: that of English text, so the estimate favours callers of denser scripts."""

_INLINE_BYTES = 8_000
_PIECE = 100_000


class TokenCounter:
    """Counts tokens; loading takes a quarter of a second and 60 MB, so it is done once, before listening."""

    def __init__(self) -> None:
        folder = litellm_folder() / "litellm_core_utils" / "tokenizers"
        table = folder / _FILE
        if not table.is_file() or hashlib.sha256(table.read_bytes()).hexdigest() != _SHA256:
            raise RuntimeError(f"the tokenizer table {table} is missing or damaged; reinstall litellm")
        before = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
        try:
            self._encoding = tiktoken.get_encoding(_NAME)
        finally:
            if before is None:
                del os.environ["TIKTOKEN_CACHE_DIR"]
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before

    def count(self, texts: Iterable[str]) -> int:
        """Count the tokens of texts, each encoded by itself; beyond MOST_COUNTED_BYTES by ratio."""
        return sum(self.count_each(texts))

    def count_each(self, texts: Iterable[str]) -> list[int]:
        """Count as `count` does; returns the tokens of each text."""
        counts = []
        room = MOST_COUNTED_BYTES
        for text in texts:
            tokens = 0
            size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
            if size > room:
                head = text[: room * len(text) // size]
                tokens += -(-(size - room) // BYTES_PER_TOKEN)
                text, size = head, room
            room -= size
            # Pieces bound the time that one run of equal characters can take.
            for start in range(0, len(text), _PIECE):
                tokens += len(self._encoding.encode_ordinary(text[start : start + _PIECE]))
            counts.append(tokens)
        return counts

    async def count_aside(self, texts: list[str]) -> int:
        """Count without holding up other callers."""
        return sum(await self.count_each_aside(texts))

    async def count_each_aside(self, texts: list[str]) -> list[int]:
        """Count each without holding up other callers: more than a few kB are counted in a thread."""
        if sum(map(len, texts)) <= _INLINE_BYTES:
            return self.count_each(texts)
        return await asyncio.to_thread(self.count_each, texts)

    def shorten(self, text: str, tokens: int) -> str:
        """Cut a text to its first `tokens` tokens."""
        return self._encoding.decode(self._encoding.encode_ordinary(text)[:tokens])

    def split(self, text: str) -> list[str]:
        """Split a text into pieces of one token each (fewer where a character takes several tokens)."""
        encoded = self._encoding.encode_ordinary(text)
        pieces, pending = [], b""
        for token in encoded:
            pending += self._encoding.decode_single_token_bytes(token)
            try:
                pieces.append(pending.decode())
                pending = b""
            except UnicodeDecodeError:
                continue
        return pieces
