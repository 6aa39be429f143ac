"""Settings that contradict each other are refused by name."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from penstock.commands.config import load_settings
from penstock.service_settings import ConversationSettings
from penstock.settings import ModelSettings, WorkerSettings


def test_a_heartbeat_must_come_before_the_fence_and_the_fence_before_the_lease() -> None:
    for values in ({"heartbeat": 50}, {"self_fence": 60}, {"lease": 5}):
        with pytest.raises(ValidationError, match="heartbeat has to be less than self_fence"):
            WorkerSettings(**values)
    assert WorkerSettings(lease=3, self_fence=2, heartbeat=0.5).lease == 3


def test_choices_are_models_by_the_name_that_clients_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_MODEL__NAME", "fake")
    monkeypatch.setenv("PENSTOCK_MODEL__REVISION", "abc")
    choices = "slow=fake, assets/penstock-tiny,Some/Model"
    monkeypatch.setenv("PENSTOCK_MODEL__CHOICES", choices)

    model = load_settings().model

    assert model.models.keys() == {"fake", "slow", "penstock-tiny", "Some/Model"}
    tiny = model.of("penstock-tiny")
    assert tiny.name.endswith("/assets/penstock-tiny") and tiny.public_name == "penstock-tiny"
    assert (model.of("slow").name, model.of("slow").public_name) == ("fake", "slow")
    assert (model.of("fake").revision, model.of("slow").revision) == ("abc", None)


def test_without_choices_there_is_one_model() -> None:
    assert ModelSettings.model_validate({"name": "fake", "choices": ""}).models == {"fake": "fake"}


@pytest.mark.parametrize("wrong", [{"ttl": 0}, {"owner_ttl": {"ann": -1}}, {"export_keep": 0}])
def test_a_conversation_has_some_time_to_live(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ConversationSettings.model_validate(wrong)
