"""Every part and recipe by name, and the check of a part against its contract."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from msgspec import to_builtins

from s2kd.core.errors import S2KDError
from s2kd.core.recipe import ALL_METHODS, Method, Part
from s2kd.core.registry import Registry, import_own, nearest
from s2kd.core.types import GridSpec
from s2kd.data import load, readers
from s2kd.models.registry import PRESETS, backbones
from s2kd.narration.registries import encoders, narrators
from s2kd.pipeline import recipes
from s2kd.training.registries import extra_windows, losses

REGISTRIES: dict[str, Registry] = {
    "readers": readers,
    "narrators": narrators,
    "encoders": encoders,
    "backbones": backbones,
    "losses": losses,
    "extras": extra_windows,
}
KINDS = ("recipes", "methods", *REGISTRIES)
TEACHERS = {
    "text": "reading teacher",
    "no_text": "text-free teacher",
    "stored": "forecasts in a file",
    "given": "teacher of your own",
    "none": "no teacher",
}


def rows(kind: str = "") -> list[dict[str, Any]]:
    """One row per part: kind, name, what it is, its settings with their defaults."""
    if kind and kind not in KINDS:
        raise S2KDError(
            f"list: no kind {kind!r}{nearest(kind, KINDS)} (there are {', '.join(KINDS)})"
        )
    return [
        {"kind": each, "name": name, "about": summary, "settings": settings}
        for each in ((kind,) if kind else KINDS)
        for name, summary, settings in _named(each)
    ]


def _named(kind: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if kind == "recipes":
        yield from ((name, recipes.summary(name), {}) for name in recipes.names())
        return
    if kind == "methods":
        yield from ((m.name, describe_method(m), to_builtins(m)) for m in ALL_METHODS)
        return
    registry = REGISTRIES[kind]
    for name in registry.names():
        settings = {
            key: None if option.default is option.empty else option.default
            for key, option in registry.options(name).items()
        }
        yield name, registry.about(name), settings


def preset_rows(preset: str = "") -> list[dict[str, Any]]:
    """One row per preset of every backbone, or per backbone with this one.

    `parameters` are learned ones for two channels on 32 × 64 cells, 12 frames to 12; nothing is
    allocated to count them.
    """
    import torch

    from s2kd.models.layers import parameter_count
    from s2kd.pipeline import contracts

    if preset and preset not in PRESETS:
        raise S2KDError(f"--preset {preset}: must be one of {', '.join(PRESETS)}")
    sizes = [
        (name, size)
        for name in backbones.names()
        for size in backbones.presets(name)
        if preset in ("", size)
    ]
    grid = contracts.small_grid(32, 64)
    with torch.device("meta"):
        built = [backbones.build(n, grid, past=12, lead=12, preset=size) for n, size in sizes]
    return [
        {"name": name, "preset": size, "parameters": parameter_count(backbone)}
        for (name, size), backbone in zip(sizes, built, strict=True)
    ]


def describe_method(method: Method) -> str:
    """Its loss and its teacher, such as "L_pred + semantic + 0.5 spectral; reading teacher"."""
    terms = []
    for term in method.terms:
        weight = method.weight * term.weight
        terms.append(term.loss.name if weight == 1 else f"{weight:g} {term.loss.name}")
    phrases = [" + ".join(["L_pred", *terms]), TEACHERS[method.teacher]]
    if method.hint_epochs:
        phrases.append(f"{method.hint_epochs} epochs of hints first")
    if method.extra is not None:
        phrases.append(f"extra windows: {method.extra.name}")
    return "; ".join(phrases)


# --- checks --------------------------------------------------------------------------------------


def check(name: str = "") -> list[dict[str, str]]:
    """Run the contract on every part, on NAME or `KIND:NAME`, or on an outsider's `MODULE:NAME`.

    One row per check: part, check, and a result that is "ok" or the sentence of the failure.
    """
    results = []
    for part, label, run in checks_of(name):
        try:
            run()
            result = "ok"
        except (AssertionError, S2KDError) as error:
            result = str(error) or type(error).__name__
        except Exception as error:  # someone's part may break in any way; that is its result
            result = f"{type(error).__name__}: {error}"
        results.append({"part": part, "check": label, "result": result})
    return results


def checks_of(name: str) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """(part, label, check) of every part that `name` names; S2KDError where it names none."""
    head, colon, tail = name.partition(":")
    if colon and head not in REGISTRIES:
        head, tail = _outsider(head, tail)
    part = tail if colon else head
    kinds = (head,) if colon else tuple(REGISTRIES)
    pairs = [(kind, n) for kind in kinds for n in REGISTRIES[kind].names() if part in ("", n)]
    if not pairs:
        names = [n for registry in REGISTRIES.values() for n in registry.names()]
        raise S2KDError(f"check: no part called {name!r}{nearest(part, names)}")
    for kind, part_name in pairs:
        for label, run in _checks(kind, part_name):
            yield f"{kind}:{part_name}", label, run


def _outsider(module: str, name: str) -> tuple[str, str]:
    """Import a user's module, which registers its parts; kind and name of the one named."""
    imported = import_own(module)
    for kind, registry in REGISTRIES.items():
        for part in registry.names():
            if name == part or registry.get(part) is getattr(imported, name, None):
                return kind, part
    raise S2KDError(
        f"check: {module!r} registers no part called {name!r}; decorate it with "
        f"@backbones.register({name!r}) or another registry's"
    )


def _checks(kind: str, name: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """The checks of one part; parts that need files or settings have none.

    Nor has a part whose attribute `needs` says what must first be fetched, such as a large model.
    """
    from s2kd.pipeline import contracts

    if kind == "backbones":
        for wraps in (False, True):
            grid = contracts.small_grid(wraps=wraps)
            for run in contracts.BACKBONE_CHECKS:
                label = run.__name__ + (" (wrapping)" if wraps else "")
                yield label, partial(_check_backbone, run, name, grid)
    elif kind == "losses":
        view = losses.compares(name)
        pyramid = view == "feature_pyramid"
        for run in contracts.PYRAMID_LOSS_CHECKS if pyramid else contracts.LOSS_CHECKS:
            yield run.__name__, partial(run, losses.build(name), view)
    elif kind == "extras" and not needs(kind, name):
        for run in contracts.EXTRA_CHECKS:
            yield run.__name__, partial(_check_extra, run, name)
    elif not needs(kind, name):
        for run in contracts.CHECKS[kind]:
            yield run.__name__, lambda run=run: run(_built(kind, name))


def _built(kind: str, name: str) -> object:
    return load(Part(name=name)) if kind == "readers" else REGISTRIES[kind].build(name)


def needs(kind: str, name: str) -> list[str]:
    """The settings without a default of a part, and what must be fetched for it."""
    registry = REGISTRIES[kind]
    settings = [k for k, option in registry.options(name).items() if option.default is option.empty]
    fetched = getattr(registry.get(name), "needs", "")
    return [*settings, *([fetched] if fetched else [])]


def _check_backbone(run: Callable, name: str, grid: GridSpec) -> None:
    import torch

    from s2kd.pipeline import contracts

    torch.manual_seed(0)
    preset = "tiny" if backbones.presets(name) else ""
    backbone = backbones.build(name, grid, past=contracts.PAST, lead=contracts.LEAD, preset=preset)
    run(backbone, grid)


def _check_extra(run: Callable, name: str) -> None:
    from s2kd.pipeline import contracts

    run(lambda seed: extra_windows.build(name, contracts.material(seed)))
