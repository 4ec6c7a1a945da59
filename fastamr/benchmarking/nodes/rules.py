"""What one operation adds to a CUDA graph.

The rules, as PyTorch 2.11 and its libraries launch on Hopper:

- A view, an allocation and a question about a tensor add nothing.
- A Triton kernel adds 1, a kernel of the CUDA extension 1 (its backward with column sums launches 2 kernels).
- A copy, a cast, a fill, a concatenation and an elementwise operation each add 1.
- A product adds 1, its bias included, and 1 more for the sum of its parts where the library splits the inner dimension:
  taken to happen where it is at least 4,096 long and the result has at most 66 tiles of 128 x 128, half of the
  multiprocessors of an H100. That is every gradient of a weight at the paper's size. The library decides by itself; a
  GPU's profile says what it did.
- A sum adds 1, and 1 more where at least 4,096 values go into each result: blocks share it then, and a counter is
  cleared.
- PyTorch's flash attention adds 1 forward and 3 backward, a sort 3, a convolution 1 forward and 2 backward, a norm 1
  forward and 2 backward.
- An operation on lists of tensors adds a launch for every 30 tensors and for every 320 pieces of 65,536 values.
- An operation without a rule is an error, and so is one that waits for the device.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

SPLIT_FROM, SPLIT_TILES, TILE = 4096, 66, 128
SHARED_SUM_FROM = 4096
LIST_TENSORS, LIST_PIECES, LIST_PIECE = 30, 320, 65536

ATTENTION = "attention"
WEIGHTS = "gradients of weights"
NORMS = "products with norm"
GELUS = "products with GELU"
PRODUCTS = "other products"
COPIES = "copies, casts, concatenations"
SUMS = "sums"
ROWS = "row kernels"
OPTIMIZER = "optimizer"
INPUT = "input and loss"
REST = "elementwise and rest"
GROUPS = (ATTENTION, WEIGHTS, NORMS, GELUS, PRODUCTS, COPIES, SUMS, ROWS, OPTIMIZER, INPUT, REST)

_NOTHING = {
    *("aten::empty", "aten::empty_like", "aten::new_empty", "aten::empty_strided", "aten::new_empty_strided"),
    *(
        "aten::detach",
        "aten::alias",
        "aten::lift_fresh",
        "aten::_unsafe_view",
        "aten::_reshape_alias",
        "aten::view",
        "aten::squeeze_",
        "aten::unsqueeze_",
    ),
    *("prim::device", "prim::layout", "aten::resize_", "aten::set_", "aten::is_same_size"),
}
_PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
_COPIES = {
    *("aten::copy_", "aten::_to_copy", "aten::clone", "aten::cat", "aten::stack", "aten::repeat"),
    *("aten::slice_scatter", "aten::select_backward", "aten::slice_backward"),
}
_SUMS = {"aten::sum", "aten::mean", "aten::var", "aten::amax", "aten::amin"}
_FIXED = {
    # Tensors without values are a CPU's to PyTorch, whose flash attention stands for a GPU's.
    "aten::_scaled_dot_product_flash_attention_for_cpu": (1, ATTENTION),
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": (3, ATTENTION),
    "aten::mv": (1, PRODUCTS),
    "aten::logsumexp": (6, REST),
    "aten::sort": (3, REST),
    "aten::diag_embed": (2, REST),
    "aten::diagonal_backward": (2, REST),
    "aten::topk": (3, REST),
    "aten::convolution": (1, PRODUCTS),
    "aten::convolution_backward": (2, PRODUCTS),
    "aten::native_batch_norm": (1, ROWS),
    "aten::_native_batch_norm_legit": (1, ROWS),
    "aten::native_batch_norm_backward": (2, ROWS),
    "aten::native_layer_norm": (1, ROWS),
    "aten::native_layer_norm_backward": (2, ROWS),
    **dict.fromkeys(
        (
            *("aten::zeros", "aten::new_zeros", "aten::zeros_like", "aten::ones", "aten::ones_like", "aten::fill_"),
            *("aten::zero_", "aten::full", "aten::full_like", "aten::new_full", "aten::arange", "aten::scatter"),
            *("aten::index", "aten::index_select", "aten::index_copy_", "aten::gather", "aten::masked_fill_"),
            *("aten::embedding", "aten::scalar_tensor", "aten::cumsum", "aten::repeat_interleave", "aten::flip"),
            *("aten::_softmax", "aten::_softmax_backward_data", "aten::_log_softmax", "aten::argmax", "aten::max"),
            *("aten::_log_softmax_backward_data", "aten::min", "aten::any", "aten::all", "aten::_amp_update_scale_"),
            *("aten::scatter_", "aten::scatter_add_", "aten::index_put_", "aten::index_add_", "aten::_index_put_impl_"),
            *("aten::linalg_vector_norm", "aten::embedding_dense_backward", "aten::gather_backward", "aten::triu"),
            *("aten::masked_fill", "aten::scatter_add", "aten::index_put", "aten::index_add", "aten::eye"),
            *("aten::constant_pad_nd", "aten::roll", "aten::prod", "aten::count_nonzero", "aten::unfold_backward"),
            *("aten::bernoulli_", "aten::nll_loss_forward", "aten::nll_loss_backward", "aten::new_ones"),
            *("aten::fill_diagonal_",),
        ),
        (1, REST),
    ),
}  # fmt: skip
# A part of a kernel's name, and its group; the first that fits.
_KERNELS = (
    ("visible_attention", ATTENTION),
    ("weight_gradient", WEIGHTS),
    ("linear_residual_norm", NORMS),
    ("linear_gelu", GELUS),
    ("_rows", ROWS),
    ("packed_gradients", COPIES),
    ("columns", SUMS),
    *((name, OPTIMIZER) for name in ("sum_squares", "_count", "_update")),
)
_WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::item", "aten::equal", "aten::is_nonzero"}


@dataclass
class NodeCount:
    """Nodes of the graph of one update.

    Attributes:
        what: model, precision and number of sequences.
        launches: nodes by group and by what adds them.
    """

    what: str = ""
    launches: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All nodes."""
        return sum(self.launches.values())

    def groups(self) -> dict[str, int]:
        """Nodes of each group that has any."""
        found = {group: sum(n for (each, _), n in self.launches.items() if each == group) for group in GROUPS}
        return {group: number for group, number in found.items() if number}

    def add_kernel(self, name: str) -> None:
        """Count a launch of a kernel of this library."""
        group = next((group for part, group in _KERNELS if part in name), INPUT)
        self.launches[group, name.strip("_")] += 1

    def add_operation(self, function: OpOverload, arguments: tuple[Any, ...], result: Any) -> None:
        """Count an operation of PyTorch by the rules of this file.

        Raises:
            NotImplementedError: there is no rule for it.
            RuntimeError: the host would wait for it.
        """
        number, group = nodes_of(function, arguments, result)
        if number:
            self.launches[group, function._schema.name] += number

    def text(self) -> str:
        """A table: groups with their nodes, and below each what they are."""
        lines = [f"{self.what}: {self.total} nodes in the CUDA graph of an update (counted, not measured)"]
        for group, number in self.groups().items():
            lines.append(f"{number:5}  {group}")
            parts = [(name, n) for (each, name), n in self.launches.items() if each == group]
            lines += [f"{'':14}{n:5}  {name}" for name, n in sorted(parts, key=lambda part: -part[1])]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        parts = {
            group: {name: n for (each, name), n in self.launches.items() if each == group}
            for group in self.groups()
        }
        return {"what": self.what, "total": self.total, "groups": self.groups(), "parts": parts}


