"""The own attention against PyTorch's: its default, cuDNN, flash and the others, forward and with the backward."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastamr import ops
from fastamr.testing.checking import copied, tensors
from fastamr.testing.op_cases import Case

from .common import Context, free, in_words, milliseconds, say, told, usable
from .judging import Judge, attention_cases

_SDPA = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
# What PyTorch says where none of the allowed forms fits.
_NO_FORM = ("No available kernel", "No viable backend")


def forms_of(context: Context) -> dict[str, tuple[str, SDPBackend | None]]:
    """By name: the back end of the op, and which of PyTorch's attentions it is held to."""
    own = {name: (name, None) for name in usable("visible_attention", context)}
    return own | {f"sdpa {name}": ("sdpa", kernel) for name, kernel in _SDPA.items()}


def attention(context: Context) -> None:
    """Self-attention of the encoder, cross-attention of the decoder; and the backward that the stacks use."""
    for case in attention_cases(context):
        plain = case.name == "visible_attention"
        words = []
        with told(case=case.label):
            judge = Judge(case, dataclasses.replace(context.sizes(), grad=plain))
            for form, (backend, kernel) in forms_of(context).items():
                if plain or (kernel is None and backend != "sdpa"):
                    with told(case=case.label, form=form):
                        words += _measure(context, judge, form, backend, kernel)
            say(case=case.label, text=f"{case.label}, ms: {', '.join(words)}")
        free(context)


def _measure(context: Context, judge: Judge, form: str, backend: str, kernel: SDPBackend | None) -> list[str]:
    """Judge and time one form; its words for the summary, none where PyTorch has no such form here."""
    about = {"case": judge.case.label, "form": form}
    held: AbstractContextManager[None] = contextlib.nullcontext() if kernel is None else sdpa_kernel(kernel)
    with held, ops.backend(visible_attention=backend):
        try:
            worst = judge.worst(backend)
        except RuntimeError as error:
            if not any(words in str(error) for words in _NO_FORM):
                raise
            say(**about, skipped=in_words(error))
            return []
        found = {name: milliseconds(call, context) for name, call in _calls(judge.case, judge).items()}
    times = {f"{name}_{key}": value for name, each in found.items() for key, value in each.items()}
    right = worst <= 1.0
    say(**about, uses=[f"visible_attention={backend}"], ok=right, of_the_allowed_error=worst, **times)
    shown = [f"{name} {each['ms']:.4f}" for name, each in found.items()]
    return [f"{form} {' '.join(shown)}{'' if right else ' WRONG'}"]


def _calls(case: Case, judge: Judge) -> dict[str, Callable[[], object]]:
    """What is timed: the forward alone, and forward with backward; of the stacks' backward, that."""
    given = copied(judge.given)
    call = case.bind(given)
    leaves = [each for each in tensors(given) if each.requires_grad]
    if case.name != "visible_attention":
        return {"backward": call}
    out: Tensor = call()
    upstream = torch.randn_like(out)

    def forward() -> object:
        with torch.no_grad():
            return call()

    return {"forward": forward, "both": lambda: torch.autograd.grad(call(), leaves, upstream)}
