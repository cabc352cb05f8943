"""The step `gates`: the challenger and the champion on the same test images, judged once."""

from collections.abc import Callable, Mapping
from typing import Any

from imagebatch_training.archive.parity import check_parity
from imagebatch_training.files import read_json, sha256_file, sha256_json, write_json
from imagebatch_training.images.data import DataSet
from imagebatch_training.release import gates
from imagebatch_training.release.answers import answer_all
from imagebatch_training.release.candidate import Candidate, Champion

Tell = Callable[..., None]


def judge_candidate(candidate: Candidate, champion: Champion | None, data: DataSet, tell: Tell) -> None:
    """Hold a candidate to its gates, or read what they said of the same archives before.

    Args:
        candidate: The archive.
        champion: What it is held against; the same archive, or None: there is nothing to compare.
        data: The test images.
        tell: `Told.step`.

    Raises:
        DataError: A gate has stopped it.
    """
    against = champion if champion and champion.digest != candidate.record["digest"] else None
    key = _key(candidate, against, data)
    path = candidate.beside(".gates.json")
    known = read_json(path)
    if not known or known.get("key") != key:
        known = {"key": key, "gates": gates.as_json(_judge(candidate, against, data))}
        write_json(path, known)
    found = [gates.Gate(**one) for one in known["gates"]]
    versus = f" against {against.version}" if against else "; there is no champion to compare with"
    if champion and not against:
        versus = "; it is the champion"
    passed = sum(gate.passed for gate in found)
    tell(
        "gates",
        f"{passed} of {len(found)} passed{versus}\n{gates.render(found)}",
        gates=known["gates"],
        against=against.version if against else None,
    )
    gates.require_passed(found, f"{candidate.name} {candidate.version}")


def _judge(candidate: Candidate, against: Champion | None, data: DataSet) -> list[gates.Gate]:
    parity = _certificate(candidate)
    mars = [candidate.archive, *([against.archive] if against else [])]
    answers, truth = answer_all(mars, data)
    return gates.judge(answers[0], answers[1] if against else None, truth, parity, candidate.settings.release)


def _certificate(candidate: Candidate) -> Mapping[str, Any]:
    """Certify the archive, unless the certificate beside it is of the same bytes."""
    path = candidate.beside(".parity.json")
    seal = candidate.beside(".parity-of.json")
    known: dict[str, Any] | None = read_json(path)
    if known and read_json(seal) == candidate.record["mar_sha256"]:
        return known
    certificate = check_parity(candidate.settings, candidate.archive)
    write_json(seal, candidate.record["mar_sha256"])
    return certificate


def _key(candidate: Candidate, against: Champion | None, data: DataSet) -> str:
    limits = vars(candidate.settings.release)
    return sha256_json(
        [
            candidate.record["mar_sha256"],
            against.digest if against else None,
            {name: limits[name] for name in limits if name != "signing_key"},
            sha256_file(data.csv),
        ]
    )
