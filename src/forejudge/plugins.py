"""Plug-ins: names that installed packages add to forejudge's own, and objects by `module:attribute`.

A package registers a plug-in as an entry point of the group "forejudge.plugins" in its pyproject.toml, as forejudge
itself registers the miniature:

    [project.entry-points."forejudge.plugins"]
    miniature = "forejudge.miniature.plugin:PLUGIN"
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from forejudge.errors import InvalidRequest, one_line, validation_message

GROUP = "forejudge.plugins"

Entry = TypeVar("Entry")
Config = TypeVar("Config", bound=BaseModel)


@dataclass(frozen=True)
class Plugin:
    """Everything that one package registers, by the name that users write.

    `generators` and `recipes` map a name to the fields of a `GeneratorSpec` and of a `RecipePreset`, `verifiers` to a
    folder or hub id, for those that no generator takes by default. All others map it to `module:attribute`, so that
    importing a plug-in loads no model and none of its own modules.
    """

    generators: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    verifiers: Mapping[str, str] = field(default_factory=dict)
    prompt_sets: Mapping[str, str] = field(default_factory=dict)  # (count, split, seed) -> list[PromptLine]
    evaluators: Mapping[str, str] = field(default_factory=dict)  # an Evaluator class or (prompt, image) -> bool
    model_evaluators: Mapping[str, str] = field(default_factory=dict)  # with from_pretrained(folder, device)
    captioners: Mapping[str, str] = field(default_factory=dict)  # a Captioner class or image -> str
    benchmarks: Mapping[str, str] = field(default_factory=dict)  # () -> Benchmark


@cache
def installed_plugins() -> dict[str, Plugin]:
    """Load every registered plug-in, by its name.

    Raises InvalidRequest for a plug-in that cannot be loaded, and where not even forejudge's own are registered.
    """
    plugins: dict[str, Plugin] = {}
    for point in entry_points(group=GROUP):
        try:
            plugin = point.load()
        except (ImportError, AttributeError) as error:
            raise InvalidRequest(f"plug-in {point.name} cannot be loaded: {one_line(str(error))}") from None
        if not isinstance(plugin, Plugin):
            raise InvalidRequest(f"plug-in {point.name}: {point.value} is a {type(plugin).__name__}, expected a Plugin")
        plugins[point.name] = plugin
    if not plugins:
        raise InvalidRequest("no plug-ins are registered, not even forejudge's own: install forejudge with pip")
    return plugins


def registered(table: Callable[[Plugin], Mapping[str, Entry]]) -> dict[str, Entry]:
    """Merge one table of all plug-ins, as in `registered(lambda plugin: plugin.captioners)`.

    Raises InvalidRequest where two plug-ins register one name, and as `installed_plugins` does.
    """
    merged: dict[str, Entry] = {}
    owners: dict[str, str] = {}
    for owner, plugin in installed_plugins().items():
        for name, entry in table(plugin).items():
            if name in merged:
                raise InvalidRequest(f"plug-ins {owners[name]} and {owner} both register {name!r}: uninstall one")
            merged[name], owners[name] = entry, owner
    return merged


def registered_configs(
    table: Callable[[Plugin], Mapping[str, Mapping[str, Any]]], config_class: type[Config]
) -> dict[str, Config]:
    """Validate one table of fields of all plug-ins. Raises InvalidRequest naming an entry and its field."""
    configs = {}
    for name, fields in registered(table).items():
        try:
            configs[name] = config_class.model_validate(fields)
        except ValidationError as error:
            raise InvalidRequest(f"plug-in entry {name!r}: {validation_message(error)}") from None
    return configs


def is_import_path(name: str) -> bool:
    """Return whether a name is spelled `package.module:attribute`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def load_object(import_path: str, role: str) -> Any:
    """Import `package.module:attribute`; `role` says in the error what it was to be, such as "verifier".

    Raises InvalidRequest where the module or the attribute does not exist.
    """
    if not is_import_path(import_path):
        raise InvalidRequest(f"{role} {import_path!r}: expected module:attribute, such as my_package.scores:score")
    try:
        return resolve_name(import_path)
    except (ImportError, AttributeError) as error:
        raise InvalidRequest(f"{role} {import_path!r} cannot be imported: {one_line(str(error))}") from None