def nodes_of(function: OpOverload, arguments: tuple[Any, ...], result: Any) -> tuple[int, str]:
    """Nodes that an operation adds, and their group.

    Args:
        function: the operation.
        arguments: what it was called with.
        result: what it returned, for the shapes.

    Raises:
        NotImplementedError: there is no rule for it.
        RuntimeError: the host would wait for it.
    """
    name = function._schema.name
    if name in _WAITS:
        raise RuntimeError(f"{name} makes the host wait for the device: no CUDA graph can hold it")
    if isinstance(result, (bool, int, float, torch.dtype, torch.device)):
        return 0, REST
    if name in _NOTHING or function.is_view or name.startswith(("prim::", "aten::sym_", "profiler::")):
        return 0, REST
    if name in _PRODUCTS:
        return _product(name, arguments, result)
    if name in _COPIES:
        return 1, COPIES
    if name in _SUMS:
        return _sum(arguments[0], result), SUMS
    if "_foreach_" in name:
        return _launches_of_lists(arguments[0]), COPIES if "copy" in name else REST
    if name in _FIXED:
        return _FIXED[name]
    if torch.Tag.pointwise in function.tags:
        return 1, REST
    raise NotImplementedError(f"no rule says how many nodes {function} adds: give it one in {__name__}")


def _product(name: str, arguments: tuple[Any, ...], result: Tensor) -> tuple[int, str]:
    left = arguments[1] if name in ("aten::addmm", "aten::baddbmm") else arguments[0]
    inner, (rows, columns) = left.shape[-1], result.shape[-2:]
    batch = result.shape[0] if result.ndim == 3 else 1
    tiles = batch * ceil(rows / TILE) * ceil(columns / TILE)
    split = inner >= SPLIT_FROM and tiles <= SPLIT_TILES
    return 1 + split, WEIGHTS if inner > max(rows, columns) and inner >= SPLIT_FROM else PRODUCTS


def _launches_of_lists(tensors: list[Tensor]) -> int:
    pieces = sum(ceil(tensor.numel() / LIST_PIECE) for tensor in tensors)
    return max(ceil(len(tensors) / LIST_TENSORS), ceil(pieces / LIST_PIECES))


def _sum(values: Tensor, result: Any) -> int:
    out = result[0] if isinstance(result, tuple) else result
    return 1 + (values.numel() >= SHARED_SUM_FROM * max(out.numel(), 1))
