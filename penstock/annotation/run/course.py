"""The middle of a run: parts are posted as there is room, jobs are looked at until all have ended,
and whoever stops it ends what is under way. Reads and writes no table."""

from __future__ import annotations

import time

from penstock.annotation.records import Watcher
from penstock.annotation.report.receipt import Meter
from penstock.annotation.run.follow import Follower
from penstock.annotation.run.ledger import Ledger, LedgerFile
from penstock.annotation.run.outage import outlasting
from penstock.annotation.run.posting import Poster
from penstock.annotation.run.recall import cancel
from penstock.annotation.task.stop import StopRule
from penstock.client import Client

POLL = 0.5  # seconds between two looks at the progress
SAVE_EVERY = 5.0  # seconds between two notes of the progress in the ledger


class Course:
    """Of one run. The ledger is durable before anything is posted, and after."""

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        file: LedgerFile,
        poster: Poster,
        follower: Follower,
        watcher: Watcher,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._file = file
        self._poster = poster
        self._follower = follower
        self._watcher = watcher
        self._saved = time.monotonic()

    def run(self, meter: Meter, rule: StopRule | None) -> None:
        """Until every job has ended."""
        while True:
            posted = self._poster.post()
            ended = self._look(0.0 if posted else POLL)
            meter.look()
            self._save(meter)
            if ended and not posted and self._poster.done:
                return
            if not self._should_stop(rule) and ended and not posted:
                time.sleep(POLL)  # there is no room yet, and nothing to look at

    def stop(self, reason: str) -> None:
        """Cancel all that is posted, and what may be; post no more."""
        self._ledger.stopped, self._ledger.ended = reason, time.time()
        self._file.save(self._ledger)
        outlasting(self._poster.close, self._watcher)
        outlasting(lambda: cancel(self._ledger, self._client), self._watcher)

    def _look(self, hold: float) -> bool:
        ended = outlasting(lambda: self._follower.look(hold), self._watcher)
        live = self._follower.live()
        self._follower.remember(live)
        self._watcher.progressed(live)
        return ended

    def _should_stop(self, rule: StopRule | None) -> bool:
        if rule is None or self._ledger.stopped is not None:
            return False
        sentence = rule.says_stop(self._follower.live())
        if sentence is None:
            return False
        self._watcher.note(sentence)
        self.stop(sentence)
        return True

    def _save(self, meter: Meter) -> None:
        if time.monotonic() - self._saved > SAVE_EVERY:
            self._saved = time.monotonic()
            self._ledger.counters = meter.state
            self._file.save(self._ledger)
