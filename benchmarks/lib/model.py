"""The model of every benchmark: MobileNetV2 to its last layer at 224 pixels, which every server knows.

The demo's own network ends in its middle, where no other maker's server has it. This one is made from the
same ImageNet weights and the same photographs, once, into a folder of its own.
"""

from pathlib import Path

from tools.paths import VAR, Argv, program, run, step

FOLDER = VAR / "benchmarks" / "model"
NAME = "solar-cells"
ARCHIVE = FOLDER / "model_store" / f"{NAME}.mar"
WEIGHTS = FOLDER / "training" / f"{NAME}.safetensors"
_LAID_OUT = {"weights": VAR, "data": VAR, "training": FOLDER, "model_store": FOLDER}


def words() -> list[str]:
    """Say to `imagebatch-train` which model is meant, and where it lies."""
    folders = [f"paths.{name}='{below / name}'" for name, below in _LAID_OUT.items()]
    runs = [f"tracking.uri='sqlite:///{FOLDER / 'mlflow.db'}'", f"tracking.artifacts='{FOLDER / 'mlflow'}'"]
    # What is published of it is its speed, and how far its answers move: a short fine-tune will do for both.
    short = ["finetune.learning_rates=[5e-5]", "finetune.epochs=1", "tracking.details=false"]
    return ["preset=general", *short, *folders, *runs]


def require_model() -> Path:
    """Train and archive the model where it is missing or not current; return the archive.

    Raises:
        SystemExit: It cannot be made; `imagebatch-train` has said why.
    """
    for verb in ("weights", "data", "train", "archive"):
        argv: Argv = [program("training", "imagebatch-train"), verb, *words()]
        with step(f"the benchmarks' model: {verb}"):
            run(argv, environment={"MLFLOW_TRACKING_URI": ""})
    return ARCHIVE
