"""Training the miniature's verifier on recorded hidden states: connector and language model together, one stage."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from forejudge.errors import ForejudgeError
from forejudge.evaluation.best_of_n import area_under_roc
from forejudge.generators.base import Generator
from forejudge.miniature.labels import LabelledSet, batches
from forejudge.miniature.language_model import QUESTION, new_language_model
from forejudge.miniature.tokenizers import qwen2_tokenizer
from forejudge.miniature.training_loop import LossAtStep, Progress, TrainingSettings, generator_at, train
from forejudge.training.losses import class_weighted_cross_entropy
from forejudge.training.statistics import channel_statistics
from forejudge.verifiers.calibration import fit_calibration
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.hidden_state import HiddenStateVerifier, VerifierConfig
from forejudge.verifiers.question import Question
from forejudge.verifiers.yes_no import YesNoModel


@dataclass(frozen=True)
class Tokens:
    """Both sides of the picture for M prompts, the right side padded: (M, L) each."""

    left_ML: Tensor
    right_ML: Tensor
    mask_ML: Tensor

    @classmethod
    def of(cls, question: Question, prompts: list[str]) -> "Tokens":
        pairs = {prompt: question.tokens_around_picture(prompt) for prompt in set(prompts)}
        sides = [pairs[prompt] for prompt in prompts]
        longest = max(len(right) for _, right in sides)
        right = [side + [0] * (longest - len(side)) for _, side in sides]
        mask = [[1] * len(side) + [0] * (longest - len(side)) for _, side in sides]
        return cls(torch.tensor([left for left, _ in sides]), torch.tensor(right), torch.tensor(mask))

    def __getitem__(self, rows: Tensor) -> "Tokens":
        return Tokens(*(part[rows] for part in self.tensors()))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.left_ML, self.right_ML, self.mask_ML


class LabelledStates:
    """Labelled hidden states of one cut, ready to be put to a model."""

    def __init__(self, labelled: LabelledSet, cut: int, question: Question) -> None:
        rows = labelled.rows()
        self.hidden_MTD = labelled.hidden_MTD(cut)
        self.correct_M = torch.tensor([row.correct for row in rows])
        self.tokens = Tokens.of(question, [row.prompt for row in rows])
        self.answers = question.answer_tokens()

    def log_p(self, model: YesNoModel, rows: Tensor) -> Tensor:
        """The next token's log-probabilities for the given rows: (N, V)."""
        hidden_NTD = torch.from_numpy(np.asarray(self.hidden_MTD[rows.numpy()], dtype=np.float32))
        device = model.connector.mean_D.device
        inputs = (hidden_NTD, *self.tokens[rows].tensors())
        log_p_NV: Tensor = model(*(part.to(device) for part in inputs))
        return log_p_NV.cpu()

    @torch.no_grad()
    def log_odds(self, model: YesNoModel, size: int = 256) -> Tensor:
        """Yes against no for every row."""
        every = torch.arange(len(self.correct_M)).split(size)
        log_p_MV = torch.cat([self.log_p(model, rows) for rows in every])
        yes, no = self.answers
        return log_p_MV[:, yes] - log_p_MV[:, no]


@dataclass(frozen=True)
class TrainedVerifier:
    """A calibrated verifier, its AUROC on validation prompts, and how long its training took."""

    verifier: HiddenStateVerifier
    auroc: float
    seconds: float


@dataclass(frozen=True)
class VerifierRecipe:
    """One verifier to be trained."""

    cut: int
    width: int
    layers: int
    settings: TrainingSettings
    seed: int


def train_verifier(
    recipe: VerifierRecipe,
    generator: Generator,
    training: LabelledSet,
    validation: LabelledSet,
    checkpoint: Path,
    report: Callable[[Progress], None],
) -> TrainedVerifier:
    """Train on one split's candidates, calibrate on another's."""
    torch.manual_seed(recipe.seed)
    tokenizer = qwen2_tokenizer([QUESTION])
    question = Question(QUESTION, tokenizer)
    connector = Connector(generator.architecture.width, recipe.width)
    connector.set_statistics(*channel_statistics(batches(training.hidden_MTD(recipe.cut))))
    language_model = new_language_model(tokenizer, recipe.width, recipe.layers)
    model = YesNoModel(connector, language_model).to(generator.device)
    states = LabelledStates(training, recipe.cut, question)
    held_out = LabelledStates(validation, recipe.cut, question)
    _check_both_kinds(states.correct_M, held_out.correct_M)
    part = f"verifier after {recipe.cut} blocks"
    averaged, seconds = train(part, model, _loss(model, states, recipe), recipe.settings, checkpoint, report)
    model = averaged.eval()
    log_odds = held_out.log_odds(model)
    correct = held_out.correct_M
    config = VerifierConfig(
        generator=generator.architecture,
        generator_fingerprint=generator.fingerprint,
        num_prefix_blocks=recipe.cut,
        question=QUESTION,
        calibration=fit_calibration(log_odds.tolist(), correct.tolist()),
    )
    verifier = HiddenStateVerifier("miniature", config, model, tokenizer)
    return TrainedVerifier(verifier, area_under_roc(correct.numpy(), log_odds.double().numpy()), seconds)


def _loss(model: YesNoModel, states: LabelledStates, recipe: VerifierRecipe) -> LossAtStep:
    """Class-weighted cross-entropy over every row once before any row twice."""
    count, size = len(states.correct_M), recipe.settings.batch_size
    per_epoch = count // size
    positive_weight = 1 - float(states.correct_M.float().mean())

    def loss_at_step(step: int) -> Tensor:
        epoch, place = divmod(step, per_epoch)
        order = torch.randperm(count, generator=generator_at(recipe.seed, epoch))
        rows = order[place * size : (place + 1) * size]
        log_p_NV = states.log_p(model, rows)
        return class_weighted_cross_entropy(log_p_NV, states.answers, states.correct_M[rows], positive_weight)

    return loss_at_step


def _check_both_kinds(*labels: Tensor) -> None:
    for correct_M in labels:
        right = int(correct_M.sum())
        if right in (0, len(correct_M)):
            raise ForejudgeError(
                f"{right} of {len(correct_M)} labelled candidates are right: a verifier needs both right and wrong "
                "ones, so train the generator longer or label more prompts"
            )
