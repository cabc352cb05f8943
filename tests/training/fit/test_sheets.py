"""Sheets of pictures: the right ones, in order, under names that may be anything; and heat in its place."""

import io

import numpy as np
import numpy.typing as npt
import pytest
import torch
from imagebatch_training.backbone.mobilenet import Convention, ServedModel, build
from imagebatch_training.cut import WHOLE, Cut
from imagebatch_training.fit.assessment import Answers, Assessment
from imagebatch_training.fit.gradcam import grad_cam
from imagebatch_training.fit.plots import plot_reliability, plot_scores
from imagebatch_training.fit.sheets import draw_grad_cam, draw_worst, shorten
from imagebatch_training.images.labels import Example, Labels
from matplotlib.figure import Figure
from PIL import Image

CLASSES = ["sound", "$cracked_", "broken & <b>"]
CONVENTION = Convention(padding="torch", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
LABELS = Labels(
    examples=[Example(image_id=f"{'long/' * 9}{i}$x$.png", label=CLASSES[i % 3], block=i) for i in range(12)],
    classes=CLASSES,
)


@pytest.fixture
def answers() -> Answers:
    """Of nine test images three are wrong: 4, 5 and 8, with confidence .5, .9 and .7."""
    targets = np.arange(3, 12) % 3
    named, confidence = targets.copy(), np.full(9, 0.8, np.float32)
    for place, said in ((1, 0.5), (2, 0.9), (5, 0.7)):
        named[place], confidence[place] = (targets[place] + 1) % 3, said
    probabilities = np.repeat((1 - confidence[:, None]) / 2, 3, axis=1)
    probabilities[np.arange(9), named] = confidence
    return Answers(positions=np.arange(3, 12), targets=targets, probabilities=probabilities)


@pytest.fixture
def pixels() -> npt.NDArray[np.uint8]:
    """Image i is grey of value 20 i."""
    return np.full((12, 1, 32, 32), 20, np.uint8) * np.arange(12, dtype=np.uint8)[:, None, None, None]


def written(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.images]


def saved(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)


def test_the_worst_mistakes_come_first(answers: Answers, pixels: npt.NDArray[np.uint8]) -> None:
    """Wrong ones alone, the most confident first, each picture above its own name."""
    figure = draw_worst(answers, LABELS, pixels)
    assert [title.splitlines()[1:] for title in written(figure)] == [
        ["is broken & <b>", "said sound 0.90"],
        ["is broken & <b>", "said sound 0.70"],
        ["is $cracked_", "said broken & <b> 0.50"],
    ]
    shown = [axes.images[0].get_array().max() for axes in figure.axes if axes.images]
    assert shown == [100, 160, 80]
    assert saved(figure).size[0] > 600


def test_no_mistakes_are_an_empty_sheet(answers: Answers, pixels: npt.NDArray[np.uint8]) -> None:
    """It says that none of them is wrong."""
    right = Answers(
        positions=answers.positions,
        targets=answers.probabilities.argmax(1),
        probabilities=answers.probabilities,
    )
    figure = draw_worst(right, LABELS, pixels)
    assert not written(figure)
    assert saved(figure).format == "PNG"


def test_names_are_cut_in_their_middle() -> None:
    """What a path ends with tells files apart."""
    assert shorten("a" * 22) == "a" * 22
    assert shorten("begin" + "x" * 40 + "end.png") == "beginxxxxx…xxxend.png"


def test_confidence_is_drawn_against_accuracy(answers: Answers) -> None:
    """A point per bin that is not empty: at .8 six of six are right, at .5, .7 and .9 none."""
    figure = plot_reliability(answers)
    (axes,) = figure.axes
    line = axes.lines[1]
    assert list(line.get_xdata()) == pytest.approx([0.5, 0.7, 0.8, 0.9])
    assert list(line.get_ydata()) == [0, 0, 1, 0]
    assert [text.get_text() for text in axes.texts] == ["1", "1", "6", "1"]
    assert saved(figure).size == (500, 500)


def test_every_class_has_three_bars() -> None:
    """Named with the number of its images, the commonest on top."""
    scores = {
        name: {"images": 10 * i + 1, "precision": 0.5, "recall": 0.25 * i, "f1": 0.1}
        for i, name in enumerate(CLASSES)
    }
    assessment = Assessment(
        split="block", method="fine-tune", validation={}, test={"classes": scores}, chosen={}, history=[]
    )
    figure = plot_scores(assessment)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "broken & <b> (21)",
        "$cracked_ (11)",
        "sound (1)",
    ]
    assert [bar.get_width() for bar in axes.containers[1]] == [0.5, 0.25, 0.0]
    assert saved(figure).format == "PNG"


@pytest.mark.parametrize("cut", [WHOLE, Cut(layer="14.expansion", pooling=("mean", "max", "std"))])
def test_heat_is_where_the_class_was_seen(cut: Cut) -> None:
    """One channel speaks for class 1: the heat is what it saw, whatever the cut; of class 0 there is none."""
    torch.manual_seed(0)
    network = build("torch", 3, cut)
    model = ServedModel(network, CONVENTION).eval()
    picture = np.zeros((1, 64, 64), np.uint8)
    picture[:, :32, :32] = np.random.default_rng(0).integers(0, 255, (32, 32))
    with torch.no_grad():
        seen = network.features(model.normalise(torch.from_numpy(picture.repeat(3, 0))[None]))[0]
        grey = network.features(model.normalise(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)))[0]
        channel = int((seen - grey).abs().amax((1, 2)).argmax())
        network.classifier[1].weight.zero_()
        network.classifier[1].weight[1, channel] = 1.0
    (heat,) = grad_cam(model, picture[None], np.array([1]))
    expected = seen[channel].relu()
    expected = (expected / torch.quantile(expected, 0.98)).clamp(max=1)
    np.testing.assert_allclose(heat, expected.numpy(), atol=1e-5)
    (nothing,) = grad_cam(model, picture[None], np.array([0]))
    assert not nothing.any()


@pytest.mark.parametrize("channels", [1, 3])
def test_right_and_wrong_answers_are_shown_with_heat(
    answers: Answers, pixels: npt.NDArray[np.uint8], channels: int
) -> None:
    """A row per class: three right ones on the left at most, wrong ones on the right, two layers each.

    Of grey and of colour, as a cache gives them: nobody may write into it.
    """
    pixels = np.repeat(pixels, channels, axis=1)
    pixels.flags.writeable = False
    torch.manual_seed(0)
    model = ServedModel(build("torch", 3, Cut(layer="4")), CONVENTION).eval()
    figure = draw_grad_cam(answers, LABELS, pixels, model)
    filled = [[bool(axes.images) for axes in figure.axes[row * 6 : row * 6 + 6]] for row in range(3)]
    assert filled == [
        [True, True, True, False, False, False],
        [True, True, False, True, False, False],
        [True, False, False, True, True, False],
    ]
    assert all(len(axes.images) == 2 for axes in figure.axes if axes.images)
    assert saved(figure).format == "PNG"
