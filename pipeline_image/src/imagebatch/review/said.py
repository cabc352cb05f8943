"""What people said about pictures, whichever tool they said it with."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Said:
    """What an export says about one picture.

    Attributes:
        image_id: The image; empty where only its picture is named.
        picture: Name of its picture; empty where the image is named.
        run_id: The run that it was handed out of; empty: the export does not say.
        label: The label; empty: none was given.
        annotator: Who gave it; empty: the export does not say.
        when: When, as the export says it; empty: it does not.
        untouched: The label is still the model's own, and nobody has confirmed it.
    """

    image_id: str = ""
    picture: str = ""
    run_id: str = ""
    label: str = ""
    annotator: str = ""
    when: str = ""
    untouched: bool = False


@dataclass(slots=True)
class Reading:
    """An export, read.

    Attributes:
        said: Pictures with a label.
        without: Pictures without one: nobody has looked, or could tell.
    """

    said: list[Said] = field(default_factory=list)
    without: int = 0

    def add(self, said: Said) -> None:
        """Take what is said about a picture."""
        if said.label.strip():
            self.said.append(said)
        else:
            self.without += 1
