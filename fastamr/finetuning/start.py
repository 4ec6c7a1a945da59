"""What a fine-tuning starts from: a pre-trained encoder, or a classifier that it continues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..documents import load_json_text
from ..features.run_settings import run_steps
from ..models import ActionClassifier, SkeletonModel, load_pretrained
from ..models.base import CLASSIFIER, read_description

REPORT_FILE = "classifier.json"


@dataclass(frozen=True)
class Start:
    """Where a fine-tuning begins.

    Attributes:
        model: the encoder.
        steps: the pre-processing that it was trained with.
        classifier: what is continued; None for an encoder without classes.
        chain: the folders behind it, from the pre-training run to the one that was named.
    """

    model: SkeletonModel
    steps: list[Any]
    classifier: ActionClassifier | None
    chain: tuple[str, ...]

    @property
    def source(self) -> SkeletonModel | ActionClassifier:
        """What was loaded."""
        return self.model if self.classifier is None else self.classifier

    def head(
        self, names: Sequence[str], recipe: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor] | None, dict[str, Any], str]:
        """Return the weights that a head begins with, the settings of a recipe that it has, and a line that says so.

        The classifier's own head where the classes have the same names, and no other form is asked for: the rows of its
        last layer are sorted as the classes are now. None and no settings where a head begins anew.

        Args:
            names: the classes now; empty = unknown.
            recipe: what was asked for; ``pooling``, ``bodies`` and ``hidden`` are the form of a head.
        """
        weights, text = self._head(names, recipe)
        if weights is None or self.classifier is None:
            return None, {}, text
        return weights, _form(self.classifier), text

    def _head(self, names: Sequence[str], recipe: Mapping[str, Any]) -> tuple[dict[str, Tensor] | None, str]:
        old = self.classifier
        if old is None:
            return None, "a new head"
        if any(recipe.get(name, value) != value for name, value in _form(old).items()):
            return None, "a new head, because another form is asked for"
        if not names or not old.class_names:
            return None, "a new head, because classes without names cannot be compared"
        if set(names) != set(old.class_names) or len(set(names)) < len(names):
            fresh = [name for name in names if name not in old.class_names]
            gone = [name for name in old.class_names if name not in names]
            parts = [f"{what} {', '.join(some)}" for what, some in (("new:", fresh), ("gone:", gone)) if some]
            return None, f"a new head, because the classes differ ({'; '.join(parts) or 'names repeat'})"
        state = {name: value.detach().clone() for name, value in old.head.state_dict().items()}
        if tuple(names) == old.class_names:
            return state, "its head, kept"
        rows = [old.class_names.index(name) for name in names]
        last = len(old.head) - 1
        for name in (f"{last}.weight", f"{last}.bias"):
            state[name] = state[name][rows]
        return state, "its head, kept and sorted as the data's classes are"


def _form(classifier: ActionClassifier) -> dict[str, Any]:
    """Return the settings that decide the shape of a head."""
    return {name: getattr(classifier, name) for name in ("pooling", "bodies", "hidden")}


def load_start(checkpoint: str | Path) -> Start:
    """Load the folder of a pre-training run, of ``save_pretrained`` or of a classifier.

    Raises:
        FileNotFoundError: the folder holds no model.
        ValueError: an unknown architecture, or damaged files.
    """
    if read_description(checkpoint)["model"] != CLASSIFIER:
        return Start(load_pretrained(checkpoint), run_steps(checkpoint), None, (str(checkpoint),))
    classifier = ActionClassifier.from_pretrained(checkpoint)
    chain = (*_chain(Path(checkpoint) / REPORT_FILE), str(checkpoint))
    return Start(classifier.encoder, [dict(step) for step in classifier.steps], classifier, chain)


def trained_before(start: Start, data: Sequence[str], split: str) -> list[str]:
    """Return a line where a classifier that is continued has trained on clips of files that it is tested on now.

    Args:
        start: what is continued.
        data: the packed files.
        split: the split whose test clips are tested.
    """
    files = {Path(one).resolve() for one in data}
    for folder in start.chain:
        try:
            config = load_json_text(Path(folder) / REPORT_FILE)["config"]
            everything, other = config.get("train_on") == "all", str(config.get("split")).casefold()
            shared = files & {Path(one).resolve() for one in config["data"]}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if shared and (everything or other != split.casefold()):
            how = "--train-on all" if everything else f"--split {config['split']}"
            return [
                f"{folder} was trained with {how} on {sorted(shared)[0].name}: test clips of split {split!r} may be "
                "among what it was trained on, and the accuracy is then too high"
            ]
    return []


def _chain(report: Path) -> tuple[str, ...]:
    """Return the folders that a classifier's report names as its own start; none where it has no sound report."""
    try:
        content = load_json_text(report)
        known = content.get("start", {}).get("chain") or [content["config"]["checkpoint"]]
        return tuple(str(folder) for folder in known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
