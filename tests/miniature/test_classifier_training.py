"""What the classifier learns from is true, ghosts are none, and it learns."""

import torch
from tests.miniature.few_steps import losses_of
from tests.miniature.scenes import as_bytes

from forejudge.miniature.classifier import NO_COLOUR, NO_KIND, new_classifier
from forejudge.miniature.classifier_training import classifier_loss, examples, held_out_accuracy
from forejudge.miniature.detector import detect
from forejudge.miniature.scene import COLOUR_NAMES
from forejudge.miniature.shapes import KINDS
from forejudge.miniature.training_loop import generator_at


def test_the_truth_is_what_another_reader_mostly_finds() -> None:
    seen = examples(200, generator_at(0, 0))
    agreed = 0
    for picture, kinds, colours in zip(
        as_bytes(seen.pictures_N3HW.permute(0, 2, 3, 1).numpy()),
        seen.kind_NQ.tolist(),
        seen.colour_NQ.tolist(),
        strict=True,
    ):
        found = [(NO_KIND, NO_COLOUR)] * 4
        for each in detect(picture):
            if each.confidence > 0.5 and each.color is not None:
                at = int(each.box[0] + each.box[2] > 64) + 2 * int(each.box[1] + each.box[3] > 64)
                found[at] = KINDS.index(each.class_name), COLOUR_NAMES.index(each.color)
        agreed += sum(each == true for each, true in zip(found, zip(kinds, colours, strict=True), strict=True))
    assert agreed / 800 > 0.8  # the worst worn of them it takes for none


def test_a_quadrant_holds_an_object_with_a_colour_or_neither() -> None:
    seen = examples(300, generator_at(1, 0))
    assert torch.equal(seen.kind_NQ == NO_KIND, seen.colour_NQ == NO_COLOUR)
    assert 0.4 < float((seen.kind_NQ != NO_KIND).float().mean()) < 0.65
    assert 0 <= float(seen.pictures_N3HW.min()) < float(seen.pictures_N3HW.max()) <= 1


def test_equal_steps_give_equal_examples() -> None:
    one, same, other = (examples(4, generator_at(0, step)).pictures_N3HW for step in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_few_steps_read_more() -> None:
    torch.manual_seed(0)
    model = new_classifier(8)
    loss_at_step = classifier_loss(model, batch_size=24, seed=0)
    losses = losses_of(model, loss_at_step, 30, 1e-2)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert held_out_accuracy(model.eval(), 60, seed=1) > 0.3
