"""Random numbers by counting: every use has a seed of its own, so no random state has to be remembered."""

import hashlib

import torch


def mix(*numbers: int) -> int:
    """One seed of 63 bits from several numbers; neighbouring ones give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "big") >> 1


def seed(device: torch.device, *numbers: int) -> None:
    """Start the random numbers of the CPU and of `device` anew, from `mix(*numbers)`.

    As `torch.manual_seed`, which takes half a millisecond on a machine without accelerators: it queues the seed,
    with a stack trace, for each kind that might come up later.
    """
    number = mix(*numbers)
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        module = torch.get_device_module(device)
        getattr(module, "manual_seed_all", module.manual_seed)(number)
