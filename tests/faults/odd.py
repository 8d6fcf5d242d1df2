"""Odd things by chance: texts, JSON, and answers that are nearly right; the same ones for the same seed."""

from __future__ import annotations

import json
import random
from typing import Any

#: A value that nobody may be told.
CANARY = "c4nary-v4lue-7d1"

# fmt: off
TEXTS = (
    "", " ", "\0", "\n", "\r\n", "\ud800", "\udcff", "é\u202e", "\x1b[31m", "'\"\\$(x)`", "A=B", "../..", "%00%s{}",
    "-x", "--", "null", "NaN", "Infinity", "-1", "1e999", "🦀", "://", "http://[", "postgresql://[",
    "0001-01-01T00:00:00Z", "2026-13-45", "9" * 5_000, "[" * 100_000, '{"a":' * 50_000, "x" * 300, "x" * 140_000,
)
LEAVES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, 2**63, 2**70, 10**400, 0.5, 1e308, float("nan"), float("inf"), [], {},
)
# fmt: on
#: The share of what is replaced in something that is nearly right.
_CHANGED = 0.1


class Case(random.Random):
    """One case: its chance, how to have it again, and what it was given."""

    def __init__(self, seed: int, entrance: str, number: int) -> None:
        super().__init__(f"{seed} {entrance} {number}")
        self.again = f"--seed {seed} --case {entrance}:{number}"
        self.given: list[Any] = []

    def perhaps(self, share: float = 0.5) -> bool:
        """Tell yes or no."""
        return self.random() < share

    def text(self, *likely: str) -> str:
        """Give an odd text, a likely one, or one with an odd end."""
        return self.choice([*TEXTS, *likely * 8]) + (self.choice(TEXTS[:20]) if self.perhaps(0.3) else "")

    def tree(self, depth: int = 3) -> Any:
        """Give anything that JSON can hold."""
        if depth and self.perhaps(0.4):
            made = [self.tree(depth - 1) for _ in range(self.randrange(4))]
            return made if self.perhaps() else {self.text("name", "id"): one for one in made}
        return self.choice([*LEAVES, self.text(), self.text()])

    def changed(self, value: Any) -> Any:
        """Give what is like *value*, but for parts that are replaced, left out or doubled."""
        if self.perhaps(_CHANGED):
            return self.tree()
        if isinstance(value, dict):
            return {key: self.changed(one) for key, one in value.items() if not self.perhaps(_CHANGED / 2)}
        if isinstance(value, list):
            return [self.changed(one) for one in value * self.choice([1, 1, 1, 0, 2])]
        return value

    def answer(self, *likely: Any) -> str:
        """Give what a service or a program might answer: JSON or text, whole or not; it may quote a value."""
        whole = self.choice(likely)
        text = whole if isinstance(whole, str) else json.dumps(self.changed(whole))
        cut, odd = self.randrange(len(text) + 1), self.text(CANARY)
        return self.choice([text, text, text, text[:cut], text[:cut] + odd + text[cut:], odd])
