"""Plug-ins: what installed packages register, and what is refused."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from forejudge import plugins
from forejudge.errors import InvalidRequest
from forejudge.evaluators.benchmarks import load_benchmark
from forejudge.generators import find_spec
from forejudge.miniature.evaluator import miniature_benchmark
from forejudge.miniature.plugin import PLUGIN as MINIATURE
from forejudge.plugins import Plugin, installed_plugins, registered

OTHER = Plugin(
    generators={"other": {"pipeline": "owner/other", "description": "another generator"}},
    benchmarks={"other-benchmark": "forejudge.miniature.evaluator:miniature_benchmark"},
)
TWICE = Plugin(captioners={"miniature": "anywhere:Captioner"})
BROKEN = Plugin(generators={"broken": {"pipeline": "owner/broken"}})
NO_PLUGIN = "text"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    installed_plugins.cache_clear()
    yield
    installed_plugins.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, **plugins_by_name: str) -> None:
    points = [EntryPoint(name, value, plugins.GROUP) for name, value in plugins_by_name.items()]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)


def test_the_miniature_is_registered() -> None:
    assert installed_plugins()["miniature"] is MINIATURE


def test_a_package_of_another_adds_names(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, other=f"{__name__}:OTHER")
    spec = find_spec("other")
    assert spec is not None
    assert spec.pipeline == "owner/other"
    assert load_benchmark("other-benchmark").digest == miniature_benchmark().digest


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nonesuch:PLUGIN", "plug-in added cannot be loaded: No module named 'nonesuch'"),
        (f"{__name__}:NOTHING", "plug-in added cannot be loaded: .*NOTHING"),
        (f"{__name__}:NO_PLUGIN", "plug-in added: .* is a str, expected a Plugin"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    install(monkeypatch, added=value)
    with pytest.raises(InvalidRequest, match=said):
        installed_plugins()


def test_a_name_registered_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, miniature="forejudge.miniature.plugin:PLUGIN", twice=f"{__name__}:TWICE")
    with pytest.raises(InvalidRequest, match="plug-ins miniature and twice both register 'miniature'"):
        registered(lambda plugin: plugin.captioners)


def test_a_wrong_field_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, broken=f"{__name__}:BROKEN")
    with pytest.raises(InvalidRequest, match="plug-in entry 'broken': description: Field required"):
        find_spec("broken")


def test_a_missing_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(InvalidRequest, match=r"no plug-ins are registered, .*: install forejudge with pip"):
        find_spec("miniature")
