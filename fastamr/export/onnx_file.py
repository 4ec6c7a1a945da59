"""ONNX: writing it, checking it against the model, and running it."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files import check_folder_of, replaced
from ..models import ActionClassifier, SkeletonModel
from .description import KEY, check_ending, describe, read_text
from .graph import Traced, example_inputs, model_outputs, trace

# Largest difference that rounding explains, over the largest output.
TOLERANCE = 1e-4
# PyTorch writes this one where an older one is asked for, and only logs it.
OLDEST_OPSET = 18
_MISSING = "{what} needs {packages}: pip install 'fastamr[export]'"


def export_onnx(
    model: ActionClassifier | SkeletonModel,
    path: str | Path,
    *,
    steps: Iterable[str | Mapping[str, Any]] = (),
    opset: int | None = None,
    pooling: str = "mean",
) -> float:
    """Write a model as one ONNX file, and compare it with the model in onnxruntime.

    A classifier's graph is :class:`fastamr.export.graph.ClassifierGraph`, an encoder's ``EncoderGraph``; batch size and
    bodies a clip are free. The metadata entry ``fastamr`` says in JSON what the graph expects. A file that was there
    is replaced only when the comparison has succeeded.

    Args:
        model: the model; it is left as it is.
        path: the file, ``*.onnx``.
        steps: pre-processing of the clips, for an encoder; a classifier knows its own.
        opset: version of ONNX's operators, 18 or later; None = PyTorch's choice.
        pooling: of an encoder's features, see :meth:`SkeletonModel.features`; a classifier has its own.

    Returns:
        The largest difference of an output, over the largest output.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        FileNotFoundError: the folder does not exist.
        TypeError, ValueError: see :func:`fastamr.export.graph.trace`; a file name that does not end in ``.onnx``, an
            opset that cannot be written; or the file computes something else.
    """
    _require("writing ONNX", ("onnx", "onnxscript", "onnxruntime"))
    path = Path(path)
    check_ending(path, ".onnx")
    _check_opset(opset)
    check_folder_of(path)
    traced = trace(model, pooling)
    with _quiet():
        program = torch.onnx.export(
            traced.program,
            dynamo=True,
            input_names=list(traced.inputs),
            output_names=list(traced.outputs),
            dynamic_shapes=tuple(dict(traced.free) for _ in traced.inputs),
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    if opset is not None and (written := program.model.opset_imports.get("")) != opset:
        raise ValueError(f"opset={opset} was asked for, PyTorch wrote {written}: ask for that, or omit opset")
    text = json.dumps(describe(model, traced.inputs, traced.outputs, steps, pooling))
    for node in program.model.graph.all_nodes():
        # Where PyTorch had the node from: large, and of no use to a runtime.
        node.metadata_props.clear()
    program.model.metadata_props[KEY] = text
    with replaced(path) as temporary:
        program.save(str(temporary), external_data=False)
        return _compare(model, traced, temporary, pooling)


class OnnxModel:
    """An exported classifier or encoder in onnxruntime, on the CPU.

    Args:
        path: a file of :func:`export_onnx`.

    Attributes:
        description: what the graph expects, see :func:`fastamr.export.description.describe`.

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was not written by this library.
    """

    def __init__(self, path: str | Path) -> None:
        _require("running ONNX", ("onnxruntime",))
        import onnxruntime

        if not Path(path).is_file():
            raise FileNotFoundError(f"no ONNX file {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no common base below this one
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path} is not an ONNX file that onnxruntime can read ({reason})") from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.description = read_text(metadata.get(KEY), path)

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run the graph on arrays by name; its outputs by name."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, inputs), strict=True))


def _compare(model: ActionClassifier | SkeletonModel, traced: Traced, path: Path, pooling: str) -> float:
    """Return the largest relative difference between the file and the model over a few batches.

    Raises:
        ValueError: it is more than rounding.
    """
    session, worst = OnnxModel(path), 0.0
    for batch, bodies in ((1, 1), (2, 3)):
        inputs = example_inputs(model, batch, bodies)
        found = session(**{name: value.numpy() for name, value in zip(traced.inputs, inputs, strict=True)})
        for name, one in zip(traced.outputs, model_outputs(model, inputs, pooling), strict=True):
            scale = float(one.abs().max()) or 1.0
            worst = max(worst, float(np.abs(found[name] - one.numpy()).max()) / scale)
    # Written so that NaN fails.
    if not worst <= TOLERANCE:
        raise ValueError(
            f"the ONNX graph differs from the model by {worst:.2g} of its largest output, more than {TOLERANCE:g}: "
            "nothing was written; try another opset"
        )
    return worst


def _check_opset(opset: int | None) -> None:
    """Raise ``ValueError`` for an opset that PyTorch does not write, or that the installed onnx does not know."""
    from onnx.defs import onnx_opset_version

    newest = onnx_opset_version()
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        raise ValueError(
            f"opset={opset} cannot be written: choose one from {OLDEST_OPSET} to {newest}, or omit opset"
        )


def _require(what: str, packages: tuple[str, ...]) -> None:
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(_MISSING.format(what=what, packages=" and ".join(missing)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back PyTorch's remarks about packages that are not needed here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
