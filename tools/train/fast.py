"""The kernels of fast.c as PyTorch functions. `install(folder)` compiles them into `folder` and puts them in the place
of model.py's snake and of the convolutions that they cover; it says so and changes nothing where there is no compiler."""
import ctypes
import os
import subprocess

import torch
from torch import nn

import model

_lib = None
FEW_CHANNELS = 32      # beyond this a general library's convolution is as fast


def _call(name, *arguments):
    _lib[name](*(ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else
                 ctypes.c_void_p(None) if a is None else ctypes.c_long(a) for a in arguments))


class FastSnake(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, alpha):
        x = x.contiguous()
        ctx.save_for_backward(x, alpha)
        y = torch.empty_like(x)
        _call("snake_forward", x, alpha, y, *x.shape)
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, alpha = ctx.saved_tensors
        dx, dalpha = torch.empty_like(x), x.new_empty(x.shape[:2])
        _call("snake_backward", x, alpha, gradient.contiguous(), dx, dalpha, *x.shape)
        return dx, dalpha.sum(0).view_as(alpha)


def _pack(weight):
    """[O, C, K] -> [O/4, C, K, 4]: the four weights that one sample meets together lie side by side."""
    return weight.unflatten(0, (-1, 4)).permute(0, 2, 3, 1).contiguous()


class FastConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, dilation):
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        (batch, channels, n), (outputs, _, kernel) = x.shape, weight.shape
        y = x.new_empty(batch, outputs, n)
        _call("conv_forward", x, _pack(weight), bias, y, batch, channels, outputs, kernel, dilation, n)
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        (batch, channels, n), (outputs, _, kernel) = x.shape, weight.shape
        dx, dw, dbias = torch.empty_like(x), torch.zeros_like(weight), weight.new_zeros(outputs)
        turned = _pack(weight.flip(2).transpose(0, 1))        # the gradient of a convolution is one, turned around
        _call("conv_forward", gradient, turned, None, dx, batch, outputs, channels, kernel, ctx.dilation, n)
        _call("conv_weight_backward", x, gradient, dw, dbias, batch, channels, outputs, kernel, ctx.dilation, n)
        return dx, dw, dbias, None


def _conv_forward(self, x):
    (kernel,), (dilation,), (pad,), n = self.kernel_size, self.dilation, self.padding, x.shape[-1]
    if (self.stride == (1,) and kernel in (1, 3, 7, 11) and pad * 2 == (kernel - 1) * dilation and n % 16 == 0 and
            self.in_channels % 4 == 0 and self.out_channels % 4 == 0 and max(self.in_channels, self.out_channels) <= FEW_CHANNELS
            and x.dtype == torch.float32):
        return FastConv.apply(x, self.weight.contiguous(), self.bias, dilation)
    return self._conv_forward(x, self.weight, self.bias)


def install(folder):
    """-> whether the kernels could be built."""
    global _lib
    os.makedirs(folder, exist_ok=True)
    source, library = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fast.c"), os.path.join(folder, "fast.so")
    try:
        subprocess.run(["cc", "-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fopenmp", "-shared",
                        "-fPIC", source, "-o", library], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"training without fast.c: {error}")
        return False
    _lib = ctypes.CDLL(library)
    # Large buffers come and go with every step: keep them instead of returning them to the system each time.
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-1, 1 << 30)                             # M_TRIM_THRESHOLD
        libc.mallopt(-3, 1 << 30)                             # M_MMAP_THRESHOLD
    model.Snake.forward = lambda self, x: FastSnake.apply(x, self.alpha)
    nn.Conv1d.forward = _conv_forward
    return True
