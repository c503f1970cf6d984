"""Methods that a search tries, by what teaches."""

from collections.abc import Sequence

from msgspec.structs import replace

from s2kd.core.errors import S2KDError
from s2kd.core.methods import Method, Part, TeacherKind, method_named


def search_methods(teacher: TeacherKind, *, captures: bool, latents: bool) -> tuple[Method, ...]:
    """The methods that a search tries, the most promising first, for this kind of teacher.

    With `captures`, students learn from their windows besides; `latents` says whether the labels
    hold latents, without which there is nothing for S²-KD's terms.
    """
    baseline = method_named("baseline")
    if captures:
        names = (["s2kd_plus_capture"] if latents else []) + ["output_capture"]
        first, *others = (replace(method_named(name), teacher=teacher) for name in names)
        return (first, baseline, *others)
    if teacher == "none":
        return (baseline,)
    if teacher == "stored":
        names = ["output_stored", "s2kd_stored"] if latents else ["output_stored"]
        return (method_named(names[0]), baseline, *map(method_named, names[1:]))
    names = ["s2kd_plus", "output_plus", "s2kd", "output"] if latents else ["output_plus", "output"]
    if teacher == "given":
        # it has seen more than these windows, so its own states are inputs worth an answer
        first = replace(
            method_named("s2kd_plus_capture" if latents else "output_capture"),
            name="s2kd_rollouts" if latents else "output_rollouts",
            extra=Part(name="rollouts", params={"start": "blends"}),
            teacher=teacher,
        )
        return (first, baseline, *(replace(method_named(n), teacher=teacher) for n in names))
    taught = [replace(method_named(name), teacher=teacher) for name in names]
    return (taught[0], baseline, *taught[1:])


def with_unlabelled(methods: Sequence[Method]) -> tuple[Method, ...]:
    """The methods of a search, where the first one learns from unlabelled frames too.

    It is also tried without them. Raises S2KDError where its teacher cannot answer them.
    """
    first, *others = methods
    if first.teacher not in ("no_text", "given"):
        raise S2KDError(
            "--unlabelled: needs a teacher that can answer new frames; --set narrator.name=none "
            "builds one without text, and --teacher takes a callable, an ONNX file or a model's "
            "folder"
        )
    extra = Part(name="unlabelled")
    if first.extra is not None:
        parts = [{"name": part.name, "params": part.params} for part in (first.extra, extra)]
        extra = Part(name="mixture", params={"parts": parts})
    mixed = replace(first, name=f"{first.name}_unlabelled", extra=extra)
    baseline, *rest = others
    return (mixed, baseline, first, *rest)
