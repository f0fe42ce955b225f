"""Checkpoints: the latest few and the best, written in the background by Orbax."""

import math
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from objdisc_jax.errors import UserError

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of a run directory.

    A checkpoint holds a pytree of arrays (`state`) and JSON values (`metadata`). It appears under
    its final name only when it is complete; one that was being written when the program died is
    ignored.

    Args:
        workdir: the run directory.
        keep: how many of the latest checkpoints are kept; the one with the highest score is, too.
        create: make the folder if it is missing, and remove what a killed program left half done.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        keep: int = 1,
        create: bool = True,
    ):
        self._folder = workdir.absolute() / FOLDER
        managers = ocp.checkpoint_managers
        best = managers.BestN(
            get_metric_fn=_score,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_names=("state", "metadata"),
            options=ocp.CheckpointManagerOptions(
                # The policy decides what is kept; `best_fn` makes the manager track scores at all.
                best_fn=_score,
                preservation_policy=managers.AnyPreservationPolicy([managers.LatestN(keep), best]),
                create=create,
                cleanup_tmp_directories=create,
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

        Args:
            step: training step; a step that is already saved is left as it is.
            state: pytree of arrays.
            metadata: values that JSON can hold.
            score: the highest is "best"; None (or NaN) where the model wasn't scored.
        """
        if step == self.latest_step:
            return
        scored = score is not None and not math.isnan(score)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(metadata)
            ),
            metrics={"score": score} if scored else None,
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
                f"step: there is no checkpoint {which!r} in {self._folder}; there are {there_are}. "
                "Allowed are latest, best (if the run was validated) or one of those numbers."
            )
        return step

    def restore(self, step: int, like: Any, sharding: Sharding) -> tuple[Any, dict[str, Any]]:
        """Reads a checkpoint.

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
            first_line = str(error).strip().split("\n")[0][:300]
            raise UserError(
                f"The checkpoint {self._folder / str(step)} cannot be read "
                f"({type(error).__name__}: {first_line}). If its files are damaged, move that "
                "folder away: the previous checkpoint is used then."
            ) from error
        return found["state"], found["metadata"]

    def wait(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self.wait()
        self._manager.close()


def has_checkpoints(workdir: Path) -> bool:
    """Whether a run directory holds a complete checkpoint."""
    return any(entry.name.isdecimal() for entry in (workdir / FOLDER).glob("*"))


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]
