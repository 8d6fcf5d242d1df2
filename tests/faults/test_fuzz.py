from __future__ import annotations

import random

from fuzz import ENTRANCES, fuzz


async def test_whatever_comes_in_ends_with_an_error_of_ours() -> None:
    """For a minute, at every entrance, with another seed each time; what is found tells how to have it again."""
    count, faults = await fuzz(random.randrange(10**9), seconds=60)

    assert not faults, "\n\n".join(faults)
    assert count > len(ENTRANCES)
