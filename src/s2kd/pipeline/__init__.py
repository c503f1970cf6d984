"""From data to files: the search of `distill`, and the stages of a run.

The stages are narrate, teach, distil, evaluate and report; nothing is done twice. `compare` runs
them all; `distill` (`main_job`) plans, searches students and methods (`search`), and scores the
best. Both leave one folder:

```
DIR/recipe.json                  the recipe, resolved
DIR/narratives.jsonl             one narrative per window
DIR/states/<split>.safetensors   token states
DIR/teachers/<kind>-seed<n>/     kind is `text` or `no_text` (the same teacher without text)
DIR/targets/<kind>-seed<n>/      the frozen teacher's outputs for every training window
DIR/targets/<kind>-seed<n>-<extra windows>/  those for extra windows, and their inputs
DIR/targets/capture/             inputs and answers of the recipe's captures
DIR/targets/stored/              those of forecasts in a file
DIR/students/<student>-<method>-seed<n>/
DIR/before/<model>-<n>/          what was trained before the data, settings or version changed
DIR/scores/<split>.nc            scores, models along an axis, and scores.json with the headline
DIR/diagnosis.json               fidelity of students to their teachers, by `s2kd diagnose`
DIR/search/, answer.json, distill.log  plan, trials and answer of `distill`
```
"""

from s2kd.core.lazy import lazy_names

_NAMES = {
    "checks": "check_models",
    "distil": "distill_student student_folder train_students",
    "fidelity": "diagnose",
    "folder": "Busy load_recipe locked open_run",
    "labelling": "label",
    "machine": "Machine",
    "narratives": "limit_requests narrate narrate_shard parse_shard preview_run",
    "queue": "JobContext JobSummary jobs_of opened_folders run_job run_jobs",
    "run": "Run",
    "scores": "TEACHER_METHODS evaluate export read_scores report score_models",
    "stages": "STAGES run_all stage_number",
    "targets": "make_extra make_targets supervision_of",
    "teach": "train_teacher train_teachers",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOMES)
__getattr__ = lazy_names(__name__, _HOMES)  # so that recipes are read without PyTorch
