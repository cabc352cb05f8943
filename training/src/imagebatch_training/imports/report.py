"""What an import says to a person: who declared what, the proof, what to do next."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from imagebatch_training.imports.plan import Plan
from imagebatch_training.imports.preprocessing import shown
from imagebatch_training.imports.run import Imported

_SHOWN: Final = 3
_WIDEST: Final = 44


def render(imported: Imported) -> str:
    """Render an import as a short table and a few lines."""
    plan, certificate = imported.plan, imported.certificate
    rows = [("", "", "said by"), *declared(plan)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{name:<{widths[0]}}  {value:<{widths[1]}}  {by}".rstrip() for name, value, by in rows]
    lines += [f"note: {note}" for note in plan.source.notes]
    computes = certificate["reference"]["computes"]
    lines += [
        f"the archive against {computes}:",
        *(_line(one, plan.head.same) for one in certificate["sets"]),
    ]
    if certificate["left_out"]:
        lines.append(
            f"  {certificate['left_out']} images were left out, as both sides do not read them alike"
        )
    if plan.drawn:
        lines.append("note: proved on drawn images: with --images DIR on your own")
    lines.append(f"{imported.path}, content {imported.record['digest']}")
    return "\n".join(lines)


def declared(plan: Plan) -> Sequence[tuple[str, str, str]]:
    """List what holds: name, value, who said so."""
    rows = [("model", plan.source.kind, ", ".join(plan.source.sha256))]
    names, by = plan.head.names
    few = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    short = few if len(few) <= _WIDEST else few[: _WIDEST - 1] + "…"
    if plan.head.has_labels:
        rows.append((f"{len(names)} {'class' if len(names) == 1 else 'classes'}", short, by))
    rows += [(name, _said(value), plan.origins[name]) for name, value in plan.head.config().items()]
    values = {name: shown(value) for name, value in asdict(plan.pre).items()}
    if plan.pre.fit != "pad":
        del values["padding"]
    return rows + [(name, value, plan.origins[name]) for name, value in values.items()]


def _said(value: Any) -> str:
    text = (
        ", ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else str(value)
    )
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _line(one: dict[str, Any], same: str) -> str:
    low, high = one["interval"]
    said = (
        f"  {one['name']}: {same} on {one['agreeing']} of {one['images']} ({one['agreement']:.2%}, "
        f"95 % interval {low:.2%} to {high:.2%})"
    )
    if moved := one.get("probability_change"):
        said += f"; a probability moves by {moved['mean']:.4f} on average"
        said += f", {moved['largest']:.4f} at most" if "largest" in moved else ""
    if moved := one.get("score_change"):
        said += f"; a score moves by {moved['mean']:.4g} on average, {moved['largest']:.4g} at most, and they"
        said += f" are spread over {moved['spread']:.4g}"
    if outside := one.get("out_of_range"):
        said += f"; {outside} outside the limits: a run lists such as failures"
    if ties := one.get("near_ties"):
        said += f"; {ties} of the others are near ties"
    if accuracy := one.get("accuracy"):
        said += f"; accuracy {accuracy['reference']:.3f} to {accuracy['archive']:.3f}"
    return said
