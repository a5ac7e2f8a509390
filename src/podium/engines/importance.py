"""Owns parameter importance: Optuna's own evaluator over a study's finished trials."""

from __future__ import annotations

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from podium.engines.study import Record
from podium.errors import PodiumError

FEWEST_TRIALS = 4
EVALUATOR = "PED-ANOVA (Optuna)"


def importances(study_url: str, study_name: str) -> tuple[dict[str, float] | None, str]:
    """Importance of each parameter (they add up to 1), and the evaluator's name; else None and the reason."""
    try:
        record = Record(study_name, study_url, goals=["maximize"], create=False, read_only=True)
    except PodiumError as error:
        return None, f"not computed: {error.message}"
    try:
        study = record.study(optuna.samplers.RandomSampler())
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(study.directions) > 1:
            return None, "not computed: the study has several objectives"
        if len(complete) < FEWEST_TRIALS:
            return None, f"not computed: {len(complete)} complete trials, {FEWEST_TRIALS} are needed"
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError) as error:
        return None, f"not computed: {error}"
    finally:
        record.close()
    return dict(found), EVALUATOR
