"""The two images of the README, made by real searches: the flow of one prompt, and a row for each task."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from forejudge import BestOfN, Result, SamplingParams
from forejudge.miniature.prompts import descriptions
from forejudge.prompts.geneval import TASKS
from forejudge.types import NOISE, prefix_stage

_N = 8
_PAPER, _INK, _FAINT, _BAR, _WINNER = "#ffffff", "#1d1d1f", "#6e6e73", "#b8c4d0", "#0969da"
_TILE, _GAP = 64, 12
_FLOW_PROMPT = "a photo of two circles"


def write_readme_images(best_of_n: BestOfN, folder: Path) -> None:
    """Write flow.png and gallery.png."""
    folder.mkdir(parents=True, exist_ok=True)
    flow(best_of_n).save(folder / "flow.png")
    gallery(best_of_n).save(folder / "gallery.png")


def flow(best_of_n: BestOfN) -> Image.Image:
    """Show noises, hidden states at the cut, verdicts and the finished winner, from left to right."""
    result = best_of_n(_FLOW_PROMPT, n=_N)
    (cut,) = best_of_n.verifier.reads
    seeds = tuple(candidate.seed for candidate in result.candidates)
    candidates = best_of_n.generator.start(
        best_of_n.generator.encode_without_padding(_FLOW_PROMPT, SamplingParams()), seeds
    )
    candidates = best_of_n.generator.advance(candidates, [NOISE, prefix_stage(cut.blocks)])
    sheet = Image.new("RGB", (1180, 400), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((24, 18), f'"{_FLOW_PROMPT}"', _INK, _font(20))
    blocks = best_of_n.generator.architecture.num_blocks
    _tiles(sheet, 24, f"{_N} noises", _states_to_rgb(candidates.tensor(NOISE).flatten(2).mT))
    _arrow(draw, 210, f"first {cut.blocks} of\n{blocks} blocks")
    _tiles(sheet, 300, "hidden states", _states_to_rgb(candidates.tensor(cut)))
    _arrow(draw, 486, "connector,\nlanguage model")
    _verdicts(draw, 610, result)
    _arrow(draw, 830, "winner alone:\nthe other blocks,\ndecoder")
    sheet.paste(_frame(result.image, 192, winner=True), (950, 110))
    return sheet


def _states_to_rgb(states_NTD: Tensor) -> list[Image.Image]:
    """Map states to small images by their first three principal components over all candidates."""
    count, tokens, width = states_NTD.shape
    flat = states_NTD.reshape(-1, width).float()
    _, _, axes = torch.pca_lowrank(flat, q=3, niter=8)
    shown = (flat - flat.mean(0)) @ axes
    shown = (shown / shown.std(0) / 4 + 0.5).clamp(0, 1)
    side = round(tokens**0.5)
    grids = (shown.reshape(count, side, side, 3) * 255).byte().numpy()
    return [Image.fromarray(grid).resize((_TILE, _TILE), Image.Resampling.NEAREST) for grid in grids]


def _tiles(sheet: Image.Image, left: int, title: str, images: list[Image.Image]) -> None:
    ImageDraw.Draw(sheet).text((left, 56), title, _FAINT, _font(14))
    for index, image in enumerate(images):
        row, column = divmod(index, 2)
        sheet.paste(image, (left + column * (_TILE + _GAP), 80 + row * (_TILE + _GAP)))


def _arrow(draw: ImageDraw.ImageDraw, left: int, text: str) -> None:
    draw.multiline_text((left, 150), text, _FAINT, _font(13), spacing=4)
    draw.line([(left, 220), (left + 64, 220)], _INK, 2)
    draw.polygon([(left + 64, 214), (left + 76, 220), (left + 64, 226)], _INK)


def _verdicts(draw: ImageDraw.ImageDraw, left: int, result: Result) -> None:
    draw.text((left, 56), "probability", _FAINT, _font(14))
    for index, candidate in enumerate(result.candidates):
        top, is_winner = 82 + index * 37, candidate.index == result.record.winner
        probability = candidate.probability or 0.0
        draw.rectangle([left, top, left + 140, top + 22], _PAPER, _BAR)
        draw.rectangle([left, top, left + round(140 * probability), top + 22], _WINNER if is_winner else _BAR)
        draw.text((left + 148, top + 2), f"{probability:.2f}", _WINNER if is_winner else _INK, _font(15))


def gallery(best_of_n: BestOfN) -> Image.Image:
    """Show eight candidates of a test prompt of each task, all finished here, with the verdicts given before."""
    tile, label = 112, 26
    row_height = label + tile + 34
    sheet = Image.new("RGB", (24 + _N * (tile + _GAP) + 12, 12 + len(TASKS) * row_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, task in enumerate(TASKS):
        prompt = descriptions(task, "test")[0].prompt
        result = best_of_n(prompt, n=_N, top_k=_N)
        top = 12 + row * row_height
        draw.text((24, top), prompt, _INK, _font(16))
        for index, image in result.images.items():
            left, is_winner = 24 + index * (tile + _GAP), index == result.record.winner
            sheet.paste(_frame(image, tile, is_winner), (left - 4, top + label - 4))
            text = f"prob. {result.candidates[index].probability:.2f}"
            draw.text((left, top + label + tile + 6), text, _WINNER if is_winner else _FAINT, _font(13))
    return sheet


def _frame(image: Image.Image, size: int, winner: bool) -> Image.Image:
    large = image.resize((size, size), Image.Resampling.LANCZOS)
    return ImageOps.expand(large, 4, _WINNER if winner else _PAPER)


def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    return ImageFont.load_default(size)
