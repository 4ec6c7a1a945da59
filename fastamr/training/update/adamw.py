"""AdamW whose update is one op: clipping, update and low-precision copies in one pass, nothing read by the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...nn.stacks.working_weights import refresh_working_copy, register_working_copy
from ...ops import adamw_update
from ...ops.adamw_update import adamw_problem
from ...ops.common.backends import Choice, explain

_STATE = ("step", "exp_avg", "exp_avg_sq")
# Bytes that each working copy's address is a multiple of.
_ALIGNMENT = 64


class AdamW(torch.optim.Optimizer):
    """Drop-in for ``torch.optim.AdamW`` (Loshchilov and Hutter 2019): same arithmetic, same groups, same state_dict.

    A state_dict goes both ways between the two classes. Learning rates, step counters, state and the norm live in
    tensors on the parameters' device that keep their addresses, also through :meth:`load_state_dict`, so that a CUDA
    graph which recorded :meth:`step` goes on after it.

    ``GradScaler.step(optimizer)`` needs no ``unscale_`` before it: a step whose gradients are not finite changes
    nothing, and clipping counts the unscaled norm. Clipping and unscaling leave ``.grad`` as it is.

    Args:
        params: parameters or groups of them; float32 on one device (float64 for tests).
        lr: learning rate; groups that are given the same tensor share it, fill it in place.
        betas: decay of the two moments, the same in all groups.
        eps: added to the denominator, the same in all groups.
        weight_decay: decoupled weight decay.
        amsgrad: must be False, as ``maximize`` and ``differentiable``.
        maximize: see ``amsgrad``.
        foreach: which implementation PyTorch would take, as ``capturable`` and ``fused``; no effect here.
        capturable: see ``foreach``; every step can be captured.
        differentiable: see ``amsgrad``.
        fused: see ``foreach``.
        working_dtype: bfloat16 or float16: also keep a rounded copy of every parameter for the fused layers
            (:mod:`fastamr.nn.stacks.working_weights`); None keeps none.
        clip_grad: largest norm of all gradients together, or None; an attribute that may be changed.
        together: lists of parameters whose copies lie one behind the other, so that they can be used as one tensor
            (:func:`~fastamr.nn.stacks.working_weights.joined_weights`).

    Attributes:
        gradient_norm: norm of the last step's gradients before clipping, a float32 scalar; in a captured step the
            replay writes it where it is. None as long as no step clipped.

    Raises:
        ValueError: an option that is not supported, a number out of range, groups of different betas or eps,
            parameters on several devices.
        TypeError: complex or low-precision parameters.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        working_dtype: torch.dtype | None = None,
        clip_grad: float | None = None,
        together: Iterable[Sequence[Tensor]] = (),
    ) -> None:
        if working_dtype not in (None, torch.bfloat16, torch.float16):
            raise ValueError(f"working_dtype={working_dtype} must be torch.bfloat16, torch.float16 or None")
        if clip_grad is not None and not clip_grad > 0:
            raise ValueError(f"clip_grad={clip_grad} must be above 0, or None for no clipping")
        self.working_dtype, self.clip_grad = working_dtype, clip_grad
        self.gradient_norm: Tensor | None = None
        self._copies: dict[Tensor, Tensor] = {}
        self._together = [list(each) for each in together]
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": None,
            "capturable": False,
            "differentiable": differentiable,
            "fused": True,
            "decoupled_weight_decay": True,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with its state and working copies; see ``torch.optim.Optimizer``."""
        super().add_param_group(param_group)
        try:
            self._prepare(self.param_groups[-1])
        except (TypeError, ValueError):
            del self.param_groups[-1]
            raise

    def _prepare(self, group: dict[str, Any]) -> None:
        _check_options(group, self.param_groups[0])
        first = next((each for every in self.param_groups for each in every["params"]), None)
        if first is None:
            return
        _check_parameters(group, first.device)
        group["capturable"] = first.device.type == "cuda"
        _rate(group, first.device)
        trained = [each for each in group["params"] if each.requires_grad]
        for parameter in trained:
            self._state(parameter)
        if self.working_dtype is not None:
            self._copies_of(trained)

    def _copies_of(self, parameters: list[Tensor]) -> list[Tensor]:
        """The parameters' working copies, made where there are none yet."""
        assert self.working_dtype is not None
        fresh = _side_by_side([each for each in parameters if each not in self._copies], self._together)
        self._copies |= dict(zip(fresh, _flat_copies(fresh, self.working_dtype), strict=True))
        return [self._copies[each] for each in parameters]

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The parameter's state; zeros where there is none yet."""
        state = self.state[parameter]
        if not state:
            if parameter.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(
                    f"a parameter {tuple(parameter.shape)} got its first gradient inside a CUDA graph's capture, which "
                    "would reset its state at every replay: set requires_grad before the optimizer is built"
                )
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for name in _STATE[1:]:
                state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the loss again with its gradients, and returns it.

        Returns:
            What the closure returned, or None.

        Raises:
            ValueError: a sparse gradient, or a group was changed to what is not supported.
            TypeError: a gradient of a dtype that is not supported.
            RuntimeError: a CUDA graph is being captured and no step was done before.
        """
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for group in self.param_groups:
            _check_options(group, self.param_groups[0])
        updated = list(self._with_gradients())
        if not updated:
            return result
        parameters = [parameter for parameter, _, _ in updated]
        states = [self._state(parameter) for parameter in parameters]
        rates = {id(group): _rate(group, parameters[0].device) for group in self.param_groups}
        copies = self._copies_of(parameters) if self.working_dtype is not None else []
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None:
            # A skipped update leaves copies as they are, and they count as true afterwards.
            self.refresh_working_copies()
        norm = adamw_update(
            parameters,
            [gradient for _, gradient, _ in updated],
            *([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")),
            lr=[rates[id(group)] for _, _, group in updated],
            betas=self.param_groups[0]["betas"],
            eps=self.param_groups[0]["eps"],
            weight_decay=[group["weight_decay"] for _, _, group in updated],
            working=copies,
            max_norm=self.clip_grad,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=found_inf,
        )
        for parameter, copy in zip(parameters, copies, strict=False):
            register_working_copy(parameter, copy)
        if norm is not None:
            self.gradient_norm = norm
        return result

    def explain(self) -> Choice:
        """Say which back end updates the parameters, and why not a faster one; nothing is updated."""
        parameters = [each for group in self.param_groups for each in group["params"]]
        # What is not there yet will be like its parameter.
        gradients = [each if each.grad is None else each.grad for each in parameters]
        first, second = (
            [self.state.get(each, {}).get(name, each) for each in parameters] for name in _STATE[1:]
        )
        copies = [self._copies.get(each, each) for each in parameters] if self._copies else []
        problem = adamw_problem(parameters, gradients, (first, second), copies, self.clip_grad is not None)
        return explain("adamw_update", problem)

    def _with_gradients(self) -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    yield parameter, parameter.grad, group

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what this class or ``torch.optim.AdamW`` saved.

        All values are copied into the existing tensors. A parameter that the saved optimizer had no state for
        starts anew.

        Args:
            state_dict: from ``state_dict()`` of either class.

        Raises:
            ValueError: groups, shapes or options that do not fit; nothing was changed then.
        """
        _check_saved(state_dict, self.param_groups)
        rates = [group["lr"] for group in self.param_groups]
        before = dict(self.state)
        super().load_state_dict(state_dict)
        with torch.no_grad():
            for group, rate in zip(self.param_groups, rates, strict=True):
                if isinstance(rate, Tensor):
                    group["lr"] = rate.fill_(float(group["lr"]))
                group["betas"] = tuple(group["betas"])
                group["capturable"] = any(each.device.type == "cuda" for each in group["params"])
                group |= {
                    name: self.defaults[name] for name in ("foreach", "fused", "decoupled_weight_decay")
                }
                for parameter in group["params"]:
                    self._restore(parameter, before.get(parameter))

    def _restore(self, parameter: Tensor, before: dict[str, Tensor] | None) -> None:
        """Copy the loaded state into the tensors that were there before, or into new ones."""
        loaded = self.state.pop(parameter, None)
        if before:
            self.state[parameter] = before
        if loaded is None and not before:
            return
        for name, target in self._state(parameter).items():
            if loaded:
                target.copy_(torch.as_tensor(loaded[name]))
            else:
                target.zero_()

    def refresh_working_copies(self) -> bool:
        """Bring up to date the working copies whose parameter was written by other code.

        :func:`~fastamr.nn.stacks.working_weights.working_weight` does so when it is called, but a
        replayed graph does not call it: call this before a replay.

        Returns:
            Whether a copy was out of date.
        """
        refreshed = [refresh_working_copy(parameter) for parameter in self._copies]
        return any(refreshed)

    def __getstate__(self) -> dict[str, Any]:
        """What pickling and copying take along."""
        own = ("working_dtype", "clip_grad", "gradient_norm", "_copies", "_together")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}


