"""The end of a run: what it cost, and the manifest that says how it was made.

Writes the manifest, and asks the service which model it serves; decides nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from penstock.annotation.records import Kind, Receipt, Source, Summary
from penstock.annotation.report.receipt import Meter
from penstock.annotation.rounds import manifest
from penstock.annotation.rounds.serving import model_of, versions_of
from penstock.annotation.run.judge import Judge, asked_of
from penstock.annotation.run.ledger import SUFFIX, Ledger
from penstock.annotation.run.writing import Votes, Written
from penstock.annotation.trust.agreement import cohen_kappa, krippendorff_alpha
from penstock.client import Client
from penstock.errors import PenstockError
from penstock.schemas.batch import BatchResult, JobStatus


def receipt_of(
    ledger: Ledger, written: Written, ends: Sequence[BatchResult], meter: Meter
) -> Receipt:
    """Of a run that has ended."""
    plain = Receipt(
        seconds=max(0.0, (ledger.ended or time.time()) - (ledger.started or time.time())),
        rows=written.live.done,
        prompt_tokens=sum(end.usage.prompt_tokens for end in ends),
        completion_tokens=sum(end.usage.completion_tokens for end in ends),
        reused_rows=written.live.reused,
        reused_tokens=sum(end.usage.saved_tokens for end in ends),
    )
    return meter.complete(plain)


def summary_of(
    ledger: Ledger, written: Written, receipt: Receipt, ends: Sequence[BatchResult]
) -> Summary:
    live = written.live
    return Summary(
        rows=live.done,
        failed=live.failed,
        review=live.review,
        receipt=receipt,
        jobs=tuple(ledger.request_ids),
        problem=ledger.stopped or _problem(ends, written),
        history=tuple(ledger.history),
        accuracy=live.accuracy,
    )


def write_manifest(
    ledger: Ledger,
    state: Path,
    source: Source,
    judge: Judge,
    written: Written,
    client: Client,
) -> None:
    """Beside the output."""
    output = state.with_name(state.name.removesuffix(SUFFIX))
    path = getattr(source, "path", None)
    task, live = judge.task, written.live
    asked = asked_of(judge.voters)
    try:
        stats = client.stats()
    except PenstockError:  # a key that may not ask, or a service that left after its last answer
        stats = None
    names = {name: each.body.get("model") or task.model for name, each in asked.items()}
    told = manifest.Manifest(
        created=time.time(),
        source=manifest.Input(
            name=manifest.beside(path, output) if isinstance(path, Path) else source.name,
            sha256=ledger.checksum,
            rows=ledger.rows,
            columns=tuple(written.columns),
        ),
        output=manifest.Output(
            name=output.name,
            sha256=manifest.checksum(output) if output.is_file() else None,
            columns=tuple(column.name for column in task.columns),
        ),
        task=task.model_dump(mode="json", exclude_defaults=True),
        task_fingerprint=task.fingerprint,
        models={
            voter: model_of(stats, str(name)) if stats else manifest.Model(name=str(name))
            for voter, name in names.items()
        },
        versions=versions_of(stats) if stats else {},
        seeds={name: _seed(each.body.get("seed")) for name, each in asked.items()},
        counts=manifest.Counts(
            rows=live.done, failed=live.failed, review=live.review, gold=live.gold, right=live.right
        ),
        calibration={
            voter.name: asdict(confidence)
            for voter, confidence in zip(judge.voters, judge.confidences, strict=True)
            if voter.questions is not None
        },
        agreement=_agreement(judge, written),
        receipt=ledger.receipt,
        history=tuple(ledger.history),
        jobs=tuple(ledger.request_ids),
    )
    manifest.write(manifest.manifest_path(output), told)


def _agreement(judge: Judge, written: Written) -> dict[str, object] | None:
    """Of the voters among each other, and of the decision with gold."""
    if judge.task.kind is not Kind.LABELS:
        return None
    alpha = krippendorff_alpha(_repeated(written.votes))
    decided = (pair[0] for pair in _repeated(written.against_gold))
    gold = (pair[1] for pair in _repeated(written.against_gold))
    found = {"alpha": alpha, "kappa": cohen_kappa(decided, gold)}
    told: dict[str, object] = {name: asdict(value) for name, value in found.items() if value}
    return told or None


def _repeated(counts: Counter[Votes]) -> Iterator[Votes]:
    for values, rows in counts.items():
        for _ in range(rows):
            yield values


def _seed(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _problem(ends: Sequence[BatchResult], written: Written) -> str | None:
    """One sentence, where not all jobs completed."""
    broken = [end for end in ends if end.status is not JobStatus.COMPLETED]
    if not broken:
        return None
    live = written.live
    others = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return (
        f"Job {broken[0].request_id}{others} is {broken[0].status}; without an answer: "
        f"{live.failed:,} of {live.done:,} rows (the first: {written.first_error}); "
        "--retry-failed tries them again."
    )
