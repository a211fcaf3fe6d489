"""Plain twin of ``core.kernels.rice``: one bit at a time."""

import numpy as np
from numpy.typing import NDArray


def rice_decode_tile(data: bytes, n_pixels: int, block: int) -> NDArray[np.int32]:
    """One RICE_1 tile of four-byte pixels, by the description in the FITS standard 4.0, section 10.4.1."""
    bits = "".join(f"{byte:08b}" for byte in data)
    position = 32
    last = int(bits[:32], 2)
    pixels: list[int] = []

    def take(n: int) -> int:
        nonlocal position
        value = int(bits[position : position + n] or "0", 2)
        position += n
        return value

    while len(pixels) < n_pixels:
        split = take(5) - 1
        for _ in range(min(block, n_pixels - len(pixels))):
            if split < 0:
                zigzag = 0
            elif split == 25:
                zigzag = take(32)
            else:
                high = bits.index("1", position) - position
                position += high + 1
                zigzag = high << split | take(split)
            last += -((zigzag + 1) >> 1) if zigzag & 1 else zigzag >> 1
            pixels.append((last + 2**31) % 2**32 - 2**31)
    return np.array(pixels, np.int64).astype(np.int32)
