"""One update: clips, masks, forward, backward, gradient clipping, AdamW and the learning rate, in one CUDA graph.

Everything that an update computes has static shapes and stays on the device: its number, the learning rate, the
random seed and the metrics are device tensors that advance in place, and nothing is read back by the host. So the
same function runs eagerly, and recorded once and replayed.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ... import ops
from ...distributed import World, add_up, spread_over
from ...ops.common.backends import Choice
from ...ops.common.tuned import tuning
from ..clips.clip_streams import ClipStream
from ..metrics.metric_ring import MetricRing
from .adamw import AdamW
from .explanation import Explanation, explain_model, is_compiled
from .precision import matmul_precision
from .recording import GRAPH_CHOICES, CudaRecorder, Form, RecordedCall, Recorder, form_of
from .schedule import LearningRateSchedule


def masked_loss(
    model: nn.Module, batch: Sequence[Tensor | None], seed: Tensor, *, details: bool = False
) -> Any:
    """Call a model of :data:`fastamr.models.MODELS` on clips and their validity: the loss of pre-training.

    Args:
        model: the model.
        batch: clips ``(S, T, V, C)`` and validity ``(S, T, V)`` or None.
        seed: of the masks.
        details: let the model return all that it saw and made.
    """
    clips, valid = batch
    asked = {"return_details": True} if details or getattr(model, "reports_terms", False) else {}
    return model(clips, seed=seed, valid=valid, **asked)


class PretrainStep:
    """Updates a model once per call.

    With ``clips`` a call takes no arguments: the update's batch is drawn, and ``compute`` makes the loss of it, which
    by default calls the model (any of :data:`fastamr.models.MODELS`) with ``clips``, ``seed`` and ``valid``. Without, a
    call hands its tensors to the model, any ``nn.Module`` that returns a scalar loss.

    On a GPU the first three updates run eagerly, the fourth is recorded as a CUDA graph (clips, masks, forward,
    backward, clipping, optimizer, learning rate, seed, metrics), and from then on an update is one launch. These
    eager updates are the run's own, so nothing has to be restored after the warm-up. Weights and optimizer state that
    are loaded between two launches are taken over; what a graph keeps (addresses, weight decay, ``model.eval()``,
    frozen parameters) is compared before each launch, and recorded anew where it changed.

    With ``accumulate=k`` the batch is sampled once and then passes the model in ``k`` equal micro-batches
    whose losses count ``1 / k`` each: the update of the whole batch up to rounding and to the choice of masks
    (each micro-batch advances the seed). With missing joints a micro-batch of few valid targets weighs as
    much as one of many.

    With several processes each computes its share of every micro-batch; the gradients, the loss and the terms are added
    up in one collective before the optimizer updates all copies of the model alike. It is recorded with the rest: the
    eager updates open NCCL's connections, which a recording cannot do.

    On a CPU a program of one's own calls :func:`fastamr.memory.keep_freed_memory` once, and before torch is imported
    :func:`fastamr.host.share_cpus`, as ``fastamr``'s commands do. Without the first the system clears the pages of all
    activations again in every update; without the second threads wait in a loop beside other processes.

    Args:
        model: the model, on its device.
        optimizer: over the model's parameters; to be recorded it must be capturable, as
            :func:`fastamr.training.update.optimizer.build_optimizer`'s is.
        clips: draws the clips; None = the caller passes the model's inputs.
        compute: returns the loss of what ``clips`` draws, or an object with ``loss`` and ``terms``, from the model, the
            batch (of each micro-batch its share of every tensor) and the seed: see :func:`masked_loss`.
        seed: ``(2,)`` int64 on the device, key and counter; the counter advances in place. None draws one. Only used
            with ``clips``.
        schedule: sets the learning rate of each update, a tensor on the device in every group of the optimizer, times
            the group's ``lr_scale`` where it has one; None leaves it to the caller.
        dtype: autocast's dtype, or float32 for none; float16 scales the loss.
        matmul_precision: ``highest``, ``high`` or ``medium``, see ``torch.set_float32_matmul_precision``, for the
            time of an update; None leaves the process's setting.
        accumulate: number of micro-batches, a divisor of the batch size.
        clip_grad: largest norm of the gradient, or None.
        skip_not_finite: leave an update out whose loss or gradients are not finite: weights, optimizer state and
            buffers stay as they are to the bit, and its loss counts as NaN. Nothing is read by the host for it. Needs
            :class:`AdamW`. Under float16 the scaler leaves such updates out anyway.
        graph: ``"auto"`` records on a GPU and is eager elsewhere or where recording fails (with a warning), False is
            eager, True raises instead of being eager.
        window: updates whose metrics are kept in :attr:`metrics`.
        recorder: records and replays; None takes CUDA graphs on a GPU.
        world: the processes that share each batch; None = this one alone.

    Attributes:
        seed: the seed; with several processes ``(3,)``, with the number of this one's first sequence.
        update: number of updates made.
        counter: the same as an int64 scalar on the device.
        loss: the last update's loss, see :meth:`__call__`.
        terms: what the model reports beside the loss of the last update, mean over the micro-batches, scalars on the
            device by name; empty for a model that reports nothing.
        metrics: losses and terms of the last ``window`` updates, on the device.
        scaler: scales the loss under float16.

    Raises:
        ValueError: a wrong ``graph``; ``graph=True`` without a GPU; a learning rate that is not a tensor on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        clips: ClipStream | None = None,
        *,
        compute: Callable[[nn.Module, Any, Tensor], Any] = masked_loss,
        seed: Tensor | None = None,
        schedule: LearningRateSchedule | None = None,
        dtype: torch.dtype = torch.float32,
        matmul_precision: str | None = None,
        accumulate: int = 1,
        clip_grad: float | None = None,
        skip_not_finite: bool = False,
        graph: str | bool = "auto",
        window: int = 1,
        recorder: Recorder | None = None,
        world: World | None = None,
    ) -> None:
        self.world = World() if world is None else world
        self.model, self.optimizer, self.clips, self.schedule = model, optimizer, clips, schedule
        self.compute = compute
        self.dtype, self.accumulate, self.clip_grad = dtype, accumulate, clip_grad
        self.matmul_precision, self.skip_not_finite = matmul_precision, skip_not_finite
        if skip_not_finite and not isinstance(optimizer, AdamW):
            raise ValueError(
                f"skip_not_finite needs fastamr.training.AdamW, which can leave an update out on the device, got "
                f"{type(optimizer).__name__}"
            )
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.device = self._parameters[0].device
        self.seed = ops.make_seed(device=self.device) if seed is None else seed
        if self.world.size > 1 and clips is not None:
            self.seed = torch.cat([self.seed[:2], self.seed.new_tensor([clips.order.first])])
        self.update, self.counter = 0, torch.zeros((), dtype=torch.int64, device=self.device)
        self.loss, self.terms = torch.zeros((), device=self.device), dict[str, Tensor]()
        self.metrics = MetricRing(window, self.device)
        self._form: Form = []
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)
        if schedule is not None:
            _rate_tensors(optimizer, self.device)  # raises now if one is wrong
        if clip_grad is not None and isinstance(optimizer, AdamW):
            optimizer.clip_grad = clip_grad
        recorder, reason = _choose_recorder(graph, recorder, self.device)
        self._call = RecordedCall(
            _weakly(self._compute),
            recorder,
            _weakly(self._structure),
            required=graph is True,
            reason=reason,
            after_failure=_weakly(self._forget_half_an_update),
        )

    @property
    def graph_reason(self) -> str | None:
        """Why updates run eagerly; None where they are recorded, or will be after the first three."""
        return self._call.reason

    def explain(self, *inputs: Tensor) -> Explanation:
        """Say how updates run: recorded or not, each stack of blocks fused or not, each op's back end, and why.

        The answer is for the step's own tensors, as things stand now; it computes nothing and changes nothing. Print
        ``"\n".join(step.explain().lines())``.

        Args:
            inputs: as in a call, for their shapes and dtypes; after the first call they may be left out.

        Returns:
            What is known. A model that cannot run on shapes alone (it reads values, or ``torch.compile`` took it over)
            leaves its stacks and ops open: ``unknown`` says why.
        """
        stacks, ops, unknown, kept = list[Choice](), list[Choice](), None, None
        try:
            forward = functools.partial(self._run_on_shapes, form_of(inputs) or self._form)
            stacks, ops, kept = explain_model(self.model, forward, self._autocast)
        except Exception as error:
            lines = str(error).strip().splitlines()
            unknown = f"{type(error).__name__}: {lines[0] if lines else ''}"
        if isinstance(self.optimizer, AdamW):
            ops = [self.optimizer.explain(), *ops]
        recordable = self.device.type == "cuda" or self._call.gave_up
        digest = tuning(self.device.type).digest
        return Explanation(
            self.device.type, self.graph_reason, recordable, stacks, ops, unknown, kept, digest
        )

    def _run_on_shapes(self, form: Form, model: nn.Module) -> None:
        """Run a micro-batch's forward pass where tensors have no values."""
        if is_compiled(self.model):
            raise RuntimeError("torch.compile took the model over, and fuses plain blocks itself")
        if self.clips is None and not form:
            raise RuntimeError("the inputs are not known before the first update: pass them to explain()")
        inputs = tuple(torch.empty(shape, dtype=dtype, device=self.device) for shape, dtype in form)
        self._forwards(model, inputs)[0]()

    def continue_from(self, update: int) -> None:
        """Set the number of updates made, for a resumed run."""
        self.update = update
        self.counter.fill_(update)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Update the model once.

        Args:
            inputs: tensors for the model, on its device, of the same shapes in every call (a recorded step copies
                them into buffers of its own). None with ``clips``.

        Returns:
            The loss before the update, a float32 scalar on the device. A recorded step writes the next one into the
            same tensor: read it or copy it before the next call, or read :attr:`metrics`.

        Raises:
            TypeError: inputs where the clips are drawn, or none where they are not.
            ValueError: inputs that cannot be split, or a model that returns no scalar; with ``graph=True`` inputs of
                other shapes than before.
            RuntimeError: ``graph=True`` and the step cannot be recorded.
        """
        self._check(inputs)
        self._form = self._form or form_of(inputs)
        if isinstance(self.optimizer, AdamW):
            # A replay computes with low-precision copies, which are out of date after weights were loaded.
            self.optimizer.refresh_working_copies()
        if self.clips is not None:
            self.clips.advance(self.update)
        with matmul_precision(self.matmul_precision):
            self.loss, self.terms = self._call(*inputs)
        if self.clips is not None:
            self.clips.done(self.update)
        self.update += 1
        return self.loss

    def _check(self, inputs: tuple[Tensor, ...]) -> None:
        if self.clips is not None and inputs:
            raise TypeError(f"the step draws its clips, got {len(inputs)} inputs: call it without arguments")
        if self.clips is None and not inputs:
            raise TypeError(
                "the step has no source of clips: pass the model's inputs, or build it with clips"
            )
        for place, tensor in enumerate(inputs):
            if self.accumulate > 1 and (tensor.ndim == 0 or len(tensor) % self.accumulate):
                raise ValueError(
                    f"input {place} has shape {tuple(tensor.shape)}, expected a first dimension that "
                    f"accumulate={self.accumulate} divides"
                )

    def _compute(self, *inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The whole update on the device; what is recorded."""
        self.optimizer.zero_grad(set_to_none=True)
        before = [buffer.clone() for buffer in self.model.buffers()] if self.skip_not_finite else []
        if self.schedule is not None:
            rate = self.schedule(self.counter)
            held = _rate_tensors(self.optimizer, self.device)
            torch._foreach_copy_([tensor for tensor, _ in held], [rate] * len(held))
            if any(scale != 1 for _, scale in held):
                torch._foreach_mul_([tensor for tensor, _ in held], [scale for _, scale in held])
        parts = [self._backward(forward) for forward in self._forwards(self.model, inputs)]
        loss, terms = _add(part[0] for part in parts), {}
        for name in parts[0][1]:
            terms[name] = _add(part[1][name] for part in parts)
        loss, terms = self._over_processes(loss, terms)
        if self.skip_not_finite:
            loss = self._skip_unless_finite(loss, before)
        self._apply_gradients()
        self.metrics.add(self.counter, loss, terms)
        self.counter += 1
        return loss, terms

    def _forwards(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Callable[[], Any]]:
        """Return the forward pass of each micro-batch: of the caller's tensors, or of clips that are drawn."""
        if self.clips is None:
            pieces = [tensor.chunk(self.accumulate) for tensor in inputs] if self.accumulate > 1 else []
            batches = list(zip(*pieces, strict=True)) or [inputs]
            return [functools.partial(model, *batch) for batch in batches]
        batch = self.clips.draw(self.counter, self.seed[:2])
        parts: list[Any] = [batch]
        if self.accumulate > 1:
            count = self.accumulate
            parts = list(
                zip(*([None] * count if each is None else each.chunk(count) for each in batch), strict=True)
            )
        return [functools.partial(self.compute, model, part, self.seed) for part in parts]

    def _backward(self, forward: Callable[[], Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run one micro-batch, advance the seed, and return its share of loss and terms."""
        with self._autocast(), spread_over(self.world.size):
            output = forward()
            loss = output if isinstance(output, Tensor) else output.loss
            if loss.ndim:
                raise ValueError(
                    f"the model returned a loss of shape {tuple(loss.shape)}, expected a scalar: take its mean"
                )
            loss = self._share(loss)
        self.scaler.scale(loss).backward()
        self.seed[1:2].add_(1)
        terms: Mapping[str, Tensor] = getattr(output, "terms", None) or {}
        return loss.detach().float(), {name: self._share(term.detach()) for name, term in terms.items()}

    def _share(self, value: Tensor) -> Tensor:
        """What a micro-batch in this process counts of the whole batch's mean."""
        shares = self.accumulate * self.world.size
        return value if shares == 1 else value / shares

    def _over_processes(self, loss: Tensor, terms: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Add gradients, loss and terms up over the processes."""
        if self.world.size == 1:
            return loss, terms
        numbers = torch.stack([loss, *(term.float() for term in terms.values())])
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        add_up([*gradients, numbers])
        return numbers[0], dict(zip(terms, numbers[1:], strict=True))

    def _skip_unless_finite(self, loss: Tensor, before: list[Tensor]) -> Tensor:
        """Tell the optimizer on the device whether to leave the update out, and put buffers back where it does.

        Args:
            loss: the update's.
            before: the buffers as they were before it.

        Returns:
            The loss, NaN where the update is left out.
        """
        skip = ~loss.isfinite()
        if not self.scaler.is_enabled():  # which tells the optimizer itself
            gradients = [each.grad for each in self._parameters if each.grad is not None]
            skip = skip | ~torch.nn.utils.get_total_norm(gradients).isfinite()
            self.optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
        for buffer, old in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(torch.where(skip, old, buffer))
        return loss.masked_fill(skip, torch.nan)  # a number for where() would be copied to the device

    def _apply_gradients(self) -> None:
        # Our own AdamW clips while it updates.
        if self.clip_grad is not None and not isinstance(self.optimizer, AdamW):
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self._parameters, self.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _forget_half_an_update(self) -> None:
        """Drop what a recording that broke off has left: gradients in its memory, a scaler that waits for its end."""
        self.optimizer.zero_grad(set_to_none=True)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.scaler.is_enabled())
        scaler.load_state_dict(self.scaler.state_dict())
        self.scaler = scaler

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def _structure(self) -> Hashable:
        """What a recorded step is made of: addresses, options and modes; a change asks for a new recording."""
        state = self.optimizer.state
        return (
            tuple((parameter.data_ptr(), parameter.requires_grad) for parameter in self._parameters),
            tuple(
                value.data_ptr() if isinstance(value, Tensor) else value
                for parameter in self._parameters
                for value in state.get(parameter, {}).values()
            ),
            tuple(
                value.data_ptr() if isinstance(value, Tensor) else value
                for group in self.optimizer.param_groups
                for name, value in group.items()
                if name != "params"
            ),
            tuple(module.training for module in self.model.modules()),
            tuple(buffer.data_ptr() for buffer in self.model.buffers()),
            getattr(self.optimizer, "clip_grad", None),
            self.clip_grad,
        )


def _weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """A bound method that does not keep its object: in a cycle, a graph's memory would wait for the collector."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> Any:
        bound = reference()
        assert bound is not None  # the object itself makes the call
        return bound(*arguments)

    return call


def _add(parts: Iterable[Tensor]) -> Tensor:
    """Add tensors up; a single one stays as it is, without a launch."""
    return functools.reduce(torch.add, parts)


def _choose_recorder(
    graph: str | bool, recorder: Recorder | None, device: torch.device
) -> tuple[Recorder | None, str | None]:
    """Return what records, or None and why nothing is recorded."""
    if graph not in GRAPH_CHOICES:
        raise ValueError(f"graph is {graph!r}, expected 'auto', True or False")
    if graph is False:
        return None, "graph=False"
    if recorder is not None:
        return recorder, None
    if device.type == "cuda":
        return CudaRecorder(device), None
    reason = f"the model is on the {device.type}, and CUDA graphs need an NVIDIA GPU"
    if graph is True:
        raise ValueError(
            f"graph=True, but {reason}: move the model to a GPU, or pass graph='auto' "
            "(on the command line --graph auto instead of on)"
        )
    return None, reason


def _rate_tensors(optimizer: torch.optim.Optimizer, device: torch.device) -> list[tuple[Tensor, float]]:
    """Return the tensors that hold the groups' learning rates, each once, and the factor of the schedule's rate."""
    held: dict[int, tuple[Tensor, float]] = {}
    for place, group in enumerate(optimizer.param_groups):
        rate = group["lr"]
        if not isinstance(rate, Tensor) or rate.device != device:
            where = f"on {rate.device}" if isinstance(rate, Tensor) else "a number"
            raise ValueError(
                f"the learning rate of group {place} is {where}, expected a tensor on {device} that the schedule "
                f"can write: pass lr=torch.tensor(1e-3, device={str(device)!r}), or no schedule"
            )
        scale = float(group.get("lr_scale", 1.0))
        if held.setdefault(id(rate), (rate, scale))[1] != scale:
            raise ValueError(
                f"group {place} has lr_scale {scale} and shares its learning rate with a group of another: give each "
                "its own tensor"
            )
    return list(held.values())
