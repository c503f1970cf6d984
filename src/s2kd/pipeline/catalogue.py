"""What there is, and whether it keeps its contract: `s2kd list` and `s2kd check`."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from msgspec import to_builtins

from s2kd.core.recipe import ALL_METHODS, Method, Part
from s2kd.core.registry import Registry, import_own, nearest
from s2kd.core.types import S2KDError
from s2kd.data import datasets, load, readers
from s2kd.models.backbones import backbones
from s2kd.narration.narrators import narrators
from s2kd.narration.text import encoders
from s2kd.pipeline import recipes, testing
from s2kd.training.losses import losses

REGISTRIES: dict[str, Registry] = {
    "readers": readers,
    "datasets": datasets,
    "narrators": narrators,
    "encoders": encoders,
    "backbones": backbones,
    "losses": losses,
}
KINDS = ("recipes", "methods", *REGISTRIES)


def rows(kind: str = "") -> list[dict[str, Any]]:
    """One row a part: kind, name, what it is, its settings with their defaults."""
    if kind and kind not in KINDS:
        raise S2KDError(
            f"list: no kind {kind!r}{nearest(kind, KINDS)} (there are {', '.join(KINDS)})"
        )
    found = []
    for one in (kind,) if kind else KINDS:
        if one == "recipes":
            found += [
                {"kind": one, "name": n, "about": recipes.summary(n), "settings": {}}
                for n in recipes.names()
            ]
            continue
        if one == "methods":
            found += [
                {"kind": one, "name": m.name, "about": in_words(m), "settings": to_builtins(m)}
                for m in ALL_METHODS
            ]
            continue
        registry = REGISTRIES[one]
        for name in registry.names():
            settings = {
                key: None if p.default is p.empty else p.default
                for key, p in registry.options(name).items()
            }
            about = (inspect.getdoc(registry.get(name)) or "").partition("\n")[0]
            found.append({"kind": one, "name": name, "about": about, "settings": settings})
    return found


def in_words(method: Method) -> str:
    """What a method minimises, and who teaches: "L_pred + semantic + 0.5 spectral; …"."""

    def times(weight: float, what: str) -> str:
        return what if weight == 1 else f"{weight:g} {what}"

    teachers = {
        "text": "reading teacher",
        "no_text": "text-free teacher",
        "stored": "forecasts in a file",
        "none": "no teacher",
    }
    terms = [times(method.weight * term.weight, term.loss.name) for term in method.terms]
    words = [" + ".join(["L_pred", *terms]), teachers[method.teacher]]
    if method.hint_epochs:
        words.append(f"{method.hint_epochs} epochs of hints first")
    if method.blends:
        words.append(f"{method.blends} blended copies of the windows")
    return "; ".join(words)


def check(what: str = "") -> list[dict[str, str]]:
    """Run the contract on every part, on `KIND:NAME` or NAME, or on an outsider's MODULE:NAME."""
    results = []
    for part, name, run in _checks(what):
        try:
            run()
            outcome = "ok"
        except (AssertionError, S2KDError) as error:
            outcome = str(error) or type(error).__name__
        except Exception as error:  # someone's part may break in any way; that is its result
            outcome = f"{type(error).__name__}: {error}"
        results.append({"part": part, "check": name, "result": outcome})
    return results


def _checks(what: str) -> Iterator[tuple[str, str, Callable[[], None]]]:
    head, colon, tail = what.partition(":")
    if colon and head not in REGISTRIES:
        head, tail = _outsider(head, tail)
    wanted = tail if colon else head
    matched = False
    for kind, registry in REGISTRIES.items():
        if colon and kind != head:
            continue
        for name in registry.names():
            if wanted and name != wanted:
                continue
            matched = True
            for one in _of(kind, name):
                yield f"{kind}:{name}", one[0], one[1]
    if not matched:
        known = [name for registry in REGISTRIES.values() for name in registry.names()]
        raise S2KDError(f"check: no part called {what!r}{nearest(wanted, known)}")


def _outsider(module: str, name: str) -> tuple[str, str]:
    """Import someone's module, which registers its parts; (kind, name) of the one asked for."""
    found = import_own(module)
    for kind, registry in REGISTRIES.items():
        for part in registry.names():
            same = registry.get(part)
            if part == name or (same is getattr(found, name, None)):
                return kind, part
    raise S2KDError(
        f"check: {module!r} registers no part called {name!r}; decorate it with "
        f"@backbones.register({name!r}) or another registry's"
    )


def _of(kind: str, name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of one part, each ready to call; parts that need files or settings have none.

    Nor has a part whose attribute `needs` says what must first be fetched, such as a large model.
    """
    registry = REGISTRIES[kind]
    needed = [k for k, p in registry.options(name).items() if p.default is p.empty]
    needed += [what] if (what := getattr(registry.get(name), "needs", "")) else []
    if kind == "backbones":
        for wraps in (False, True):
            grid = testing.small_grid(wraps=wraps)
            for one in testing.BACKBONE_CHECKS:
                label = one.__name__ + (" (wrapping)" if wraps else "")
                yield label, partial(_with_backbone, one, name, grid)
    elif kind == "losses":
        compares = losses.compares(name)
        known_checks = (
            testing.STAGE_LOSS_CHECKS if compares == "feature_pyramid" else testing.LOSS_CHECKS
        )
        for one in known_checks:
            yield one.__name__, partial(one, losses.build(name), compares)
    elif needed:
        return
    else:
        known = {
            "narrators": testing.NARRATOR_CHECKS,
            "encoders": testing.ENCODER_CHECKS,
            "readers": testing.DATASET_CHECKS,
            "datasets": testing.DATASET_CHECKS,
        }
        for one in known[kind]:
            yield one.__name__, partial(_built, one, registry, name)


def _with_backbone(one: Callable, name: str, grid: Any) -> None:
    import torch

    torch.manual_seed(0)
    preset = "tiny" if backbones.presets(name) else ""
    one(backbones.build(name, grid, past=testing.PAST, lead=testing.LEAD, preset=preset), grid)


def _built(one: Callable, registry: Registry, name: str) -> None:
    one(load(Part(name=name)) if registry is readers else registry.build(name))
