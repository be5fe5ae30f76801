"""`fine_tune`: one run with all that it leaves, from Python.

`finetune.py` is this function behind flags. It is not called `finetune`: that is the
package of its parts, and Python makes a package an attribute of `metalr` as soon as
anybody imports something out of it.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metalr.errors import MetalrError
from metalr.finetune import display, loggers, run_folder
from metalr.finetune.config import RunConfig
from metalr.finetune.display import Display
from metalr.finetune.result import Result
from metalr.finetune.run import run
from metalr.finetune.settings import from_python
from metalr.predict.model import Model, load
from metalr.report import model_card
from metalr.report.curves import draw_curves
from metalr.runtime import files, hosts, hub_upload, progress


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """A run that ended."""

    folder: Path
    result: Result  # the content of `result.json`

    @property
    def metrics(self) -> dict[str, float | None]:
        """The scores at the best step, by name; None where one is not finite."""
        return dict(self.result["metrics"])

    @property
    def score(self) -> float | None:
        """The score that picks the best step; its name is `result["metric"]`.

        None where there is none yet: a run may be interrupted before it is scored.
        """
        return self.result["metrics"].get(self.result["metric"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows by step: loss and rate as they went, scores where it was evaluated."""
        return list(self.result["history"])

    @property
    def interrupted(self) -> bool:
        """Whether `stop` ended the run; the same call resumes it."""
        return self.result.get("stopped") == "asked"

    def load(self, **how: Any) -> Model:
        """Return the model of the best step as a function, as `metalr.load` does.

        Args:
          **how: As of `metalr.load`.
        """
        return load(self.folder, **how)


def fine_tune(
    config: RunConfig | str | Path | None = None,
    /,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    push_to_hub: str | None = None,
    private: bool = False,
    stop: Callable[[], bool] = lambda: False,
    displays: Sequence[Display] = (),
    **settings: Any,
) -> FineTuned:
    """Fine-tune an encoder, and return what came of it.

        run = metalr.fine_tune(task="rte", model="minilm", epochs=2)
        run.score, run.metrics, run.folder
        run.load()(("A man sleeps.", "A man is awake."))["predicted_label"]

    The same call again returns the finished run, or resumes one that was
    interrupted.

    Args:
      config: Settings, or the path of a TOML file of them; None: the defaults.
      resume: Fail if there is no run to resume.
      overwrite: Begin again, and delete what is in the folder.
      quiet: Print only the result.
      push_to_hub: Upload the model to this OWNER/NAME.
      private: Hide the new repository from others.
      stop: Polled after each step; True saves and ends the run.
      displays: Shown what happens, beside the screen and `log_to`.
      **settings: The flags of finetune.py, by the names of the fields of
        `metalr.finetune.config.RunConfig`; they go before those of `config`.

    Returns:
      The run: its scores, history and folder.

    Raises:
      MetalrError: A setting or a file of the user is invalid, or the run diverged.
    """
    if resume and overwrite:
        raise MetalrError(
            "--resume continues a run and --overwrite begins it again; give one"
        )
    if private and not push_to_hub:
        raise MetalrError("--private is of --push-to-hub NAME, which is not given")
    config = from_python(config, **settings)
    folder = run_folder.of(config)
    config = dataclasses.replace(config, output=str(folder))
    first = hosts.is_first()
    quiet = quiet or not first
    # Before hours of training.
    repository = hub_upload.check(push_to_hub) if push_to_hub and first else None
    progress.visible(not quiet)
    how = {"resume": resume, "overwrite": overwrite}
    with run_folder.opened(folder, config, **how) as place:
        result = place.finished()
        if result is None:
            logs = loggers.create(folder, config) if first else []
            screen = display.create(quiet, [*logs, *displays])
            with contextlib.closing(screen):
                # Data, model, optimizer, training, export.
                result = run(
                    config, screen, folder=folder, overwrite=overwrite, stop=stop
                )
            if result.get("stopped") == "asked":
                return FineTuned(folder, result)
            if first:
                draw_curves(result, place.curves)
                model_card.write(result, folder / "model", place.curves)
                files.write_json(place.result, result)  # last: the run is now finished
        elif not quiet:
            print(f"{folder} holds the finished run; --overwrite runs it again")
    if first:
        display.summary(result, place.outputs, quiet=quiet)
    if repository:
        print(hub_upload.push(folder / "model", repository, private=private))
    return FineTuned(folder, result)
