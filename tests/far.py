"""A second device, emulated: tensors that say they are on `meta`, compute on the CPU, and refuse to meet tensors that are on the CPU, as a GPU's do."""
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

FAR = torch.device("meta")
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default, torch.ops.aten.index.Tensor}  # these may take tensors of two devices


class Far(Tensor):
    @staticmethod
    def __new__(cls, real):
        far = Tensor._make_wrapper_subclass(cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype, device=FAR)
        far.held = real
        return far

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None): return dispatched(function, args, kwargs or {})

    def __repr__(self): return f"Far({self.held})"


def dispatched(function, args, kwargs):
    "Calls a function on what is behind the tensors; its results are where its tensors were, or where it was told."
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    far = [isinstance(value, Far) for value in tensors]
    if any(far) and function not in MOVES and any(value.dim() and not there for value, there in zip(tensors, far)):
        raise RuntimeError(f"{function}: expected all tensors to be on the same device")
    to = kwargs.get("device")
    there = far[0] if to is None and far else to is not None and torch.device(to) == FAR
    if there and to is not None or to == FAR: kwargs = kwargs | {"device": torch.device("cpu")}
    behind = {id(value.held): value for value in tensors if isinstance(value, Far)}
    made = function(*tree_map(lambda v: v.held if isinstance(v, Far) else v, args), **tree_map(lambda v: v.held if isinstance(v, Far) else v, kwargs))
    return tree_map(lambda v: behind.get(id(v), Far(v) if there else v) if isinstance(v, Tensor) else v, made)


class far_device(TorchDispatchMode):
    "Inside the block there is a second device, `FAR`."
    def __torch_dispatch__(self, function, types, args=(), kwargs=None): return dispatched(function, args, kwargs or {})

    def __enter__(self):
        torch.__future__.set_swap_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *error):
        torch.__future__.set_swap_module_params_on_conversion(False)
        return super().__exit__(*error)
