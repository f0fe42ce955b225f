"""Checkpoints: the latest few and the best, written in the background by Orbax."""

import contextlib
import math
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import Sharding

from objdisc_jax.errors import UserError

FOLDER = "checkpoints"
RETRY_SECONDS = 30.0
"""How long after a save that failed another one is due."""
_UNFINISHED = f"*{ocp.utils.TMP_DIR_SUFFIX}*"
_UNREADABLE = ".unreadable"


class Checkpoints:
    """The checkpoints of a run directory.

    A checkpoint holds a pytree of arrays (`state`) and JSON values (`metadata`). It appears under
    its final name only when it is complete; one that was being written when the program died is
    ignored.

    Every process restores its own devices' copy, the primary alone saves: all have the same state,
    so that a full disk concerns one process, and none waits for another that could not write.

    Args:
        workdir: the run directory.
        keep: how many of the latest checkpoints are kept; the one with the highest score is, too.
        create: make the folder if it is missing, and remove what a killed program left half done.

    Attributes:
        folder: that they are in.
        failure: why the last save failed; None if it didn't, as far as is known before `wait`.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        keep: int = 1,
        create: bool = True,
    ):
        self.folder = workdir.absolute() / FOLDER
        self._keep = keep
        self._failed_at = 0.0
        self.failure: str | None = None
        if create:
            self.folder.mkdir(parents=True, exist_ok=True)
            for unfinished in self.folder.glob(_UNFINISHED):
                logging.warning(
                    "Ignored and removed %s: a checkpoint that was only half written.", unfinished
                )
                shutil.rmtree(unfinished)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        managers = ocp.checkpoint_managers
        best = managers.BestN(
            get_metric_fn=_score,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        process = jax.process_index()
        return ocp.CheckpointManager(
            self.folder,
            item_names=("state", "metadata"),
            options=ocp.CheckpointManagerOptions(
                # The policy decides what is kept; `best_fn` makes the manager track scores at all.
                best_fn=_score,
                preservation_policy=managers.AnyPreservationPolicy(
                    [managers.LatestN(self._keep), best]
                ),
                create=False,
                # In the background, its failure would leave threads that wait for it for minutes.
                async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
                # No process waits for another.
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=process,
                    active_processes={process},
                    barrier_sync_key_prefix=f"process_{process}",
                ),
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(
        self, step: int, state: Any, metadata: dict[str, Any], score: float | None = None
    ) -> None:
        """Begins to save; returns when the state has been copied from the devices.

        Where that fails, now or in the background, a warning says so, the earlier checkpoints stay,
        and `is_due_again` asks for another save later.

        Args:
            step: training step; a step that is already saved is left as it is.
            state: pytree of arrays that every device has whole.
            metadata: values that JSON can hold.
            score: the highest is "best"; None (or NaN) where the model wasn't scored.
        """
        if step == self.latest_step:
            return
        scored = score is not None and not math.isnan(score)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(jax.tree.map(_on_host, state)),
                    metadata=ocp.args.JsonSave(metadata),
                ),
                metrics={"score": score} if scored else None,
            )
        except Exception as error:  # of the disk, of tensorstore, of Orbax; or of the save before
            self.note_failure(error)
        else:
            self.failure = None

    def is_due_again(self) -> bool:
        """Whether the last save has failed, and it is time to try again."""
        if self.failure is None:
            try:
                self._manager.check_for_errors()
            except Exception as error:
                self.note_failure(error)
        return self.failure is not None and time.monotonic() - self._failed_at >= RETRY_SECONDS

    def note_failure(self, error: Exception) -> None:
        """Warns that a save has failed, and makes one due again later."""
        self._failed_at, self.failure = time.monotonic(), _summary(error)
        # What the manager believes to have saved is not on the disk: begin with what is.
        with contextlib.suppress(Exception):
            self._manager.close()
        for unfinished in self.folder.glob(_UNFINISHED):
            shutil.rmtree(unfinished, ignore_errors=True)
        self._manager = self._open()
        logging.warning(
            "The checkpoint could not be written to %s (%s). Training goes on and saving is tried "
            "again; the latest checkpoint is %s.",
            self.folder,
            self.failure,
            "none yet" if self.latest_step is None else f"step {self.latest_step}",
        )

    def find(self, which: str) -> int:
        """The step of a checkpoint asked for as "latest", "best" or a number.

        Raises:
            UserError: there is no such checkpoint; lists those there are.
        """
        steps = sorted(self._manager.all_steps())
        named = {"latest": self._manager.latest_step(), "best": self._manager.best_step()}
        step = named[which] if which in named else int(which) if which.isdecimal() else None
        if step is None or step not in steps:
            there_are = f"steps {', '.join(map(str, steps))}" if steps else "none"
            raise UserError(
                f"step: there is no checkpoint {which!r} in {self.folder}; there are {there_are}. "
                "Allowed are latest, best (if the run was validated) or one of those numbers."
            )
        return step

    def restore(self, step: int, like: Any, sharding: Sharding) -> tuple[Any, dict[str, Any]]:
        """Reads a checkpoint, whatever devices and processes it was written by.

        Args:
            step: its step.
            like: pytree with the structure, shapes and types of the state.
            sharding: where the arrays go.

        Returns:
            The state and the metadata.

        Raises:
            UserError: the files are damaged or hold another state.
        """
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )
        try:
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(target), metadata=ocp.args.JsonRestore()
                ),
            )
        except Exception as error:  # tensorstore, JSON and Orbax each have errors of their own
            raise UserError(
                f"The checkpoint {self.folder / str(step)} cannot be read ({_summary(error)}). "
                "If its files are damaged, move that folder away: the previous checkpoint is used "
                "then."
            ) from error
        return found["state"], found["metadata"]

    def metadata(self, step: int) -> dict[str, Any]:
        """The JSON values of a checkpoint that can be read."""
        only = ocp.args.Composite(metadata=ocp.args.JsonRestore())
        return self._manager.restore(step, args=only)["metadata"]

    def restore_newest(self, like: Any, sharding: Sharding) -> tuple[Any, dict[str, Any]] | None:
        """Reads the newest checkpoint that can be read; None if there are no checkpoints.

        Newer ones that cannot be read are warned of and moved aside.

        Args:
            like: as for `restore`.
            sharding: as for `restore`.

        Raises:
            UserError: there are checkpoints, but none of them can be read.
        """
        unreadable: dict[int, UserError] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self.restore(step, like, sharding)
            except UserError as error:
                unreadable[step] = error
                continue
            self._move_aside(unreadable, going_on_from=step)
            return found
        if unreadable:
            raise unreadable[max(unreadable)]
        return None

    def _move_aside(self, unreadable: dict[int, UserError], going_on_from: int) -> None:
        for step, error in unreadable.items():
            logging.warning(
                "%s Ignored: going on from step %d.", str(error).split(" If its")[0], going_on_from
            )
            if jax.process_index() == 0:
                folder = self.folder / str(step)
                shutil.rmtree(folder.with_suffix(_UNREADABLE), ignore_errors=True)
                folder.rename(folder.with_suffix(_UNREADABLE))
        if unreadable:
            self._manager.reload()

    def wait(self) -> None:
        """Waits until what was saved is on the disk, or a failure has been warned of."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self.note_failure(error)

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self.wait()
        self._manager.close()


def has_checkpoints(workdir: Path) -> bool:
    """Whether a run directory holds a complete checkpoint."""
    return any(entry.name.isdecimal() for entry in (workdir / FOLDER).glob("*"))


def _on_host(x: Any) -> Any:
    """A copy on the host of an array that every device has whole; training goes on with its own."""
    return np.array(x.addressable_data(0)) if isinstance(x, jax.Array) else x


def _summary(error: Exception) -> str:
    """An error's kind and the first line of what it says."""
    first_line = str(error).strip().split("\n")[0][:300]
    return f"{type(error).__name__}: {first_line}"


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]
