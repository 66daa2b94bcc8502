"""Switches of libraries that are not here, under PyTorch's names, for programs that set them."""

from __future__ import annotations


class Cudnn:
    """`torch.backends.cudnn`: what is set is kept and changes nothing."""

    benchmark = deterministic = enabled = False
    allow_tf32 = True

    def is_available(self) -> bool:
        return False

    def version(self) -> None:
        return None


class Mps:
    """`torch.backends.mps`: Apple's GPUs are not used."""

    def is_available(self) -> bool:
        return False

    def is_built(self) -> bool:
        return False


cudnn, mps = Cudnn(), Mps()
