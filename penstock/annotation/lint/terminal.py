"""The look before a run, in the terminal. Knows what was found, not how."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.annotation.lint.lint import Findings
from penstock.annotation.lint.words import facts, mistakes, warnings
from penstock.annotation.records import Prompt
from penstock.annotation.report.figures import many

BAR = 32  # characters
PROMPT = 1_200  # characters of a sample


def show(found: Findings, console: Console) -> None:
    """Print it, part by part; parts without anything are left out."""
    for row in found.samples:
        console.print(Text(f"Prompt of {row.place}", style="bold"))
        console.print(Text(_shortened(spelled(row.prompts[0]))), soft_wrap=True)
        if len(row.prompts) > 1:
            console.print(Text(f"and {len(row.prompts) - 1} more of this row", style="dim"))
        console.print()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, figure in facts(found):
        table.add_row(name, figure)
    console.print(table)
    _picture(found, console)
    for title, sentences in (("Look at", warnings(found)), ("Wrong", mistakes(found))):
        lines = list(sentences)
        if lines:
            console.print()
            console.print(Text(title, style="bold"))
        for line in lines:
            console.print(Text(f"  {line}"), soft_wrap=True)


def spelled(prompt: Prompt) -> str:
    """A prompt as one text."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"[{turn['role']}] {turn['content']}" for turn in prompt)


def _picture(found: Findings, console: Console) -> None:
    bars = found.lengths.bars()
    if len(bars) < 2:
        return
    most = max(count for _, _, count in bars)
    longest = max(found.lengths.tokens)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column(width=BAR)
    table.add_column(justify="right")
    for low, high, count in bars:
        filled = max(1, round(BAR * count / most)) if count else 0
        to = f"to {many(high - 1)}" if high > longest or high < bars[-1][1] else "or more"
        table.add_row(f"{many(low)} {to}", "█" * filled, many(count))
    console.print()
    console.print(Text("Tokens of the prompts", style="bold"))
    console.print(table)


def _shortened(text: str) -> str:
    if len(text) <= PROMPT:
        return text
    half = PROMPT // 2
    return f"{text[:half]}\n[… {many(len(text) - 2 * half)} characters …]\n{text[-half:]}"
