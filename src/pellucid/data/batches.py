"""What makes a batch a pure function of (seed, step): random numbers by counter, a permutation in O(1).

A generator that is advanced must be stored to resume; here every number is computed from its place (Salmon et
al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). Only Philox's raw bits and integer arithmetic are
used, so that a newer numpy gives the same batches.
Imports no torch.
"""

import numpy as np

_ROUNDS = 4


def mix64(x: np.ndarray) -> np.ndarray:
    """A good hash of 64-bit integers, elementwise (splitmix64, Steele et al. 2014). uint64 in, uint64 out."""
    x = np.asarray(x, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def bits(n: int, *key: int) -> np.ndarray:
    """n random uint64, the same for the same key (any integers, negative ones too)."""
    entropy = [k % 2**64 for k in key]
    return np.random.Philox(np.random.SeedSequence(entropy)).random_raw(n)


def uniform(n: int, *key: int) -> np.ndarray:
    """n random float64 in [0, 1), the same for the same key."""
    return (bits(n, *key) >> np.uint64(11)) * 2.0**-53


class Permutation:
    """A random order of range(n) whose i-th element is computed, not stored: a Feistel network, walked until
    inside the range.

    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains".)
    """

    def __init__(self, n: int, *key: int) -> None:
        self.n = n
        self.half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
        self.keys = bits(_ROUNDS, *key)

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """int64 [N] of places in range(n) -> int64 [N] of elements."""
        out = self._once(np.asarray(indices, np.uint64))
        while (outside := out >= self.n).any():
            out[outside] = self._once(out[outside])
        return out.astype(np.int64)

    def _once(self, x: np.ndarray) -> np.ndarray:
        low = (np.uint64(1) << self.half) - np.uint64(1)
        left, right = x >> self.half, x & low
        for key in self.keys:
            left, right = right, left ^ (mix64(right ^ key) & low)
        return (left << self.half) | right
