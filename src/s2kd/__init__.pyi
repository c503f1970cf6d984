"""Types of the public names, which `__init__.py` imports when they are first used."""

from s2kd.core.errors import S2KDError as S2KDError
from s2kd.core.recipe import Part as Part
from s2kd.core.recipe import Recipe as Recipe
from s2kd.core.tensors import Batch as Batch
from s2kd.core.tensors import Forecast as Forecast
from s2kd.core.types import GridSpec as GridSpec
from s2kd.deploy.forecast import forecast as forecast
from s2kd.deploy.forecaster import Forecaster as Forecaster
from s2kd.models.wrapping import wrap as wrap
from s2kd.pipeline.api import compare as compare
from s2kd.pipeline.api import distill as distill
from s2kd.pipeline.distil import train_students as train_students
from s2kd.pipeline.folder import open_run as open_run
from s2kd.pipeline.labelling import label as label
from s2kd.pipeline.narratives import narrate as narrate
from s2kd.pipeline.options import Machine as Machine
from s2kd.pipeline.parts import check as check
from s2kd.pipeline.scores import evaluate as evaluate
from s2kd.pipeline.teach import train_teacher as train_teacher

__version__: str
