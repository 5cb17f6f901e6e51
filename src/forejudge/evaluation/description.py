"""What a prompt asks for: its wording as GenEval's generator words it, and its metadata line in GenEval's schema."""

from dataclasses import dataclass

from forejudge.evaluation.metadata import (
    Color,
    CountedObject,
    IncludedObject,
    PromptMetadata,
    Relation,
    Task,
)

NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}


def with_article(noun: str) -> str:
    """A noun as a sentence names it first."""
    vowel_sound = noun[0] in "aeiou" or noun == "hourglass"  # its h is silent
    return f"{'an' if vowel_sound else 'a'} {noun}"


def plural(kind: str) -> str:
    """The word for several objects of a kind by GenEval's rule, which also makes "benchs" and "sheeps"."""
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


@dataclass(frozen=True)
class Wanted:
    """One kind of object that a prompt names, with its colour if the prompt says one."""

    kind: str
    colour: Color | None = None

    def __str__(self) -> str:
        return f"{self.colour} {self.kind}" if self.colour else self.kind


@dataclass(frozen=True)
class Description:
    """A prompt before it is worded. `relation` says where the first object stands seen from the second."""

    tag: Task
    wanted: tuple[Wanted, ...]
    count: int = 1
    relation: Relation | None = None

    @property
    def prompt(self) -> str:
        if self.count > 1:
            return f"a photo of {NUMBER_WORDS[self.count]} {plural(self.wanted[0].kind)}"
        nouns = [with_article(str(wanted)) for wanted in self.wanted]
        return "a photo of " + f" {self.relation or 'and'} ".join(nouns)

    @property
    def metadata(self) -> PromptMetadata:
        """The prompt's line in GenEval's schema."""
        include = [self._included(wanted) for wanted in self.wanted]
        if self.relation:
            include.reverse()
            include[1] = include[1].model_copy(update={"position": (self.relation, 0)})
        one_more = CountedObject(class_name=self.wanted[0].kind, count=self.count + 1)
        return PromptMetadata(
            tag=self.tag,
            include=tuple(include),
            exclude=(one_more,) if self.count > 1 else (),
            prompt=self.prompt,
        )

    def _included(self, wanted: Wanted) -> IncludedObject:
        return IncludedObject(class_name=wanted.kind, count=self.count, color=wanted.colour)
