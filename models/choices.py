"""Labels to score as a tree: common beginnings are computed once. Torch-free.

Each node is a token that has to be read to score what follows it. The last token of a label is
read only when a longer label goes on from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ChoiceTree:
    """`tokens[i]` follows `parents[i]` (-1: the prompt); parents stand before their children.

    `steps` are for each choice its (node, token) pairs: the logits at that node (-1: at the
    prompt's last token) give the log-probability of that token.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    steps: tuple[tuple[tuple[int, int], ...], ...]

    def depth(self, node: int) -> int:
        """Tokens between the prompt and this node."""
        deep = 0
        while self.parents[node] >= 0:
            node, deep = self.parents[node], deep + 1
        return deep


@dataclass(slots=True)
class _Builder:
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    known: dict[tuple[int, int], int] = field(default_factory=dict)

    def child(self, parent: int, token: int) -> int:
        node = self.known.setdefault((parent, token), len(self.tokens))
        if node == len(self.tokens):
            self.tokens.append(token)
            self.parents.append(parent)
        return node


def choice_tree(choices: Sequence[Sequence[int]]) -> ChoiceTree:
    """The tree of some token sequences, none of them empty."""
    builder, steps = _Builder(), []
    for choice in choices:
        node, path = -1, []
        for index, token in enumerate(choice):
            path.append((node, token))
            if index + 1 < len(choice):
                node = builder.child(node, token)
        steps.append(tuple(path))
    return ChoiceTree(tuple(builder.tokens), tuple(builder.parents), tuple(steps))
