"""Pictures of a training, for MLflow."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imagebatch_training import metrics
from imagebatch_training.fit.assessment import Answers, Assessment

MOST_CLASSES = 40
"""Of a data set with more classes the rarest are in the table alone."""


def plot_confusion(assessment: Assessment, classes: Sequence[str]) -> Figure:
    """Draw the confusion matrix of the test images: rows are the true class."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    counts = assessment.test["confusion"]
    axes.imshow(counts, cmap="Blues")
    # A class may be called anything: `$` is no formula.
    axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right", parse_math=False)
    axes.set_yticks(range(len(classes)), classes, parse_math=False)
    darkest = max(max(row) for row in counts)
    for row, values in enumerate(counts):
        for column, value in enumerate(values):
            colour = "white" if value > darkest / 2 else "black"
            axes.text(column, row, str(value), ha="center", va="center", color=colour)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{assessment.method}, {assessment.split} split, {assessment.test['images']} test images")
    return figure


def plot_history(assessment: Assessment) -> Figure:
    """Draw training and validation loss per epoch, a pair of lines for every learning rate tried."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for rate in sorted({row["learning_rate"] for row in assessment.history}):
        rows = [row for row in assessment.history if row["learning_rate"] == rate]
        epochs = [row["epoch"] for row in rows]
        axes.plot(epochs, [row["train_loss"] for row in rows], "--", label=f"train, {rate:g}")
        axes.plot(epochs, [row["validation_loss"] for row in rows], label=f"validation, {rate:g}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (nats)")
    axes.legend()
    return figure


def plot_scores(assessment: Assessment) -> Figure:
    """Draw precision, recall and F1 of every class on the test images, with the number of its images."""
    scores = assessment.test["classes"]
    names = sorted(scores, key=lambda name: -scores[name]["images"])[:MOST_CLASSES]
    figure = Figure(figsize=(6, 1.2 + 0.6 * len(names)), layout="constrained")
    axes = figure.subplots()
    for number, kind in enumerate(("precision", "recall", "f1")):
        places = [row + 0.25 * (number - 1) for row in range(len(names))]
        values = [scores[name][kind] for name in names]
        bars = axes.barh(places, values, 0.22, label="F1" if kind == "f1" else kind)
        axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=7)
    labels = [f"{name} ({scores[name]['images']})" for name in names]
    axes.set_yticks(range(len(names)), labels, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_title(f"{assessment.method}, {assessment.split} split (test images)", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def plot_reliability(answers: Answers) -> Figure:
    """Draw accuracy against confidence on the test images: on the line, probabilities mean what they say."""
    rows = metrics.reliability(answers.confidence, answers.correct)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
    axes.plot([said for _, said, _ in rows], [right for *_, right in rows], "o-")
    for images, said, right in rows:
        axes.annotate(
            str(images), (said, right), xytext=(-5, 5), textcoords="offset points", ha="right", fontsize=8
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("mean top-1 probability (number of images at each point)")
    axes.set_ylabel("accuracy")
    error = metrics.calibration_error(answers.confidence, answers.correct)
    axes.set_title(f"{len(answers.targets)} test images, expected calibration error {error:.3f}")
    return figure
