"""Registry of known generators: repositories, default sampling parameters, verifier, language model and license.

A generator is named on the command line with options after it:
`sana-sprint-1.6b,max_timesteps=1.5,use_resolution_binning=false`.
"""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from forejudge.errors import InvalidRequest
from forejudge.files import exists
from forejudge.generators.base import Architecture, SamplingParams
from forejudge.hub import split_revision
from forejudge.plugins import Plugin, registered_configs

SANA_SPRINT_1_6B = Architecture(
    transformer="SanaTransformer2DModel",
    width=2240,
    num_blocks=20,
    latent_channels=32,
    latent_size=32,
    text_width=2304,
)
_SANA_LICENSE = "NSCL v2-custom (NVIDIA), and the Gemma Terms of Use for its text encoder"


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SchedulerSpec(_Spec):
    """Scheduler that replaces the pipeline's own, with changes to that one's config."""

    class_name: str
    config: dict[str, Any] = {}


class GeneratorSpec(_Spec):
    """A generator with a short name. Models are folders, or hub ids as `owner/model` or `owner/model@REVISION`.

    `transformer` is the transformer's own repository, if it has one; all other components are the pipeline's.
    `sampling` and `options` are defaults. `license` is that of the weights; None takes it from the model card.
    `language_model` is the one to train a verifier from. `architecture` of None is read from the transformer's config.
    `vocabulary` is the `module:attribute` of a function that returns all words of the prompts it was trained on, if
    they are few.
    """

    name: str
    pipeline: str
    transformer: str | None = None
    scheduler: SchedulerSpec | None = None
    sampling: SamplingParams = SamplingParams()
    options: dict[str, Any] = {}
    verifier: str | None = None
    language_model: str | None = None
    license: str | None = None
    vocabulary: str | None = None
    architecture: Architecture | None = None
    description: str

    @property
    def weights(self) -> str:
        """Repository of the transformer, by whose id the generator is found as well."""
        return self.transformer or self.pipeline

    def with_revision(self, revision: str) -> "GeneratorSpec":
        """Return a copy with another revision of its weights."""
        field = "transformer" if self.transformer else "pipeline"
        return self.model_copy(update={field: f"{split_revision(self.weights)[0]}@{revision}"})


