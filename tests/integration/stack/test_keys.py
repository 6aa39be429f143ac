"""`penstock keys`: with the settings' secret, and beside a `penstock up` that made its own."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from penstock.cli import app
from penstock.errors import InvalidRequest, NotFound, StackError
from penstock.keys import KeySigner
from tests.integration.stack.conftest import ROOT, Up, until

SECRET = "the secret of a server, for tests"
Keys = Callable[..., Result]


@pytest.fixture
def keys(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Runs `penstock keys …` in this process."""
    monkeypatch.chdir(tmp_path)
    environment = {"PENSTOCK_DATABASE__URL": database_url, "PENSTOCK_API__KEY_SECRET": SECRET}

    def run(*arguments: str, **more: str) -> Result:
        env = {**environment, **more}
        return CliRunner().invoke(app, ["keys", *arguments], env=env)

    return run


def made(result: Result) -> Any:
    """The JSON that it printed."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_key_is_shown_once_and_goes_alone_to_the_output(keys: Keys) -> None:
    created = keys("create", "--owner", "ann", "--name", "ci [1]", "--expires-in", "90d")

    key = created.stdout.strip()
    key_id = KeySigner(SECRET).id_of(key)
    assert key_id is not None
    assert "shown this once" in created.stderr and "ann: jobs, chat, files" in created.stderr
    listed = keys("list")
    assert all(word in listed.stdout for word in (key_id, "ann", "ci [1]", "in use", "never"))
    assert key not in listed.stdout + keys("list", "--json").stdout


def test_what_was_asked_for_is_what_is_stored(keys: Keys) -> None:
    options = ("--scope", "read", "--scope", "admin", "--requests-per-minute", "5")
    facts = made(keys("create", *options, "--tokens-per-minute", "900", "--json"))
    made(keys("create", "--owner", "bob", "--json"))

    (listed,) = made(keys("list", "--owner", "default", "--json"))

    assert listed == {name: value for name, value in facts.items() if name != "key"}
    assert (facts["owner"], facts["scopes"]) == ("default", ["read", "admin"])
    assert (facts["requests_per_minute"], facts["tokens_per_minute"]) == (5, 900)
    assert (facts["expires_at"], facts["revoked_at"], facts["state"]) == (None, None, "in use")


def test_a_key_is_rotated_with_an_overlap_and_revoked(keys: Keys) -> None:
    first = made(keys("create", "--owner", "ann", "--json"))

    second = made(keys("rotate", first["id"], "--overlap", "1h", "--json"))

    assert (second["owner"], second["scopes"]) == (first["owner"], first["scopes"])
    assert second["key"] != first["key"]
    states = {key["id"]: key["state"] for key in made(keys("list", "--json"))}
    assert states == {first["id"]: "ending", second["id"]: "in use"}
    # The beginning of a key is as good as its id.
    assert second["id"] in keys("revoke", second["key"]).stdout
    assert made(keys("revoke", first["id"], "--json"))["state"] == "revoked"
    with pytest.raises(NotFound):
        raise keys("rotate", second["id"]).exception or AssertionError
    with pytest.raises(NotFound):
        raise keys("revoke", "nobodys").exception or AssertionError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--owner", "a b"], "owner has to be"),
        (["--owner", ""], "owner has to be"),
        (["--scope", "all"], "There is no scope 'all'; there are admin, chat"),
        (["--expires-in", "soon"], "'soon' is no time"),
    ],
)
def test_a_wrong_option_is_one_sentence(keys: Keys, arguments: list[str], words: str) -> None:
    failed = keys("create", *arguments).exception

    assert isinstance(failed, InvalidRequest)
    assert words in failed.message


def test_without_a_secret_it_says_where_one_comes_from(keys: Keys) -> None:
    failed = keys("create", PENSTOCK_API__KEY_SECRET="").exception

    assert isinstance(failed, StackError)
    assert "`penstock up` makes one" in failed.message
    assert "PENSTOCK_API__KEY_SECRET" in failed.message


@pytest.mark.slow
def test_keys_made_beside_a_running_stack_close_it_and_outlive_it(
    up: Callable[..., Up],
) -> None:
    stack = up()
    assert stack.ask("/stats")["queue_depth"] == 0
    environment = {name: value for name, value in os.environ.items() if "PENSTOCK" not in name}
    environment |= {"PYTHONPATH": str(ROOT), "PENSTOCK_DATA_DIR": str(stack.data)}
    command = [sys.executable, "-P", "-m", "penstock", "keys", "create"]
    key = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()

    until("a key is asked for", lambda: _is_refused(stack), limit=20)

    stack.key = key
    assert stack.ask("/stats")["queue_depth"] == 0
    secret = stack.data / "key.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stack.stop() == 0
    # It finds its own way in, however many keys there are.
    again = up()
    again.key = key
    assert again.ask("/stats")["workers"]
    assert secret.read_text().strip() not in stack.output()


def _is_refused(stack: Up) -> bool:
    try:
        stack.ask("/stats")
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 401
    return False