def _side_by_side(parameters: list[Tensor], together: list[list[Tensor]]) -> list[Tensor]:
    """The parameters, those of one list one after the other where its first one stands."""
    firsts = {parts[0]: parts for parts in together if parts}
    present, later = set(parameters), {part for parts in together for part in parts[1:]}
    found: list[Tensor] = []
    for parameter in parameters:
        if parameter in firsts:
            found += [part for part in firsts[parameter] if part in present]
        elif parameter not in later:
            found.append(parameter)
    placed = set(found)
    return found + [each for each in parameters if each not in placed]


def _flat_copies(parameters: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Registered copies of parameters in one buffer, laid out as the parameters are."""
    if not parameters:
        return []
    step = _ALIGNMENT // dtype.itemsize
    sizes = [-(-parameter.numel() // step) * step for parameter in parameters]
    buffer = torch.zeros(sum(sizes), dtype=dtype, device=parameters[0].device)
    copies = []
    for parameter, part in zip(parameters, buffer.split(sizes), strict=True):
        strides = torch.empty_like(parameter, device="meta").stride()
        # .data: a version counter of its own. Views of one buffer share theirs, and refreshing one copy would then
        # look to autograd like a write into all others that a forward has saved.
        copy = part.as_strided(parameter.shape, strides).data
        copies.append(copy.copy_(parameter.detach()))
        register_working_copy(parameter, copy)
    return copies


def _rate(group: dict[str, Any], device: torch.device) -> Tensor:
    """The group's learning rate as a float32 scalar on the device."""
    lr = group["lr"]
    if not isinstance(lr, Tensor):
        group["lr"] = torch.tensor(float(lr), dtype=torch.float32, device=device)
    elif lr.device != device or lr.dtype != torch.float32:
        group["lr"] = lr.to(device, torch.float32)
    return group["lr"]


def _check_options(group: dict[str, Any], first: dict[str, Any]) -> None:
    """Raise unless the group's options are supported, and are those of the first group where they must be."""
    for name in ("amsgrad", "maximize", "differentiable"):
        if group.get(name):
            raise ValueError(
                f"{name}={group[name]} is not supported: set it to False, or take torch.optim.AdamW"
            )
    if not group.get("decoupled_weight_decay", True):
        raise ValueError(
            "the state is that of torch.optim.Adam, whose weight decay is not decoupled: load AdamW's"
        )
    for name, value, expected in (
        ("betas", tuple(group["betas"]), tuple(first["betas"])),
        ("eps", group["eps"], first["eps"]),
    ):
        if value != expected:
            raise ValueError(
                f"{name}={value} differs from the first group's {expected}: all groups share {name}"
            )
    for name in ("lr", "weight_decay", "eps"):
        value = group[name]
        if not isinstance(value, Tensor) and not 0 <= value < float("inf"):
            raise ValueError(f"{name}={value} must be at least 0")
    for beta in group["betas"]:
        if isinstance(beta, Tensor) or not 0 <= beta < 1:
            raise ValueError(f"betas={group['betas']} must be two numbers, at least 0 and below 1")


def _check_parameters(group: dict[str, Any], device: torch.device) -> None:
    """Raise unless the group's parameters are of a dtype that is updated, and on the device of the others."""
    for parameter in group["params"]:
        if parameter.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"a parameter {tuple(parameter.shape)} is {parameter.dtype}: keep it in float32 and pass "
                "working_dtype for low-precision copies"
            )
        if parameter.device != device:
            raise ValueError(
                f"parameters are on {device} and on {parameter.device}: build one optimizer per device"
            )