KNOWN_MODELS: dict[str, GeneratorSpec] = {
    spec.name: spec
    for spec in (
        GeneratorSpec(
            name="sana-sprint-1.6b",
            pipeline="Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",
            verifier="aimagelab/vhs-hidden-verifier",
            language_model="Qwen/Qwen2.5-0.5B-Instruct",
            options={"gemma_softcap": False},  # as the published verifier was most likely trained
            license=_SANA_LICENSE,
            architecture=SANA_SPRINT_1_6B,
            description="SANA-Sprint with 1.6 billion parameters, 1024 px",
        ),
        GeneratorSpec(
            name="sana-sprint-0.6b",
            pipeline="Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers",
            language_model="Qwen/Qwen2.5-0.5B-Instruct",
            license=_SANA_LICENSE,
            architecture=SANA_SPRINT_1_6B.model_copy(update={"width": 1152, "num_blocks": 28}),
            description="SANA-Sprint with 0.6 billion parameters, 1024 px",
        ),
        GeneratorSpec(
            name="pixart-dmd",
            pipeline="PixArt-alpha/PixArt-XL-2-512x512",
            transformer="PixArt-alpha/PixArt-Alpha-DMD-XL-2-512x512",
            scheduler=SchedulerSpec(class_name="DDPMScheduler", config={"clip_sample": False}),
            options={"start_timestep": 400},
            language_model="Qwen/Qwen2.5-0.5B-Instruct",
            architecture=Architecture(
                transformer="PixArtTransformer2DModel",
                width=1152,
                num_blocks=28,
                latent_channels=4,
                latent_size=32,
                text_width=4096,
            ),
            description="PixArt-Alpha-DMD with 0.6 billion parameters, 512 px, one step",
        ),
        GeneratorSpec(
            name="flux-schnell",
            pipeline="black-forest-labs/FLUX.1-schnell",
            sampling=SamplingParams(steps=4),
            language_model="Qwen/Qwen2.5-0.5B-Instruct",
            license="Apache-2.0",
            architecture=Architecture(
                transformer="FluxTransformer2DModel",
                width=3072,
                num_blocks=57,
                latent_channels=16,
                latent_size=64,
                text_width=4096,
            ),
            description="FLUX.1-schnell with 12 billion parameters, 1024 px, one to four steps",
        ),
        GeneratorSpec(
            name="flux2-klein",
            pipeline="black-forest-labs/FLUX.2-klein-4B",
            sampling=SamplingParams(steps=4),
            language_model="Qwen/Qwen2.5-0.5B-Instruct",
            license="Apache-2.0",
            architecture=Architecture(
                transformer="Flux2Transformer2DModel",
                width=3072,
                num_blocks=25,
                latent_channels=32,
                latent_size=64,
                text_width=7680,
            ),
            description="FLUX.2-klein with 4 billion parameters, 1024 px, four steps",
        ),
        GeneratorSpec(
            name="sd35-large-turbo",
            pipeline="stabilityai/stable-diffusion-3.5-large-turbo",
            sampling=SamplingParams(steps=4),
            language_model="Qwen/Qwen2.5-0.5B-Instruct",
            license="Stability AI Community License",
            architecture=Architecture(
                transformer="SD3Transformer2DModel",
                width=2432,
                num_blocks=38,
                latent_channels=16,
                latent_size=64,
                text_width=4096,
            ),
            description="Stable Diffusion 3.5 large turbo with 8 billion parameters, 1024 px, four steps",
        ),
    )
}


def known_models() -> dict[str, GeneratorSpec]:
    """Return the generators with a short name: those of plug-ins first, then `KNOWN_MODELS`."""
    return registered_configs(_named_generators, GeneratorSpec) | KNOWN_MODELS


def _named_generators(plugin: Plugin) -> dict[str, dict[str, Any]]:
    return {name: {"name": name, **fields} for name, fields in plugin.generators.items()}


def find_spec(name: str) -> GeneratorSpec | None:
    """Find a generator by its short name or by the hub id of its weights; return None for an unknown one.

    Either may carry a revision, which the spec takes over, and options, which are ignored.
    """
    model, revision = split_revision(split_options(name)[0])
    known = known_models()
    match = known.get(model)
    match = match or next((spec for spec in known.values() if split_revision(spec.weights)[0] == model), None)
    return match.with_revision(revision) if match and revision else match


def split_options(name: str) -> tuple[str, dict[str, Any]]:
    """Split a name, folder or hub id from the options after it; values are JSON, or else text.

    A list, a mapping or quoted text may hold commas. Raises InvalidRequest for an option without a value, and for a
    list or mapping that is not JSON.
    """
    if exists(name):
        return name, {}
    model, _, rest = name.partition(",")
    options: dict[str, Any] = {}
    while rest:
        key, equals, text = rest.partition("=")
        if not equals or "," in key:
            option = rest.partition(",")[0]
            raise InvalidRequest(f"generator {name!r}: {option!r} is no option, expected NAME=VALUE after each comma")
        options[key], rest = _leading_value(name, text)
    return model, options


def _leading_value(name: str, text: str) -> tuple[Any, str]:
    """Split the value that a text begins with from what follows its comma."""
    try:
        value, end = json.JSONDecoder().raw_decode(text)
        if text[end : end + 1] in ("", ","):
            return value, text[end + 1 :]
    except (ValueError, RecursionError):
        pass
    if text.startswith(("[", "{")):
        raise InvalidRequest(
            f'generator {name!r}: {text!r} does not begin with JSON, such as ["a, b", "c"] with double quotes, before '
            "the next comma"
        )
    value, _, rest = text.partition(",")
    return value, rest
