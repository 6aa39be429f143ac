"""Flower in this process, told by attributes: nothing of it is in the list of processes.

Knows Flower's options; nothing of the tasks it shows.
"""

from __future__ import annotations

import logging
import os
import signal
from types import FrameType

from penstock import telemetry
from penstock.settings import Settings

MAX_TASKS = 10_000  #: shards kept for showing


def run(settings: Settings, broker_url: str) -> None:
    """Serve until SIGTERM or SIGINT; blocks."""
    from flower.app import Flower
    from flower.urls import settings as web_settings
    from tornado.options import options

    from workers.app import make_app

    quiet = "WARNING" if settings.log.level in ("DEBUG", "INFO") else settings.log.level
    telemetry.configure(quiet, settings.log.format)
    # It asks whoever is there, also when nobody is yet: no news.
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)
    options.address = settings.flower.host
    options.port = settings.flower.port
    options.read_only = True
    # It would open the API to every page of a browser; without a password there is no API.
    os.environ.pop("FLOWER_UNAUTHENTICATED_API", None)
    options.enable_events = False  # workers send them unasked, and obey no order
    options.persistent = False
    options.max_tasks = MAX_TASKS
    if settings.flower.basic_auth is not None:
        options.basic_auth = [settings.flower.basic_auth.get_secret_value()]
    celery = make_app(broker_url, settings.broker.key_prefix)
    server = Flower(capp=celery, options=options, **web_settings)

    def stop(number: int, frame: FrameType | None) -> None:
        server.io_loop.add_callback_from_signal(server.stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.start_http_server()
    server.start()
