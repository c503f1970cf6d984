"""The demo: simulated worlds, everything in two to three minutes on two cores."""

from s2kd.core.recipe import Part, Recipe, TeacherSpec, Training
from s2kd.core.types import S2KDError
from s2kd.pipeline.recipes import METHODS, builtin

WORLDS = ("atmosphere", "plume")


@builtin
def demo(*, world: str = "atmosphere") -> Recipe:
    """No download, 2 to 3 minutes on 2 cores: a simulated atmosphere, or plume (--world plume).

    The student is kept far smaller than the teacher and both train for the same few epochs, so
    that there is a gap to distil.
    """
    if world not in WORLDS:
        raise S2KDError(f"recipe 'demo': world must be one of {WORLDS}, got {world!r}")
    params = (
        {"members": 8, "days": 50, "step_hours": 12, "height": 24, "width": 48}
        if world == "atmosphere"
        else {}
    )
    return Recipe(
        name=f"demo-{world}",
        dataset=Part(name=world, params=params),
        past=4,
        lead=4,
        stride=2,
        test_stride=2,
        predict="change",
        teacher=TeacherSpec(
            backbone=Part(
                name="simvp",
                params={
                    "spatial": 16,
                    "temporal": 64,
                    "blocks": 3,
                    "expansion": 2,
                    "drop_path": 0.0,
                },
            ),
            width=64,
            heads=4,
            depth=2,
            dropout=0.0,
        ),
        students=(Part(name="unet", params={"width": 6}),),
        methods=METHODS,
        teacher_training=Training(epochs=10, lr=3e-3, schedule="cosine", clip=1.0),
        student_training=Training(epochs=10, lr=3e-3, schedule="cosine", clip=1.0),
    )
