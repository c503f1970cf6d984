"""From data to files: the search of `distill`, and the stages of a run.

The stages are narrate, teach, distil, evaluate and report; nothing is done twice. `compare` runs
them all; `distill` (`main_job`) plans, searches students and methods (`search`), and scores the
best. Both leave one folder (docs/run_folder.md).
"""

from s2kd.core.lazy import lazy_names

_NAMES = {
    "checks": "check_models",
    "distil": "distill_student student_folder train_students",
    "fidelity": "diagnose",
    "folder": "Busy load_recipe locked open_run",
    "labelling": "label",
    "options": "Machine",
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
