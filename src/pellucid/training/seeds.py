"""Random numbers by counting: every use has a seed of its own, made from where it stands, so no random state
has to be remembered.
"""

import hashlib


def mix(*numbers: int) -> int:
    """One seed of 63 bits from several numbers; neighbouring ones give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "big") >> 1