def _check_saved(state_dict: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    """Raise unless a state_dict fits these groups."""
    saved = state_dict["param_groups"]
    counts = [len(group["params"]) for group in groups]
    if [len(group["params"]) for group in saved] != counts:
        found = [len(group["params"]) for group in saved]
        raise ValueError(
            f"state_dict has groups of {found} parameters, the optimizer of {counts}: build it alike"
        )
    values: dict[int, float] = {}
    for old, group in zip(saved, groups, strict=True):
        _check_options(old, saved[0])
        lr = float(old["lr"])
        if isinstance(group["lr"], Tensor) and values.setdefault(id(group["lr"]), lr) != lr:
            raise ValueError(
                f"groups that share one lr tensor were saved with lr={values[id(group['lr'])]} and {lr}"
            )
        for number, parameter in zip(old["params"], group["params"], strict=True):
            state = state_dict["state"].get(number)
            if state is None:
                continue
            if any(name not in state for name in _STATE):
                raise ValueError(
                    f"state of parameter {number} holds {sorted(state)}, expected {sorted(_STATE)}"
                )
            for name in _STATE[1:]:
                if state[name].shape != parameter.shape:
                    raise ValueError(
                        f"{name} of parameter {number} is {tuple(state[name].shape)}, the parameter "
                        f"{tuple(parameter.shape)}: load a state of the same model"
                    )
