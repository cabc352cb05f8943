"""Pictures of a training, for MLflow."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imagebatch_training.fit.assessment import Assessment


def plot_confusion(assessment: Assessment, classes: Sequence[str]) -> Figure:
    """Draw the confusion matrix of the test images: rows are the true class."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    counts = assessment.test["confusion"]
    axes.imshow(counts, cmap="Blues")
    axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    axes.set_yticks(range(len(classes)), classes)
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
