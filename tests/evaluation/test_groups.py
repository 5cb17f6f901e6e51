from tests.training.stand_in import lines_of

from forejudge.evaluation.groups import groups_of
from forejudge.noise import candidate_seed


def test_outer_blanks_make_no_other_prompt() -> None:
    groups = groups_of(lines_of("a star", " a star "), candidates=2, run_seed=3)
    assert [group.image_index for group in groups] == [0, 1]
    assert groups[1].seeds == tuple(candidate_seed(3, "a star", 1, index) for index in range(2))
