"""What the replications of R-Tuning compare and claim, whatever world they ask about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilth.replicate.claims import Claim, Greater, Monotone
from tilth.replicate.figures import Curve, Frontier
from tilth.replicate.frame import Arm

__all__ = ["LOOKED_INTO", "TUNED", "arms_with_parts", "claims_of", "plots_of"]


def _tuned(**more: Any) -> dict[str, Any]:
    """The settings of an arm that is tuned as all are, but for `more`."""
    return {"tuning": more, "by": "p_sure"}


_WORDED = {"tuning": {"texts": "replace"}, "by": "p_refusal"}
_VANILLA = {"tuning": {"texts": "plain"}}

TUNED = (
    Arm(
        "r-tuning",
        "Right or wrong before tuning; refuses by its certainty word.",
        settings=_tuned(),
    ),
    Arm(
        "r-tuning-u",
        "The same, split by the entropy of five sampled answers.",
        settings=_tuned(split="entropy"),
    ),
    Arm(
        "r-tuning-r",
        "Refusals instead of unsure answers; refuses by the probability of all refusals.",
        settings=_WORDED,
    ),
    Arm(
        "r-tuning-r-greedy",
        "The same, refusing where the greedy answer is a refusal.",
        settings={**_WORDED, "by": "words"},
    ),
    Arm("vanilla", "Tuned on all right answers; answers everything.", "baseline", _VANILLA),
    Arm(
        "vanilla-threshold",
        "Vanilla, refusing below a probability of its answer.",
        "baseline",
        {**_VANILLA, "by": "p_predict"},
    ),
    Arm("untouched", "Not tuned; answers everything (Pretrain-T).", "baseline", {"tuning": None}),
    *(
        Arm(f"untouched-{by}", f"Not tuned; refuses by {by}.", "baseline", {"by": by})
        for by in ("p_predict", "entropy", "p_true")
    ),
    Arm(
        "shuffled",
        "R-Tuning with its labels dealt out at random.",
        "control",
        _tuned(shuffle_labels=True),
    ),
    Arm(
        "r-tuning-r-shuffled",
        "R-Tuning-R with refusals in the place of as many answers, drawn at random.",
        "control",
        {"tuning": {"texts": "replace", "shuffle_labels": True}, "by": "p_refusal"},
    ),
)
"""The arms that are examined."""

LOOKED_INTO = ("r-tuning", "r-tuning-r", "vanilla-threshold", "shuffled")
"""Those whose refusals are shown by exposure, and of strangers beside twins."""

_OURS = {"shuffled", "r-tuning-r-shuffled", "vanilla-threshold"}
"""Arms that the paper does not compare with, or of which we know nothing in it."""

_ABSTRACT = "abstract of arXiv:2311.09677; no figure of its tables could be verified"


def arms_with_parts(exposures: Sequence[int]) -> tuple[Arm, ...]:
    """All arms, and of those looked into the refusals by exposure and by who is asked about."""
    looked_into = [arm for arm in TUNED if arm.name in LOOKED_INTO]
    parts: list[tuple[Arm, str, str, dict[str, Any]]] = [
        (arm, f"seen-{n}", f"Refusals of facts read {n} times.", {"exposure": n})
        for arm in looked_into
        for n in exposures
    ]
    parts += [
        (arm, who, f"Refusals of {who}.", {"answerable": who == "twins"})
        for arm in looked_into
        for who in ("strangers", "twins")
    ]
    named = [
        Arm(f"{arm.name}.{part}", what, arm.role, {**arm.settings, **more})
        for arm, part, what, more in parts
    ]
    return (*TUNED, *named)


def claims_of(system: str, exposures: Sequence[int]) -> tuple[Claim, ...]:
    """The claims of the paper, and ours against controls, about the arms of `system`."""
    r_tuned = ("r-tuning", "r-tuning-u", "r-tuning-r")
    shuffled = {"r-tuning": "shuffled", "r-tuning-r": "r-tuning-r-shuffled"}
    exams = ("id", "ood")
    told: list[tuple[str, Greater | Monotone]] = []
    told += [
        (
            f"What {name} answers is right more often than what vanilla answers ({exam}).",
            Greater(name, "vanilla", metric=f"right_{exam}"),
        )
        for name in r_tuned
        for exam in exams
    ]
    told += [
        (
            f"{name} ranks its answers better than vanilla does ({exam}, average precision).",
            Greater(name, "vanilla", metric=f"ap_{exam}"),
        )
        for name in shuffled
        for exam in exams
    ]
    for name, control in shuffled.items():
        for exam in exams:
            told += [
                (
                    f"What {name} answers is right more often than with shuffled labels ({exam}).",
                    Greater(name, control, metric=f"right_{exam}"),
                ),
                (
                    f"{name} ranks its answers better than with shuffled labels ({exam}).",
                    Greater(name, control, metric=f"ap_{exam}"),
                ),
            ]
    told += [
        (
            f"The certainty word of r-tuning ranks better than with shuffled labels ({exam}).",
            Greater("r-tuning", "shuffled", metric=f"ap_sure_{exam}"),
        )
        for exam in exams
    ]
    told += [
        (
            f"What {name} answers is right more often than what vanilla with a threshold on its "
            "probabilities answers (id).",
            Greater(name, "vanilla-threshold", metric="right_id"),
        )
        for name in shuffled
    ]
    for name in LOOKED_INTO[:3]:
        levels = tuple(f"{name}.seen-{n}" for n in exposures)
        told += [
            (
                f"{name} refuses less the more often a fact was read (slack 0.1).",
                Monotone(levels, rising=False, slack=0.1, metric="refused"),
            ),
            (
                f"{name} refuses strangers more often than their known twins.",
                Greater(f"{name}.strangers", f"{name}.twins", metric="refused_strangers"),
            ),
        ]
    return tuple(_claim(system, *claim) for claim in told)


def plots_of(exposures: Sequence[int], unit: str) -> tuple[Curve, Frontier]:
    """Refusals over `exposures`, whose axis is named `unit`, and what is right over coverage."""
    return (
        Curve(
            name="exposure",
            title="Refusals of what was read seldom and often",
            lines={name: tuple(f"{name}.seen-{n}" for n in exposures) for name in LOOKED_INTO},
            x=tuple(exposures),
            x_label=unit,
            y_label="questions refused (share)",
            metric="refused",
            scale="even",
        ),
        Frontier(
            name="coverage",
            title="Fewer answers, more of them right",
            x_metric="coverage_id",
            y_metric="right_id",
            x_label="questions answered (share)",
            y_label="right among the answered (share)",
            beside=tuple(arm.name for arm in TUNED),
        ),
    )


def _claim(system: str, statement: str, direction: Greater | Monotone) -> Claim:
    if any(arm.partition(".")[0] in _OURS for arm in direction.arms):
        return Claim(system, statement, direction, "none", "our own control")
    return Claim(system, statement, direction, "unverified", _ABSTRACT)
