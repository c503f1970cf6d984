"""Distillation methods: losses, teacher, weights and extra windows, and the built-in ones."""

import json
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, to_builtins

from s2kd.core.errors import S2KDError, nearest

Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]
Count = Annotated[int, Meta(ge=0)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}\Z")]
"""Letters, digits, `.`, `_` and `-`, at most 80, no dot first: names become those of folders."""
TeacherKind = Literal["text", "no_text", "stored", "given", "none"]


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A registered part by name, with its settings."""

    name: Name
    params: dict[str, Any] = {}


class Term(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One distillation loss and its weight within L_distill (β of eq. 12 for the spectral one)."""

    loss: Part
    weight: Finite = 1.0


class Method(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A way to train a student.

    Attributes
    ----------
    weight
        λ of eq. 14.
    terms
        The losses of L_distill.
    teacher
        `text` (reads narratives), `no_text` (the same backbone trained without text), `stored` (the
        forecasts in the recipe's `stored.path`), `given` (the module or file in the recipe's
        `given`) or `none`.
    hint_epochs
        Epochs on the latent terms alone before the joint training (two-stage FitNets).
    extra
        Further inputs, by a part of `training.extra`. L_distill includes them, with the teacher's
        or their own answers; without a teacher, L_distill is over a capture alone, and blends count
        in L_pred, with the truth blended.
    """

    name: Name
    weight: Finite = 1.0
    terms: tuple[Term, ...] = ()
    teacher: TeacherKind = "none"
    hint_epochs: Count = 0
    extra: Part | None = None

    def __post_init__(self) -> None:
        if not self.terms and self.teacher != "none":
            raise S2KDError(f"method {self.name!r}: losses and a teacher go together")
        if self.terms and self.teacher == "none" and self.extra is None:
            raise S2KDError(
                f"method {self.name!r}: losses need a teacher, or extra windows with answers "
                "(extra=capture)"
            )
        if self.hint_epochs and not self.terms:
            raise S2KDError(
                f"method {self.name!r}: hint_epochs={self.hint_epochs} needs losses to train on"
            )


BLENDS = 8
"""Blended copies of the training windows in the built-in methods that use them."""


BLENDED = Part(name="blends", params={"copies": BLENDS})
CAPTURE = Part(name="capture")


def _method(
    name: str, teacher: TeacherKind = "none", extra: Part | None = None, **weights: float
) -> Method:
    terms = tuple(Term(loss=Part(name=loss), weight=w) for loss, w in weights.items())
    return Method(name=name, teacher=teacher, terms=terms, extra=extra)


def s2kd(
    *, weight: float = 1.0, beta: float = 0.5, name: str = "s2kd", teacher: TeacherKind = "text"
) -> Method:
    """S²-KD: L_pred + λ (L_semantic + β L_spectral) (eqs. 12 and 14), the paper's λ and β."""
    terms = _method("", "text", semantic=1.0, spectral=beta).terms
    return Method(name=name, teacher=teacher, weight=weight, terms=terms)


class BuiltIn(Struct, frozen=True):
    """A built-in method with its label in tables and its kind.

    `kind` is `reference` (no distillation), `published` (other papers' methods), `ablation`
    (S²-KD with one loss), `s2kd` (the paper's method), `control` (S²-KD or its extension with
    one ingredient removed), `ours` (the extension), `stored` (a file of forecasts teaches) or
    `capture` (a label store teaches by its own windows).
    """

    method: Method
    label: str
    kind: str


BUILT_IN: tuple[BuiltIn, ...] = (
    BuiltIn(Method(name="baseline"), "baseline", "reference"),
    # no teacher either: separates the gain of blended windows from that of distillation
    BuiltIn(_method("mixup", extra=BLENDED), "mixup, no teacher", "control"),
    BuiltIn(_method("output", "no_text", output=1.0), "standard KD", "published"),
    BuiltIn(_method("fitnet", "no_text", fitnet=1.0), "FitNet", "published"),
    # Romero et al. 2015 drop the hint in the second stage; here it stays beside the output
    BuiltIn(
        Method(
            name="fitnet_two_stage",
            teacher="no_text",
            terms=_method("", "no_text", fitnet=1.0, output=1.0).terms,
            hint_epochs=5,
        ),
        "FitNet, two stages",
        "published",
    ),
    BuiltIn(_method("review", "no_text", review=1.0), "Knowledge Review", "published"),
    BuiltIn(_method("relational", "no_text", relational=1.0), "RKD", "published"),
    # the published weight: a mean over the cells of unit vectors is small
    BuiltIn(_method("attention", "no_text", attention=1000.0), "attention transfer", "published"),
    BuiltIn(_method("sdkd", "no_text", sdkd=1.0), "SDKD", "published"),
    BuiltIn(_method("spectral", "text", spectral=0.5), "+ spectral", "ablation"),
    BuiltIn(_method("semantic", "text", semantic=1.0), "+ semantic", "ablation"),
    BuiltIn(s2kd(), "S²-KD", "s2kd"),
    # the same from the teacher without text: the gain that does not come from the narratives
    BuiltIn(s2kd(name="s2kd_no_text", teacher="no_text"), "S²-KD, no text", "control"),
    # L_pred + 2 L_output + 0.1 (L_semantic + 0.5 L_spectral), where all but L_pred include as many
    # blended windows (Beyer et al. 2022); weights chosen on validation data, see docs/log.md
    BuiltIn(
        _method("s2kd_plus", "text", BLENDED, output=2.0, semantic=0.1, spectral=0.05),
        "S²-KD plus (ours)",
        "ours",
    ),
    # the same without L_semantic and L_spectral
    BuiltIn(
        _method("output_plus", "no_text", BLENDED, output=2.0), "standard KD plus (ours)", "control"
    ),
    BuiltIn(
        _method("output_stored", "stored", output=1.0), "standard KD, stored teacher", "stored"
    ),
    BuiltIn(s2kd(name="s2kd_stored", teacher="stored"), "S²-KD, stored teacher", "stored"),
    BuiltIn(
        _method("output_capture", extra=CAPTURE, output=1.0), "standard KD, capture", "capture"
    ),
    BuiltIn(
        _method("s2kd_capture", extra=CAPTURE, output=1.0, semantic=1.0, spectral=0.5),
        "S²-KD, capture",
        "capture",
    ),
    # the weights of `s2kd_plus`, chosen on validation data with captures too (docs/log.md)
    BuiltIn(
        _method("s2kd_plus_capture", extra=CAPTURE, output=2.0, semantic=0.1, spectral=0.05),
        "S²-KD plus, capture",
        "capture",
    ),
)
"""Every built-in method in the order of tables; a recipe may name one by its name alone."""

ALL_METHODS: tuple[Method, ...] = tuple(entry.method for entry in BUILT_IN)


def method_named(name: str, *, source: str = "recipe") -> Method:
    """The built-in method of this name; an unknown name is an error that suggests the nearest."""
    methods = {method.name: method for method in ALL_METHODS}
    if name not in methods:
        raise S2KDError(
            f"{source}: no method called {name!r}{nearest(name, methods)}"
            f" (there are {', '.join(methods)})"
        )
    return methods[name]


def key_form(method: Method) -> dict[str, Any]:
    """A method as plain data in a form of its own, so that keys of trained students stay valid."""
    plain = json.loads(json.dumps(to_builtins(method)).replace("no_text", "blind"))
    extra = plain.pop("extra")
    if extra is None or extra["name"] != BLENDED.name:
        return plain | {"blends": 0} | ({} if extra is None else {"extra": extra})
    return plain | {"blends": extra["params"].get("copies", BLENDS)}


SUFFIXES = {"_unlabelled": "unlabelled frames", "_rollouts": "roll-outs"}
"""Labels of the inputs that a search adds to a method."""


def label(name: str) -> str:
    """A method's label in tables; a method of the user's own is labelled by its name."""
    for suffix, text in SUFFIXES.items():
        if name.endswith(suffix):
            return f"{label(name.removesuffix(suffix))}, {text}"
    return next((entry.label for entry in BUILT_IN if entry.method.name == name), name)
