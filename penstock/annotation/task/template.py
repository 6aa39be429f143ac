"""Prompts from Jinja templates, which name the columns: `{{ text }}`, or `{{ row["my text"] }}` for
a name with a space. Strict: what is not there is an error. Knows no task and no file."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jinja2 import Template as Compiled
from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes

from penstock.annotation.task.filters import WORK, Work
from penstock.annotation.task.sandbox import Bounding, check, environment
from penstock.errors import InvalidRequest

MOST_CHARS = 65_536  #: of a template
MOST_PROMPT = 4_000_000  #: characters of what it makes
_FAILURES = (TemplateError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
ROW = "row"  #: the whole row, for columns whose names are no names


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. `columns` are those it needs, each once, in order; `given` are the names
    it uses of those that are no columns."""

    text: str
    columns: tuple[str, ...]
    given: frozenset[str]
    compiled: Compiled

    @classmethod
    def parse(cls, text: str, given: Iterable[str] = ()) -> Template:
        """`given`: names that are told beside the columns. Raises InvalidRequest for a mistake, or
        for what a prompt may not do."""
        if len(text) > MOST_CHARS:
            raise InvalidRequest(
                f"The template is longer than {MOST_CHARS:,} characters.", param="template"
            )
        if not text.strip():
            raise InvalidRequest("The template is empty.", param="template")
        try:
            tree = environment().parse(text)
            check(tree)
            free = meta.find_undeclared_variables(tree)
            columns = _columns(tree, free - set(given))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # of what `1[2:]` is compiled to
                compiled = environment().from_string(Bounding().visit(tree))
        except TemplateSyntaxError as error:
            raise InvalidRequest(
                f"The template, line {error.lineno}: {_sentence(error)}", param="template"
            ) from None
        except (RecursionError, SyntaxError, MemoryError):
            raise InvalidRequest("The template is nested too deeply.", param="template") from None
        except _FAILURES as error:  # of what Jinja computes ahead: 1[2]
            raise InvalidRequest(
                f"The template makes no sense: {_sentence(error)}", param="template"
            ) from None
        return cls(text, columns, frozenset(free & set(given)), compiled)

    def render(self, row: Mapping[str, object], given: Mapping[str, object] | None = None) -> str:
        """The prompt of one row, `given` told beside it. Raises InvalidRequest for a row that has
        not what the template needs, or where it does too much."""
        told: dict[str, object] = {name: row[name] for name in self.columns if name in row}
        context = self.compiled.new_context({**told, ROW: row, **(given or {}), WORK: Work()})
        pieces: list[str] = []
        length = 0
        try:
            for piece in self.compiled.root_render_func(context):
                length += len(piece)
                if length > MOST_PROMPT:
                    raise InvalidRequest(
                        f"The template makes a prompt of more than {MOST_PROMPT:,} characters.",
                        param="template",
                    )
                pieces.append(piece)
        except _FAILURES as error:
            raise InvalidRequest(
                f"The template cannot be filled in: {_sentence(error)}", param="template"
            ) from None
        return "".join(pieces)


def _columns(tree: nodes.Template, free: set[str]) -> tuple[str, ...]:
    """Names in their order of appearance; of `row` the keys it is asked for."""
    found = dict.fromkeys(
        name.name for name in tree.find_all(nodes.Name) if name.name in free and name.name != ROW
    )
    if ROW in free:
        keys = [key for node in tree.find_all(nodes.Expr) if (key := _key(node))]
        uses = sum(name.name == ROW for name in tree.find_all(nodes.Name))
        if uses != len(keys):
            raise InvalidRequest(
                'The template uses `row` as a whole; write {{ row["column"] }} for a column of it.',
                param="template",
            )
        found |= dict.fromkeys(keys)
    return tuple(found)


def _key(node: nodes.Expr) -> str | None:
    """The column that a part like `row["column"]` or `row.column` is."""
    if not isinstance(node, nodes.Getitem | nodes.Getattr) or not isinstance(node.node, nodes.Name):
        return None
    if node.node.name != ROW:
        return None
    if isinstance(node, nodes.Getattr):
        return node.attr
    key = node.arg.value if isinstance(node.arg, nodes.Const) else None
    return key if isinstance(key, str) else None


def _sentence(error: Exception) -> str:
    said = error.message if isinstance(error, TemplateError) else None
    text = " ".join((said or str(error)).split()) or type(error).__name__
    return text.rstrip(".") + "."
