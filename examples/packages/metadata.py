"""The packages installed beside this Python as a table: the head of each one's METADATA file, and
what `importlib.metadata` reads from it. Knows nothing of models.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Annotated

import typer

CHARACTERS = 1_200  # of a head; a longer one is left out, so that all that is asked for is there
STATUS = re.compile(r"Development Status :: (\d) - ")


@dataclass(frozen=True)
class Package:
    """One row. `truth` has the fields that `packages.toml` asks for."""

    package: str
    metadata: str
    truth: dict[str, object]


def packages(characters: int = CHARACTERS) -> Iterator[Package]:
    """One row for each installed package with a short enough head, by name."""
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        # The first of a name is the one that Python imports.
        found.setdefault(distribution.name.lower(), distribution)
    for name in sorted(found):
        head = _head(found[name])
        if 0 < len(head) <= characters:
            yield Package(found[name].name, head, _truth(found[name]))


def _head(distribution: Distribution) -> str:
    """The fields as they stand in the file, without the description that follows them."""
    text = distribution.read_text("METADATA") or ""
    return text.replace("\r\n", "\n").partition("\n\n")[0].strip()


def _truth(distribution: Distribution) -> dict[str, object]:
    facts = distribution.metadata
    classifiers = facts.get_all("Classifier") or []
    status = next((match[1] for match in map(STATUS.match, classifiers) if match), None)
    return {
        "name": facts["Name"],
        "version": facts["Version"],
        "summary": next(iter(facts.get_all("Summary") or ()), ""),
        "requires_python": next(iter(facts.get_all("Requires-Python") or ()), None),
        "status": None if status is None else int(status),
        "typed": "Typing :: Typed" in classifiers,
    }


def write(path: Path, characters: int = CHARACTERS) -> int:
    """Write the table as JSON Lines. Returns the number of rows."""
    rows = list(packages(characters))
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
    return len(rows)


def main(
    output: Annotated[Path, typer.Option(help="JSON Lines file to write.")],
    characters: Annotated[int, typer.Option(help="Longest head that is taken.")] = CHARACTERS,
) -> None:
    """Write the installed packages' metadata as a table, with the truth beside it."""
    typer.echo(f"{write(output, characters)} packages written to {output}", file=sys.stderr)


if __name__ == "__main__":
    typer.run(main)
