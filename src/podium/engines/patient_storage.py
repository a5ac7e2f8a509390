"""Owns waiting for a study store whose server went away: a call is made again, and nothing is done twice."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from podium.engines.study_lock import StudyAway
from podium.errors import SweepError
from podium.stores import redacted

PATIENCE_SECONDS = 600.0
WRITER = "podium.writer"
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class PatientStorage(BaseStorage):
    """Optuna's storage on a server, for one writer. Raises: SweepError from every method once patience has ended.

    Each call is one transaction. When the server goes away during its end, nobody knows whether it was done: most
    calls come to the same when they are made again, the others look first.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self.inner = self._storage = storage
        self._patience_seconds = PATIENCE_SECONDS
        self._study_id: int | None = None
        self._writer = secrets.token_hex(8)

    def write_only(self, study_id: int) -> None:
        """Say in the study who writes it, so that after a loss it is known whether somebody else did meanwhile."""
        self._patiently(lambda: self._storage.set_study_system_attr(study_id, WRITER, self._writer))
        self._study_id = study_id

    def _refuse_if_taken_up(self) -> None:
        """The lock is held again here; what another writer did while it was not, this process knows nothing of."""
        if self._study_id is not None:
            writer = self._storage.get_study_system_attrs(self._study_id).get(WRITER)
            if writer != self._writer:
                raise SweepError(
                    "another process took up the sweep while the study store was away from here.",
                    remedy="Go on with --resume where it ran, or here once it has ended.",
                )

    def _patiently(
        self, call: Callable[[], Answer], done: Callable[[], Answer | None] = lambda: None
    ) -> Answer:
        """`done` answers what a call that was cut off did, None if it did nothing."""
        try:
            return call()
        except StudyAway as away:
            began, pause, error = time.monotonic(), FIRST_PAUSE_SECONDS, away
        if self._patience_seconds:
            logger.warning(
                "The study store is away (%s). Training goes on where it can; waiting.", redacted(str(error))
            )
        while time.monotonic() - began < self._patience_seconds:
            self._wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            try:
                self._refuse_if_taken_up()
                found = done()
                answer = call() if found is None else found
            except StudyAway as away:
                error = away
                continue
            logger.warning("The study store is back after %.1f s.", time.monotonic() - began)
            return answer
        self._patience_seconds = 0.0  # what closes the sweep need not wait as long once more
        raise SweepError(
            f"the study store was away for {time.monotonic() - began:.0f} s: {redacted(str(error))}",
            remedy="What was finished is on record. Start the server, then go on with --resume.",
        ) from error

    def _wait(self, seconds: float) -> None:
        try:
            time.sleep(seconds)
        except BaseException:  # a person who asked twice does not want to wait for the closing either
            self._patience_seconds = 0.0
            raise

    # -- calls that look before they are made again --------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """As BaseStorage. Whoever calls holds the study's lock, so that a study found later is its own."""
        assert study_name is not None

        def made() -> int | None:
            try:
                return self._storage.get_study_id_from_name(study_name)
            except KeyError:
                return None

        return self._patiently(lambda: self._storage.create_new_study(directions, study_name), made)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As BaseStorage; the template has its number. One writer: a trial of that number is the one that was being made."""
        assert template_trial is not None
        number = template_trial.number

        def made() -> int | None:
            try:
                return self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
            except KeyError:
                return None

        return self._patiently(lambda: self._storage.create_new_trial(study_id, template_trial), made)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As BaseStorage; values and state are written together."""

        def ended() -> bool | None:
            return True if self._storage.get_trial(trial_id).state == state else None

        return self._patiently(lambda: self._storage.set_trial_state_values(trial_id, state, values), ended)

    # -- calls that come to the same when they are made again ----------------------------------------

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """As BaseStorage."""
        self._patiently(lambda: self._storage.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """As BaseStorage."""
        self._patiently(lambda: self._storage.set_study_system_attr(study_id, key, value))

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """As BaseStorage; a value that is there stays."""
        self._patiently(
            lambda: self._storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        )

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As BaseStorage."""
        self._patiently(
            lambda: self._storage.set_trial_intermediate_value(trial_id, step, intermediate_value)
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As BaseStorage."""
        self._patiently(lambda: self._storage.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As BaseStorage."""
        self._patiently(lambda: self._storage.set_trial_system_attr(trial_id, key, value))

    def delete_study(self, study_id: int) -> None:
        """Podium deletes no study."""
        raise NotImplementedError

    # -- reading -------------------------------------------------------------------------------------

    def get_study_id_from_name(self, study_name: str) -> int:
        """As BaseStorage."""
        return self._patiently(lambda: self._storage.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        """As BaseStorage."""
        return self._patiently(lambda: self._storage.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As BaseStorage."""
        return self._patiently(lambda: self._storage.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As BaseStorage."""
        return self._patiently(lambda: self._storage.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As BaseStorage."""
        return self._patiently(lambda: self._storage.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        """As BaseStorage."""
        return self._patiently(self._storage.get_all_studies)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """As BaseStorage."""
        return self._patiently(
            lambda: self._storage.get_trial_id_from_study_id_trial_number(study_id, trial_number)
        )

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As BaseStorage."""
        return self._patiently(lambda: self._storage.get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As BaseStorage."""
        return self._patiently(lambda: self._storage.get_all_trials(study_id, deepcopy, states))

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """As BaseStorage."""
        return self._patiently(lambda: self._storage.get_best_trial(study_id))

    def remove_session(self) -> None:
        """As BaseStorage."""
        self._storage.remove_session()
