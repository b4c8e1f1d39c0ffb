"""A second device, emulated: its tensors say `meta` and compute on the CPU.

They refuse to meet tensors that are on the CPU, as a GPU's do."""
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

FAR = torch.device("meta")
MOVES = {  # these may take tensors of two devices
    torch.ops.aten._to_copy.default,
    torch.ops.aten.copy_.default,
    torch.ops.aten.index.Tensor,
}


class Far(Tensor):
    @staticmethod
    def __new__(cls, real):
        far = Tensor._make_wrapper_subclass(
            cls, real.shape, strides=real.stride(), dtype=real.dtype, device=FAR,
            storage_offset=real.storage_offset())
        far.held = real
        return far

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return dispatched(function, args, kwargs or {})

    def __repr__(self): return f"Far({self.held})"


def dispatched(function, args, kwargs):
    "Calls a function on what is behind; results are where tensors were, or where told."
    values, _ = tree_flatten((args, kwargs))
    tensors = [value for value in values if isinstance(value, Tensor)]
    far = [isinstance(value, Far) for value in tensors]
    met = any(value.dim() and not there for value, there in zip(tensors, far))
    if any(far) and met and function not in MOVES:
        raise RuntimeError(f"{function}: expected all tensors to be on the same device")
    to = kwargs.get("device")
    there = far[0] if to is None and far else to is not None and torch.device(to) == FAR
    if there and to is not None or to == FAR:
        kwargs = kwargs | {"device": torch.device("cpu")}
    behind = {id(value.held): value for value in tensors if isinstance(value, Far)}
    held = lambda v: v.held if isinstance(v, Far) else v
    made = function(*tree_map(held, args), **tree_map(held, kwargs))

    def placed(v):
        if not isinstance(v, Tensor): return v
        return behind.get(id(v), Far(v) if there else v)
    return tree_map(placed, made)


class far_device(TorchDispatchMode):
    "Inside the block there is a second device, `FAR`."
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return dispatched(function, args, kwargs or {})

    def __enter__(self):
        torch.__future__.set_swap_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *error):
        torch.__future__.set_swap_module_params_on_conversion(False)
        return super().__exit__(*error)
